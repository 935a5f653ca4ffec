"""Tasks that save checkpoints, seen by the cores: what the ledger notes, and what a drain ends."""

from __future__ import annotations

import pytest

from p2psched.core.machine import Machine
from p2psched.core.owner import StartBatch, StopBatch
from p2psched.core.resumptions import TASKS_MAX
from p2psched.core.scheduler import AppendToLedger, Executed, Round, SchedulerEffect
from p2psched.core.snapshot import encode_machine, restore_machine
from p2psched.model import chunks
from p2psched.model.commands import Acknowledged, DrainMode, GiveBack, Rejected, SubmitJob
from p2psched.model.execution import Ended
from p2psched.model.ids import JobId
from p2psched.model.job import NAMELESS, Cause, FunctionWork, JobSpec, ProgramWork
from p2psched.model.job_head import digest_of, head_of
from p2psched.model.resumed import NoteResumed, Resumed, Resumption
from p2psched.model.taskset import EMPTY, TaskSet
from tests.core.test_drain import JOB, TEN, B, C, Ledger, follow, proposals

SAVING = JobSpec("j", TEN, ProgramWork(("true",)), checkpoint="state")


def saving(level: int = 5) -> tuple[Ledger, int]:
    ledger = Ledger(level=level)
    ledger.do(SubmitJob(JOB, SAVING))
    return ledger, ledger.place(B).grant


def note(grant: int, task: int, *, number: int = 4, job: JobId = JOB) -> NoteResumed:
    return NoteResumed(job, grant, task, 2, number, 17, C if number else None)


def test_from_where_a_task_goes_on_is_in_the_history_and_in_its_job() -> None:
    ledger, grant = saving()
    ledger.do(note(grant, 3), B)
    task = TaskSet.of(3, 4)
    assert ledger.events == [Resumed(JOB, grant, B, task, 2, 4, 17, C)]
    ledger.do(note(grant, 3, number=0), B)
    job = ledger.machine.jobs[JOB]
    assert job.resumed == (Resumption(3, B, None, 0, 17, 0),), "the newest of a task"
    assert job.resumed_count == 2
    job.check()
    again = Machine()
    restore_machine(again, encode_machine(ledger.machine))
    assert again.jobs[JOB].resumed == job.resumed


def test_a_note_of_who_owns_the_task_no_more_is_none_and_a_repeat_counts_once() -> None:
    ledger, grant = saving()
    for other in (note(grant + 1, 3), note(grant, 10), note(grant, 3, job=JobId("gone"))):
        assert ledger.do(other, B) == Acknowledged()
        assert ledger.events == []
    for _ in range(2):
        ledger.do(note(grant, 3), B, request=500)
    assert ledger.machine.jobs[JOB].resumed_count == 1


def test_a_job_remembers_a_few_tasks_and_counts_all() -> None:
    ledger = Ledger(level=5)
    many = TaskSet.of(0, 100)
    ledger.do(SubmitJob(JOB, JobSpec("j", many, ProgramWork(("true",)), checkpoint=NAMELESS)))
    grant = ledger.place(B, many).grant
    for task in range(100):
        ledger.do(note(grant, task), B)
    job = ledger.machine.jobs[JOB]
    assert [one.task for one in job.resumed] == list(range(100 - TASKS_MAX, 100))
    assert job.resumed_count == 100


def test_older_versions_are_waited_for() -> None:
    ledger = Ledger(level=4)
    assert isinstance(ledger.do(SubmitJob(JOB, SAVING)), Rejected)
    assert isinstance(ledger.do(note(1, 0)), Rejected)


def test_a_drain_ends_what_saves_checkpoints_and_gives_it_back() -> None:
    ledger, grant = saving()
    scheduler = follow(ledger, B)
    started = [e.batch for e in scheduler.step(Round(0)) if isinstance(e, StartBatch)]
    assert [len(batch.tasks) for batch in started] == [1, 1], "each has a batch of its own"
    ledger.effects.clear()
    ledger.drain(B, DrainMode.ON)
    effects = [*ledger.effects, *scheduler.step(Round(1)), *scheduler.step(Round(2))]
    stops = [(e.batch, e.cause) for e in effects if isinstance(e, StopBatch)]
    assert stops == [(batch.id, Cause.PEER_LOST) for batch in started], "once"
    given = [c for c in proposals(effects) if isinstance(c, GiveBack)]
    assert [command.tasks for command in given] == [TaskSet.of(2, 10)]
    # The outcome of the first comes before the next is proposed.
    ledger.do(given[0], B, request=_request(effects))
    ended = [scheduler.step(Executed(3, Ended(batch.id, EMPTY))) for batch in started]
    assert not any(isinstance(e, StartBatch) for step in ended for e in step)
    given = [c for c in proposals(scheduler.step(Round(4))) if isinstance(c, GiveBack)]
    assert sorted(task for command in given for task in command.tasks) == [0, 1]
    for command in given:
        ledger.do(command, B)
    job = ledger.machine.jobs[JOB]
    assert job.waiting == TEN
    assert job.current_part(grant, TEN) == EMPTY


def _request(effects: list[SchedulerEffect]) -> int:
    return next(
        envelope.request
        for effect in effects
        if isinstance(effect, AppendToLedger)
        for envelope in effect.envelopes
        if isinstance(envelope.command, GiveBack)
    )


def test_other_tasks_run_to_their_end_on_a_drained_peer() -> None:
    ledger = Ledger(level=5)
    ledger.submit()
    ledger.place(B)
    scheduler = follow(ledger, B)
    scheduler.step(Round(0))
    ledger.drain(B)
    effects = [*ledger.effects, *scheduler.step(Round(1))]
    assert not any(isinstance(effect, StopBatch) for effect in effects)


@pytest.mark.parametrize(
    ("work", "name", "said"),
    [
        (ProgramWork(("true",)), "../x", "letters"),
        (ProgramWork(("true",), cwd="/tmp"), "x", "CHECKPOINT_DIR"),
        (ProgramWork(("true",), outputs=("x",)), "x", "name of a file"),
        (FunctionWork("m:f", b"", (chunks.pack([b""] * 10),), 10, "3.11"), "x", "give no name"),
    ],
)
def test_names_that_make_no_sense_are_refused(
    work: ProgramWork | FunctionWork, name: str, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        JobSpec("j", TEN, work, checkpoint=name)
    assert JobSpec("j", TEN, work, checkpoint=NAMELESS).checkpoint == NAMELESS


def test_the_option_tells_two_specs_apart_and_old_digests_stay() -> None:
    plain = JobSpec("j", TEN, ProgramWork(("true",)))
    assert digest_of(SAVING) != digest_of(plain)
    assert head_of(SAVING).checkpoint == "state"
