"""A ledger in which clients act: one command an entry, and ledger time as a test says."""

from __future__ import annotations

from p2psched.core.levels import KNOWN_LEVEL
from p2psched.core.machine import Machine
from p2psched.core.snapshot import encode_machine, restore_machine
from p2psched.model.actions import Act, Acted, Action, ActionAnswer, Elapsed
from p2psched.model.commands import Command, Envelope, Event, Outcome, RaiseLevel, Rejected
from p2psched.model.execution import Committed
from p2psched.model.ids import PeerId
from p2psched.model.lease_actions import Enrol, Enrolled

LEASES = tuple(f"{number:032x}" for number in range(4))


class Ledger:
    def __init__(self) -> None:
        self.machine = Machine()
        self.events: list[Event] = []  # of the last command
        self.now_ms = 1_000
        self.do(RaiseLevel(KNOWN_LEVEL))

    def do(self, command: Command) -> Outcome:
        index = self.machine.applied_index + 1
        envelope = Envelope(PeerId("p"), index, command)
        outcomes, stamped = self.machine.apply(Committed(index, self.now_ms, 0, (envelope,)))
        self.events = [s.event for s in stamped]
        return outcomes[0]

    def elapse(self, *, upto_ms: int | None = None) -> list[Event]:
        """What is due happens; the events that came of it."""
        self.do(Elapsed(self.now_ms if upto_ms is None else upto_ms))
        return self.events

    def restart(self) -> None:
        """Go on from the bytes of the state."""
        data = encode_machine(self.machine)
        self.machine = Machine()
        restore_machine(self.machine, data)
        assert encode_machine(self.machine) == data


class Client:
    """Numbers its acts, and has heard all outcomes but those that it is told to wait for."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        enrolled = ledger.do(Act(0, 0, 0, Enrol()))
        assert isinstance(enrolled, Acted)
        assert isinstance(enrolled.answer, Enrolled)
        self.name = enrolled.answer.caller
        self.number = 0

    def act(self, action: Action, *, number: int = 0, settled: int = 0) -> Outcome:
        """A new one, unless a `number` is given."""
        if not number:
            self.number += 1
            number = self.number
        return self.ledger.do(Act(self.name, number, settled or number, action))

    def do(self, action: Action) -> ActionAnswer:
        outcome = self.act(action)
        assert isinstance(outcome, Acted), outcome
        return outcome.answer


def code_of(outcome: Outcome) -> str:
    return outcome.code if isinstance(outcome, Rejected) else ""
