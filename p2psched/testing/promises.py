"""How a referee says that a promise of the product does not hold."""

from __future__ import annotations


class BrokenPromiseError(AssertionError):
    """A promise of the product does not hold."""


def demand(holds: bool, promise: str, what: str) -> None:
    if not holds:
        raise BrokenPromiseError(f"{promise}: {what}")
