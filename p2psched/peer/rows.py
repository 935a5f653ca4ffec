"""Calls that are one proposal, on their way through the ledger without a task for any of them.

Each is a row until the outcome of its proposal is known, or nobody leads for too long.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from p2psched.model.commands import Command, Outcome, Rejected
from p2psched.model.errors import P2PSchedError, Unavailable, from_wire
from p2psched.net.patience import Patience
from p2psched.peer.roster import NO_QUORUM
from p2psched.peer.scheduler_loop import SchedulerLoop

A = TypeVar("A")


class House(Protocol):
    """What all rows of a kind share."""

    @property
    def scheduling(self) -> SchedulerLoop: ...
    @property
    def committing(self) -> Patience: ...


def _nobody(_answer: object) -> None:
    """What is over keeps nobody who knows it: that would be a cycle for each call."""


class Row(ABC, Generic[A]):
    """Belongs to the loop of its peer. `reply` is called once, at once or later, unless the row is
    cancelled; it must not raise, nor propose."""

    __slots__ = ("_committing", "_is_over", "_reply", "_scheduling", "_tag")

    def __init__(self, house: House, reply: Callable[[A | P2PSchedError], None]) -> None:
        self._scheduling, self._committing = house.scheduling, house.committing
        self._reply = reply
        self._tag: int | None = None  # while its outcome is not known
        self._is_over = False

    def cancel(self) -> None:
        """Nobody wants the answer any more; it may be done all the same."""
        self._is_over = True
        self._reply = _nobody
        tag, self._tag = self._tag, None
        self._committing.end(self)
        if tag is not None:
            self._scheduling.give_up(tag)

    def expire(self) -> None:
        self._end(Unavailable(NO_QUORUM))

    @abstractmethod
    def _answer(self, outcome: Outcome) -> A:
        """What the caller hears of what was done."""

    def _propose(self, command: Command) -> None:
        self._committing.begin(self)
        tag = self._scheduling.propose_nowait(command, self._on_outcome)
        if not self._is_over:
            self._tag = tag

    def _on_outcome(self, outcome: Outcome | Unavailable) -> None:
        self._tag = None
        if isinstance(outcome, Unavailable):
            self._end(outcome)
        elif isinstance(outcome, Rejected):
            self._end(from_wire(outcome.code, outcome.message, 1000))
        else:
            self._end(self._answer(outcome))

    def _end(self, answer: A | P2PSchedError) -> None:
        reply = self._reply
        self.cancel()
        reply(answer)
