"""What an owner ends so that tasks of higher jobs may run, and what it leaves alone."""

from __future__ import annotations

import msgspec
import pytest
from msgspec.structs import replace

from p2psched.core.making_way import ASKED_MAX, SOON_MS, WAIT_MS
from p2psched.core.owned import Queued
from p2psched.core.owner import StartBatch, StopBatch
from p2psched.core.scheduler import Executed, Followed, Round, Scheduler, SchedulerEffect
from p2psched.core.waiting import Waiting
from p2psched.model import chunks
from p2psched.model.commands import DrainMode, GiveBack, Place, SubmitJob
from p2psched.model.execution import Batch, Ended, Progress, Reports, TaskReport
from p2psched.model.ids import JobId
from p2psched.model.job import Cause, JobSpec, ProgramWork, Segment
from p2psched.model.precedence import MakeWay, Precedence, Way
from p2psched.model.taskset import EMPTY, TaskSet
from tests.core.test_drain import A, B, Ledger, follow, proposals

LOW, MIDDLE, HIGH, ELSEWHERE = map(JobId, ("low", "middle", "high", "elsewhere"))
RUNS_MS = 5_000


def spec(count: int, priority: int, *, may_end: bool = False, cpus: int = 1) -> JobSpec:
    return JobSpec(
        *("j", TaskSet.of(0, count), ProgramWork(("true",))),
        cpus=cpus,
        checkpoint="state" if may_end else "",
        precedence=Precedence(priority, may_end, RUNS_MS),
    )


class Peer:
    """B, which has two slots."""

    def __init__(self) -> None:
        self.ledger = Ledger(level=7)
        self.now_ms = 0
        self.scheduler: Scheduler = follow(self.ledger, B)
        self.batches: list[Batch] = []
        self.ends: list[int] = []
        self.given: list[GiveBack] = []

    def own(self, job: JobId, wanted: JobSpec, count: int | None = None) -> int:
        """The grant. So many of its tasks are placed here."""
        self.ledger.do(SubmitJob(job, wanted))
        tasks = wanted.tasks if count is None else wanted.tasks.take(count)
        self.ledger.do(Place(job, tasks, B, 1))
        return max(self.ledger.machine.jobs[job].grants, default=0)

    def turn(self, after_ms: int = 0) -> None:
        self.now_ms += after_ms
        self._take(self.scheduler.step(Round(self.now_ms)))

    def wait(self, ms: int) -> None:
        for _ in range(ms // 100):
            self.turn(100)

    def _take(self, effects: list[SchedulerEffect]) -> None:
        self.batches += [e.batch for e in effects if isinstance(e, StartBatch)]
        for effect in effects:
            if isinstance(effect, StopBatch):
                assert effect.cause is Cause.PEER_LOST
                self.ends.append(effect.batch)
        for command in proposals(effects):
            if isinstance(command, GiveBack):
                self.given.append(command)

    def end(self, batch: int) -> None:
        """It was told to."""
        self._take(self.scheduler.step(Executed(self.now_ms, Ended(batch, EMPTY))))
        self.turn()

    def ask(self, way: MakeWay) -> None:
        self._take(self.scheduler.step(Followed(self.now_ms, A, way)))
        self.turn()

    def batch_of(self, job: JobId, index: int = 0) -> Batch:
        (found,) = [b for b in self.batches if b.job == job and index in b.tasks]
        return found


@pytest.fixture
def peer() -> Peer:
    """It runs two tasks of `LOW`, and did so for long."""
    made = Peer()
    made.own(LOW, spec(2, -1, may_end=True))
    made.turn()
    made.wait(RUNS_MS)
    assert [batch.job for batch in made.batches] == [LOW, LOW]
    return made


def test_what_waits_here_has_one_task_make_way_after_a_moment(peer: Peer) -> None:
    peer.own(HIGH, spec(1, 5))
    peer.wait(WAIT_MS)
    assert peer.ends == [], "a slot may be about to be free"
    peer.wait(200)
    (ended,) = peer.ends
    peer.wait(5_000)
    assert peer.ends == [ended], "once, and no other"
    assert not [batch for batch in peer.batches if batch.job == HIGH], "its slot is still in use"
    peer.end(ended)
    (back,) = peer.given
    assert (back.job, back.by, len(back.tasks)) == (LOW, HIGH, 1)
    assert peer.batch_of(HIGH), "it runs at once"


def test_what_has_made_way_does_not_begin_again_under_its_grant(peer: Peer) -> None:
    peer.own(HIGH, spec(1, 5))
    peer.wait(WAIT_MS + 200)
    (ended,) = peer.ends
    peer.end(ended)
    peer.wait(2_000)
    assert len([batch for batch in peer.batches if batch.job == LOW]) == 2
    held = peer.scheduler.owner.held()
    assert sum(len(tasks) for (job, _), tasks in held.items() if job == LOW) == 2, (
        "one runs, and the other is on its way back"
    )


def test_what_ended_by_itself_meanwhile_is_a_result_and_not_given_back(peer: Peer) -> None:
    peer.own(HIGH, spec(1, 5))
    peer.wait(WAIT_MS + 200)
    (ended,) = peer.ends
    batch = next(b for b in peer.batches if b.id == ended)
    index = batch.tasks.first
    segment = Segment(index, index + 1, Cause.OK, chunks.pack([b""]), 10)
    peer.scheduler.step(Executed(peer.now_ms, Progress(ended, (segment,))))
    peer.end(ended)
    assert peer.given == []


def test_nobody_makes_way_for_equals_nor_who_did_not_say_so() -> None:
    peer = Peer()
    peer.own(LOW, spec(1, 3, may_end=True))
    peer.own(MIDDLE, spec(1, 0))
    peer.turn()
    peer.wait(RUNS_MS)
    peer.own(HIGH, spec(2, 3))
    peer.wait(4 * WAIT_MS)
    assert peer.ends == []


def test_the_lowest_ends_and_of_these_the_youngest() -> None:
    peer = Peer()
    peer.own(MIDDLE, spec(1, 0, may_end=True))
    peer.turn()
    peer.own(LOW, spec(1, -1, may_end=True))
    peer.wait(RUNS_MS + 1_000)
    peer.own(HIGH, spec(1, 5))
    peer.wait(WAIT_MS + 200)
    assert peer.ends == [peer.batch_of(LOW).id]
    peer = Peer()
    peer.own(MIDDLE, spec(1, -1, may_end=True))
    peer.wait(1_000)
    peer.own(LOW, spec(1, -1, may_end=True))
    peer.wait(RUNS_MS + 1_000)
    peer.own(HIGH, spec(1, 5))
    peer.wait(WAIT_MS + 200)
    assert peer.ends == [peer.batch_of(LOW).id]


def test_who_began_a_moment_ago_is_left_alone() -> None:
    peer = Peer()
    peer.own(LOW, spec(2, -1, may_end=True))
    peer.turn()
    peer.own(HIGH, spec(1, 5))
    peer.wait(RUNS_MS - 100)
    assert peer.ends == []
    peer.wait(300)
    assert len(peer.ends) == 1


def test_nobody_makes_way_while_a_slot_is_about_to_be_free(peer: Peer) -> None:
    report = TaskReport(peer.batch_of(LOW, 1).id, 1, 0, 0)
    for ran_s in range(1, 12):
        told = replace(report, ran_ms=ran_s * 1_000, said_ms=0, done=float(ran_s), total=12.5)
        peer.scheduler.step(Executed(peer.now_ms, Reports((told,))))
    left_ms = peer.scheduler.owner.pacing.left_ms(report.batch)
    assert left_ms is not None
    assert 0 < left_ms < SOON_MS
    peer.own(HIGH, spec(1, 5))
    peer.wait(3 * WAIT_MS)
    assert peer.ends == []
    peer.own(MIDDLE, spec(1, 4))
    peer.wait(WAIT_MS + 200)
    assert peer.ends == [peer.batch_of(LOW, 0).id], "two wait, and one slot will be free"


def test_a_wide_task_has_as_many_make_way_as_it_needs(peer: Peer) -> None:
    peer.own(HIGH, spec(1, 5, cpus=2))
    peer.wait(WAIT_MS + 200)
    assert len(peer.ends) == 2
    for batch in list(peer.ends):
        peer.end(batch)
    assert peer.batch_of(HIGH)


def test_who_is_drained_leaves_nothing_to_make_way(peer: Peer) -> None:
    peer.own(HIGH, spec(1, 5))
    peer.ledger.drain(B, DrainMode.ON)
    peer.wait(WAIT_MS + 200)
    assert len(peer.ends) == 2, "both go elsewhere, as ever"
    assert {back.by for back in peer.given} == {""}


def test_what_waits_elsewhere_has_the_named_tasks_make_way_at_once(peer: Peer) -> None:
    grant = max(peer.ledger.machine.jobs[LOW].grants)
    peer.ledger.do(SubmitJob(ELSEWHERE, spec(1, 5)))
    way = MakeWay(ELSEWHERE, 5, (Way(LOW, grant, 1),))
    peer.ask(way)
    (ended,) = peer.ends
    peer.ask(way)
    assert peer.ends == [ended], "the same word again changes nothing"
    peer.end(ended)
    (back,) = peer.given
    assert (back.job, back.by) == (LOW, ELSEWHERE)


@pytest.mark.parametrize(
    "change",
    [{"priority": -1}, {"ways": (Way(LOW, 99, 1),)}, {"job": JobId("gone")}, {"ways": ()}],
)
def test_a_word_that_does_not_fit_ends_nothing(peer: Peer, change: dict[str, object]) -> None:
    grant = max(peer.ledger.machine.jobs[LOW].grants)
    peer.ledger.do(SubmitJob(ELSEWHERE, spec(1, 5)))
    way = MakeWay(ELSEWHERE, 5, (Way(LOW, grant, 2),))
    peer.ask(msgspec.structs.replace(way, **change))
    assert peer.ends == []


def test_what_has_not_begun_of_lower_jobs_goes_back_when_it_is_asked_for() -> None:
    peer = Peer()
    low = peer.own(LOW, spec(4, -1))
    peer.turn()
    same = peer.own(MIDDLE, spec(2, 5))
    peer.ledger.do(SubmitJob(ELSEWHERE, spec(1, 5)))
    peer.ask(MakeWay(ELSEWHERE, 5, (), unbegun=True))
    peer.turn()
    assert [(back.job, back.grant, back.by) for back in peer.given] == [(LOW, low, "")]
    assert len(peer.given[0].tasks) == 2, "two run"
    assert peer.scheduler.owner.held()[MIDDLE, same] == TaskSet.of(0, 2)


def test_words_in_one_turn_are_bounded(peer: Peer) -> None:
    for number in range(2 * ASKED_MAX):
        job = JobId(f"{number}")
        peer.scheduler.owner.making_way.ask(MakeWay(job, 5, ()))
    assert len(peer.scheduler.owner.making_way._asked) == ASKED_MAX
    peer.turn()
    assert peer.ends == []


# --- the queue ------------------------------------------------------------------------------------


def queued(job: str, first: int = 0) -> Queued:
    return Queued(JobId(job), 1, 1, TaskSet.of(first, first + 1))


PRIORITIES = {"a": 5, "b": 0, "c": 0, "d": -1}


def order(queue: Waiting) -> str:
    return "".join(entry.job for entry in queue)


def test_a_queue_is_in_the_order_of_priorities_and_then_of_arrival() -> None:
    queue = Waiting(lambda job: PRIORITIES[job])
    for job in "bcb":
        queue.add(queued(job))
    for job in "dac":
        queue.add(queued(job))
    assert order(queue) == "abcbcd"
    queue.put_first(queued("c", 7))
    queue.put_first(queued("d", 7))
    queue.put_first(queued("a", 7))
    assert order(queue) == "aacbcbcdd"


def test_what_was_held_comes_back_to_its_place() -> None:
    queue = Waiting(lambda job: PRIORITIES[job])
    for job in "abd":
        queue.add(queued(job))
    queue.hold(JobId("b"))
    queue.add(queued("c"))
    queue.go_on()
    assert order(queue) == "abcd"


def test_a_queue_without_priorities_is_as_ever() -> None:
    queue = Waiting(lambda _job: 0)
    for job in "abcd":
        queue.add(queued(job))
    queue.put_first(queued("c", 7))
    assert order(queue) == "cabcd"
