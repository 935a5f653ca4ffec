"""Jobs that come after others, and what becomes of them (ADR 0072).

Tags are for ever; fields are only appended, with defaults.
"""

from __future__ import annotations

from typing import Final

import msgspec

from p2psched.model.ids import JobId, is_id

PARENTS_MAX: Final = 64  # that one job comes after


class After(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """After which jobs a job comes: none of its tasks begins before all of them have ended."""

    parents: tuple[JobId, ...]
    goes_on: bool = False  # also if one of them doesn't succeed; else it is aborted then

    def __post_init__(self) -> None:
        if not 1 <= len(self.parents) <= PARENTS_MAX:
            raise ValueError(
                f"a job comes after 1 to {PARENTS_MAX} others, not {len(self.parents):,}: put one "
                "that does nothing between, and let it come after some of them"
            )
        wrong = next((parent for parent in self.parents if not is_id(parent)), None)
        if wrong is not None:
            raise ValueError(f"a job comes after others, by their ids of 32 hex digits: {wrong!r}")
        if len(set(self.parents)) != len(self.parents):
            raise ValueError("a job comes after another once: name each of them once")


class Ancestor(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The job that did not succeed, which others came after."""

    job: JobId
    name: str
    state: str  # how it ended: "failed" or "cancelled"


def ended_word(state: str) -> str:
    """How a job ended, behind its name."""
    return "was cancelled" if state == "cancelled" else state


class ParentView(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A job that another comes after, for who looks at that one."""

    job: JobId
    name: str = ""  # empty: it is forgotten
    state: str = "forgotten"


class AfterView(msgspec.Struct, frozen=True, array_like=True):
    """How a job stands to those before it, for who looks at it."""

    parents: tuple[ParentView, ...] = ()  # only in a whole view
    open: int = 0  # of them, those that have not ended: it waits for these
    first: ParentView | None = None  # of the open ones, as the job names them
    goes_on: bool = False
    ancestor: Ancestor | None = None  # if it was aborted: whose fault that was


class JobReleased(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=105):
    """The last job that it came after has ended: its tasks may be placed from now on."""

    job: JobId
    by: JobId


class JobAborted(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=106):
    """A job that it came after did not succeed, so it never begins. A `JobEnded` follows."""

    job: JobId
    by: JobId  # which it came after
    ancestor: Ancestor  # that one, or one before it


AfterEvent = JobReleased | JobAborted
