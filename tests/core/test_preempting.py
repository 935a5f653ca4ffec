"""Who goes before whom, and whom the coordinator asks to make way."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from p2psched.core.jobs import Job
from p2psched.core.levels import KNOWN_LEVEL, PRECEDENCE_LEVEL
from p2psched.core.machine import Machine
from p2psched.core.preempting import LOOK_MS, TASKS_MAX, WAIT_MS, Preempting
from p2psched.core.snapshot import encode_machine, restore_machine
from p2psched.model.commands import Acknowledged, GiveBack, GivenBack, Place, Rejected
from p2psched.model.ids import PeerId
from p2psched.model.job import JobSpec
from p2psched.model.job_head import digest_of
from p2psched.model.needs import NOTHING, Needs, Offers
from p2psched.model.precedence import (
    JOB_PRIORITY_MAX,
    PREEMPTIONS_MAX,
    RUNS_MS_MAX,
    MakeWay,
    Precedence,
    Preempted,
    Way,
)
from p2psched.model.taskset import TaskSet
from tests.core.choosy_rig import A, B, C, Cluster, job_id, spec

GPU = Offers(gpus=1)


def low(count: int = 1, priority: int = -1, *, runs_ms: int = 0, cpus: int = 1) -> JobSpec:
    way = Precedence(priority, True, runs_ms)
    return replace(spec(count, cpus=cpus), checkpoint="state", precedence=way)


def high(
    count: int = 1, priority: int = 5, *, cpus: int = 1, needs: Needs | None = None
) -> JobSpec:
    return replace(spec(count, needs, cpus=cpus), precedence=Precedence(priority))


class Rig:
    """Peers of so many slots each, and what their coordinator would say."""

    def __init__(self, *peers: PeerId, slots: int = 1, offers: Offers = NOTHING) -> None:
        self.cluster = Cluster(dict.fromkeys(peers, offers), slots=slots)
        self.machine = self.cluster.machine
        self.preempting = Preempting(self.machine, self.cluster.coordinator.takers)
        self.now_ms = 0

    def own(self, number: int, wanted: JobSpec, *peers: PeerId) -> Job:
        """A job whose tasks these own, one each."""
        self.cluster.submit(number, wanted)
        for index, peer in enumerate(peers):
            self.cluster.do(Place(job_id(number), TaskSet.of(index, index + 1), peer, 1))
        return self.cluster.job(number)

    def wait(self, number: int, wanted: JobSpec) -> Job:
        self.cluster.submit(number, wanted)
        return self.cluster.job(number)

    def round(self, after_ms: int = LOOK_MS) -> list[tuple[PeerId, MakeWay]]:
        self.now_ms += after_ms
        return self.preempting.round(self.now_ms)

    def settled(self) -> list[tuple[PeerId, MakeWay]]:
        """What it says once all has waited for long enough."""
        self.round()
        return self.round(WAIT_MS)


def grants(job: Job) -> list[int]:
    return list(job.grants)


# --- the order of jobs ----------------------------------------------------------------------------


def test_higher_jobs_are_placed_first_and_older_ones_of_one_priority() -> None:
    cluster = Cluster({A: NOTHING}, slots=1)
    for number, priority in enumerate((0, 3, -2, 3)):
        cluster.submit(number, high(1, priority))
    order = []
    for _ in range(4):
        cluster.machine.estimate_us = 10_000_000  # no more than runs
        (placed,) = cluster.place()
        order.append(int(placed.job, 16))
        cluster.end(cluster.machine.jobs[placed.job])
    assert order == [1, 3, 0, 2]


def test_precedence_needs_a_level_that_older_versions_dont_know() -> None:
    cluster = Cluster({A: NOTHING}, level=PRECEDENCE_LEVEL - 1)
    for wanted in (low(), high()):
        refused = cluster.submit(1, wanted)
        assert isinstance(refused, Rejected)
        assert f"feature level {PRECEDENCE_LEVEL}" in refused.message
    back = GiveBack(job_id(1), 1, TaskSet.of(0, 1), by=job_id(2))
    assert isinstance(cluster.do(back), Rejected)
    assert PRECEDENCE_LEVEL <= KNOWN_LEVEL


def test_a_spec_without_it_has_the_digest_that_it_had() -> None:
    plain = spec(3)
    assert digest_of(plain).hex() == "f244d0b2e637ef12e992423b34077f56", "of before"
    assert digest_of(replace(plain, precedence=Precedence())) != digest_of(plain)
    assert digest_of(replace(plain, precedence=Precedence(1))) != digest_of(
        replace(plain, precedence=Precedence(2))
    )


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Precedence(JOB_PRIORITY_MAX + 1),
        lambda: Precedence(-JOB_PRIORITY_MAX - 1),
        lambda: Precedence(0, True, -1),
        lambda: Precedence(0, True, RUNS_MS_MAX + 1),
        lambda: replace(low(), checkpoint=""),
    ],
)
def test_what_there_can_not_be_is_refused(wrong: object) -> None:
    assert callable(wrong)
    with pytest.raises(ValueError, match=r"priority|left alone|checkpoint"):
        wrong()


# --- the ledger -----------------------------------------------------------------------------------


def test_what_makes_way_waits_again_at_no_cost_and_its_story_says_for_whom() -> None:
    rig = Rig(A)
    job = rig.own(1, low(), A)
    (grant,) = grants(job)
    task = TaskSet.of(0, 1)
    rig.cluster.stamped.clear()
    assert rig.cluster.do(GiveBack(job.id, grant, task, by=job_id(9))) == Acknowledged()
    events = [one.event for one in rig.cluster.stamped]
    assert events == [
        Preempted(job.id, grant, A, task, job_id(9)),
        GivenBack(job.id, grant, A, task),
    ]
    assert job.waiting == task
    assert [number for number, _ in job.attempts(task)] == [1]
    again = Machine()
    restore_machine(again, encode_machine(rig.machine))
    assert again.jobs[job.id].preempted == job.preempted
    assert list(again.ranked) == [job.id]


def test_a_repeat_of_it_counts_once() -> None:
    rig = Rig(A)
    job = rig.own(1, low(), A)
    back = GiveBack(job.id, grants(job)[0], TaskSet.of(0, 1), by=job_id(9))
    for _ in range(2):
        rig.cluster.do(back, request=700)
    assert job.preempted.at_least(1)
    assert not job.preempted.at_least(2)


# --- who is asked ---------------------------------------------------------------------------------


def test_a_job_that_finds_no_slot_has_the_lowest_and_youngest_make_way() -> None:
    rig = Rig(A, B, C)
    rig.own(1, low(priority=0), A)
    rig.own(2, low(2, priority=-3), B, C)
    job = rig.wait(3, high(1, 5))
    assert rig.round() == []
    assert rig.round(WAIT_MS - 1) == [], "a slot may be about to be free"
    youngest = grants(rig.cluster.job(2))[-1]
    said = MakeWay(job.id, 5, (Way(job_id(2), youngest, 1),))
    assert rig.round() == [(C, said)]
    assert rig.round(LOOK_MS - 1) == [], "not at each turn"
    assert rig.round(1) == [(C, said)], "of the same task, as long as it waits"


def test_as_many_make_way_as_tasks_wait_and_no_more() -> None:
    rig = Rig(A, B, C)
    rig.own(1, low(3), A, B, C)
    rig.wait(2, high(2))
    assert sorted(peer for peer, _ in rig.settled()) == [B, C]


def test_a_wide_task_needs_as_much_room_as_it_takes_and_takes_no_more() -> None:
    rig = Rig(A, B, slots=4)
    rig.own(1, low(1, cpus=2), A)
    rig.own(2, low(2, cpus=1), A, A)
    rig.own(3, low(1, cpus=4), B)
    rig.wait(4, high(1, cpus=3))
    ((peer, way),) = rig.settled()
    assert peer == B, "the youngest is enough"
    rig.cluster.end(rig.cluster.job(3))
    rig.own(5, high(1, cpus=4, priority=9), B)
    ((peer, way),) = rig.settled()
    assert (peer, sum(part.count for part in way.ways)) == (A, 2)


def test_equal_and_higher_ones_and_those_that_did_not_say_so_are_left_alone() -> None:
    rig = Rig(A, B, C)
    rig.own(1, low(priority=5), A)
    rig.own(2, high(1, -9), B)
    rig.own(3, spec(1), C)
    rig.wait(4, high(1, 5))
    assert rig.settled() == []


def test_where_the_task_does_not_fit_nobody_makes_way() -> None:
    rig = Rig(A, B, slots=2)
    rig.own(1, low(2, cpus=2), A, B)
    rig.wait(2, high(1, cpus=4))
    assert rig.settled() == []


def test_a_gpu_is_freed_by_who_has_it_though_slots_are_free() -> None:
    rig = Rig(A, slots=8, offers=GPU)
    needs = Needs(gpus=1)
    rig.own(1, low(), A)
    holder = rig.own(2, replace(low(), needs=needs), A)
    rig.wait(3, high(needs=needs))
    ((peer, way),) = rig.settled()
    assert (peer, way.ways) == (A, (Way(holder.id, grants(holder)[0], 1),))
    assert not way.unbegun


def test_what_an_owner_can_not_have_begun_is_asked_for_too() -> None:
    rig = Rig(A, slots=1)
    rig.own(1, low(3), A, A, A)
    rig.wait(2, high())
    ((_, way),) = rig.settled()
    assert way.unbegun


def test_nobody_makes_way_while_a_slot_is_free() -> None:
    rig = Rig(A, B)
    rig.own(1, low(), A)
    rig.wait(2, high())
    assert rig.settled() == []


def test_a_job_whose_tasks_find_slots_one_by_one_waits_on() -> None:
    rig = Rig(A, B)
    rig.own(1, low(2), A, B)
    job = rig.wait(2, high(3))
    rig.round()
    rig.cluster.end(rig.cluster.job(1), TaskSet.of(0, 1))
    rig.cluster.do(Place(job.id, TaskSet.of(0, 1), A, 1))
    assert rig.round(WAIT_MS) == []
    assert [peer for peer, _ in rig.round(WAIT_MS)] == [B]


def test_what_began_a_moment_ago_is_left_alone() -> None:
    rig = Rig(A)
    rig.round()
    rig.own(1, low(runs_ms=20_000), A)
    rig.wait(2, high())
    rig.round()
    assert rig.round(WAIT_MS) == []
    assert rig.round(20_000 - WAIT_MS - 1) == []
    assert rig.round() != []


def test_what_has_made_way_often_enough_is_left_alone() -> None:
    rig = Rig(A)
    job = rig.own(1, low(), A)
    for _ in range(PREEMPTIONS_MAX):
        rig.cluster.do(GiveBack(job.id, grants(job)[0], TaskSet.of(0, 1), by=job_id(2)))
        rig.cluster.do(Place(job.id, TaskSet.of(0, 1), A, 1))
    rig.wait(2, high())
    assert rig.settled() == []


def test_a_lost_owner_is_not_asked_and_one_that_leads_anew_knows_no_ages() -> None:
    rig = Rig(A, B)
    rig.own(1, low(2, runs_ms=60_000), A, B)
    rig.wait(2, high())
    rig.cluster.lose(B)
    assert [peer for peer, _ in rig.settled()] == [A]
    rig.preempting.forget()
    assert [peer for peer, _ in rig.settled()] == [A]


def test_one_round_asks_for_a_bounded_number() -> None:
    rig = Rig(A, B, slots=TASKS_MAX)
    rig.cluster.submit(1, low(2 * TASKS_MAX))
    for peer, first in ((A, 0), (B, TASKS_MAX)):
        rig.cluster.do(Place(job_id(1), TaskSet.of(first, first + TASKS_MAX), peer, 1))
    rig.wait(2, high(3 * TASKS_MAX))
    counts = [part.count for _, way in rig.settled() for part in way.ways]
    assert sum(counts) == TASKS_MAX
