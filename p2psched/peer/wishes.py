"""What callers want done with a job or a peer, if it is one proposal and nothing to wait for before
it: each is a row (`rows`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from p2psched.model.commands import Cancel, Drain, Forget, Outcome, Pin
from p2psched.model.errors import P2PSchedError
from p2psched.model.keep_messages import ForgetJob, PinJob
from p2psched.model.messages import CancelJob, Done, DrainPeer, Wish
from p2psched.net.patience import Patience
from p2psched.peer.roster import PATIENCE_S
from p2psched.peer.rows import Row
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


class OpenWish(Row[Done]):
    __slots__ = ("_command",)

    def __init__(self, house: Wishes, command: Cancel | Forget | Pin | Drain, reply: Reply) -> None:
        super().__init__(house, reply)
        self._command = command

    def begin(self) -> None:
        self._propose(self._command)

    def _answer(self, _outcome: Outcome) -> Done:
        return Done()
