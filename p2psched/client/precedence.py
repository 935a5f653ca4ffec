"""Which jobs go before others, as people write it."""

from __future__ import annotations

from p2psched.client.durations import duration_ms
from p2psched.model.errors import UsageError
from p2psched.model.precedence import RUNS_MS, Precedence

Preemptible = bool | float | str  # or how long its tasks are left alone once they have begun

NONE = Precedence()


def precedence_of(priority: int, preemptible: Preemptible = False) -> Precedence | None:
    """Raises UsageError for what there can't be."""
    is_open = preemptible is not False
    runs_ms = RUNS_MS if isinstance(preemptible, bool) else duration_ms(preemptible)
    try:
        found = Precedence(priority, is_open, runs_ms)
    except ValueError as error:
        raise UsageError(str(error)) from error
    return found if found != NONE else None
