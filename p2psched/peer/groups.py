"""What a task group failed of: groups may be nested, callers want one error."""

from __future__ import annotations

from collections.abc import Iterator

from p2psched.model.errors import P2PSchedError


def causes(error: BaseException) -> Iterator[BaseException]:
    """The errors inside of groups inside of groups, in their order."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from causes(inner)
    else:
        yield error


def first_error(errors: BaseExceptionGroup[P2PSchedError]) -> P2PSchedError:
    error = next(causes(errors))
    assert isinstance(error, P2PSchedError)
    return error
