"""Public events of tasks that must not start twice: a part of `event_log`."""

from __future__ import annotations

from typing import Final

from p2psched.core.act_events import Make, Said
from p2psched.model.commands import Event
from p2psched.model.event_messages import Value
from p2psched.model.once import Decided, Doubted, word_of

ONCE_KINDS: Final = ("tasks.unknown", "tasks.decided")


def _doubted(event: Event) -> Said:
    assert isinstance(event, Doubted)
    return "tasks.unknown", event.job, event.peer, event.tasks, {"grant": event.grant}


def _decided(event: Event) -> Said:
    assert isinstance(event, Decided)
    verdict = word_of(event.verdict)
    data: dict[str, Value] = {"verdict": verdict, "by": event.by, "reason": event.reason}
    return "tasks.decided", event.job, None, event.tasks, data


ONCE_EVENTS: Final[dict[type[Event], Make]] = {Doubted: _doubted, Decided: _decided}
