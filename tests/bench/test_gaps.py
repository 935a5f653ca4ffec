"""Where the time of a job goes, part by part."""

from __future__ import annotations

import time

import pytest

from bench.gaps import NS_IN_MS, PARTS, TASK_NS, TASKS, parts_of
from bench.work import stamped


def ms(value: float) -> int:
    return int(value * NS_IN_MS)


def test_all_parts_of_two_slots_make_up_what_the_job_took_beyond_its_ideal() -> None:
    """One begins after 5 ms, the other after 7, and rests 3 ms longer once; a task takes 11 ms, and
    the next one begins 0.5 ms later."""
    found = []
    for slot, first_ms in ((1, 5.0), (2, 7.0)):
        at_ms = first_ms
        for number in range(TASKS // 2):
            found.append((ms(at_ms), ms(at_ms + 11), slot))
            at_ms += 11.5 + (3 if slot == 2 and number == 40 else 0)
    last_ms = 7 + 100 * 11 + 99 * 0.5 + 3
    parts = parts_of(0, ms(last_ms + 4), found)
    first, longer, longer_beyond, usual, beyond, idle, told, in_all = parts
    assert first == pytest.approx(6)
    assert (longer, longer_beyond) == pytest.approx((100, 0))
    assert usual == pytest.approx(49.5)
    assert beyond == pytest.approx(1.5)
    assert idle == pytest.approx(2.5)
    assert told == pytest.approx(4)
    assert in_all == pytest.approx(last_ms + 4 - TASKS * TASK_NS / NS_IN_MS / 2)
    assert sum(parts[:-1]) == pytest.approx(in_all)
    assert len(parts) == len(PARTS)


def test_a_task_says_when_it_began_and_ended() -> None:
    before_ns = time.monotonic_ns()
    began_ns, ended_ns, _ = stamped(3)
    assert before_ns <= began_ns
    assert ended_ns - began_ns >= TASK_NS
    assert ended_ns <= time.monotonic_ns()
