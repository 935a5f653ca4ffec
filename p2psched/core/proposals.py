"""What a peer has proposed and whose outcome it has not seen: with a copy of the ledger
(`core.replica`), and without one (`core.follower`).
"""

from __future__ import annotations

from typing import Final

from p2psched.model.commands import Command, Envelope, Rejected
from p2psched.model.ids import PeerId
from p2psched.model.limits import PENDING_PROPOSALS_MAX

REPEAT_MS: Final = 1000  # a proposal that isn't committed by then is proposed again
_REQUESTS_PER_INCARNATION: Final = 1 << 40


class Proposals:
    """What a peer has proposed and waits for."""

    def __init__(self, me: PeerId, incarnation: int) -> None:
        self._me = me
        self._next = (
            incarnation * _REQUESTS_PER_INCARNATION
        )  # never used before, also after a restart
        self._pending: dict[int, tuple[Envelope, int]] = {}  # request -> envelope, sent at

    @property
    def pending_count(self) -> int:
        return len(self._pending)

    @property
    def busy(self) -> Rejected | None:
        """Why a caller must be told to come back later, if so."""
        if len(self._pending) < PENDING_PROPOSALS_MAX:
            return None
        return Rejected("unavailable", "busy: too many proposals wait for the ledger")

    def number(self, command: Command) -> Envelope:
        """Number a command whose outcome nobody waits for."""
        self._next += 1
        return Envelope(self._me, self._next - 1, command)

    def propose(self, command: Command, now_ms: int) -> Envelope:
        """Number a command and remember it until its outcome is known."""
        envelope = self.number(command)
        self._pending[envelope.request] = (envelope, now_ms)
        return envelope

    def forget(self, request: int) -> None:
        """Stop waiting: the command may still commit, and nobody here asks."""
        self._pending.pop(request, None)

    def repeat(self, now_ms: int, *, all_of_them: bool = False) -> list[Envelope]:
        """What to propose again, oldest first."""
        due = [
            envelope
            for envelope, sent_ms in self._pending.values()
            if all_of_them or now_ms - sent_ms >= REPEAT_MS
        ]
        for envelope in due:
            self._pending[envelope.request] = (envelope, now_ms)
        return due

    def settle(self, request: int) -> bool:
        """Its outcome is known. False if nobody waits for it: it was, or is not asked for."""
        return self._pending.pop(request, None) is not None
