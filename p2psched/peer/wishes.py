"""What callers want done with a job or a peer, if it is one proposal and nothing to wait for before
it: on its way through the ledger without a task, as acts are (`acts`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from p2psched.model.commands import Cancel, Drain, Forget, Outcome, Pin, Rejected
from p2psched.model.errors import P2PSchedError, Unavailable, from_wire
from p2psched.model.messages import CancelJob, Done, DrainPeer, ForgetJob, PinJob, Wish
from p2psched.net.patience import Patience
from p2psched.peer.roster import NO_QUORUM, PATIENCE_S
from p2psched.peer.scheduler_loop import SchedulerLoop

Reply = Callable[[Done | P2PSchedError], None]  # must not raise, nor propose


class Wishes:
    def __init__(self, scheduling: SchedulerLoop) -> None:
        self.scheduling: Final = scheduling
        self.committing: Final = Patience(PATIENCE_S)

    def make(self, body: Wish, reply: Reply) -> OpenWish:
        """To be begun. `reply` is called once then, at once or later, unless it is cancelled."""
        return OpenWish(self, command_of(body), reply)


def command_of(body: Wish) -> Cancel | Forget | Pin | Drain:
    match body:
        case PinJob(job=job, pinned=pinned):
            return Pin(job, pinned)
        case CancelJob(job=job):
            return Cancel(job)
        case ForgetJob(job=job):
            return Forget(job)
        case DrainPeer(peer=peer, mode=mode):
            return Drain(peer, mode)


def _nobody(_answer: Done | P2PSchedError) -> None:
    """What is over keeps nobody who knows it: that would be a cycle for each call."""


class OpenWish:
    """One row. Belongs to the loop of its peer."""

    __slots__ = ("_command", "_house", "_is_over", "_reply", "_tag")

    def __init__(self, house: Wishes, command: Cancel | Forget | Pin | Drain, reply: Reply) -> None:
        self._house = house
        self._command = command
        self._reply = reply
        self._tag: int | None = None  # while its outcome is not known
        self._is_over = False

    def begin(self) -> None:
        house = self._house
        house.committing.begin(self)
        tag = house.scheduling.propose_nowait(self._command, self._on_outcome)
        if not self._is_over:
            self._tag = tag

    def cancel(self) -> None:
        """Nobody wants the answer any more; it may be done all the same."""
        self._is_over = True
        self._reply = _nobody
        tag, self._tag = self._tag, None
        self._house.committing.end(self)
        if tag is not None:
            self._house.scheduling.give_up(tag)

    def expire(self) -> None:
        self._end(Unavailable(NO_QUORUM))

    def _on_outcome(self, outcome: Outcome | Unavailable) -> None:
        self._tag = None
        if isinstance(outcome, Unavailable):
            self._end(outcome)
        elif isinstance(outcome, Rejected):
            self._end(from_wire(outcome.code, outcome.message, 1000))
        else:
            self._end(Done())

    def _end(self, answer: Done | P2PSchedError) -> None:
        reply = self._reply
        self.cancel()
        reply(answer)
