"""Submits without tasks: what their callers hear, and that nothing of them is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import cast

import pytest

from p2psched.core.admission import Door
from p2psched.model.blob import BlobRef
from p2psched.model.commands import (
    Command,
    Outcome,
    Recorded,
    Rejected,
    Stamped,
    SubmitJob,
    Submitted,
)
from p2psched.model.errors import NoSpace, P2PSchedError, Refused, Unavailable, UsageError
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause, JobSpec, ProgramWork, Segment, SentFile
from p2psched.model.limits import CALLS_IN_FLIGHT_MAX
from p2psched.model.messages import (
    Answer,
    AnswerBody,
    Call,
    CallBody,
    Done,
    Failure,
    FirstResults,
    JobAccepted,
    Submit,
)
from p2psched.model.taskset import TaskSet
from p2psched.net.link import Connection
from p2psched.peer import submissions as module
from p2psched.peer.answering import Answering
from p2psched.peer.lines import Line
from p2psched.peer.result_writer import ResultWriter
from p2psched.peer.scheduler_loop import Heard, SchedulerLoop
from p2psched.peer.submissions import RESULTS_BYTES_MAX, Submissions
from p2psched.ports.clock import Clock
from p2psched.testing.sim_results import MemoryResults
from tests.peer.blob_rig import until

JOB, PEER = JobId("a" * 32), PeerId("b" * 32)
REF = BlobRef(bytes(32), 100)
ACCEPTED = JobAccepted(JOB, duplicate=False)


def submit(*, follow: bool = True, job: str = JOB, blobs: tuple[BlobRef, ...] = ()) -> Submit:
    files = tuple(SentFile(f"file{n}", 0o600, ref) for n, ref in enumerate(blobs))
    work = ProgramWork(("true",), files=files)
    return Submit(JobId(job), JobSpec(name="", tasks=TaskSet.of(0, 2), work=work), follow)


class FakeScheduling:
    """A `SchedulerLoop` whose commands commit when the test says so."""

    def __init__(self) -> None:
        self.jobs: dict[JobId, SimpleNamespace] = {}
        self.machine = SimpleNamespace(jobs=self.jobs, running={}, running_bytes=0)
        self.door = Door()
        self.scheduler = SimpleNamespace(machine=self.machine, policies=(), door=self.door)
        self.now_ms = 0
        self.clock = SimpleNamespace(now_ms=lambda: self.now_ms)
        self.line = Line(self.door, cast("Clock", self.clock))
        self.proposed: dict[int, tuple[Command, Heard]] = {}
        self.watching: list[tuple[JobId, Callable[[], None]]] = []
        self.at_once: Outcome | None = None

    def propose_nowait(self, command: Command, heard: Heard) -> int:
        if self.at_once is not None:
            heard(self.at_once)
            return 0
        number = len(self.proposed) + 1
        self.proposed[number] = (command, heard)
        return number

    def give_up(self, tag: int) -> None:
        del self.proposed[tag]

    def watch(self, job: JobId, changed: Callable[[], None]) -> None:
        self.watching.append((job, changed))

    def unwatch(self, job: JobId, changed: Callable[[], None]) -> None:
        self.watching.remove((job, changed))

    def commit(self, outcome: Outcome | Unavailable) -> None:
        _, (command, heard) = self.proposed.popitem()
        assert isinstance(command, SubmitJob)
        if isinstance(outcome, Submitted):
            self.jobs[outcome.job] = SimpleNamespace(id=outcome.job, ended=False, segments=0)
        heard(outcome)

    def changed(self) -> None:
        for _, look in list(self.watching):
            look()


@dataclass(eq=False)
class FakeConnection:
    has_room: bool = True
    sent: list[Answer | Failure] = field(default_factory=list)

    def send_nowait(self, message: Answer | Failure) -> bool:
        self.sent.append(message)
        return True

    async def send(self, message: Answer | Failure) -> None:
        self.sent.append(message)


class Rig:
    """`run` a story in which calls come over `connection`."""

    def __init__(self) -> None:
        self.scheduling = FakeScheduling()
        self.results = ResultWriter(MemoryResults(), on_failed=lambda _: None)
        self.connection = FakeConnection()
        self.refusal: NoSpace | None = None
        self.secure: Sequence[BlobRef] = ()
        self.served: list[CallBody] = []
        self.submissions = Submissions(
            cast("SchedulerLoop", self.scheduling),
            self.results,
            refusal=lambda _: self.refusal,
            are_secure=lambda refs: all(ref in self.secure for ref in refs),
        )

    @staticmethod
    def run(story: Callable[[Rig], Coroutine[None, None, None]]) -> None:
        async def main() -> None:
            rig = Rig()
            async with asyncio.TaskGroup() as group:
                rig.answering = Answering(group, rig._serve, rig.submissions)
                await story(rig)
            assert rig.scheduling.proposed == {}
            assert rig.scheduling.watching == []
            assert rig.scheduling.door.status().waiting == 0
            rig.results.close()

        asyncio.run(main())

    answering: Answering

    async def _serve(self, body: CallBody) -> AnswerBody:
        self.served.append(body)
        return Done()

    def call(
        self, body: CallBody, number: int = 1, connection: FakeConnection | None = None
    ) -> None:
        over = cast("Connection", connection or self.connection)
        self.answering.on_call(over, Call(number, body))

    def close(self) -> None:
        self.answering.on_closed(cast("Connection", self.connection))

    def record(self, size: int = 1, *, ended: bool = False, tell: bool = True) -> Segment:
        """One more result of the job is committed and stored."""
        job = self.scheduling.jobs[JOB]
        position, job.segments, job.ended = job.segments, job.segments + 1, ended
        segment = Segment(position, position + 1, Cause.OK, bytes(size))
        event = Recorded(JOB, 1, PEER, position, segment)
        self.results.store([Stamped(position + 1, 0, 0, event)], position + 1)
        if tell:
            self.scheduling.changed()
        return segment

    @property
    def answers(self) -> list[object]:
        return [
            (one.code, one.retry_after_ms) if isinstance(one, Failure) else one.body
            for one in self.connection.sent
        ]


def test_who_follows_hears_of_the_job_and_of_its_results_in_one_answer() -> None:
    async def story(rig: Rig) -> None:
        rig.call(submit(), 7)
        rig.scheduling.commit(Submitted(JOB, duplicate=False))
        assert rig.answers == []
        segment = rig.record(ended=True)
        assert rig.connection.sent == [Answer(7, FirstResults((segment,), 1, ended=True))]

    Rig.run(story)


def test_the_first_results_of_a_wide_job_are_no_end_and_no_more_than_one_answer_takes() -> None:
    async def story(rig: Rig) -> None:
        rig.call(submit())
        rig.scheduling.commit(Submitted(JOB, duplicate=False))
        segment = rig.record()
        assert rig.answers == [FirstResults((segment,), 1, ended=False)]

    async def large(rig: Rig) -> None:
        rig.call(submit())
        rig.scheduling.commit(Submitted(JOB, duplicate=False))
        first = rig.record(RESULTS_BYTES_MAX, tell=False)
        rig.record(ended=True)
        assert rig.answers == [FirstResults((first,), 1, ended=False)]

    Rig.run(large)
    Rig.run(story)


def test_who_does_not_follow_hears_of_the_job_at_once() -> None:
    async def story(rig: Rig) -> None:
        rig.call(submit(follow=False))
        rig.scheduling.commit(Submitted(JOB, duplicate=False))
        assert rig.answers == [ACCEPTED]

    Rig.run(story)


def test_who_repeats_a_submit_is_told_so_at_once_and_fetches_what_there_is() -> None:
    async def story(rig: Rig) -> None:
        rig.call(submit())
        rig.scheduling.commit(Submitted(JOB, duplicate=True))
        assert rig.answers == [JobAccepted(JOB, duplicate=True)]

    Rig.run(story)


def test_a_job_that_takes_its_time_is_accepted_without_results(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "FOLLOW_S", 0.01)

    async def story(rig: Rig) -> None:
        rig.call(submit())
        rig.scheduling.commit(Submitted(JOB, duplicate=False))
        await until(lambda: rig.answers == [ACCEPTED])
        rig.record(ended=True)
        assert rig.answers == [ACCEPTED]

    Rig.run(story)


def test_without_a_quorum_the_caller_is_told_to_ask_another_peer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.01)

    async def story(rig: Rig) -> None:
        rig.call(submit())
        assert len(rig.scheduling.proposed) == 1
        await until(lambda: rig.answers == [("unavailable", 1000)])

    Rig.run(story)


def test_a_job_that_was_cancelled_has_ended_without_results() -> None:
    async def story(rig: Rig) -> None:
        rig.call(submit())
        rig.scheduling.commit(Submitted(JOB, duplicate=False))
        rig.scheduling.jobs[JOB].ended = True
        rig.scheduling.changed()
        assert rig.answers == [FirstResults((), 0, ended=True)]

    Rig.run(story)


def test_what_is_not_whole_in_memory_is_fetched_by_the_caller() -> None:
    async def forgotten(rig: Rig) -> None:
        rig.call(submit())
        rig.scheduling.commit(Submitted(JOB, duplicate=False))
        del rig.scheduling.jobs[JOB]
        rig.scheduling.changed()
        assert rig.answers == [ACCEPTED]

    async def lacking(rig: Rig) -> None:
        rig.call(submit())
        rig.scheduling.commit(Submitted(JOB, duplicate=False))
        rig.results.is_whole = lambda job: False  # type: ignore[method-assign]  # as after a snapshot
        rig.record(ended=True)
        assert rig.answers == [ACCEPTED]

    Rig.run(forgotten)
    Rig.run(lacking)


@pytest.mark.parametrize(
    ("outcome", "heard"),
    [
        (Rejected("refused", "no"), ("refused", 0)),
        (Rejected("unavailable", "busy"), ("unavailable", 1000)),
        (Unavailable("this peer is stopping"), ("unavailable", 1000)),
    ],
)
def test_a_submit_that_fails_is_a_failure(
    outcome: Rejected | Unavailable, heard: tuple[str, int]
) -> None:
    async def story(rig: Rig) -> None:
        rig.call(submit())
        rig.scheduling.commit(outcome)
        assert rig.answers == [heard]

    Rig.run(story)


def test_an_outcome_may_come_before_the_proposal_returns() -> None:
    async def story(rig: Rig) -> None:
        rig.scheduling.at_once = Rejected("unavailable", "busy")
        rig.call(submit())
        assert rig.answers == [("unavailable", 1000)]

    Rig.run(story)


def test_what_can_not_be_taken_is_not_proposed() -> None:
    async def story(rig: Rig) -> None:
        rig.call(submit(job="not an id"))
        rig.refusal = NoSpace("full", retry_after_s=0.5)
        rig.call(submit())
        assert rig.answers == [(UsageError.code, 0), (NoSpace.code, 500)]
        assert rig.scheduling.proposed == {}

    Rig.run(story)


def test_blobs_that_are_not_secure_yet_are_waited_for_by_a_task() -> None:
    async def story(rig: Rig) -> None:
        body = submit(blobs=(REF,))
        rig.call(body)
        await until(lambda: rig.served == [body])
        assert rig.scheduling.proposed == {}
        rig.secure = (REF,)
        rig.call(body)
        rig.scheduling.commit(Submitted(JOB, duplicate=False))
        rig.record(ended=True)
        assert len(rig.served) == 1

    Rig.run(story)


def test_a_slow_reader_is_sent_no_results_that_would_have_to_wait_for_it() -> None:
    async def story(rig: Rig) -> None:
        rig.call(submit())
        rig.scheduling.commit(Submitted(JOB, duplicate=False))
        rig.connection.has_room = False
        rig.record(ended=True)
        assert rig.answers == [ACCEPTED]

    Rig.run(story)


def test_a_lost_connection_leaves_nothing_behind() -> None:
    async def story(rig: Rig) -> None:
        rig.call(submit(), 1)
        rig.scheduling.commit(Submitted(JOB, duplicate=False))
        rig.call(submit(job="c" * 32), 2)
        assert len(rig.scheduling.watching) == len(rig.scheduling.proposed) == 1
        rig.close()
        assert rig.scheduling.watching == []
        assert rig.scheduling.proposed == {}
        rig.record(ended=True)
        assert rig.answers == []

    Rig.run(story)


def test_open_submits_of_one_connection_are_bounded() -> None:
    async def story(rig: Rig) -> None:
        for number in range(CALLS_IN_FLIGHT_MAX):
            rig.call(submit(job=f"{number:032x}"), number)
        assert rig.answers == []
        rig.call(submit(job="f" * 32), 1000)
        assert rig.answers == [("unavailable", 100)]
        rig.scheduling.commit(Rejected("refused", "no"))
        rig.call(submit(job="f" * 32), 1001)  # there is a place again
        assert len(rig.answers) == 2
        rig.close()

    Rig.run(story)


def test_errors_travel_as_what_they_are() -> None:
    async def story(rig: Rig) -> None:
        heard: list[object] = []
        rig.submissions.make(submit(), heard.append).begin()
        rig.scheduling.commit(Rejected("refused", "a job with this id is another one"))
        assert [type(error) for error in heard] == [Refused]
        assert all(isinstance(error, P2PSchedError) for error in heard)

    Rig.run(story)
