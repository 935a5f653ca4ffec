"""The checker agrees with trying everything, and with another checker; and says what it found."""

from __future__ import annotations

from typing import Any

import pytest

from p2psched.testing.linear_models import Queues, Registers
from p2psched.testing.linearizable import (
    EVERYTHING,
    UNKNOWN,
    History,
    Operation,
    Verdict,
    check,
)
from tests.linearizable.drawn import MODELS, draw, has_an_order
from tests.linearizable.second import second_opinion

KINDS = tuple(MODELS)
BOTH_KNOW = tuple(kind for kind in KINDS if kind != "values")  # the other takes millions of steps


def verdicts(kind: str, seeds: range, **drawn: Any) -> list[tuple[int, bool, bool]]:
    """Seed, what the checker says, what trying everything says."""
    model, _ = MODELS[kind]
    found = []
    for seed in seeds:
        operations = draw(kind, seed, **drawn).operations
        result = check(operations, model)
        assert result.verdict is not Verdict.UNKNOWN
        found.append((seed, result.ok, has_an_order(operations, model)))
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("count", "clients", "unanswered", "wrong"),
    [(5, 3, 0.0, 0.3), (5, 3, 0.15, 0.25), (6, 2, 0.1, 0.1)],
)
def test_it_says_what_trying_every_order_says(
    kind: str, count: int, clients: int, unanswered: float, wrong: float
) -> None:
    found = verdicts(
        kind, range(150), count=count, clients=clients, unanswered=unanswered, wrong=wrong
    )
    assert [seed for seed, said, true in found if said != true] == []
    assert {true for _, _, true in found} == {True, False}  # it had something to tell apart


@pytest.mark.parametrize("kind", BOTH_KNOW)
@pytest.mark.parametrize(
    ("count", "clients", "unanswered", "wrong"),
    [(12, 3, 0.03, 0.04), (40, 4, 0.0, 0.01), (25, 6, 0.01, 0.0)],
)
def test_it_agrees_with_another_checker(
    kind: str, count: int, clients: int, unanswered: float, wrong: float
) -> None:
    model, _ = MODELS[kind]
    said = []
    for seed in range(200):
        operations = draw(
            kind, seed, count=count, clients=clients, unanswered=unanswered, wrong=wrong
        ).operations
        result = check(operations, model)
        assert result.ok == second_opinion(operations, model), f"seed {seed}: {result.explain()}"
        said.append(result.ok)
    assert all(said) if not wrong else {*said} == {True, False}


def test_what_is_broken_is_told_by_the_shortest_beginning_that_shows_it() -> None:
    model, _ = MODELS["register"]
    seen = 0
    for seed in range(200):
        operations = draw("register", seed, count=8, clients=3, wrong=0.15).operations
        broken = check(operations, model).broken
        if broken is None:
            continue
        seen += 1
        assert not has_an_order(list(broken.operations), model)
        assert broken.culprit.answered == max(o.answered or 0 for o in broken.operations)
        # Without the last answer there is an order.
        until = (broken.culprit.answered or 0) - 1
        before = [
            Operation(o.number, o.client, o.asked, o.called, *said)
            for o in broken.operations
            if o.called <= until
            for said in [
                (o.answered, o.answer) if (o.answered or 0) <= until and o.answered else ()
            ]
        ]
        assert has_an_order(before, model)
    assert seen >= 50


def test_a_stale_read_is_explained_in_words() -> None:
    history = History()
    write = history.call("ann", ("write", "x", 1))
    early = history.call("bob", ("read", "x"))
    history.answer(write, True)
    again = history.call("ann", ("write", "x", 2))
    history.answer(again, True)
    history.answer(early, None)
    late = history.call("cleo", ("read", "x"))
    history.answer(late, 1)
    history.answer(history.call("ann", ("read", "x")), 2)
    assert check(history.operations, Registers()).explain().splitlines() == [
        "not linearizable: x; the first 4 operations show it",
        "no order of them has a place for   cleo: read x -> 1",
        "the longest order that explains what was answered before it",
        "  bob: read x -> None",
        "  ann: write x 1 -> True",
        "  ann: write x 2 -> True",
        "  and leaves   2",
        "when they were under way (>: no answer by then)",
        "  [---]              ann: write x 1 -> True",
        "    [-------]        bob: read x -> None",
        "        [-]          ann: write x 2 -> True",
        "              [-]    cleo: read x -> 1",
    ]


def test_a_search_that_takes_too_long_says_that_it_does_not_know() -> None:
    operations = draw("queue", 1, count=300, clients=30).operations
    model, _ = MODELS["queue"]
    assert check(operations, model, steps_max=100).verdict is Verdict.UNKNOWN
    ticking = iter(range(10_000_000))
    result = check(operations, model, budget_s=1, clock=lambda: float(next(ticking)))
    assert result.verdict is Verdict.UNKNOWN
    assert not result.ok
    assert "unknown" in result.explain()


def test_a_long_queue_that_many_put_into_at_once_is_no_long_search() -> None:
    """Whose put was first shows only when its value is taken, twenty others later."""
    history = History()
    for first in range(0, 400, 8):
        puts = [history.call(f"client {n}", ("put", "q", first + n)) for n in range(8)]
        for put in puts:
            history.answer(put, True)
        for back in (0, 1, 3, 2, 5, 4, 7, 6) if first >= 24 else ():
            history.answer(history.call("taker", ("take", "q")), first - 24 + back)
    result = check(history.operations, Queues(), steps_max=100_000)
    assert result.ok
    for value in (399, *range(377, 399), 376):  # one that was put last is taken first
        history.answer(history.call("taker", ("take", "q")), value)
    assert check(history.operations, Queues(), steps_max=100_000).verdict is Verdict.BROKEN


def test_one_broken_key_is_found_beside_one_that_takes_too_long() -> None:
    history = draw("queue", 1, count=300, clients=30)
    history.answer(history.call("ann", ("take", "other")), "from nowhere")
    result = check(history.operations, Queues(), steps_max=1_000)
    assert result.verdict is Verdict.BROKEN
    assert result.broken is not None
    assert result.broken.key == "other"


def test_what_certainly_has_not_happened_is_not_in_the_history() -> None:
    history = History()
    refused = history.call("ann", ("write", "x", 1))
    history.void(refused)
    history.answer(history.call("bob", ("read", "x")), None)
    assert check(history.operations, Registers()).ok


def test_an_operation_without_an_answer_happens_late_or_never() -> None:
    history = History()
    history.call("ann", ("write", "x", 1))
    for answer in (None, None, 1, 1):
        history.answer(history.call("bob", ("read", "x")), answer)
    assert check(history.operations, Registers()).ok
    history.answer(history.call("bob", ("read", "x")), None)
    assert check(history.operations, Registers()).verdict is Verdict.BROKEN


def test_a_known_end_without_a_known_answer_bounds_when_it_happened() -> None:
    history = History()
    history.answer(history.call("ann", ("write", "x", 1)), UNKNOWN)
    history.answer(history.call("bob", ("read", "x")), None)
    assert check(history.operations, Registers()).verdict is Verdict.BROKEN


class Doors(Registers):
    """All doors are closed at once."""

    def key(self, asked: object) -> Any:
        return EVERYTHING if asked == ("close all",) else super().key(asked)

    def step(self, state: Any, asked: object, answer: object) -> tuple[bool, Any]:
        return (True, "closed") if asked == ("close all",) else super().step(state, asked, answer)


def test_what_concerns_everything_is_part_of_the_history_of_each_key() -> None:
    history = History()
    for door in ("a", "b"):
        history.answer(history.call("ann", ("write", door, "open")), True)
    history.answer(history.call("bob", ("close all",)), True)
    history.answer(history.call("ann", ("read", "b")), "closed")
    result = check(history.operations, Doors())
    assert result.ok
    assert result.keys == 2
    history.answer(history.call("ann", ("read", "a")), "open")
    assert check(history.operations, Doors()).verdict is Verdict.BROKEN


@pytest.mark.parametrize(
    ("kind", "clients", "unanswered"),
    [("register", 8, 0.0), ("register", 20, 0.0), ("register", 8, 0.002), ("task", 10, 0.001)],
)
def test_ten_thousand_operations_are_judged_in_few_steps(
    kind: str, clients: int, unanswered: float
) -> None:
    """Steps, not seconds: the figure doesn't depend on the machine."""
    model, _ = MODELS[kind]
    operations = draw(kind, 1, count=10_000, clients=clients, unanswered=unanswered).operations
    result = check(operations, model, steps_max=2_000_000)
    assert result.ok, result.explain()
