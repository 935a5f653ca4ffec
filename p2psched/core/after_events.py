"""Public events of jobs that come after others: a part of `event_log`."""

from __future__ import annotations

from typing import Final

from p2psched.core.act_events import Make, Said
from p2psched.model.after import JobAborted, JobReleased
from p2psched.model.commands import Event
from p2psched.model.event_messages import Value
from p2psched.model.taskset import EMPTY

AFTER_KINDS: Final = ("job.released", "job.aborted")


def _released(event: Event) -> Said:
    assert isinstance(event, JobReleased)
    return "job.released", event.job, None, EMPTY, {"by": event.by}


def _aborted(event: Event) -> Said:
    assert isinstance(event, JobAborted)
    ancestor = event.ancestor
    data: dict[str, Value] = {
        "by": event.by,
        "ancestor": ancestor.job,
        "ancestor_name": ancestor.name,
        "ancestor_state": ancestor.state,
    }
    return "job.aborted", event.job, None, EMPTY, data


AFTER_EVENTS: Final[dict[type[Event], Make]] = {JobReleased: _released, JobAborted: _aborted}
