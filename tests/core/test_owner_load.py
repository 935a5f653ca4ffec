"""What an owner tells of its queue and its speed."""

from __future__ import annotations

import msgspec

from p2psched.core.expectations import KINDS_MAX, Expectations
from p2psched.core.kinds import kind_of
from p2psched.core.owner_load import LOOKED_AT_MAX
from p2psched.core.state import LedgerState
from p2psched.model.ids import JobId
from p2psched.model.load import LoadReport
from p2psched.model.load_news import QUEUED_MAX, SPEEDS_MAX
from tests.core.test_owner_ready import SLOTS, Peer, calls_of

JOB = JobId("a" * 32)
UNKNOWN_US = LedgerState().estimate_us


def work(path: str) -> int:
    return kind_of(calls_of(path).work)


def test_an_owner_without_tasks_is_idle() -> None:
    assert Peer().owner.load() == LoadReport(number=0, slots=SLOTS)


def test_slots_in_use_the_queue_and_its_time_are_told() -> None:
    peer = Peer()
    peer.grant(calls_of("m:f", 10))
    peer.start()
    load = peer.owner.load()
    assert (load.running, load.queue) == (SLOTS, 10 - SLOTS)
    assert load.queued == ((work("m:f"), 10 - SLOTS),)
    assert load.queue_us == 10 * peer.machine.estimate_us


def test_what_was_measured_counts_for_what_is_expected() -> None:
    peer = Peer()
    peer.learn(calls_of("m:f", 20), 40_000)
    peer.grant(calls_of("m:f", 10))
    load = peer.owner.load()
    assert (load.queue, load.queue_us) == (10, 10 * 40_000)
    (speed,) = load.speeds
    assert (speed.kind, speed.mean_us, speed.count) == (work("m:f"), 40_000, 20)


def test_tasks_that_need_several_slots_take_as_much_time_of_each() -> None:
    peer = Peer()
    wide = msgspec.structs.replace(calls_of("m:f", 4), cpus=2)
    peer.grant(wide)
    assert peer.owner.load().queue_us == 4 * 2 * peer.machine.estimate_us
    peer.start()
    assert peer.owner.load().running == SLOTS


def test_of_many_kinds_the_largest_are_named() -> None:
    peer = Peer()
    peer.grant(*(calls_of(f"m:f{n}", n + 1) for n in range(QUEUED_MAX + 4)))
    queued = peer.owner.load().queued
    assert [count for _, count in queued] == list(range(QUEUED_MAX + 4, 4, -1))


def test_of_a_very_long_queue_the_rest_is_taken_to_be_like_its_front() -> None:
    peer = Peer()
    peer.learn(calls_of("m:f"), 3_000)
    peer.grant(*[calls_of("m:f")] * (LOOKED_AT_MAX + 100))
    load = peer.owner.load()
    assert load.queue == LOOKED_AT_MAX + 100
    assert load.queue_us == 3_000 * (LOOKED_AT_MAX + 100)


# --- speeds ---------------------------------------------------------------------------------------


def measured(*times_us: int, count: int = 1) -> tuple[int, int, int]:
    found = Expectations()
    for task_us in times_us:
        found.on_measured(JOB, calls_of("m:f").work, task_us, count)
    (speed,) = found.speeds(1)
    return speed.mean_us, speed.spread_us, speed.count


def test_a_first_measurement_is_the_mean_and_half_of_it_the_spread() -> None:
    assert measured(1_000, count=7) == (1_000, 500, 7)


def test_equal_times_have_less_and_less_spread() -> None:
    mean_us, spread_us, count = measured(*[1_000] * 30)
    assert (mean_us, count) == (1_000, 30)
    assert spread_us < 5


def test_a_single_outlier_moves_the_spread_more_than_the_mean() -> None:
    mean_us, spread_us, _ = measured(*[1_000] * 30, 9_000)
    assert mean_us == 2_000
    assert 1_900 < spread_us < 2_100


def test_a_mean_of_many_tasks_moves_it_more_than_one_task() -> None:
    assert measured(1_000, 2_000, count=1)[0] == 1_125
    assert measured(1_000, 2_000, count=100)[0] == 1_500


def test_a_peer_that_has_become_slower_says_so_soon() -> None:
    mean_us, _, _ = measured(*[1_000] * 100, *[4_000] * 12)
    assert mean_us > 3_300


def test_speeds_are_those_measured_last_and_bounded() -> None:
    found = Expectations()
    for number in range(KINDS_MAX + 10):
        found.on_measured(JOB, calls_of(f"m:f{number}").work, 100)
    speeds = found.speeds(SPEEDS_MAX)
    last = range(KINDS_MAX + 10 - SPEEDS_MAX, KINDS_MAX + 10)
    assert [speed.kind for speed in speeds] == [work(f"m:f{number}") for number in last]
    assert len(found.speeds(10_000)) == KINDS_MAX
