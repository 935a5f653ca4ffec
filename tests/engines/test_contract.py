"""The contract of port `Ledger`, the same for every engine that can carry the scheduler."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Awaitable, Callable
from typing import Final

import pytest

from tests.engines.embedded import EmbeddedGroup
from tests.engines.on_raftos import RaftosGroup
from tests.engines.rig import FIRST, Group, envelopes
from tests.engines.simulated import SimulatedGroup

NO_RAFTOS: Final = "raftos is not installed: make setup-raftos"
needs_raftos = pytest.mark.skipif(importlib.util.find_spec("raftos") is None, reason=NO_RAFTOS)

Make = Callable[[int], Group]
Scenario = Callable[[Group], Awaitable[None]]


@pytest.fixture(
    params=[
        pytest.param(EmbeddedGroup, id="embedded"),
        pytest.param(SimulatedGroup, id="simulated"),
        pytest.param(RaftosGroup, id="raftos", marks=needs_raftos),
    ]
)
def make(request: pytest.FixtureRequest) -> Make:
    kind: Make = request.param
    return kind


def run(group: Group, scenario: Scenario) -> None:
    async def main() -> None:
        await group.found()
        try:
            await scenario(group)
        finally:
            await group.close()

    asyncio.run(main())


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_everybody_sees_the_same_entries_in_the_same_order_without_gaps(
    make: Make, size: int
) -> None:
    async def scenario(group: Group) -> None:
        await group.lead()
        for number, peer in enumerate(group.ids):  # those of others go to the leader
            group.append(peer, envelopes(100 * number, 50))
        for number in range(size):
            await group.commit(100 * number, 50)  # what was lost is proposed again
        one, *others = group.listeners.values()
        length = len(one.batches)
        await group.until(lambda: all(len(other.batches) >= length for other in others))
        for other in others:
            assert other.batches[:length] == one.batches
        first_seen = list(dict.fromkeys(one.requests))
        for number in range(size):  # one call's proposals are never reordered
            start = FIRST + 100 * number
            assert [r for r in first_seen if start <= r < start + 50] == list(
                range(start, start + 50)
            )

    run(make(size), scenario)


def test_ledger_time_never_runs_backwards_over_leaders_and_restarts(make: Make) -> None:
    async def scenario(group: Group) -> None:
        for number in range(3):
            leader = await group.commit(number)
            await group.kill(leader)
            await group.lead()
            await group.start(leader)
        await group.commit(3)
        stamps = [batch.stamp_ms for batch in group.listeners[group.ids[0]].batches]
        assert stamps == sorted(stamps)
        assert stamps[-1] > 0

    run(make(3), scenario)


def test_who_was_away_gets_all_that_it_missed(make: Make) -> None:
    async def scenario(group: Group) -> None:
        leader = await group.commit(0)
        away = next(peer for peer in group.ids if peer != leader)
        group.cut.add(away)
        await group.commit(1, 200)
        had = len(group.listeners[away].batches)
        group.cut.clear()
        await group.commit(201)
        batches = group.listeners[away].batches
        assert len(batches) > had
        other = group.listeners[leader].batches
        length = min(len(batches), len(other))
        assert batches[:length] == other[:length]

    run(make(3), scenario)


def test_what_a_majority_has_seen_survives_the_end_of_every_process(make: Make) -> None:
    async def scenario(group: Group) -> None:
        await group.commit(0, 20)
        acknowledged = {peer: list(group.listeners[peer].batches) for peer in group.ids}
        for peer in group.ids:
            await group.kill(peer)
        for peer in group.ids:
            await group.start(peer)
        await group.commit(20)
        for peer, batches in acknowledged.items():
            assert group.listeners[peer].batches[: len(batches)] == batches

    run(make(3), scenario)


def test_a_minority_commits_nothing_and_answers_no_read(make: Make) -> None:
    async def scenario(group: Group) -> None:
        leader = await group.commit(0)
        listener = group.listeners[leader]
        group.cut |= {peer for peer in group.ids if peer != leader}
        group.append(leader, envelopes(1, 1))
        await group.until(lambda: listener.coordinator is None)
        group.append(leader, envelopes(2, 1))
        found: list[int | None] = []
        group.read_index(leader, found.append)
        await group.until(lambda: found)
        assert found == [None]
        assert listener.requests == [FIRST]

    run(make(3), scenario)


def test_half_of_an_even_group_commits_nothing(make: Make) -> None:
    async def scenario(group: Group) -> None:
        leader = await group.commit(0)
        _, *others = [peer for peer in group.ids if peer != leader]
        group.cut |= set(others)
        half = group.well()
        assert len(half) == 2
        await group.until(lambda: all(x.coordinator is None for x in half))
        for listener in half:
            group.append(listener.me, envelopes(1, 1))
        found: list[int | None] = []
        group.read_index(leader, found.append)
        await group.until(lambda: found)
        assert found == [None]
        assert all(x.requests == [FIRST] for x in group.listeners.values())
        group.cut.clear()
        await group.commit(2)

    run(make(4), scenario)


@pytest.mark.parametrize("member", [0, 1, 2])
def test_a_read_index_covers_everything_committed_before_it_on_any_member(
    make: Make, member: int
) -> None:
    async def scenario(group: Group) -> None:
        leader = await group.commit(0, 5)
        committed = len(group.listeners[leader].batches)
        found: list[int | None] = []
        while not found or found[-1] is None:  # an election may come in between
            asked = len(found)
            group.read_index(group.ids[member], found.append)
            await group.until(lambda asked=asked: len(found) > asked)  # type: ignore[misc]
        assert found[-1] >= committed

    run(make(3), scenario)


def test_a_new_leader_coordinates_only_after_everything_older_was_delivered(make: Make) -> None:
    async def scenario(group: Group) -> None:
        first = await group.commit(0, 20)
        committed = len(group.listeners[first].batches)
        group.cut.add(first)
        second = await group.commit(20)
        assert second != first
        assert group.listeners[second].led_at[-1] >= committed
        await group.until(lambda: group.listeners[first].coordinator is None)
        assert group.listeners[first].requests == list(range(FIRST, FIRST + 20))

    run(make(3), scenario)


def test_entries_of_any_size_that_the_scheduler_makes_go_through(make: Make) -> None:
    async def scenario(group: Group) -> None:
        await group.commit(0, 3, size=200_000)
        leader = await group.commit(3, 40, size=20_000)
        assert all(x.ours == group.listeners[leader].ours for x in group.well())

    run(make(3), scenario)
