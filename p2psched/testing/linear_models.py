"""Models for `linearizable`: what a register, a lock, a task and a queue do, one thing at a time.

What is asked is a tuple: a word, the key, and what the word needs. A model refuses words that it
doesn't know. Unknown numbers (of tokens and grants that nobody was told) are counted as the least
that they can have been.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from math import inf
from typing import ClassVar, NamedTuple, Self

from p2psched.testing.linearizable import UNKNOWN, Operation

Asked = tuple[Hashable, ...]


Looks = Mapping[str, tuple[Hashable, ...] | None]


class _Keyed:
    """The key is the second word. `looks`: words, and the answers with which they change nothing;
    None for whatever answer."""

    looks: ClassVar[Looks] = {}

    def key(self, asked: object) -> Hashable:
        assert isinstance(asked, tuple)
        key: Hashable = asked[1]
        return key

    def only_looks(self, asked: object, answer: object) -> bool:
        assert isinstance(asked, tuple)
        answers = self.looks.get(asked[0], ())
        return answers is None or answer in answers

    def informed(self, operations: Sequence[Operation]) -> Self:  # noqa: ARG002
        return self

    def words(self, state: object) -> str:
        return str(state)


def _is(answer: object, right: object) -> bool:
    return answer is UNKNOWN or answer == right


class Registers(_Keyed):
    """`("read", key)` -> value; `("write", key, value)` -> True; `("swap", key, old, new)` ->
    whether it was `old`. `first` is what all hold at first."""

    looks: ClassVar[Looks] = {"read": None, "swap": (False,)}

    def __init__(self, first: Hashable = None) -> None:
        self._first = first

    def initial(self) -> Hashable:
        return self._first

    def step(self, state: Hashable, asked: object, answer: object) -> tuple[bool, Hashable]:
        match asked:
            case ("read", _):
                return _is(answer, state), state
            case ("write", _, value):
                return _is(answer, True), value
            case ("swap", _, old, new):
                fits = state == old
                return _is(answer, fits), new if fits else state
        raise ValueError(f"not for a register: {asked!r}")


class LockState(NamedTuple):
    """`holder`: the token, None if it is free, 0 if nobody knows it. `seen`: by whom it guards."""

    holder: int | None = None
    newest: int = 0  # token that was given, at least
    seen: int = 0

    def __str__(self) -> str:
        who = "free" if self.holder is None else f"held by {self.holder or 'somebody unknown'}"
        return f"{who}, newest token {self.newest}, newest that wrote {self.seen}"


class Locks(_Keyed):
    """`("acquire", key)` -> a token, newer than all before, or None if it is held;
    `("release", key, token)` -> whether it was held under this token; `("write", key, token)` ->
    whether the guarded thing took it: not if a newer token has written."""

    looks: ClassVar[Looks] = {"acquire": (None,), "release": (False,), "write": (False,)}

    def initial(self) -> LockState:
        return LockState()

    def step(self, state: LockState, asked: object, answer: object) -> tuple[bool, LockState]:
        match asked:
            case ("acquire", _):
                return self._acquire(state, answer)
            case ("release", _, token):
                held = state.holder is not None and state.holder == token
                return _is(answer, held), state._replace(holder=None) if held else state
            case ("write", _, int() as token):
                newest = token >= state.seen
                return _is(answer, newest), state._replace(seen=max(state.seen, token))
        raise ValueError(f"not for a lock: {asked!r}")

    def _acquire(self, state: LockState, answer: object) -> tuple[bool, LockState]:
        if state.holder is not None:
            return _is(answer, None), state
        if answer is UNKNOWN:
            return True, state._replace(holder=0, newest=state.newest + 1)
        if not isinstance(answer, int) or answer <= state.newest:
            return False, state
        return True, state._replace(holder=answer, newest=answer)


class Queues(_Keyed):
    """First in, first out. `("put", key, value)` -> True; `("take", key)` -> the oldest value, None
    if there is none."""

    looks: ClassVar[Looks] = {"take": (None,)}

    def __init__(self, times: Mapping[Hashable, tuple[float, float]] | None = None) -> None:
        """`times`: between which each was taken, of values that are put once."""
        self._times = times or {}

    def informed(self, operations: Sequence[Operation]) -> Self:
        """Of two that were put at once nobody knows the order until they are taken."""
        puts: Counter[Hashable] = Counter()
        takes: list[Operation] = []
        for operation in operations:
            match operation.asked:
                case ("put", _, value):
                    puts[value] += 1
                case _:
                    takes.append(operation)
        del puts[None]  # to take it looks as if there were nothing
        times: dict[Hashable, tuple[float, float]] = {}
        if all(take.answered is not None and take.answer is not UNKNOWN for take in takes):
            times = dict.fromkeys((v for v, count in puts.items() if count == 1), (inf, inf))
        for take in takes:
            if (
                take.answered is not None
                and isinstance(take.answer, Hashable)
                and puts[take.answer] == 1
            ):
                times[take.answer] = (take.called, take.answered)
        return type(self)(times)

    def initial(self) -> tuple[Hashable, ...]:
        return ()

    def step(
        self, state: tuple[Hashable, ...], asked: object, answer: object
    ) -> tuple[bool, tuple[Hashable, ...]]:
        match asked:
            case ("put", _, value):
                fits = _is(answer, True) and not self._is_too_late(value, state)
                return fits, (*state, value)
            case ("take", _):
                return _is(answer, state[0] if state else None), state[1:]
        raise ValueError(f"not for a queue: {asked!r}")

    def _is_too_late(self, value: Hashable, waiting: tuple[Hashable, ...]) -> bool:
        """It was taken before something that would be ahead of it."""
        if value not in self._times:
            return False
        _, until = self._times[value]
        return any(ahead in self._times and self._times[ahead][0] > until for ahead in waiting)


class TaskState(NamedTuple):
    """`owner`: the grant, None if the task waits, 0 if nobody knows it."""

    known: bool = False
    owner: int | None = None
    newest: int = 0  # grant, at least
    said: frozenset[int] = frozenset()  # grants that had their say
    ended: str = ""  # how

    def look(self) -> str | None:
        if not self.known:
            return None
        return self.ended or ("waiting" if self.owner is None else "owned")

    def __str__(self) -> str:
        by = f" by {self.owner or 'an unknown grant'}" if self.owner is not None else ""
        return f"{self.look() or 'no such task'}{by}, newest grant {self.newest}"


class Tasks(_Keyed):
    """Ownership by grants. `("submit", key)` -> "accepted" or "known"; `("place", key)` -> a grant,
    newer than all before, or None if it can't be placed; `("lose", key)` -> True, and it waits if
    it was owned; `("complete", key, grant, how)` -> "accepted", "duplicate" or "stale";
    `("cancel", key)` -> True, or False if it isn't known; `("look", key)` -> "waiting", "owned",
    how it ended, or None if it isn't known."""

    looks: ClassVar[Looks] = {
        "submit": ("known",),
        "place": (None,),
        "complete": ("duplicate", "stale"),
        "cancel": (False,),
        "look": None,
    }

    def initial(self) -> TaskState:
        return TaskState()

    def step(self, state: TaskState, asked: object, answer: object) -> tuple[bool, TaskState]:
        match asked:
            case ("submit", _):
                return _is(answer, "known" if state.known else "accepted"), state._replace(
                    known=True
                )
            case ("place", _):
                return self._place(state, answer)
            case ("lose", _):
                return _is(answer, True), state._replace(owner=None)
            case ("complete", _, int() as grant, str() as how):
                return self._complete(state, grant, how, answer)
            case ("cancel", _):
                ends = state.known and not state.ended
                after = state._replace(owner=None, ended="cancelled") if ends else state
                return _is(answer, state.known), after
            case ("look", _):
                return _is(answer, state.look()), state
        raise ValueError(f"not for a task: {asked!r}")

    def _place(self, state: TaskState, answer: object) -> tuple[bool, TaskState]:
        if state.look() != "waiting":
            return _is(answer, None), state
        if answer is UNKNOWN:
            return True, state._replace(owner=0, newest=state.newest + 1)
        if not isinstance(answer, int) or answer <= state.newest:
            return False, state
        return True, state._replace(owner=answer, newest=answer)

    def _complete(
        self, state: TaskState, grant: int, how: str, answer: object
    ) -> tuple[bool, TaskState]:
        if state.owner is not None and state.owner == grant:
            after = state._replace(owner=None, ended=how, said=state.said | {grant})
            return _is(answer, "accepted"), after
        right = "duplicate" if grant in state.said else "stale"
        return _is(answer, right), state
