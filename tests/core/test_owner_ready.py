"""What an owner expects of a new job, and how much of it stands ready."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from p2psched.core.batch_sizes import BATCH_US, READY_MAX, READY_US
from p2psched.core.expectations import KINDS_MAX, Expectations
from p2psched.core.machine import Machine
from p2psched.core.owner import Owner, StartBatch
from p2psched.model import chunks
from p2psched.model.commands import Command, Envelope, Place, SubmitJob
from p2psched.model.execution import Batch, Committed, Ended, Progress
from p2psched.model.ids import JobId
from p2psched.model.job import FunctionWork, JobSpec, ProgramWork
from p2psched.model.taskset import EMPTY, TaskSet
from tests.core.test_machine import P, ended, spec, up

SLOTS = 2


def calls_of(path: str, tasks: int = 1) -> JobSpec:
    work = FunctionWork(path, b"", (chunks.pack([b""] * tasks),), tasks, "3.11")
    return msgspec.structs.replace(spec(TaskSet.of(0, tasks)), work=work)


class Peer:
    """An owner with two slots, and jobs that come one after another."""

    def __init__(self) -> None:
        self.machine = Machine()
        self._apply(up(P))
        self.owner = Owner(self.machine, slots=SLOTS)
        self._count = 0

    def _apply(self, *commands: Command) -> None:
        index = self.machine.applied_index + 1
        envelopes = tuple(Envelope(P, 100 * index + i, c) for i, c in enumerate(commands))
        self.machine.apply(Committed(index, 0, 0, envelopes))

    def grant(self, *jobs: JobSpec) -> list[JobId]:
        ids = []
        for job in jobs:
            self._count += 1
            ids.append(JobId(f"{self._count:032x}"))
            grant = self.machine.applied_index + 1
            self._apply(SubmitJob(ids[-1], job), Place(ids[-1], job.tasks, P, 1))
            self.owner.on_granted(self.machine.jobs[ids[-1]], grant, job.tasks)
        return ids

    def start(self) -> list[Batch]:
        return [e.batch for e in self.owner.start_batches() if isinstance(e, StartBatch)]

    def finish(self, batches: Sequence[Batch], task_us: int) -> None:
        for batch in batches:
            for start, stop in batch.tasks.ranges:
                segment = ended(start, stop, busy_us=task_us * (stop - start))
                self.owner.on_executed(Progress(batch.id, (segment,)))
            self.owner.on_executed(Ended(batch.id, EMPTY))

    def learn(self, job: JobSpec, task_us: int) -> None:
        (job_id,) = self.grant(job)
        while batches := self.start():
            self.finish(batches, task_us)
        self.owner.on_job_ended(job_id)


def test_jobs_of_an_unknown_function_take_one_slot_each() -> None:
    peer = Peer()
    peer.grant(*[calls_of("m:f")] * 9)
    assert len(peer.start()) == SLOTS


def test_single_tasks_of_a_function_that_is_known_to_be_short_stand_ready() -> None:
    peer = Peer()
    peer.learn(calls_of("m:f"), 100)
    jobs = peer.grant(*[calls_of("m:f")] * 9)
    batches = peer.start()
    assert [batch.job for batch in batches] == jobs
    assert {batch.expected_us for batch in batches} == {100}


def test_no_more_stands_ready_than_a_named_amount_of_work() -> None:
    peer = Peer()
    peer.learn(calls_of("m:f"), 5_000)
    peer.grant(*[calls_of("m:f")] * 50)
    batches = peer.start()
    assert len(batches) == SLOTS * READY_US // 5_000
    peer.finish(batches[:1], 5_000)
    assert len(peer.start()) == 1


def test_no_more_stands_ready_than_a_named_number_of_batches() -> None:
    peer = Peer()
    peer.learn(calls_of("m:f"), 1)
    peer.grant(*[calls_of("m:f")] * 100)
    assert len(peer.start()) == SLOTS * READY_MAX


def test_a_function_that_took_long_once_is_not_thought_to_be_short() -> None:
    peer = Peer()
    peer.learn(calls_of("m:f"), 100)
    peer.learn(calls_of("m:f"), 10_000_000)
    peer.grant(*[calls_of("m:f")] * 9)
    assert len(peer.start()) == SLOTS


def test_what_is_known_of_one_function_says_nothing_of_another() -> None:
    peer = Peer()
    peer.learn(calls_of("m:f"), 100)
    peer.grant(*[calls_of("m:g")] * 9)
    assert len(peer.start()) == SLOTS


def test_a_batch_that_rests_on_a_guess_is_short_even_if_tasks_take_a_hundred_times_as_long() -> (
    None
):
    peer = Peer()
    peer.learn(calls_of("m:f"), 50)
    peer.grant(calls_of("m:f", 1_000))
    batches = peer.start()
    assert all(len(batch.tasks) * 50 * 100 <= BATCH_US for batch in batches)
    peer.finish(batches[:1], 50)
    assert any(len(batch.tasks) > 100 for batch in peer.start())


def test_what_is_measured_of_a_job_counts_more_than_what_is_known_of_its_function() -> None:
    expectations = Expectations()
    work = calls_of("m:f").work
    expectations.on_measured(JobId("a" * 32), work, 100)
    expectations.on_measured(JobId("b" * 32), work, 300)
    assert expectations.of(JobId("a" * 32), work) == (100, False)
    assert expectations.of(JobId("c" * 32), work) == (200, True)


def test_a_command_line_is_known_by_all_its_words() -> None:
    expectations = Expectations()
    expectations.on_measured(JobId("a" * 32), ProgramWork(("sleep", "1")), 100)
    assert expectations.of(JobId("b" * 32), ProgramWork(("sleep", "1"))) == (100, True)
    assert expectations.of(JobId("b" * 32), ProgramWork(("sleep", "2"))) == (None, True)


def test_programs_are_not_split_into_batches_that_are_hardly_worth_a_message() -> None:
    peer = Peer()
    work = ProgramWork(("true",))
    peer.learn(msgspec.structs.replace(spec(TaskSet.of(0, 40)), work=work), 1_000)
    peer.grant(msgspec.structs.replace(spec(TaskSet.of(0, 90)), work=work))
    measured = peer.start()
    peer.finish(measured, 1_000)
    sizes = [len(batch.tasks) for batch in peer.start()]
    assert sizes[:2] == [22, 20], "half of a slot's share, and then 20 ms"


def test_what_was_measured_longest_ago_is_forgotten() -> None:
    expectations = Expectations()
    job = JobId("a" * 32)
    for number in range(KINDS_MAX + 1):
        expectations.on_measured(job, ProgramWork((str(number),)), 100)
        expectations.on_measured(job, ProgramWork(("0",)), 100)
    other = JobId("b" * 32)
    assert expectations.of(other, ProgramWork(("0",)))[0] == 100
    assert expectations.of(other, ProgramWork(("1",)))[0] is None
    assert expectations.of(other, ProgramWork((str(KINDS_MAX),)))[0] == 100
