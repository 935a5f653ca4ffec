"""The search for an order of one key's operations: see `linearizable`.

Depth first, as Wing and Gong have it, with Lowe's memory: an order of the same operations that
ended in the same state is not tried twice. Cost: steps of the model, at worst exponential in how
many operations are under way at once.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Generic

from p2psched.testing.linear_history import Model, Operation, S, Verdict

LOOK_AT_CLOCK: Final = 1_024  # steps between two looks

Clock = Callable[[], float]


@dataclass(slots=True)
class Limit:
    """Of steps and of time; several searches may share one."""

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


class Search(Generic[S]):
    """Of one key, depth first.

    What fits and only looks is put in order at once: no order is worse for it. Else what was
    answered first comes first. Those without an answer are tried last, and only if they change
    something that the next operation doesn't undo: else the same order without them does."""

    def __init__(self, operations: Sequence[Operation], model: Model[S], limit: Limit) -> None:
        self._model = model.informed(operations)
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
                fits, after = self._step(node.state, candidate.operation)
                if (
                    fits
                    and after != node.state
                    and not self._is_undone(node, candidate.operation, after)
                ):
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
