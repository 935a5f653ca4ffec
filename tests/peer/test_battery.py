"""A battery that runs low: the peer drains itself, once, and comes back by itself."""

from __future__ import annotations

from p2psched.core.state import LedgerState, PeerRow
from p2psched.model.commands import Drain, DrainMode, PeerInfo
from p2psched.model.ids import PeerId
from p2psched.peer.battery import Battery

ME = PeerId("a" * 32)


class Machine:
    def __init__(self, least: int = 10) -> None:
        self.state = LedgerState()
        self.row = self.state.peers[ME] = PeerRow(PeerInfo(ME, 1, "a", "", 1, 1, "", ""))
        self.power = (80, False)
        self.asked: list[DrainMode] = []
        self.battery = Battery(
            ME, self.state, least=least, read=lambda: self.power, propose=self._propose
        )

    def _propose(self, drain: Drain) -> None:
        self.asked.append(drain.mode)
        self.row.drain = drain.mode

    def look(self, percent: int, *, plugged: bool = False) -> list[DrainMode]:
        """What it asks for then."""
        self.power = (percent, plugged)
        self.asked.clear()
        self.battery.look()
        return list(self.asked)


def test_it_drains_below_the_least_and_takes_tasks_again_once_it_is_plugged_in() -> None:
    machine = Machine()
    assert machine.look(10) == []
    assert machine.look(9) == [DrainMode.ONCE]
    assert machine.look(8) == []
    assert machine.look(8, plugged=True) == [DrainMode.OFF]
    assert machine.look(7, plugged=True) == []


def test_it_does_not_come_and_go_at_the_edge() -> None:
    machine = Machine()
    assert machine.look(9) == [DrainMode.ONCE]
    assert machine.look(11) == []
    assert machine.look(14) == []
    assert machine.look(15) == [DrainMode.OFF]


def test_what_a_person_has_said_stays() -> None:
    machine = Machine()
    machine.row.drain = DrainMode.ON
    assert machine.look(5) == []
    assert machine.look(90, plugged=True) == []
    machine = Machine()
    machine.look(5)
    machine.row.drain = DrainMode.ON  # somebody drains it for good meanwhile
    assert machine.look(90, plugged=True) == []


def test_a_machine_without_battery_or_on_mains_is_left_alone() -> None:
    machine = Machine()
    assert machine.look(-1) == []
    assert machine.look(3, plugged=True) == []
    machine.state.peers.clear()
    assert machine.look(3) == []
