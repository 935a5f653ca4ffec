"""An event of the ledger as JSON, the same wherever it leaves the cluster: see docs/events.md."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from p2psched.model.event_messages import EVENT_VERSION, EventRecord


def event_fields(record: EventRecord) -> dict[str, object]:
    """Names stay; new ones may come."""
    fields: dict[str, object] = {
        "version": EVENT_VERSION,
        "cursor": str(record.place),
        "index": record.index,
        "position": record.position,
        "command": record.command,
        "ledger_ms": record.at_ms,
        "time": _moment(record.wall_ms),
        "kind": record.kind,
        "job": record.job,
        "peer": record.peer,
        "tasks": str(record.tasks) if record.tasks else None,
    }
    return fields | record.data


def event_line(record: EventRecord) -> str:
    """One line, without its end."""
    return json.dumps(event_fields(record))


def _moment(wall_ms: int) -> str:
    when = datetime.fromtimestamp(wall_ms // 1000, UTC)
    return f"{when:%Y-%m-%dT%H:%M:%S}.{wall_ms % 1000:03d}Z"
