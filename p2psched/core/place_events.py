"""Public events of tasks that go to another peer, run there, too, or make way for others: a part of
`event_log`.
"""

from __future__ import annotations

from typing import Final

from p2psched.core.act_events import Make, Said
from p2psched.model.backing import BackedUp, Promoted
from p2psched.model.commands import Event
from p2psched.model.event_messages import Value
from p2psched.model.moves import Moved
from p2psched.model.precedence import Preempted


def _moved(event: Event) -> Said:
    assert isinstance(event, Moved)
    data: dict[str, Value] = {"grant": event.grant, "to": event.taker, "to_grant": event.to}
    return "tasks.moved", event.job, event.peer, event.tasks, data


def _backed_up(event: Event) -> Said:
    assert isinstance(event, BackedUp)
    why = "late" if event.speculates else "replicas"
    return "tasks.backed-up", event.job, event.peer, event.tasks, {"grant": event.grant, "why": why}


def _promoted(event: Event) -> Said:
    assert isinstance(event, Promoted)
    return "tasks.promoted", event.job, event.peer, event.tasks, {"grant": event.grant}


def _preempted(event: Event) -> Said:
    assert isinstance(event, Preempted)
    data: dict[str, Value] = {"grant": event.grant, "by": event.by}
    return "tasks.preempted", event.job, event.peer, event.tasks, data


PLACE_EVENTS: Final[dict[type[Event], Make]] = {
    Moved: _moved,
    BackedUp: _backed_up,
    Promoted: _promoted,
    Preempted: _preempted,
}
BACKUP_KINDS: Final = ("tasks.backed-up", "tasks.promoted", "tasks.preempted")
