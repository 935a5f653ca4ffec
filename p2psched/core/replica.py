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
from p2psched.core.proposals import Proposals
from p2psched.model.commands import (
    Command,
    JobAdded,
    Outcome,
    Recorded,
    Rejected,
    Stamped,
)
from p2psched.model.execution import Committed
from p2psched.model.ids import PeerId
from p2psched.model.job import Cause

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
        changes: list[Stamped] = []
        for stamped in self.events:
            event = stamped.event
            if isinstance(event, JobAdded) or (
                isinstance(event, Recorded) and event.segment.cause is _OK
            ):
                continue
            changes.append(stamped)
        return changes


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
