"""On how many peers tasks run, as people write it."""

from __future__ import annotations

from p2psched.model.backing import Backing
from p2psched.model.errors import UsageError

NONE = Backing()


def backing_of(replicas: int, *, speculate: bool) -> Backing | None:
    """Raises UsageError for a number that there can't be."""
    try:
        backing = Backing(replicas, speculate)
    except ValueError as error:
        raise UsageError(str(error)) from error
    return backing if backing != NONE else None
