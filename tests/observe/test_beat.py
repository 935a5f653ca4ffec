"""The one beat of a process: who has a period wakes with whoever has a part of it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from p2psched.observe import beat
from p2psched.observe.beat import BEAT_MS, until_beat

PERIODS_MS = (100, 200, 500, 1_000, 2_000, 5_000)


@given(now_ms=st.integers(0, 10**10), period_ms=st.sampled_from(PERIODS_MS))
def test_all_periods_meet_at_one_beat_and_none_comes_twice(now_ms: int, period_ms: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        loop = SimpleNamespace(time=lambda: now_ms / 1000)
        patch.setattr(asyncio, "get_running_loop", lambda: loop)
        left_ms = until_beat(period_ms / 1000) * 1000
    assert 0.1 * period_ms <= left_ms + 1e-3
    assert left_ms <= 1.1 * period_ms + 1e-3
    beats = (now_ms + left_ms - beat._PHASE_MS) / period_ms
    assert beats == pytest.approx(round(beats), abs=1e-3)


def test_sleepers_wake_in_the_same_turn() -> None:
    """Of uvloop, whose time stands still within a turn."""

    async def main() -> None:
        turn = 0
        woken: dict[int, set[int]] = {}

        async def sleeper(name: int) -> None:
            for _ in range(3):
                await asyncio.sleep(until_beat(BEAT_MS / 1000))
                woken.setdefault(turn, set()).add(name)

        async def turns() -> None:
            nonlocal turn
            while True:
                turn += 1
                await asyncio.sleep(0)

        async with asyncio.TaskGroup() as group:
            counting = group.create_task(turns())
            async with asyncio.TaskGroup() as sleepers:
                for name in range(5):
                    sleepers.create_task(sleeper(name))
            counting.cancel()
        assert list(woken.values()) == [set(range(5))] * 3

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
