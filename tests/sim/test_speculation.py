"""Late tasks that are begun once more: what that brings to the slowest tasks, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from p2psched.testing.speculation_sim import (
    EQUAL,
    HICCUPS,
    Slowness,
    measure,
    none,
    some_attempts,
    some_tasks,
)
from p2psched.testing.workloads import Machine

SHRINKS: tuple[tuple[str, Sequence[Machine], Slowness], ...] = (
    ("one in twenty attempts straggles", EQUAL, some_attempts),
    ("one peer of ten is slow for a minute, then the next", HICCUPS, none),
)
COSTS = (*SHRINKS, ("one in twenty tasks is long", EQUAL, some_tasks), ("nothing", EQUAL, none))


@pytest.mark.parametrize(("machines", "slowness"), [c[1:] for c in SHRINKS], ids=[*map(str, "ab")])
def test_the_slowest_tasks_end_sooner(machines: Sequence[Machine], slowness: Slowness) -> None:
    without = measure(machines, slowness, speculates=False)
    tail = measure(machines, slowness, speculates=True)
    assert tail.p99_us <= 0.6 * without.p99_us


@pytest.mark.parametrize(("machines", "slowness"), [c[1:] for c in COSTS], ids=[*map(str, "abcd")])
def test_the_extra_work_is_little(machines: Sequence[Machine], slowness: Slowness) -> None:
    without = measure(machines, slowness, speculates=False)
    tail = measure(machines, slowness, speculates=True)
    assert tail.busy_us <= 1.05 * without.busy_us


def test_where_nothing_is_late_nothing_is_begun_twice() -> None:
    assert measure(EQUAL, none, speculates=True).backups == 0


def test_what_is_long_by_itself_is_soon_left_alone() -> None:
    tail = measure(EQUAL, some_tasks, speculates=True)
    assert 0 < tail.backups <= 10


def test_the_same_workload_is_the_same_run() -> None:
    one, two = (measure(EQUAL, some_attempts, speculates=True) for _ in range(2))
    assert one == two
