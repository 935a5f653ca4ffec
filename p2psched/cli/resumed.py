"""Words for attempts that went on from a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from p2psched.cli.output import count, moment, size
from p2psched.model.ids import PeerId, short
from p2psched.model.messages import JobView
from p2psched.model.resumed import Resumed, Resumption
from p2psched.model.status_messages import CheckpointStatus


def from_where(event: Resumed | Resumption, name: Callable[[PeerId], str]) -> str:
    if not event.number or event.source is None:
        return "the beginning: no checkpoint could be had"
    return (
        f"checkpoint {event.number} of {moment(event.saved_wall_ms)}, found on {name(event.source)}"
    )


def resumed_text(view: JobView, names: Mapping[PeerId, str]) -> str | None:
    """Nothing if no attempt did."""
    if not view.resumed:
        return None

    def name(peer: PeerId) -> str:
        return names.get(peer, short(peer))

    lines = [f"{view.resumed:,}"] + [
        f"task {one.task} on {name(one.peer)} from {from_where(one, name)}"
        for one in view.resumptions[-3:]
    ]
    return "; ".join(lines)


def resumed_fields(view: JobView) -> dict[str, object]:
    return {
        "resumed": view.resumed,
        "resumptions": [
            {
                "task": one.task,
                "peer": one.peer,
                "from": one.source,
                "checkpoint": one.number,
                "saved": moment(one.saved_wall_ms) if one.number else None,
                "began": moment(one.began_wall_ms),
            }
            for one in view.resumptions
        ],
    }


def status_row(found: CheckpointStatus | None) -> list[tuple[str, object]]:
    """Of `status`; nothing for a peer that has nothing to tell."""
    if found is None or not any(msgspec.structs.astuple(found)):
        return []
    here = f"of {count(found.tasks, 'task')} ({size(found.disk_bytes)})"
    running = f"{found.running} run here, {found.behind} with a newest that is nowhere else"
    done = f"{found.copied:,} copied, {found.skipped:,} overtaken, {found.resumed:,} gone on from"
    damaged = f", {found.damaged:,} damaged" if found.damaged else ""
    return [("checkpoints", f"{here}; {running}; {done}{damaged}")]
