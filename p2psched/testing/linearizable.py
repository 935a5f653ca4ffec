"""Is there an order in which these concurrent operations could have happened at once, one by one?

For: histories of simulated and of real clients. What each asked, what it was told and when is
recorded; a model says what an operation does and answers when nothing else happens meanwhile. The
search is that of Wing and Gong (1993) with Lowe's memory of what was tried (2017), each key by
itself (Horn and Kroening 2015). An operation without an answer happened at some time after its
call, or never.

It refuses to guess: a search that takes too long ends as `Verdict.UNKNOWN`. What is broken is told
by the shortest beginning of the history that nothing explains.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace
from typing import Final

from p2psched.testing.linear_history import (
    EVERYTHING,
    UNKNOWN,
    Everything,
    History,
    Model,
    Operation,
    S,
    Verdict,
)
from p2psched.testing.linear_search import Clock, Limit, Search

__all__ = [
    "EVERYTHING",
    "UNKNOWN",
    "Broken",
    "History",
    "Model",
    "Operation",
    "Result",
    "Verdict",
    "check",
]

STEPS_MAX: Final = 50_000_000
BUDGET_S: Final = 60.0
SHOWN_MAX: Final = 12  # operations of an order, and of a timeline, for people


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """The shortest beginning of one key's history that nothing explains: all that was called until
    `culprit` was answered, and what was answered by then."""

    key: Hashable
    operations: tuple[Operation, ...]
    culprit: Operation
    order: tuple[Operation, ...]  # the longest that explains what was answered before it
    state: str  # after that order


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    verdict: Verdict
    keys: int
    steps: int  # of the model, all keys together
    broken: Broken | None = None

    @property
    def ok(self) -> bool:
        return self.verdict is Verdict.LINEARIZABLE

    def explain(self) -> str:
        """For people; many lines if it is broken."""
        if self.broken is None:
            return f"{self.verdict}: {self.keys} keys, {self.steps} steps"
        return _explanation(self.broken)


def check(
    operations: Iterable[Operation],
    model: Model[S],
    *,
    budget_s: float = BUDGET_S,
    steps_max: int = STEPS_MAX,
    clock: Clock = time.monotonic,
) -> Result:
    """Judge a history. It ends within about `budget_s` seconds of `clock`, and after `steps_max`
    steps of the model, for all keys together; then the verdict is `UNKNOWN` unless some key was
    found broken. To find the shortest broken beginning costs as much again."""
    parts = _by_key(list(operations), model)
    limit = Limit(steps_max, clock, clock() + budget_s)
    verdict = Verdict.LINEARIZABLE
    # The short ones first: what is broken there is found whatever the long ones take.
    for key, part in sorted(parts.items(), key=lambda item: len(item[1])):
        search = Search(part, model, limit)
        found = search.run()
        if found is Verdict.BROKEN:
            again = Limit(limit.steps + steps_max, clock, clock() + budget_s, limit.steps)
            broken = _shortest(key, part, search.stuck, model, again)
            return Result(verdict=Verdict.BROKEN, keys=len(parts), steps=again.steps, broken=broken)
        if found is Verdict.UNKNOWN:
            verdict = found
    return Result(verdict=verdict, keys=len(parts), steps=limit.steps)


def _by_key(operations: list[Operation], model: Model[S]) -> dict[Hashable, list[Operation]]:
    keys = [model.key(operation.asked) for operation in operations]
    parts: dict[Hashable, list[Operation]] = {
        key: [] for key in keys if not isinstance(key, Everything)
    }
    if not parts and operations:
        parts[EVERYTHING] = []
    for key, operation in zip(keys, operations, strict=True):
        for part in parts.values() if isinstance(key, Everything) else (parts[key],):
            part.append(operation)
    return parts


# --- what is broken -------------------------------------------------------------------------------


def _shortest(
    key: Hashable, operations: list[Operation], stuck: int, model: Model[S], limit: Limit
) -> Broken:
    """No order got past `stuck`, so nothing shorter is broken; nearly always just that is. A
    beginning of an explained history is explained, so otherwise halve."""
    ends = sorted(o.answered for o in operations if o.answered is not None and o.answered >= stuck)

    def is_broken(until: int) -> bool:
        return Search(_until(operations, until), model, limit).run() is Verdict.BROKEN

    until = ends[0]
    if not is_broken(until):
        until = ends[min(bisect_left(ends, True, lo=1, key=is_broken), len(ends) - 1)]
    culprit = next(o for o in operations if o.answered == until)
    part = _until(operations, until)
    search = Search(part, model, limit)
    search.run()
    return Broken(
        key=key,
        operations=tuple(part),
        culprit=culprit,
        order=tuple(search.best),
        state=model.words(search.best_state),
    )


def _until(operations: Iterable[Operation], until: int) -> list[Operation]:
    """What was called by then; what was answered later has no answer yet."""
    return [
        o
        if o.answered is not None and o.answered <= until
        else replace(o, answered=None, answer=UNKNOWN)
        for o in operations
        if o.called <= until
    ]


def _explanation(broken: Broken) -> str:
    culprit = broken.culprit
    lines = [
        f"not linearizable: {broken.key}; the first {len(broken.operations)} operations show it",
        f"no order of them has a place for   {culprit}",
        "the longest order that explains what was answered before it"
        + (" ends with" if len(broken.order) > SHOWN_MAX else ""),
    ]
    shown = broken.order[-SHOWN_MAX:]
    lines += [f"  {operation}" for operation in shown] or ["  (none: nothing before it fits)"]
    lines.append(f"  and leaves   {broken.state}")
    lines.append("when they were under way (>: no answer by then)")
    last = sorted(broken.operations, key=lambda o: (o.answered or culprit.called, o.called))
    return "\n".join(lines + _timeline(last[-SHOWN_MAX:]))


def _timeline(operations: list[Operation]) -> list[str]:
    """One bar for each operation, over time from left to right."""
    operations = sorted(operations, key=lambda operation: operation.called)
    times = sorted({t for o in operations for t in (o.called, o.answered) if t is not None})
    column = {moment: 2 * place for place, moment in enumerate(times)}
    width = 2 * len(times)
    lines = []
    for operation in operations:
        start = column[operation.called]
        stop = width if operation.answered is None else column[operation.answered]
        end = ">" if operation.answered is None else "]"
        bar = " " * start + "[" + "-" * (stop - start - 1) + end
        lines.append(f"  {bar:<{width + 1}}  {operation}")
    return lines
