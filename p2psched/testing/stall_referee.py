"""L5: whose work stands still finds that by itself, and nobody says so who does not.

That it is healed the end of a run shows: all jobs must end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Protocol

from p2psched.core.scheduler_events import Noticed, Tend
from p2psched.model.commands import Stamped
from p2psched.model.stalls import Stalled
from p2psched.testing.promises import demand
from p2psched.testing.sim_executor import SimExecutor


class Anybody(Protocol):
    """Who runs tasks."""

    number: int
    process: int

    @property
    def executor(self) -> SimExecutor: ...


class StallReferee:
    """Of one cluster."""

    def __init__(self, happened: Counter[str]) -> None:
        self._happened = happened
        self._planted: set[tuple[int, int]] = set()  # peer, process
        self.noticed: list[Noticed] = []
        self.told: dict[int, Stalled] = {}  # by the ledger: in which command

    def on_planted(self, peer: Anybody, kind: str) -> None:
        self._happened[f"stall planted: {kind}"] += 1
        self._planted.add((peer.number, peer.process))

    def on_noticed(self, peer: Anybody, noticed: Noticed) -> None:
        self._happened[f"stall {noticed.what}: {noticed.fault}"] += 1
        self.noticed.append(noticed)
        is_planted = (peer.number, peer.process) in self._planted
        demand(is_planted, "L5", f"peer {peer.number} stands still for no reason: {noticed.note}")

    def on_events(self, events: Iterable[Stamped]) -> None:
        if self._planted:
            self.told |= {s.index: s.event for s in events if isinstance(s.event, Stalled)}

    def attend(self, peer: Anybody, effect: Tend | Noticed) -> None:
        match effect:
            case Tend(how=how):
                peer.executor.tend(how)
            case Noticed():
                self.on_noticed(peer, effect)
