"""The real clock."""

from __future__ import annotations

import time

from p2psched.observe.clock import BootClock
from p2psched.ports.clock import Clock


def test_boot_time_never_runs_backwards_and_is_the_machines() -> None:
    clock: Clock = BootClock()
    before = time.clock_gettime(time.CLOCK_BOOTTIME) * 1000 - 1
    first, second = clock.now_ms(), clock.now_ms()
    after = time.clock_gettime(time.CLOCK_BOOTTIME) * 1000
    assert before <= first <= second <= after


def test_wall_time_is_unix_time_in_milliseconds() -> None:
    before = time.time_ns() // 1_000_000
    assert before <= BootClock().wall_ms() <= time.time_ns() // 1_000_000
