"""Histories drawn from a seed, and a judge that knows nothing but trying all orders."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Sequence
from itertools import combinations, permutations
from typing import Any, Final

from p2psched.testing.linear_models import Locks, Queues, Registers, Tasks
from p2psched.testing.linearizable import History, Model, Operation

AnyModel = Model[Any]
Ask = Callable[[random.Random], tuple[Hashable, ...]]
FEW: Final = 3  # values and keys


def _register(rng: random.Random) -> tuple[Hashable, ...]:
    key, value = rng.randrange(2), rng.randrange(FEW)
    return rng.choice(
        (("read", key), ("write", key, value), ("swap", key, value, rng.randrange(FEW)))
    )


def _lock(rng: random.Random) -> tuple[Hashable, ...]:
    token = rng.randrange(1, 5)
    return rng.choice((("acquire", "l"), ("release", "l", token), ("write", "l", token)))


def _queue(rng: random.Random) -> tuple[Hashable, ...]:
    return rng.choice((("put", "q", rng.randrange(FEW)), ("take", "q")))


def _values(rng: random.Random) -> tuple[Hashable, ...]:
    """Nearly all different."""
    return rng.choice((("put", "q", rng.randrange(2, 100)), ("take", "q")))


def _task(rng: random.Random) -> tuple[Hashable, ...]:
    return rng.choice(
        (
            ("submit", "t"),
            ("place", "t"),
            ("place", "t"),
            ("lose", "t"),
            ("complete", "t", rng.randrange(1, 4), "succeeded"),
            ("cancel", "t"),
            ("look", "t"),
        )
    )


MODELS: Final[dict[str, tuple[AnyModel, Ask]]] = {
    "register": (Registers(0), _register),
    "lock": (Locks(), _lock),
    "queue": (Queues(), _queue),
    "task": (Tasks(), _task),
    "values": (Queues(), _values),
}
# Words whose answers are new numbers, one more than the newest.
_NUMBERED: Final = {"acquire", "place"}


def answers(model: AnyModel, state: Any, asked: tuple[Hashable, ...]) -> Hashable:
    """What is right here; of new numbers the least."""
    newest = getattr(state, "newest", 0)
    wanted: list[Hashable] = [newest + 1] if asked[0] in _NUMBERED else []
    wanted += [None, True, False, "accepted", "known", "duplicate", "stale", "waiting", "owned"]
    wanted += ["succeeded", "cancelled", *range(FEW)]
    # Values may equal True and False: what was asked says which is meant.
    if asked[0] == "read":
        wanted = [None, *range(FEW)]
    if asked[0] == "take":
        wanted = [None, *state]
    return next(answer for answer in wanted if model.step(state, asked, answer)[0])


def draw(
    kind: str, seed: int, *, count: int, clients: int, unanswered: float = 0.0, wrong: float = 0.0
) -> History:
    """`count` operations of concurrent clients, each at once at some moment; a share of them is
    never answered (and has happened or not), a share is answered wrong, perhaps."""
    model, ask = MODELS[kind]
    rng = random.Random(f"{kind} {seed}")
    history = History()
    states: dict[Hashable, Any] = {}
    under_way: dict[int, tuple[Operation, list[Hashable]]] = {}
    left = count
    while left or under_way:
        client = rng.randrange(clients)
        if client not in under_way:
            if left:
                left -= 1
                under_way[client] = (history.call(f"client {client}", ask(rng)), [])
            continue
        operation, told = under_way[client]
        if rng.random() < unanswered:
            del under_way[client]
        elif not told:
            asked = operation.asked
            assert isinstance(asked, tuple)
            state = states.setdefault(model.key(asked), model.initial())
            told.append(answers(model, state, asked))
            states[model.key(asked)] = model.step(state, asked, told[0])[1]
        else:
            answer = rng.choice((None, True, False, 1, 2, "stale", "owned"))
            history.answer(operation, answer if rng.random() < wrong else told[0])
            del under_way[client]
    return history


def has_an_order(operations: Sequence[Operation], model: AnyModel) -> bool:
    """By trying every order of every choice of what was not answered. Few operations only."""
    keys = {model.key(operation.asked) for operation in operations}
    return all(
        _one_key([o for o in operations if model.key(o.asked) == key], model) for key in keys
    )


def _one_key(operations: Sequence[Operation], model: AnyModel) -> bool:
    answered = [o for o in operations if o.answered is not None]
    opens = [o for o in operations if o.answered is None]
    return any(
        _explains(order, model)
        for size in range(len(opens) + 1)
        for chosen in combinations(opens, size)
        for order in permutations([*answered, *chosen])
    )


def _explains(order: Sequence[Operation], model: AnyModel) -> bool:
    state, latest_call = model.initial(), 0
    for operation in order:
        if operation.answered is not None and operation.answered < latest_call:
            return False  # it was over before one that is ordered before it was called
        latest_call = max(latest_call, operation.called)
        possible, state = model.step(state, operation.asked, operation.answer)
        if not possible:
            return False
    return True
