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

import enum
import time
from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, replace
from typing import Final, Generic, Protocol, TypeVar

LOOK_AT_CLOCK: Final = 1_024  # steps between two looks
STEPS_MAX: Final = 50_000_000
BUDGET_S: Final = 60.0
SHOWN_MAX: Final = 12  # operations of an order, and of a timeline, for people

S = TypeVar("S", bound=Hashable)


class Unknown(enum.Enum):
    """The answer of an operation that nobody was told."""

    UNKNOWN = "?"


UNKNOWN: Final = Unknown.UNKNOWN


class Everything(enum.Enum):
    """The key of an operation that concerns all keys: it is part of the history of each."""

    EVERYTHING = "everything"


EVERYTHING: Final = Everything.EVERYTHING


class Verdict(enum.StrEnum):
    LINEARIZABLE = "linearizable"
    BROKEN = "broken"
    UNKNOWN = "unknown"  # it would have taken too long


class Model(Protocol[S]):
    """What operations mean when they come one after another. States are values that can be hashed;
    `asked` says all that matters, also who asked if that does."""

    def initial(self) -> S: ...

    def key(self, asked: object) -> Hashable:
        """Operations with different keys have nothing to do with each other; `EVERYTHING`: with
        all."""
        ...

    def step(self, state: S, asked: object, answer: object) -> tuple[bool, S]:
        """Whether `answer` is right here, and the state after it. `UNKNOWN` is always right."""
        ...

    def only_looks(self, asked: object, answer: object) -> bool:
        """True if with this answer it has changed nothing, in whatever state: the search is short
        where much only looks. False is always right."""
        ...

    def words(self, state: S) -> str:
        """A state, for people."""
        ...


@dataclass(slots=True, eq=False)
class Operation:
    """Times only order: calls and answers of a history, counted."""

    number: int
    client: str
    asked: Hashable
    called: int
    answered: int | None = None  # None: never, as far as anybody knows
    answer: object = UNKNOWN  # may be unknown though it is known by when it had happened

    def __str__(self) -> str:
        answer = "no answer" if self.answered is None else f"-> {_say(self.answer)}"
        return f"{self.client}: {_say(self.asked)} {answer}"


def _say(value: object) -> str:
    if isinstance(value, Unknown):
        return "?"
    if isinstance(value, tuple) and value and isinstance(value[0], str):
        return " ".join(str(part) for part in value)
    return str(value)


class History:
    """Operations as they are called and answered, from one thread."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.now = 0  # of the newest call or answer
        self._calls = 0

    def call(self, client: str, asked: Hashable) -> Operation:
        self.now += 1
        self._calls += 1
        operation = Operation(self._calls, client, asked, self.now)
        self.operations.append(operation)
        return operation

    def answer(self, operation: Operation, answer: object) -> None:
        assert operation.answered is None, "it was answered before"
        self.now += 1
        operation.answered, operation.answer = self.now, answer

    def void(self, operation: Operation) -> None:
        """It has certainly not happened, and never will."""
        self.operations.remove(operation)


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


Clock = Callable[[], float]


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
    limit = _Limit(steps_max, clock, clock() + budget_s)
    verdict = Verdict.LINEARIZABLE
    # The short ones first: what is broken there is found whatever the long ones take.
    for key, part in sorted(parts.items(), key=lambda item: len(item[1])):
        search = _Search(part, model, limit)
        found = search.run()
        if found is Verdict.BROKEN:
            again = _Limit(limit.steps + steps_max, clock, clock() + budget_s, limit.steps)
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


@dataclass(slots=True)
class _Limit:
    steps_max: int
    clock: Clock
    until: float
    steps: int = 0

    def is_over(self) -> bool:
        """Count a step."""
        self.steps += 1
        if self.steps > self.steps_max:
            return True
        return self.steps % LOOK_AT_CLOCK == 0 and self.clock() > self.until


class _Entry:
    """The call or the answer of an answered operation, in the list of what is not yet in order."""

    __slots__ = ("answer", "bit", "next", "operation", "prev")

    def __init__(self, operation: Operation, bit: int) -> None:
        self.operation = operation
        self.bit = bit
        self.answer: _Entry | None = None  # of a call; None: this is an answer
        self.prev: _Entry = self
        self.next: _Entry | None = None

    def take_out(self) -> None:
        """A call and its answer leave the list."""
        assert self.answer is not None
        for entry in (self, self.answer):
            entry.prev.next = entry.next
            if entry.next is not None:
                entry.next.prev = entry.prev

    def put_back(self) -> None:
        assert self.answer is not None
        for entry in (self.answer, self):
            entry.prev.next = entry
            if entry.next is not None:
                entry.next.prev = entry


class _Open:
    """An operation that nobody was told the answer of. `twin`: the one before it that asks the
    same, and is never a worse choice."""

    __slots__ = ("bit", "operation", "twin")

    def __init__(self, operation: Operation, bit: int, twin: int) -> None:
        self.operation = operation
        self.bit = bit
        self.twin = twin


class _Node(Generic[S]):
    """A point that an order has reached: what may come next, and what was chosen last."""

    __slots__ = ("answer", "before", "calls", "chosen", "position", "state")

    def __init__(self, state: S, before: S | None) -> None:
        self.state = state
        self.before = before  # if the last choice was open: the state without it
        self.calls: list[tuple[_Entry, S]] = []  # that fit, the best last; and the state then
        self.answer: _Entry | None = None  # the first that is still to come; None: no open ones
        self.position = 0  # the next of the open ones to try
        self.chosen: _Entry | _Open | None = None


class _Search(Generic[S]):
    """Of one key, depth first.

    What fits and only looks is put in order at once: no order is worse for it. Else what was
    answered first comes first. Those without an answer are tried last, and only if they change
    something that the next operation doesn't undo: else the same order without them does."""

    def __init__(self, operations: Iterable[Operation], model: Model[S], limit: _Limit) -> None:
        self._model = model
        self._limit = limit
        self._head, self._opens = _listed(operations)
        self._done = 0  # bits of what is in order
        self._tried: set[tuple[int, int, S]] = set()
        self._nodes: list[_Node[S]] = []
        self.best: list[Operation] = []  # the longest order that was reached
        self.best_state = model.initial()
        self.stuck = 0  # the latest answer that an order could not get past

    def run(self) -> Verdict:
        self._reach(self.best_state, None)
        while self._head.next is not None:
            if self._limit.is_over():
                return Verdict.UNKNOWN
            node = self._nodes[-1]
            if node.calls:
                entry, after = node.calls.pop()
                self._choose(node, entry, entry.bit, after)
            elif (candidate := self._next_open(node)) is not None:
                _, after = self._step(node.state, candidate.operation)
                if after != node.state and not self._is_undone(node, candidate.operation, after):
                    self._choose(node, candidate, candidate.bit, after)
            elif not self._go_back():
                return Verdict.BROKEN
        return Verdict.LINEARIZABLE

    def _step(self, state: S, operation: Operation) -> tuple[bool, S]:
        self._limit.steps += 1
        return self._model.step(state, operation.asked, operation.answer)

    def _reach(self, state: S, before: S | None) -> None:
        """A new point: look what may come next."""
        node = _Node(state, before)
        self._nodes.append(node)
        entry = self._head.next
        while entry is not None and entry.answer is not None:
            operation = entry.operation
            possible, after = self._step(state, operation)
            if possible and self._model.only_looks(operation.asked, operation.answer):
                assert after == state
                node.calls = [(entry, after)]
                return
            if possible and not self._is_undone(node, operation, after):
                node.calls.append((entry, after))
            entry = entry.next
        node.calls.sort(key=lambda call: -(call[0].operation.answered or 0))
        node.answer = entry

    def _is_undone(self, node: _Node[S], operation: Operation, after: S) -> bool:
        """True if the open operation before this one makes no difference."""
        if node.before is None:
            return False
        return self._step(node.before, operation) == (True, after)

    def _next_open(self, node: _Node[S]) -> _Open | None:
        """The next that may come before the first answer that is still to come."""
        ended = node.answer.operation.answered if node.answer is not None else None
        while ended is not None and node.position < len(self._opens):
            candidate = self._opens[node.position]
            if candidate.operation.called > ended:
                break
            node.position += 1
            if not self._done & candidate.bit and not candidate.twin & ~self._done:
                return candidate
        return None

    def _choose(self, node: _Node[S], chosen: _Entry | _Open, bit: int, after: S) -> None:
        """Put it next in the order, unless an order of the same operations got there before."""
        done = self._done | bit
        # What everybody agrees on is counted, so that a long history has short keys.
        prefix = (~done & (done + 1)).bit_length() - 1
        key = (prefix, done >> prefix, after)
        if key in self._tried:
            return
        self._tried.add(key)
        node.chosen, self._done = chosen, done
        if isinstance(chosen, _Entry):
            chosen.take_out()
            self._reach(after, None)
        else:
            self._reach(after, node.state)

    def _go_back(self) -> bool:
        """Nothing fits here: take back the last choice. False if there is none."""
        if len(self._nodes) - 1 > len(self.best):
            chosen = [node.chosen for node in self._nodes[:-1]]
            self.best = [choice.operation for choice in chosen if choice is not None]
            self.best_state = self._nodes[-1].state
        node = self._nodes.pop()
        if node.answer is not None:
            self.stuck = max(self.stuck, node.answer.operation.answered or 0)
        if not self._nodes:
            return False
        last = self._nodes[-1].chosen
        assert last is not None
        self._done &= ~last.bit
        if isinstance(last, _Entry):
            last.put_back()
        return True


def _listed(operations: Iterable[Operation]) -> tuple[_Entry, list[_Open]]:
    """Calls and answers of what was answered, in order; and what was not."""
    events: list[tuple[int, _Entry]] = []
    opens: list[_Open] = []
    twins: dict[Hashable, int] = {}
    ordered = sorted(operations, key=lambda operation: operation.called)
    for number, operation in enumerate(ordered):
        bit = 1 << number
        if operation.answered is None:
            opens.append(_Open(operation, bit, twins.get(operation.asked, 0)))
            twins[operation.asked] = bit
            continue
        call, answer = _Entry(operation, bit), _Entry(operation, bit)
        call.answer = answer
        events += [(operation.called, call), (operation.answered, answer)]
    head = last = _Entry(Operation(-1, "", None, 0), 0)
    for _, entry in sorted(events, key=lambda event: event[0]):
        last.next, entry.prev = entry, last
        last = entry
    return head, opens


# --- what is broken -------------------------------------------------------------------------------


def _shortest(
    key: Hashable, operations: list[Operation], stuck: int, model: Model[S], limit: _Limit
) -> Broken:
    """No order got past `stuck`, so nothing shorter is broken; nearly always just that is. A
    beginning of an explained history is explained, so otherwise halve."""
    ends = sorted(o.answered for o in operations if o.answered is not None and o.answered >= stuck)

    def is_broken(until: int) -> bool:
        return _Search(_until(operations, until), model, limit).run() is Verdict.BROKEN

    until = ends[0]
    if not is_broken(until):
        until = ends[min(bisect_left(ends, True, lo=1, key=is_broken), len(ends) - 1)]
    culprit = next(o for o in operations if o.answered == until)
    part = _until(operations, until)
    search = _Search(part, model, limit)
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
