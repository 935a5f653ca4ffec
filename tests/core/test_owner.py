"""The owner: queue, batches, results on their way, and what is taken away meanwhile."""

from __future__ import annotations

import msgspec
import pytest

from p2psched.core.machine import Machine
from p2psched.core.owner import Owner, OwnerEffect, StartBatch, StopBatch
from p2psched.model import chunks
from p2psched.model.commands import (
    Command,
    Complete,
    Completed,
    Envelope,
    KeptGrant,
    Place,
    SubmitJob,
)
from p2psched.model.execution import Batch, Committed, Ended, Progress
from p2psched.model.ids import JobId
from p2psched.model.job import Cause, Segment
from p2psched.model.limits import ENTRY_BYTES_MAX
from p2psched.model.taskset import EMPTY, TaskSet
from tests.core.test_machine import JOB, P, ended, spec, up

GRANT = 3


class Work:
    """An owner with two slots that was granted the tasks 0..9 of a job."""

    def __init__(self, tasks: TaskSet) -> None:
        self.machine = Machine()
        self._apply(up(P), SubmitJob(JOB, spec(tasks)), Place(JOB, tasks, P, 1))
        self.owner = Owner(self.machine, slots=2)
        self.owner.on_granted(self.machine.jobs[JOB], GRANT, tasks)

    def _apply(self, *commands: Command) -> None:
        index = self.machine.applied_index + 1
        envelopes = tuple(Envelope(P, 100 * index + i, c) for i, c in enumerate(commands))
        self.machine.apply(Committed(index, 0, 0, envelopes))

    def start(self) -> list[Batch]:
        return [e.batch for e in self.owner.start_batches() if isinstance(e, StartBatch)]

    def finish(self, batch: Batch, busy_us: int = 1_000_000) -> None:
        for start, stop in batch.tasks.ranges:
            segment = ended(start, stop, busy_us=busy_us * (stop - start))
            self.owner.on_executed(Progress(batch.id, (segment,)))
        self.owner.on_executed(Ended(batch.id, EMPTY))

    def revoke(self, tasks: TaskSet) -> list[OwnerEffect]:
        return self.owner.on_revoked(JOB, GRANT, tasks, Cause.PEER_LOST)

    def propose(self) -> list[Complete]:
        commands = [each for each in self.owner.next_round() if isinstance(each, Complete)]
        for number, command in enumerate(commands):
            self.owner.proposed(number, command)
        return commands


@pytest.fixture
def work() -> Work:
    return Work(TaskSet.of(0, 10))


def tasks_of(command: Complete) -> list[int]:
    return [index for segment in command.segments for index in segment.tasks]


def test_long_tasks_take_one_slot_each(work: Work) -> None:
    batches = work.start()
    assert [list(batch.tasks) for batch in batches] == [[0], [1]]
    assert work.start() == []
    work.finish(batches[0])
    assert [list(batch.tasks) for batch in work.start()] == [[2]]


def test_short_tasks_are_batched_and_one_batch_stands_ready_behind_each() -> None:
    work = Work(TaskSet.of(0, 100))
    first, second = work.start()
    work.finish(first, busy_us=10_000)
    work.finish(second, busy_us=10_000)
    batches = work.start()
    assert [len(batch.tasks) for batch in batches] == [10, 10, 10, 10]
    assert [batch.expected_us for batch in batches] == [100_000] * 4


def test_a_batch_names_its_fence_and_attempt(work: Work) -> None:
    batch = work.start()[0]
    assert (batch.grant, batch.attempt, batch.fence) == (GRANT, 1, "1.3.1")


def test_no_task_is_started_twice_under_one_grant() -> None:
    work = Work(TaskSet.of(0, 300))
    begun: list[int] = []
    for _ in range(1_000):
        batches = work.start()
        begun += [index for batch in batches for index in batch.tasks]
        for batch in batches:
            work.finish(batch, busy_us=500)
        if not batches:
            break
    assert sorted(begun) == list(range(300))


def test_what_never_began_is_started_again(work: Work) -> None:
    batch = work.start()[0]
    work.owner.on_executed(Ended(batch.id, batch.tasks))
    assert [list(again.tasks) for again in work.start()] == [list(batch.tasks)]


def test_one_round_of_results_is_in_flight_at_a_time(work: Work) -> None:
    first, second = work.start()
    work.finish(first)
    (command,) = work.propose()
    work.finish(second)
    assert work.propose() == []
    assert work.owner.on_outcome(0, Completed(accepted=first.tasks))
    (following,) = work.propose()
    assert (tasks_of(command), tasks_of(following)) == ([0], [1])


def test_results_of_a_round_leave_together(work: Work) -> None:
    for batch in work.start():
        work.finish(batch)
    (command,) = work.propose()
    assert tasks_of(command) == [0, 1]


def test_an_outcome_of_somebody_else_is_not_taken(work: Work) -> None:
    assert not work.owner.on_outcome(99, Completed())


def test_what_is_revoked_while_it_waits_is_never_started(work: Work) -> None:
    assert work.revoke(TaskSet.of(0, 9)) == []
    assert [list(batch.tasks) for batch in work.start()] == [[9]]


def test_what_is_revoked_while_it_runs_is_stopped_and_its_result_refused(work: Work) -> None:
    batch = work.start()[0]
    assert work.revoke(batch.tasks) == [StopBatch(batch.id, Cause.PEER_LOST)]
    work.finish(batch)
    assert work.propose() == []
    assert work.owner.results_refused == 1


def test_what_is_revoked_while_it_runs_is_not_started_again(work: Work) -> None:
    batch = work.start()[0]
    work.revoke(batch.tasks)
    work.owner.on_executed(Ended(batch.id, EMPTY))
    assert all(not again.tasks & batch.tasks for again in work.start())


def test_what_is_revoked_in_the_outbox_is_not_proposed(work: Work) -> None:
    first, second = work.start()
    work.finish(first)
    work.finish(second)
    work.revoke(first.tasks)
    (command,) = work.propose()
    assert tasks_of(command) == list(second.tasks)


def test_revoking_under_another_grant_touches_nothing(work: Work) -> None:
    batch = work.start()[0]
    assert work.owner.on_revoked(JOB, GRANT + 1, TaskSet.of(0, 10), Cause.PEER_LOST) == []
    assert work.owner.running_batch(JOB, 0) == batch.id
    assert work.owner.queued_count == 8


def test_a_batch_that_loses_some_tasks_brings_the_others_back_to_the_queue() -> None:
    work = Work(TaskSet.of(0, 1000))
    for batch in work.start():
        work.finish(batch, busy_us=100)
    batch = work.start()[0]
    taken = batch.tasks.take(3)
    assert work.revoke(taken) == [StopBatch(batch.id, Cause.PEER_LOST)]
    work.owner.on_executed(Ended(batch.id, batch.tasks))
    again = [index for started in work.start() for index in started.tasks]
    assert not set(again) & set(taken)
    assert (batch.tasks - taken).first in again


def test_everything_that_is_worked_on_is_kept(work: Work) -> None:
    first, second = work.start()
    work.finish(first)
    assert work.owner.kept() == (KeptGrant(JOB, GRANT, TaskSet.of(0, 10)),)
    work.propose()
    assert work.owner.kept() == (KeptGrant(JOB, GRANT, TaskSet.of(0, 10)),)
    work.owner.on_outcome(0, Completed(accepted=first.tasks))
    assert work.owner.kept() == (KeptGrant(JOB, GRANT, TaskSet.of(1, 10)),)
    assert work.owner.running_batch(JOB, second.tasks.first) == second.id


def test_events_of_an_unknown_batch_are_ignored(work: Work) -> None:
    work.owner.on_executed(Progress(77, (ended(0, 1),)))
    work.owner.on_executed(Ended(77, EMPTY))
    assert work.propose() == []


def test_a_begun_task_that_runs_again_has_a_fence_of_its_own() -> None:
    work = Work(TaskSet.of(0, 4))
    first, second = work.start()
    work.finish(first, busy_us=100)
    work.finish(second, busy_us=100)
    (batch,) = [b for b in work.start() if len(b.tasks) == 1][:1]
    work.revoke(EMPTY)
    work.owner.on_executed(Ended(batch.id, EMPTY))  # ended, though it had begun
    (again,) = [b for b in work.start() if b.tasks == batch.tasks]
    assert (again.grant, again.attempt) == (batch.grant, batch.attempt + 1)
    assert again.fence != batch.fence


def test_a_task_that_needs_many_slots_is_not_overtaken() -> None:
    work = Work(TaskSet.of(0, 10))
    wide = JobId("f" * 32)
    job = msgspec.structs.replace(spec(TaskSet.of(0, 1)), cpus=2)
    work._apply(SubmitJob(wide, job), Place(wide, TaskSet.of(0, 1), P, 1))
    first, second = work.start()
    work.owner._queue._entries.rotate(1)  # the wide task is next
    work.owner.on_granted(work.machine.jobs[wide], 5, TaskSet.of(0, 1))
    work.owner._queue._entries.rotate(1)
    work.finish(first)
    assert work.start() == []  # one slot is free, and kept for it
    work.finish(second)
    (batch,) = work.start()
    assert batch.job == wide


def test_large_results_travel_in_pieces_that_fit_an_entry() -> None:
    work = Work(TaskSet.of(0, 100))
    data = chunks.pack([b"x" * 60_000] * 16)
    for batch in work.start():
        work.finish(batch, busy_us=10)
    (batch, *_) = [b for b in work.start() if len(b.tasks) >= 16]
    start = batch.tasks.first
    work.owner.on_executed(Progress(batch.id, (Segment(start, start + 16, Cause.OK, data),)))
    sizes = []
    while commands := work.propose():
        sizes += [sum(len(s.data) for s in command.segments) for command in commands]
        for number in range(len(commands)):
            work.owner.on_outcome(number, Completed())
    assert sum(sizes) >= 16 * 60_000
    assert max(sizes) <= ENTRY_BYTES_MAX
