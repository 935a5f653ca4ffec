"""The newest results in memory: what is served from them, and what they may take."""

from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from p2psched.model.commands import Recorded
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause, Segment
from p2psched.peer.result_writer import RECENT_BYTES_MAX, Recent

PEER = PeerId("b" * 32)
ENOUGH = 1 << 40


def recorded(job: JobId, position: int, size: int = 10) -> Recorded:
    return Recorded(job, 1, PEER, position, Segment(position, position + 1, Cause.OK, bytes(size)))


def positions(recent: Recent, job: JobId, position: int) -> list[int]:
    return recent.segments(job, position, ENOUGH).positions


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9))))
def test_what_was_dropped_is_gone_and_the_rest_stays_in_order(moves: list[tuple[str, int]]) -> None:
    """Of large segments only a few fit. A tenth of the moves drop a job."""
    size = RECENT_BYTES_MAX // 5
    recent = Recent()
    nexts = dict.fromkeys("abc", 0)
    kept: list[tuple[str, int]] = []
    for name, move in moves:
        if move == 0:
            recent.drop(JobId(name))
            kept = [entry for entry in kept if entry[0] != name]
        else:
            recent.add(recorded(JobId(name), nexts[name], size))
            kept.append((name, nexts[name]))
            nexts[name] += 1
            kept = kept[-4:]
    for name in "abc":
        wanted = [position for owner, position in kept if owner == name]
        first = wanted[0] if wanted else nexts[name]
        assert positions(recent, JobId(name), first) == wanted
        assert positions(recent, JobId(name), first - 1) == []


def test_results_of_many_small_jobs_take_no_more_than_they_may() -> None:
    recent = Recent()
    tracemalloc.start()
    try:
        for number in range(40_000):
            recent.add(recorded(JobId(f"{number:032x}"), 0))
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken < 1.5 * RECENT_BYTES_MAX


def test_dropped_jobs_leave_nothing_behind() -> None:
    recent = Recent()
    tracemalloc.start()
    try:
        for number in range(100_000):
            job = JobId(f"{number:032x}")
            recent.add(recorded(job, 0))
            recent.drop(job)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken < 1 << 20
