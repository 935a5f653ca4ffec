"""After which jobs a job comes, as people write it, and what is said of one that never began."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

from p2psched.model.after import After, AfterEvent, JobReleased, ended_word
from p2psched.model.errors import TaskFailed, UsageError
from p2psched.model.ids import JobId, is_id, short
from p2psched.model.job import Cause
from p2psched.model.messages import JobView

OnParentFail = Literal["abort", "continue"]
ABORT: Final = "abort"
CONTINUE: Final = "continue"

Parents = object | Iterable[object]  # jobs, tasks and ids


def parents_of(after: Parents) -> tuple[JobId, ...]:
    """Their ids, each once. A task stands for the job with which it travels. Raises UsageError."""
    if isinstance(after, tuple | list | set | frozenset):
        return tuple(dict.fromkeys(map(_id_of, after)))
    return () if after is None else (_id_of(after),)


def _id_of(parent: object) -> JobId:
    job = getattr(parent, "job", parent)
    found = job if isinstance(job, str) else getattr(job, "id", None)
    if not isinstance(found, str) or not is_id(found):
        raise UsageError(
            f"after names jobs and tasks of a Client, or whole ids of jobs, not {parent!r}: "
            "`client.job(NAME)` finds one by its name; the futures of an Executor know no job"
        )
    return JobId(found)


def after_of(after: Parents, on_parent_fail: str = ABORT) -> After | None:
    """None if it comes after none. Raises UsageError."""
    if on_parent_fail not in {ABORT, CONTINUE}:
        raise UsageError(f"on_parent_fail is {ABORT!r} or {CONTINUE!r}, not {on_parent_fail!r}")
    parents = parents_of(after)
    if not parents:
        return None
    try:
        return After(parents, on_parent_fail == CONTINUE)
    except ValueError as error:
        raise UsageError(str(error)) from error


def reason_of(event: AfterEvent) -> str:
    """Why it was released or aborted."""
    if isinstance(event, JobReleased):
        return f"job {short(event.by)} has ended"
    return f"job {short(event.ancestor.job)} {ended_word(event.ancestor.state)}"


def aborted_text(view: JobView) -> str:
    """Why, behind the job's name; empty if it was not aborted."""
    ancestor = view.after.ancestor
    if ancestor is None:
        return ""
    name = f" ({ancestor.name})" if ancestor.name else ""
    how = f"job {short(ancestor.job)}{name} {ended_word(ancestor.state)}"
    return f"was aborted: {how}, and this one comes after it"


def without_result(view: JobView) -> TaskFailed:
    """What to raise for a task of a job that has ended without its result."""
    why = aborted_text(view) or "was cancelled before the task ended"
    return TaskFailed(f"job {view.job} {why}", task=view.job, cause=Cause.CANCELLED)
