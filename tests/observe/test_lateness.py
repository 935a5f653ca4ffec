"""How late the loop was, measured against a clock that the test turns."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest

from p2psched.observe.lateness import PERIOD_S, SAMPLES_MAX, SELDOM_S, WINDOW_S, LoopLateness


class Turns:
    """Time and sleep of a loop whose turns come as late as told; then it is cancelled."""

    def __init__(self, late_s: Iterable[float]) -> None:
        self.now = 1000.0
        self._late_s = iter(late_s)

    async def sleep(self, seconds: float) -> None:
        late = next(self._late_s, None)
        if late is None:
            raise asyncio.CancelledError
        self.now += seconds + late

    def measured(self) -> LoopLateness:
        lateness = LoopLateness(
            monotonic=lambda: self.now, sleep=self.sleep, until_next=lambda period_s: period_s
        )
        with pytest.raises(asyncio.CancelledError):
            asyncio.run(lateness.run())
        return lateness


def test_nothing_measured_is_nothing_late() -> None:
    lateness = LoopLateness()
    assert (lateness.p99_ms, lateness.max_ms) == (0.0, 0.0)


def test_the_latest_turn_and_the_99th_percentile_are_told_apart() -> None:
    lateness = Turns([0.001] * 197 + [0.020] * 2 + [0.5]).measured()
    assert lateness.max_ms == pytest.approx(500)
    assert lateness.p99_ms == pytest.approx(20)


def test_a_turn_that_comes_early_is_not_late() -> None:
    lateness = Turns([-0.01] * 3).measured()
    assert (lateness.p99_ms, lateness.max_ms) == (0.0, 0.0)


def test_what_is_over_a_minute_old_is_forgotten() -> None:
    turns = Turns([0.3] + [0.0] * 10)
    lateness = turns.measured()
    assert lateness.max_ms == pytest.approx(300)
    turns.now += WINDOW_S - 10.5 * PERIOD_S
    assert lateness.max_ms == pytest.approx(300)
    turns.now += PERIOD_S
    assert lateness.max_ms == 0


def test_memory_is_bounded() -> None:
    lateness = Turns([-PERIOD_S * 0.99] * (3 * SAMPLES_MAX)).measured()
    assert len(lateness._samples) == SAMPLES_MAX


def test_a_real_loop_that_is_held_up_is_seen() -> None:
    now = 0.0

    async def main() -> float:
        nonlocal now
        lateness = LoopLateness(
            monotonic=lambda: now, sleep=lambda _: asyncio.sleep(0), until_next=lambda _: PERIOD_S
        )
        async with asyncio.TaskGroup() as group:
            task = group.create_task(lateness.run())
            while lateness.max_ms == 0:
                now += 1.0  # a handler that takes a second of every turn
                await asyncio.sleep(0)
            task.cancel()
        return lateness.max_ms

    assert asyncio.run(main()) == pytest.approx(900)


def test_a_loop_at_which_nothing_happens_is_woken_seldom_for_its_lateness() -> None:
    waits: list[float] = []
    quiet = iter([False, True, True, False])

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    def is_quiet() -> bool:
        found = next(quiet, None)
        if found is None:
            raise asyncio.CancelledError
        return found

    lateness = LoopLateness(sleep=sleep, until_next=lambda period_s: period_s)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(lateness.run(is_quiet))
    assert waits == [PERIOD_S, SELDOM_S, SELDOM_S, PERIOD_S]
