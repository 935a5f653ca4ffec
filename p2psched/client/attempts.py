"""The attempts of one task, as the history of its job tells them. Pure.

An attempt is a grant under which the task may have begun: one that was given back, or moved before
it began, is none. Attempts count from 1 over the whole story, also after a `job retry`, where
P2P_ATTEMPT begins anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from p2psched.model.commands import (
    GivenBack,
    Granted,
    JobReopened,
    Recorded,
    Retried,
    Revoked,
    Stamped,
)
from p2psched.model.ids import PeerId
from p2psched.model.job import Cause
from p2psched.model.moves import Moved

# Its peer is lost, or was told to end it: nobody has told how it ended.
TAKEN: Final = frozenset({Cause.PEER_LOST, Cause.CANCELLED, Cause.OVERTAKEN})


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One execution of a task, or what may have become one. Times are Unix time, in ms."""

    number: int
    grant: int
    peer: PeerId
    granted_ms: int
    ended_ms: int | None = None
    cause: Cause | None = None  # None: it has not ended
    is_final: bool = False  # its result is that of the task

    @property
    def has_result(self) -> bool:
        """True if its peer has told how it ended."""
        return self.cause is not None and self.cause not in TAKEN


def attempts_of(events: Iterable[Stamped], index: int) -> list[Attempt]:
    """Of one task, from the events of its job, oldest first."""
    found: dict[int, Attempt] = {}
    for stamped in events:
        _take(found, stamped, index)
    return [replace(one, number=number) for number, one in enumerate(found.values(), start=1)]


def _take(found: dict[int, Attempt], stamped: Stamped, index: int) -> None:
    match stamped.event:
        case Granted(grant=grant, peer=peer, tasks=tasks) if index in tasks:
            found[grant] = Attempt(number=0, grant=grant, peer=peer, granted_ms=stamped.wall_ms)
        case GivenBack(grant=grant, tasks=tasks) | Moved(grant=grant, tasks=tasks):
            if index in tasks:
                found.pop(grant, None)
        case Revoked(grant=grant, tasks=tasks, cause=cause) if index in tasks:
            _end(found, grant, cause, stamped)
        case Retried(grant=grant, segment=segment) if index in segment.tasks:
            _end(found, grant, segment.cause, stamped)
        case Recorded(grant=grant, segment=segment) if index in segment.tasks:
            _end(found, grant, segment.cause, stamped, is_final=True)
        case JobReopened(tasks=tasks) if index in tasks:
            for grant, one in found.items():
                found[grant] = replace(one, is_final=False)
        case _:
            pass


def _end(
    found: dict[int, Attempt],
    grant: int,
    cause: Cause,
    stamped: Stamped,
    *,
    is_final: bool = False,
) -> None:
    one = found.get(grant)
    if one is not None:
        found[grant] = replace(one, cause=cause, ended_ms=stamped.wall_ms, is_final=is_final)


def ended_attempt(event: Retried) -> Attempt:
    """The one that this tells the end of, for who has no use for its number and times."""
    return Attempt(
        number=0, grant=event.grant, peer=event.peer, granted_ms=0, cause=event.segment.cause
    )
