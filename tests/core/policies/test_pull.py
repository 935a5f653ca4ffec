"""Nothing is pushed: who asks gets tasks, in shrinking pieces."""

from __future__ import annotations

import msgspec

from p2psched.core.policies.base import Shares
from p2psched.core.policies.registry import POLICIES
from tests.core.policies.test_policies import ask, counted, notes, peer

PULL = POLICIES["pull"]


def share(count: int, *asking: int, slots: int = 2) -> Shares:
    candidates = [
        msgspec.structs.replace(peer(n, slots=slots, owned=0), asks=n in asking) for n in range(4)
    ]
    return PULL.share(ask(count), candidates, notes())


def test_who_does_not_ask_gets_nothing() -> None:
    assert share(1_000) == []
    assert len(share(1_000, 2)) == 1


def test_who_asks_gets_a_piece_that_leaves_some_for_the_others() -> None:
    (count,) = counted(share(80, 1)).values()
    assert count == 10
    assert counted(share(80, 1, 3)).total() == 20


def test_the_last_tasks_fill_the_slots_of_who_asks() -> None:
    assert counted(share(3, 0)).total() == 2
    assert counted(share(1, 0, 1)).total() == 1


def test_one_answer_brings_no_more_than_half_a_second_of_work() -> None:
    (count,) = counted(share(1_000_000, 0)).values()
    assert count == 2 * 50
