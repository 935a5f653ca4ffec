"""How far running tasks are, for people: a few lines in `job show`, and one in a live bar."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Final

from p2psched.cli.output import note, one_line, span, write_line
from p2psched.client.job import Job
from p2psched.model.errors import P2PSchedError
from p2psched.model.job import JobState
from p2psched.model.messages import JobView
from p2psched.model.progress_messages import TaskProgress, done_text

SHOWN_MAX: Final = 20
LOOK_S: Final = 1.0


async def running_tasks(job: Job, view: JobView) -> Sequence[TaskProgress]:
    """None of what has ended, and none if nobody says."""
    if view.state is not JobState.RUNNING or not view.owned:
        return ()
    try:
        return await job.progress()
    except P2PSchedError:  # of an older version, for one
        return ()


def print_running(rows: Sequence[TaskProgress], names: Mapping[str, str]) -> None:
    for row in rows[:SHOWN_MAX]:
        where = names.get(str(row.peer), row.peer[:8])
        write_line(f"task {row.index} on {where}: {_text(row)}")
    if len(rows) > SHOWN_MAX:
        note(f"and {len(rows) - SHOWN_MAX:,} more that run: -o json has them")


def _text(row: TaskProgress) -> str:
    parts = [f"runs for {span(row.ran_ms / 1000)}"]
    if row.done is not None:
        parts.insert(0, done_text(row.done, row.total))
        parts.append(f"said {span(row.quiet_ms / 1000)} ago")
    if row.left_ms is not None:
        parts.append(f"about {span(row.left_ms / 1000)} left")
    if row.note:
        parts.append(one_line(row.note))
    if row.finding:
        parts.append(f"LOOK: {one_line(row.finding)}")
    return ", ".join(parts)


def bar_text(rows: Sequence[TaskProgress]) -> str:
    """The task that will take longest, or the only one that says anything."""
    said = [row for row in rows if row.done is not None]
    if not said:
        return ""
    row = max(said, key=lambda each: each.left_ms or -1)
    text = f"  task {row.index}: {done_text(row.done or 0.0, row.total)}"
    if row.left_ms is not None:
        text += f", {span(row.left_ms / 1000)} left"
    return text + (f"  {one_line(row.note)[:30]}" if row.note else "")


@contextlib.asynccontextmanager
async def watched(
    job: Job, show: Callable[[Sequence[TaskProgress]], None], *, wanted: bool
) -> AsyncIterator[None]:
    """Meanwhile `show` is called with what runs, about once a second."""

    async def look() -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            with contextlib.suppress(P2PSchedError):
                show(await job.progress())

    if not wanted:
        yield
        return
    async with asyncio.TaskGroup() as group:
        looking = group.create_task(look())
        try:
            yield
        finally:
            looking.cancel()


def progress_fields(row: TaskProgress) -> dict[str, object]:
    return {
        "index": row.index,
        "peer": row.peer,
        "attempt": row.attempt,
        "done": row.done,
        "total": row.total,
        "note": row.note or None,
        "ran_ms": row.ran_ms,
        "quiet_ms": row.quiet_ms,
        "left_ms": row.left_ms,
        "finding": row.finding or None,
    }
