"""A peer's proposals on their way through the ledger.

A proposer learns the outcome where everybody does: among the committed entries. Nothing answers a
proposal, so nothing can be lost between commit and answer; what isn't seen is proposed again under
the same number, and the first outcome counts.
"""

from __future__ import annotations

from typing import Final

import msgspec

from p2psched.core import levels
from p2psched.core.event_log import Happened
from p2psched.core.machine import Machine
from p2psched.model.commands import (
    Command,
    Envelope,
    Event,
    JobAdded,
    Outcome,
    Recorded,
    Rejected,
    Stamped,
)
from p2psched.model.execution import Committed
from p2psched.model.ids import PeerId
from p2psched.model.job import Cause
from p2psched.model.limits import PENDING_PROPOSALS_MAX

REPEAT_MS: Final = 1000  # a proposal that isn't committed by then is proposed again
_REQUESTS_PER_INCARNATION: Final = 1 << 40
_OK: Final = Cause.OK  # as `machine._OK`


class Outcomes(msgspec.Struct, frozen=True):
    """What an entry brought."""

    own: list[tuple[int, Outcome]]  # request -> its first outcome
    happened: Happened

    @property
    def events(self) -> list[Stamped]:
        return self.happened.events

    def changes(self) -> list[Stamped]:
        """All but jobs that came and tasks that succeeded: these are most events by far, and change
        nothing for those who run or decide."""
        return [stamped for stamped in self.events if not _is_usual(stamped.event)]


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


class Replica(Proposals):
    """Applies committed entries to the machine and matches outcomes with proposals."""

    def __init__(self, me: PeerId, incarnation: int, machine: Machine) -> None:
        super().__init__(me, incarnation)
        self.machine = machine

    def refusal(self, command: Command) -> Rejected | None:
        """Why a caller must be told to come back later, if so."""
        return self.busy or levels.refusal(self.machine, command)

    def apply(self, batch: Committed) -> Outcomes:
        happened = fold(self.machine, batch)
        own: list[tuple[int, Outcome]] = []
        for envelope, outcome in zip(batch.envelopes, happened.outcomes, strict=True):
            if envelope.proposer == self._me and self.settle(envelope.request):
                own.append((envelope.request, outcome))
        return Outcomes(own, happened)


def fold(machine: Machine, batch: Committed) -> Happened:
    """Apply an entry."""
    level, before = machine.level, machine.command_index
    outcomes, events = machine.apply(batch)
    raised_to = machine.level if machine.level != level else None
    return Happened(batch, outcomes, events, before, raised_to)


def _is_usual(event: Event) -> bool:
    if isinstance(event, Recorded):
        return event.segment.cause is _OK
    return isinstance(event, JobAdded)
