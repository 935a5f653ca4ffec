"""What a command did, in words that the shadow ledger and a real machine share."""

from __future__ import annotations

from typing import Final

from p2psched.model.after import JobAborted, JobReleased
from p2psched.model.backing import BackedUp, Promoted
from p2psched.model.commands import (
    Event,
    GivenBack,
    Granted,
    JobAdded,
    JobEnded,
    JobForgotten,
    JobReopened,
    Recorded,
    ResultRefused,
    ResultsLost,
    Retried,
    Revoked,
    Stamped,
)
from p2psched.model.moves import Moved
from p2psched.model.once import Decided, Doubted
from p2psched.model.precedence import Preempted
from p2psched.model.resumed import Resumed
from p2psched.model.retry_events import Alerted, Delayed

Fact = tuple[str, str, int, str]  # what, job, task (-1: the job), grant or cause
_GRANTS: Final[dict[type[Event], str]] = {
    Moved: "moved",
    BackedUp: "backed up",
    Promoted: "promoted",
    Doubted: "doubted",
}

_OF_JOBS: Final[dict[type[Event], str]] = {
    JobForgotten: "forgotten",
    JobReleased: "released",
    JobAborted: "aborted",
}


def facts_of(events: list[Stamped]) -> list[Fact]:
    """What a machine said of one command, in the words of the shadow."""
    facts: list[Fact] = []
    for stamped in events:
        event = stamped.event
        match event:
            case JobAdded(job=job):
                facts.append(("added", job, -1, ""))
            case Granted(job=job, grant=grant):
                facts += [("granted", job, index, str(grant)) for index in event.tasks]
            case Revoked(job=job, grant=grant):
                facts += [("revoked", job, index, str(grant)) for index in event.tasks]
            case Recorded(job=job, grant=grant, segment=segment):
                detail = f"{grant} {segment.cause}"
                facts += [("recorded", job, index, detail) for index in segment.tasks]
            case Retried(job=job, grant=grant):
                facts += [("retried", job, index, str(grant)) for index in event.segment.tasks]
            case ResultRefused(job=job, grant=grant):
                facts += [("refused", job, index, str(grant)) for index in event.tasks]
            case GivenBack(job=job, grant=grant):
                facts += [("given back", job, index, str(grant)) for index in event.tasks]
            case JobEnded(job=job, state=state):
                facts.append(("ended", job, -1, str(state)))
            case _:
                facts += _facts_of_others(event)
    return sorted(facts)


def _facts_of_others(event: Event) -> list[Fact]:
    if type(event) in _GRANTS:
        assert isinstance(event, Moved | BackedUp | Promoted | Doubted)
        what = _GRANTS[type(event)]
        return [(what, event.job, index, str(event.grant)) for index in event.tasks]
    match event:
        case JobForgotten() | JobReleased() | JobAborted():
            return [(_OF_JOBS[type(event)], event.job, -1, "")]
        case JobReopened(job=job, tasks=tasks):
            return [("reopened", job, index, "") for index in tasks]
        case ResultsLost(job=job, tasks=tasks):
            return [("lost", job, index, "") for index in tasks]
        case Delayed(job=job, until_ms=until_ms, tasks=tasks):
            return [("delayed", job, index, str(until_ms)) for index in tasks]
        case Resumed(job=job, tasks=tasks, number=number):
            return [("resumed", job, index, str(number)) for index in tasks]
        case Preempted(job=job, grant=grant, tasks=tasks, by=by):
            return [("preempted", job, index, f"{grant} {by}") for index in tasks]
        case Decided(job=job, tasks=tasks, verdict=verdict):
            return [("decided", job, index, str(int(verdict))) for index in tasks]
        case Alerted(job=job, cause=cause, severity=severity):
            return [("alerted", job, -1, f"{cause} {severity}")]
        case _:
            return []
