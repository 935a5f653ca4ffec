"""Callers of a simulated cluster: what they asked, of whom, and who waits for the answer.

A question is asked of one peer once (`call`), or of random peers until one has answered (`ask`).
An answer reaches whoever asked at most once, and never after they gave up.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final, Protocol

from p2psched.model.commands import Command, Outcome, Rejected, SubmitJob
from p2psched.model.ids import JobId
from p2psched.testing.sim_items import AskedHere, GivenUp, Item, LeaveHere, ReadHere
from p2psched.testing.sim_peer import SimPeer

ASK_AGAIN_MS: Final = 1_500
AFTER_REFUSAL_MS: Final = 300
NOT_FOUND: Final = "not-found"
COME_BACK: Final = frozenset({"unavailable", NOT_FOUND})  # codes after which to ask again
CALL_US: Final = 100  # from the caller to its peer

OnOutcome = Callable[[Outcome], None]
OnRead = Callable[[int | None], None]


class Hall(Protocol):
    """Where callers meet peers."""

    rng: random.Random
    peers: list[SimPeer]

    def after(self, delay_ms: float, act: Callable[[], None]) -> None: ...

    def bring(self, delay_us: int, number: int, process: int, item: Item) -> None: ...


class Callers:
    """All who wait for a peer."""

    def __init__(self, hall: Hall) -> None:
        self._hall = hall
        self._next_tag = 1
        self._calls: dict[int, tuple[SimPeer, int, Command | None, OnOutcome]] = {}
        self._reads: dict[int, tuple[int, OnRead]] = {}  # tag -> what must be seen, who waits
        self._refused: set[JobId] = set()  # at least once, when they were submitted
        self.waiting = 0  # questions to anybody without an answer

    def call(self, number: int, command: Command, done: OnOutcome) -> int:
        """Ask this peer once. Without an answer the command may commit or not."""
        return self._call(number, command, done)

    def leave(self, number: int, done: OnOutcome) -> int:
        """Tell a peer that it is about to be stopped."""
        return self._call(number, None, done)

    def _call(self, number: int, command: Command | None, done: OnOutcome) -> int:
        peer = self._hall.peers[number]
        tag, self._next_tag = self._next_tag, self._next_tag + 1
        self._calls[tag] = (peer, peer.process, command, done)
        item = LeaveHere(tag) if command is None else AskedHere(tag, command)
        self._hall.bring(CALL_US, number, peer.process, item)
        return tag

    def give_up(self, tag: int) -> bool:
        """Wait no longer. True if there was no answer yet."""
        call = self._calls.pop(tag, None)
        if call is not None:
            peer, process, _, _ = call
            self._hall.bring(1, peer.number, process, GivenUp(tag))
        return call is not None

    def ask(self, command: Command, done: OnOutcome) -> None:
        """Ask random peers, one after another, until `command` is answered."""
        self.waiting += 1
        self._ask_somebody(command, done)

    def _ask_somebody(self, command: Command, done: OnOutcome) -> None:
        hall = self._hall

        def on_outcome(outcome: Outcome) -> None:
            if self._may_come_back(command, outcome):
                hall.after(AFTER_REFUSAL_MS, lambda: self._ask_somebody(command, done))
            else:
                self.waiting -= 1
                done(outcome)

        def again() -> None:
            if self.give_up(tag):
                self._ask_somebody(command, done)

        tag = self.call(hall.rng.choice(hall.peers).number, command, on_outcome)
        hall.after(hall.rng.randrange(200, ASK_AGAIN_MS), again)

    def _may_come_back(self, command: Command, outcome: Outcome) -> bool:
        """A job that isn't there may still come, unless it was there before, or was refused: who
        knows that asks nobody for ever."""
        if not isinstance(outcome, Rejected):
            return False
        if isinstance(command, SubmitJob):
            return self._may_be_accepted(command, outcome)
        if "was forgotten" in outcome.message:
            return False
        job = getattr(command, "job", None)
        return outcome.code in COME_BACK and (outcome.code != NOT_FOUND or job not in self._refused)

    def _may_be_accepted(self, command: SubmitJob, refused: Rejected) -> bool:
        """Nor what comes after one that will never be there, or is there no more."""
        after = command.spec.after
        lost = after is not None and any(parent in self._refused for parent in after.parents)
        lost = lost or "was forgotten" in refused.message
        if lost or refused.code not in COME_BACK:
            self._refused.add(command.job)
            return False
        return True

    def read(self, number: int, floor: int, done: OnRead) -> None:
        """A linearizable read through this peer, that must see the ledger up to `floor`. When
        `done` is called with an index, the peer's machine may be looked at."""
        tag, self._next_tag = self._next_tag, self._next_tag + 1
        self._reads[tag] = (floor, done)
        self._hall.bring(0, number, self._hall.peers[number].process, ReadHere(tag))

    # --- answers ---

    def on_answered(self, tag: int) -> tuple[Command | None, OnOutcome] | None:
        """The question that this answers, if somebody still waits."""
        call = self._calls.pop(tag, None)
        return None if call is None else call[2:]

    def on_read(self, tag: int) -> tuple[int, OnRead]:
        return self._reads.pop(tag)
