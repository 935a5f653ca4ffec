"""From where a task goes on: clusters of random holders, with silence, breaks and damage."""

from __future__ import annotations

import random
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2psched.core.resuming import (
    FIND_MS,
    PATIENCE_MS,
    TURN_MS,
    Ask,
    Budget,
    Search,
    Take,
    Wait,
    Without,
)
from p2psched.model.checkpoints import BYTES, Head
from p2psched.model.ids import PeerId

JOB: Final = "ab" * 16
ME: Final = PeerId("0" * 32)


def head(grant: int, number: int) -> Head:
    return Head(JOB, 0, grant, number, 0, 10, BYTES)


class World:
    """Peers with checkpoints, some damaged, some peers silent until a moment, some that break off
    once; and an owner that does what its search says."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        self.peers = [ME, *(PeerId(f"{n:032x}") for n in range(1, rng.randint(2, 6)))]
        self.away = {p for p in self.peers[1:] if rng.random() < 0.3}
        self.held = {
            p: tuple(head(rng.randint(1, 3), rng.randint(1, 9)) for _ in range(rng.randint(0, 2)))
            for p in self.peers
        }
        self.damaged = {
            (p, h.key) for p, heads in self.held.items() for h in heads if rng.random() < 0.25
        }
        # Who is away comes back at some time, or never; of the others a few answer nobody.
        self.from_ms = {
            p: rng.choice([0, 700, 4_000, 2 * PATIENCE_MS]) if p in self.away else 0
            for p in self.peers
        }
        self.from_ms |= {p: 10**9 for p in self.peers[1:] if rng.random() < 0.15}
        self.breaks = {p for p in self.peers[1:] if rng.random() < 0.2}
        self.has_run = rng.random() < 0.7
        self.now_ms = 0
        self.answers: list[tuple[int, PeerId]] = []
        self.takes: list[Take] = []

    def run(self) -> Take | Without:
        search = Search(
            ME,
            self.held[ME],
            live=[p for p in self.peers if p not in self.away],
            away=self.away,
            has_run=self.has_run,
            now_ms=0,
        )
        while True:
            step = search.next(self.now_ms)
            match step:
                case Ask(peers=peers):
                    self.answers += [(self.now_ms + self.rng.randint(1, 900), p) for p in peers]
                    self.answers.sort()
                case Wait(until_ms=until_ms):
                    assert until_ms > self.now_ms, "it would turn for ever"
                    at_ms, peer = self.answers[0] if self.answers else (until_ms, None)
                    self.now_ms = max(self.now_ms, min(at_ms, until_ms))
                    if peer is not None and at_ms <= until_ms:
                        self.answers.pop(0)
                        if self.from_ms[peer] <= self.now_ms:
                            search.on_heads(peer, self.held[peer])
                case Take(head=found, peer=peer):
                    self.takes.append(step)
                    if (peer, found.key) in self.damaged:
                        search.on_bad(found, peer, damaged=True)
                    elif peer in self.breaks:
                        self.breaks.discard(peer)
                        search.on_bad(found, peer, damaged=False)
                    else:
                        return step
                case Without():
                    return step

    def newest(self, at_ms: int) -> tuple[int, int] | None:
        """Of those that were there from then on, and sound."""
        return max(
            (
                h.key
                for p, heads in self.held.items()
                for h in heads
                if self.from_ms[p] <= at_ms and (p, h.key) not in self.damaged
                if self.has_run or p not in self.away  # nobody else is asked
            ),
            default=None,
        )


@pytest.mark.parametrize("block", range(10))
def test_it_goes_on_from_the_newest_sound_one_that_can_be_had(block: int) -> None:
    ends = set()
    for seed in range(block * 300, (block + 1) * 300):
        world = World(seed)
        broke = set(world.breaks)
        end = world.run()
        ends.add(type(end))
        assert world.now_ms <= PATIENCE_MS + FIND_MS, seed
        if isinstance(end, Without):
            patience_ms = PATIENCE_MS - 1_000 if world.has_run else 0
            if not broke:
                assert world.newest(patience_ms) is None, (seed, "somebody had one in time")
        else:
            assert (end.peer, end.head.key) not in world.damaged, seed
            live = {p: h for p, h in world.held.items() if p not in world.away and p not in broke}
            for peer, heads in live.items():
                for other in heads:
                    if world.from_ms[peer] == 0 and (peer, other.key) not in world.damaged:
                        assert other.key <= end.head.key, (seed, "a newer one was at hand")
    assert ends == {Take, Without}


def test_nobody_is_waited_for_before_a_first_attempt_but_those_that_live() -> None:
    away = PeerId("9" * 32)
    first = Search(ME, (), live=[], away=[away], has_run=False, now_ms=0)
    assert first.next(0) == Without((away,))
    again = Search(ME, (), live=[], away=[away], has_run=True, now_ms=0)
    assert again.next(0) == Ask((away,))
    assert isinstance(again.next(1), Wait)
    again.on_heads(away, [head(1, 1)])
    assert again.next(2) == Take(head(1, 1), away)


def test_a_successor_is_newer_whatever_an_old_owner_has_saved_since() -> None:
    other = PeerId("1" * 32)
    search = Search(ME, [head(5, 900)], live=[other], away=[], has_run=True, now_ms=0)
    search.next(0)
    search.on_heads(other, [head(6, 101)])
    assert search.next(1) == Take(head(6, 101), other)


def test_a_budget_is_saved_up_for_a_minute_and_never_overdrawn_twice() -> None:
    budget = Budget(60_000, 0)  # one byte a millisecond
    assert budget.wait_ms(0) == 0
    budget.spend(100_000, 0)  # larger than all that is there
    wait_ms = budget.wait_ms(0)
    assert wait_ms == 40_001
    assert budget.wait_ms(20_000) == 20_001
    assert budget.wait_ms(40_001) == 0
    assert budget.wait_ms(10**9) == 0
    budget.spend(60_000, 10**9)
    assert budget.wait_ms(10**9) == 1, "an hour of rest is worth a minute"
    assert Budget(0, 0).wait_ms(10**9) is None
    sent, budget = 0, Budget(1_000_000, 0)
    for now_ms in range(0, 600_000, 50):
        if budget.wait_ms(now_ms) == 0:
            budget.spend(70_000, now_ms)
            sent += 70_000
    assert sent <= 11 * 1_000_000 + 70_000


def test_whoever_saves_often_leaves_the_budget_to_others_in_their_turn() -> None:
    budget = Budget(60_000, 0)
    budget.spend(60_001, 0)
    often, seldom, third = 1, 2, 3
    assert budget.wait_ms(0, seldom) == 2
    assert budget.wait_ms(1, often) == 1
    assert budget.wait_ms(1, third) == 1
    assert budget.wait_ms(5, often) == TURN_MS, "the first in line has not come again yet"
    assert budget.wait_ms(6, seldom) == 0
    budget.spend(30_000, 6)
    assert (budget.wait_ms(30_007, seldom), budget.wait_ms(30_007, third)) == (TURN_MS, TURN_MS)
    assert budget.wait_ms(30_008, often) == 0
    budget.spend(1, 30_008)
    budget.leave(third)  # it has ended
    assert budget.wait_ms(30_009, seldom) == 0
    assert budget.wait_ms(30_009, often) == 0, "nobody waits, and there is something left"


@given(st.lists(st.integers(1, 5), min_size=2, max_size=5), st.integers(0, 2**32))
def test_each_task_is_copied_as_often_as_the_others_whatever_they_save(
    sizes: list[int], seed: int
) -> None:
    """All ask whenever they may, in any order; sizes differ by five."""
    rng = random.Random(seed)
    budget = Budget(1, 0)
    budget.spend(10, 0)
    went = dict.fromkeys(range(len(sizes)), 0)
    due = dict.fromkeys(went, 0)
    now_ms = 0
    while sum(went.values()) < 20:
        now_ms = min(due.values())
        who = rng.choice([one for one, at_ms in due.items() if at_ms == now_ms])
        wait_ms = budget.wait_ms(now_ms, who)
        assert wait_ms is not None
        if not wait_ms:
            budget.spend(sizes[who], now_ms)
            went[who] += 1
        due[who] = now_ms + wait_ms + rng.choice((0, 0, 1))
    assert max(went.values()) - min(went.values()) <= 2
