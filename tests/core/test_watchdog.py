"""The watchdog: what is a fault, when, and what is done about it, step by step."""

from __future__ import annotations

import pytest

from p2psched.core.watchdog import (
    LOOKS,
    PAUSE_MS_MAX,
    RELAPSE_MS,
    STEPS,
    Found,
    Over,
    Sight,
    Watchdog,
)
from p2psched.model.ids import JobId
from p2psched.model.stalls import Fault
from p2psched.model.taskset import TaskSet

PATIENCE_MS = 5_000
EVERY_MS = PATIENCE_MS // LOOKS
JOB = JobId("job")


def sight(key: object = 1, *, fault: Fault = Fault.EXECUTOR, reason: str = "") -> Sight:
    assert isinstance(key, (int, str))
    return Sight(fault, key, JOB, TaskSet.of(0, 3), "nothing begins", reason)


class Rig:
    def __init__(self) -> None:
        self.dog = Watchdog(PATIENCE_MS)
        self.now_ms = 0

    def see(self, *sights: Sight, for_ms: int) -> list[Found | Over]:
        """The same at each look."""
        said: list[Found | Over] = []
        for _ in range(for_ms // EVERY_MS):
            self.now_ms += EVERY_MS
            assert self.dog.is_due(self.now_ms)
            said += self.dog.look(self.now_ms, sights)
        return said

    def steps(self, *sights: Sight, for_ms: int) -> list[int]:
        return [said.step for said in self.see(*sights, for_ms=for_ms) if isinstance(said, Found)]


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_nothing_is_a_fault_before_it_has_lasted(rig: Rig) -> None:
    assert rig.see(sight(), for_ms=PATIENCE_MS) == []
    (found,) = rig.see(sight(), for_ms=EVERY_MS)
    assert isinstance(found, Found)
    assert (found.fault, found.step, found.lasted_ms, found.is_new) == (
        Fault.EXECUTOR, 1, PATIENCE_MS, True
    )  # fmt: skip


def test_what_has_a_right_reason_never_is_one_and_people_are_told(rig: Rig) -> None:
    assert rig.see(sight(reason="no slot is free"), for_ms=100_000) == []
    assert rig.dog.waits == {Fault.EXECUTOR: "no slot is free"}
    assert rig.see(for_ms=EVERY_MS) == []
    assert rig.dog.waits == {}


def test_who_goes_on_is_another_sight_each_time_and_no_fault(rig: Rig) -> None:
    for number in range(100):
        assert rig.see(sight(number), for_ms=EVERY_MS * (LOOKS - 1)) == []


@pytest.mark.parametrize("fault", Fault)
def test_steps_are_taken_one_after_another_and_all_again_ever_more_seldom(
    rig: Rig, fault: Fault
) -> None:
    last = STEPS[fault]
    for_ms = PATIENCE_MS * (last + 1)
    assert rig.steps(sight(fault=fault), for_ms=for_ms) == list(range(1, last + 1))
    hour = rig.steps(sight(fault=fault), for_ms=3_600_000)
    assert hour == [at % last + 1 for at in range(len(hour))]
    round_ms = PAUSE_MS_MAX + (last - 1) * PATIENCE_MS
    assert 3_600_000 // round_ms <= len(hour) // last < 3_600_000 // round_ms + 10


def test_what_is_stuck_otherwise_once_all_steps_are_taken_gets_the_gentle_ones_too(
    rig: Rig,
) -> None:
    """A batch that the workers had lost is given back, whatever step that took: the next one may
    be stuck in them (seed 910294)."""
    last = STEPS[Fault.EXECUTOR]
    rig.see(sight("lost"), for_ms=PATIENCE_MS * last + EVERY_MS)
    assert rig.steps(sight("stuck"), for_ms=3 * PATIENCE_MS) == [1, 2]
    relapse = Rig()
    relapse.see(sight("lost"), for_ms=PATIENCE_MS * last + EVERY_MS)
    relapse.see(for_ms=EVERY_MS)
    assert relapse.steps(sight("stuck"), for_ms=4 * PATIENCE_MS) == [last, 1, 2]


def test_once_something_begins_it_is_over_and_counted(rig: Rig) -> None:
    assert rig.steps(sight(), for_ms=2 * PATIENCE_MS + EVERY_MS) == [1, 2]
    assert rig.dog.now
    (over,) = rig.see(for_ms=3 * PATIENCE_MS)
    assert isinstance(over, Over)
    assert (over.fault, over.step) == (Fault.EXECUTOR, 2)
    assert (rig.dog.found, rig.dog.healed, rig.dog.now) == (1, 1, ())


def test_a_reason_for_one_look_ends_nothing(rig: Rig) -> None:
    """What was stuck waits for a slot for a moment, as it is brought to another process."""
    rig.see(sight(), for_ms=2 * PATIENCE_MS)
    assert rig.see(sight(reason="no slot is free"), for_ms=2 * EVERY_MS) == []
    assert rig.dog.now


def test_a_relapse_goes_on_where_healing_ended(rig: Rig) -> None:
    assert rig.steps(sight(), for_ms=3 * PATIENCE_MS + EVERY_MS) == [1, 2, 3]
    rig.see(for_ms=2 * PATIENCE_MS)
    assert rig.steps(sight(2), for_ms=PATIENCE_MS + EVERY_MS) == [3]
    rig.see(for_ms=2 * PATIENCE_MS + RELAPSE_MS)
    assert rig.steps(sight(3), for_ms=PATIENCE_MS + EVERY_MS) == [1]


def test_after_a_pause_of_the_process_nothing_has_lasted(rig: Rig) -> None:
    rig.see(sight(), for_ms=PATIENCE_MS - EVERY_MS)
    rig.now_ms += 60_000
    assert rig.see(sight(), for_ms=PATIENCE_MS) == []


def test_faults_are_healed_apart(rig: Rig) -> None:
    rig.see(sight(), for_ms=2 * PATIENCE_MS)
    both = sight(), sight(fault=Fault.QUEUE)
    said = rig.see(*both, for_ms=PATIENCE_MS + EVERY_MS)
    steps = {(one.fault, one.step) for one in said}
    assert steps == {(Fault.EXECUTOR, 2), (Fault.EXECUTOR, 3), (Fault.QUEUE, 1)}
