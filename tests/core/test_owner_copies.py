"""Large results at their owner: they wait for their copies before anybody is told."""

from __future__ import annotations

import msgspec
import pytest

from p2psched.core import outbox
from p2psched.core.owner import CopyBlobs, OwnerEffect
from p2psched.model.blob import ResultBlob
from p2psched.model.commands import Complete, Completed, Envelope, KeptGrant
from p2psched.model.execution import Batch, Ended, Progress
from p2psched.model.ids import PeerId
from p2psched.model.job import Cause, Segment
from p2psched.model.limits import ENTRY_BYTES_MAX, OUTPUTS_PER_TASK_MAX
from p2psched.model.taskset import EMPTY, TaskSet
from tests.core.test_machine import JOB, P, Q, blob_ref, ended
from tests.core.test_owner import GRANT, Work, tasks_of

HOLDERS = (P, Q)


def value(index: int, name: str = "") -> ResultBlob:
    return ResultBlob(index, name, blob_ref(index))


def with_values(segment: Segment) -> Segment:
    return msgspec.structs.replace(segment, blobs=tuple(value(i) for i in segment.tasks))


def large_finish(work: Work, batch: Batch) -> list[CopyBlobs]:
    """All tasks of a batch end with a large value each."""
    effects: list[OwnerEffect] = []
    for start, stop in batch.tasks.ranges:
        effects += work.owner.on_executed(Progress(batch.id, (with_values(ended(start, stop)),)))
    effects += work.owner.on_executed(Ended(batch.id, EMPTY))
    return [effect for effect in effects if isinstance(effect, CopyBlobs)]


def copied(work: Work, effect: CopyBlobs, holders: tuple[PeerId, ...] = HOLDERS) -> None:
    blobs = [msgspec.structs.replace(blob, holders=holders) for blob in effect.blobs]
    work.owner.on_copied(effect.number, blobs)


@pytest.fixture
def work() -> Work:
    return Work(TaskSet.of(0, 10))


@pytest.fixture
def wide() -> tuple[Work, Batch]:
    """A batch of many short tasks."""
    work = Work(TaskSet.of(0, 1000))
    for batch in work.start():
        work.finish(batch, busy_us=100)
    return work, work.start()[0]


def test_a_large_result_is_told_once_it_is_copied_and_with_its_holders(work: Work) -> None:
    batch = work.start()[0]
    (effect,) = large_finish(work, batch)
    assert (effect.blobs, effect.copies) == ((value(0),), 2)
    assert work.propose() == []
    copied(work, effect)
    (command,) = work.propose()
    (segment,) = command.segments
    assert segment.blobs == (msgspec.structs.replace(value(0), holders=HOLDERS),)


def test_a_small_result_does_not_wait_for_a_large_one(work: Work) -> None:
    first, second = work.start()
    large_finish(work, first)
    work.finish(second)
    assert [tasks_of(command) for command in work.propose()] == [[1]]


def test_results_that_wait_for_copies_are_kept_over_a_new_incarnation(work: Work) -> None:
    first, _ = work.start()
    (effect,) = large_finish(work, first)
    assert work.owner.kept() == (KeptGrant(JOB, GRANT, TaskSet.of(0, 10)),)
    copied(work, effect)
    work.propose()
    assert work.owner.kept() == (KeptGrant(JOB, GRANT, TaskSet.of(0, 10)),)
    work.owner.on_outcome(0, Completed(accepted=first.tasks))
    assert work.owner.kept() == (KeptGrant(JOB, GRANT, TaskSet.of(1, 10)),)


def test_what_is_revoked_while_it_is_copied_is_not_told(wide: tuple[Work, Batch]) -> None:
    work, batch = wide
    effects = large_finish(work, batch)
    assert sum(len(effect.blobs) for effect in effects) == len(batch.tasks)
    gone = batch.tasks.take(3)
    assert work.revoke(gone) == []
    for effect in effects:
        copied(work, effect)
    told = [i for command in work.propose() for i in tasks_of(command)]
    assert set(batch.tasks - gone) <= set(told)
    assert not set(gone) & set(told)
    assert not any(gone & kept.tasks for kept in work.owner.kept())


def test_what_is_revoked_as_a_whole_while_it_is_copied_leaves_nothing(work: Work) -> None:
    batch = work.start()[0]
    (effect,) = large_finish(work, batch)
    work.owner.on_revoked(JOB, GRANT, TaskSet.of(0, 10), Cause.CANCELLED)
    assert work.owner.kept() == ()
    copied(work, effect)
    assert work.propose() == []


def test_revoking_under_another_grant_leaves_what_is_copied(work: Work) -> None:
    (effect,) = large_finish(work, work.start()[0])
    work.owner.on_revoked(JOB, GRANT + 1, TaskSet.of(0, 10), Cause.PEER_LOST)
    copied(work, effect)
    assert [tasks_of(command) for command in work.propose()] == [[0]]


def test_a_result_that_nobody_could_copy_is_told_all_the_same(work: Work) -> None:
    (effect,) = large_finish(work, work.start()[0])
    copied(work, effect, holders=(P,))
    (command,) = work.propose()
    assert command.segments[0].blobs[0].holders == (P,)


def test_each_copy_has_its_number_and_none_is_answered_twice(work: Work) -> None:
    effects = [effect for batch in work.start() for effect in large_finish(work, batch)]
    assert [effect.number for effect in effects] == [1, 2]
    copied(work, effects[0])
    with pytest.raises(KeyError):
        copied(work, effects[0])


def test_nothing_starts_while_too_much_waits_for_copies(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "UNCOPIED_BYTES_MAX", blob_ref(1).size)
    first, second = work.start()
    (one,) = large_finish(work, first)
    (two,) = large_finish(work, second)
    assert work.start() == []
    copied(work, one)
    assert len(work.start()) > 0
    copied(work, two)


def test_results_with_many_large_parts_fit_an_entry_with_all_their_names() -> None:
    """Their data is nothing, their names are what an entry is full of."""
    work = Work(TaskSet.of(0, 200))
    batch = work.start()[0]
    run = work.owner._running[batch.id]
    run.left = TaskSet.of(0, 200)  # as if it were one batch
    names = [f"{number:0128d}" for number in range(OUTPUTS_PER_TASK_MAX)]
    blobs = tuple(value(index, name) for index in range(200) for name in names)
    segment = msgspec.structs.replace(ended(0, 200), blobs=blobs)
    holders = tuple(PeerId(f"{number:032x}") for number in range(batch.spec.copies))
    for effect in work.owner.on_executed(Progress(batch.id, (segment,))):
        assert isinstance(effect, CopyBlobs)
        copied(work, effect, holders)
    told: list[int] = []
    while commands := work.propose():
        size = sum(len(msgspec.msgpack.encode(Envelope(P, 1, command))) for command in commands)
        assert size <= ENTRY_BYTES_MAX
        told += [index for command in commands for index in tasks_of(command)]
        for number, command in enumerate(commands):
            assert isinstance(command, Complete)
            work.owner.on_outcome(number, Completed(TaskSet.from_indices(tasks_of(command))))
    assert told == list(range(200))


def test_what_ended_after_its_job_leaves_no_trace(work: Work) -> None:
    batch = work.start()[0]
    work.revoke(TaskSet.of(0, 10))
    work.owner.on_job_ended(JOB)
    work.finish(batch)
    assert work.owner._expected.of(JOB, batch.spec.work) == (None, True)
