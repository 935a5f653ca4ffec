"""What an entry of the ledger means to people and programs outside: public events, with places.

A pure function of the entry and of what applying it led to, so every peer that folds the ledger
tells the same events at the same places. It tells no secrets and no data of tasks. To make them
costs a third of applying the entry, so they are made when somebody wants them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from p2psched.core import generation
from p2psched.core.act_events import ACT_EVENTS, ACT_KINDS, Make, Said
from p2psched.core.after_events import AFTER_EVENTS, AFTER_KINDS
from p2psched.core.once_events import ONCE_EVENTS, ONCE_KINDS
from p2psched.core.place_events import BACKUP_KINDS, PLACE_EVENTS
from p2psched.model.commands import (
    Acknowledged,
    Cancel,
    Command,
    Complete,
    Completed,
    Event,
    Forget,
    GivenBack,
    Granted,
    JobAdded,
    JobEnded,
    JobForgotten,
    JobReopened,
    NewGeneration,
    Outcome,
    PeerCameUp,
    PeerDrains,
    PeerWentDown,
    Pin,
    Recorded,
    ResultRefused,
    ResultsLost,
    Retried,
    Revoked,
    Stamped,
)
from p2psched.model.errors import UsageError
from p2psched.model.event_messages import EventRecord, Value
from p2psched.model.execution import Committed
from p2psched.model.history_events import HistoryCut
from p2psched.model.ids import PeerId
from p2psched.model.job import FunctionWork, JobState, Segment
from p2psched.model.key_actions import KeyChanged
from p2psched.model.raft import Membership
from p2psched.model.reconciled import PeerReconciled
from p2psched.model.resumed import Resumed
from p2psched.model.retry_events import Alerted, Delayed
from p2psched.model.stalls import Stalled
from p2psched.model.taskset import EMPTY
from p2psched.model.webhook import AddWebhook, RemoveWebhook

KINDS: Final = (
    "job.submitted",
    "job.cancelled",
    "job.ended",
    "job.reopened",
    "job.pinned",
    "job.unpinned",
    "job.forgotten",
    "tasks.granted",
    "tasks.revoked",
    "tasks.ended",
    "tasks.retried",
    "tasks.refused",
    "tasks.repeated",
    "tasks.lost",
    "peer.up",
    "peer.down",
    "members.changed",
    "level.raised",
    "webhook.added",
    "webhook.removed",
    "peer.drain",
    "tasks.returned",
    "generation.began",
    "job.alert",
    "tasks.delayed",
    *ACT_KINDS,
    "tasks.moved",
    *ONCE_KINDS,
    "tasks.resumed",
    "peer.reconciled",
    "peer.stalled",
    *BACKUP_KINDS,
    *AFTER_KINDS,
)


def check_kinds(kinds: Sequence[str]) -> None:
    """Raises UsageError for one that no event has."""
    for kind in kinds:
        group = kind.endswith(".")
        if not any(known == kind or (group and known.startswith(kind)) for known in KINDS):
            raise UsageError(f"there is no event {kind!r}: {', '.join(KINDS)}")


class Happened(msgspec.Struct, frozen=True):
    """An entry, and what applying it led to."""

    batch: Committed
    outcomes: list[Outcome]  # of each of its envelopes
    events: list[Stamped]
    before: int  # index of the last command before it
    raised_to: int | None  # the feature level, if it raised that


def records_of(happened: Happened) -> list[EventRecord]:
    """The public events of one entry."""
    batch, outcomes, events = happened.batch, happened.outcomes, happened.events
    records: list[EventRecord] = []
    stamp_ms, wall_ms, index = batch.stamp_ms, batch.wall_ms, batch.index

    def tell(command: int, said: Said, value: bytes | None = None) -> None:
        at = len(records)
        records.append(EventRecord(index, at, command, stamp_ms, wall_ms, *said, value=value))

    if batch.membership is not None:
        tell(0, _members(batch.membership))
    number = happened.before
    at, count = 0, len(events)
    for envelope, outcome in zip(batch.envelopes, outcomes, strict=True):
        number += 1
        stop = at
        while stop < count and events[stop].index == number:
            stop += 1
        command = envelope.command
        look = _COMMANDS.get(type(command))
        if look is not None:
            said = look(command, outcome, envelope.proposer, events[at:stop])
            if said is not None:
                tell(number, said)
        for stamped in events[at:stop]:
            event = stamped.event
            make = _EVENTS.get(type(event))
            if make is not None:
                value = event.value if isinstance(event, KeyChanged) else None
                tell(number, make(event), value)
        at = stop
        number = _last_number(number, command, outcome)
    assert at == count, "each event follows from a command of its entry"
    if happened.raised_to is not None:
        tell(number, ("level.raised", None, None, EMPTY, {"level": happened.raised_to}))
    return records


def _last_number(number: int, command: Command, outcome: Outcome) -> int:
    """The next command has the one behind it."""
    if isinstance(command, NewGeneration) and isinstance(outcome, Acknowledged):
        return max(number, generation.first_index(command.generation))
    return number


# --- from commands and what they were answered ----------------------------------------------------

Look = Callable[[Command, Outcome, PeerId, Sequence[Stamped]], Said | None]


def _cancelled(command: Command, _: Outcome, by: PeerId, events: Sequence[Stamped]) -> Said | None:
    """Only the cancel that ended the job."""
    assert isinstance(command, Cancel)
    if not any(stamped.event == JobEnded(command.job, JobState.CANCELLED) for stamped in events):
        return None
    return "job.cancelled", command.job, by, EMPTY, {}


def _pinned(command: Command, outcome: Outcome, by: PeerId, _: Sequence[Stamped]) -> Said | None:
    assert isinstance(command, Pin)
    if not isinstance(outcome, Acknowledged):
        return None
    return "job.pinned" if command.pinned else "job.unpinned", command.job, by, EMPTY, {}


def _forgotten(command: Command, _: Outcome, by: PeerId, events: Sequence[Stamped]) -> Said | None:
    assert isinstance(command, Forget)
    if not events:  # refused, or forgotten before
        return None
    return "job.forgotten", command.job, by, EMPTY, {"asked": command.ended_ms is None}


def _repeated(command: Command, outcome: Outcome, _: PeerId, __: Sequence[Stamped]) -> Said | None:
    assert isinstance(command, Complete)
    if not isinstance(outcome, Completed) or not outcome.duplicate.ranges:
        return None
    data: dict[str, Value] = {"grant": command.grant}
    return "tasks.repeated", command.job, None, outcome.duplicate, data


def _webhook(command: Command, outcome: Outcome, by: PeerId, _: Sequence[Stamped]) -> Said | None:
    assert isinstance(command, AddWebhook | RemoveWebhook)
    if not isinstance(outcome, Acknowledged):
        return None
    kind = "webhook.added" if isinstance(command, AddWebhook) else "webhook.removed"
    return kind, None, by, EMPTY, {"name": command.name}


def _generation(
    command: Command, outcome: Outcome, _: PeerId, __: Sequence[Stamped]
) -> Said | None:
    assert isinstance(command, NewGeneration)
    if not isinstance(outcome, Acknowledged):
        return None
    data: dict[str, Value] = {"generation": command.generation}
    return "generation.began", None, command.peer, EMPTY, data


_COMMANDS: Final[dict[type[Command], Look]] = {
    Cancel: _cancelled,
    Pin: _pinned,
    Forget: _forgotten,
    Complete: _repeated,
    AddWebhook: _webhook,
    RemoveWebhook: _webhook,
    NewGeneration: _generation,
}


# --- from events ----------------------------------------------------------------------------------


def _submitted(event: Event) -> Said:
    assert isinstance(event, JobAdded)
    spec = event.spec
    if spec is None:  # not by the fold
        return "job.submitted", event.job, None, EMPTY, {}
    kind = "function" if isinstance(spec.work, FunctionWork) else "program"
    data: dict[str, Value] = {"name": spec.name, "type": kind, "submitter": spec.submitter}
    return "job.submitted", event.job, None, spec.tasks, data


def _granted(event: Event) -> Said:
    assert isinstance(event, Granted)
    data: dict[str, Value] = {"grant": event.grant, "incarnation": event.incarnation}
    return "tasks.granted", event.job, event.peer, event.tasks, data


def _revoked(event: Event) -> Said:
    assert isinstance(event, Revoked)
    data: dict[str, Value] = {"grant": event.grant, "cause": event.cause.value}
    return "tasks.revoked", event.job, event.peer, event.tasks, data


def _ended_data(grant: int, segment: Segment) -> dict[str, Value]:
    return {"grant": grant, "cause": segment.cause.value, "busy_us": segment.busy_us}


def _tasks_ended(event: Event) -> Said:
    assert isinstance(event, Recorded)
    segment = event.segment
    data = _ended_data(event.grant, segment)
    return "tasks.ended", event.job, event.peer, segment.tasks, data


def _retried(event: Event) -> Said:
    assert isinstance(event, Retried)
    segment = event.segment
    data = _ended_data(event.grant, segment)
    return "tasks.retried", event.job, event.peer, segment.tasks, data


def _refused(event: Event) -> Said:
    assert isinstance(event, ResultRefused)
    return "tasks.refused", event.job, None, event.tasks, {"grant": event.grant}


def _came_up(event: Event) -> Said:
    assert isinstance(event, PeerCameUp)
    info = event.info
    data: dict[str, Value] = {
        "name": info.name,
        "address": info.address,
        "incarnation": info.incarnation,
        "slots": info.slots,
        "software_version": info.version,
    }
    return "peer.up", None, info.peer, EMPTY, data


def _went_down(event: Event) -> Said:
    assert isinstance(event, PeerWentDown)
    data: dict[str, Value] = {"incarnation": event.incarnation, "reason": event.reason}
    return "peer.down", None, event.peer, EMPTY, data


def _job_ended(event: Event) -> Said:
    assert isinstance(event, JobEnded)
    return "job.ended", event.job, None, EMPTY, {"state": event.state.value}


def _reopened(event: Event) -> Said:
    assert isinstance(event, JobReopened)
    return "job.reopened", event.job, None, event.tasks, {}


def _lost(event: Event) -> Said:
    assert isinstance(event, ResultsLost)
    return "tasks.lost", event.job, None, event.tasks, {}


def _drains(event: Event) -> Said:
    assert isinstance(event, PeerDrains)
    return "peer.drain", None, event.peer, EMPTY, {"mode": event.mode.name.lower()}


def _given_back(event: Event) -> Said:
    assert isinstance(event, GivenBack)
    return "tasks.returned", event.job, event.peer, event.tasks, {"grant": event.grant}


def _alerted(event: Event) -> Said:
    assert isinstance(event, Alerted)
    data: dict[str, Value] = {"cause": event.cause.value, "severity": event.severity}
    if event.why:
        data["why"] = event.why
    return "job.alert", event.job, event.peer, event.tasks, data


def _delayed(event: Event) -> Said:
    assert isinstance(event, Delayed)
    return "tasks.delayed", event.job, None, event.tasks, {"until_ms": event.until_ms}


def _resumed(event: Event) -> Said:
    assert isinstance(event, Resumed)
    data: dict[str, Value] = {
        "grant": event.grant,
        "attempt": event.attempt,
        "checkpoint": event.number,
        "saved_ms": event.saved_wall_ms,
        "from": event.source or "",
    }
    return "tasks.resumed", event.job, event.peer, event.tasks, data


def _reconciled(event: Event) -> Said:
    assert isinstance(event, PeerReconciled)
    data: dict[str, Value] = msgspec.structs.asdict(event)
    del data["peer"]
    return "peer.reconciled", None, event.peer, EMPTY, data


def _stalled(event: Event) -> Said:
    assert isinstance(event, Stalled)
    data: dict[str, Value] = {"fault": event.fault, "step": event.step, "note": event.note}
    return "peer.stalled", event.job, event.peer, event.tasks, data


_EVENTS: Final[dict[type[Event], Make]] = {
    JobAdded: _submitted,
    Granted: _granted,
    Revoked: _revoked,
    Recorded: _tasks_ended,
    Retried: _retried,
    ResultRefused: _refused,
    PeerCameUp: _came_up,
    PeerWentDown: _went_down,
    JobEnded: _job_ended,
    JobReopened: _reopened,
    ResultsLost: _lost,
    PeerDrains: _drains,
    GivenBack: _given_back,
    **PLACE_EVENTS,
    Alerted: _alerted,
    Delayed: _delayed,
    Resumed: _resumed,
    PeerReconciled: _reconciled,
    Stalled: _stalled,
    **ACT_EVENTS,
    **ONCE_EVENTS,
    **AFTER_EVENTS,
}
# Told from the command that led to them, which says more.
TOLD_BY_COMMAND: Final[frozenset[type[Event]]] = frozenset({JobForgotten})
OF_STORES: Final[frozenset[type[Event]]] = frozenset({HistoryCut})  # the fold says none of these


def is_public(event: type[Event]) -> bool:
    return event in _EVENTS or event in TOLD_BY_COMMAND


def _members(membership: Membership) -> Said:
    data: dict[str, Value] = {
        "voters": [member.peer for member in membership.voters],
        "learners": [member.peer for member in membership.learners],
        "removed": list(membership.removed),
    }
    return "members.changed", None, None, EMPTY, data
