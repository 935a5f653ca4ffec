"""What a peer lacks is fetched from one that has it; meanwhile questions are passed on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from p2psched.core.jobs import Job
from p2psched.core.levels import KNOWN_LEVEL
from p2psched.core.machine import Machine
from p2psched.core.state import LedgerState
from p2psched.model import chunks, items
from p2psched.model.commands import Event, JobAdded, JobEnded, Recorded, Retried, Stamped
from p2psched.model.errors import Unavailable
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause, JobSpec, JobState, ProgramWork, Segment
from p2psched.model.log_messages import AttemptPage, ListAttempts
from p2psched.model.messages import (
    AnswerBody,
    CallBody,
    FetchHistory,
    FetchItem,
    FetchResults,
    History,
    ItemAnswer,
    ResultPage,
)
from p2psched.model.taskset import TaskSet
from p2psched.peer.backfill import BackFill, Source
from p2psched.peer.result_writer import ResultWriter
from p2psched.peer.views import job_view
from p2psched.ports.results import KnownJob
from p2psched.testing.sim_results import MemoryResults

JOB = JobId("a" * 32)
PEERS = JobId("")
OWNER = PeerId("e" * 32)
SPEC = JobSpec("job", TaskSet.of(0, 8), ProgramWork(("true",)))
NEAR, FAR, LEADER = (PeerId(letter * 32) for letter in "123")


def recorded(position: int) -> Recorded:
    values = [items.pack_value(b"%d" % index) for index in (2 * position, 2 * position + 1)]
    segment = Segment(2 * position, 2 * position + 2, Cause.OK, chunks.pack(values))
    return Recorded(JOB, 5, OWNER, position, segment)


FAILED = Segment(0, 2, Cause.EXIT, chunks.pack([items.pack({"exit": n}) for n in (1, 2)]))


def whole() -> MemoryResults:
    results = MemoryResults()
    events: list[Event] = [
        JobAdded(JOB, SPEC),
        Retried(JOB, 3, OWNER, FAILED),
        Retried(JOB, 4, OWNER, FAILED),
        *map(recorded, range(4)),
        JobEnded(JOB, JobState.SUCCEEDED),
    ]
    results.store([Stamped(n, n, n, event) for n, event in enumerate(events, start=1)], 1)
    return results


def lacking() -> MemoryResults:
    results = MemoryResults()
    results.jump(1, {JOB: KnownJob(4, 8, None)}, 8)
    return results


class Peers:
    """Others that have everything, lack it too, or are not there."""

    def __init__(self, **answers: bool | None) -> None:
        names = {"near": NEAR, "far": FAR, "leader": LEADER}
        self.has = {names[name]: has for name, has in answers.items()}
        self.results = whole()
        self.asked: list[PeerId] = []
        self.short_by = 0  # how many of the last results a peer has not heard of yet

    def connected(self) -> frozenset[PeerId]:
        return frozenset(self.has)

    async def call(self, peer: PeerId, body: CallBody) -> AnswerBody:
        self.asked.append(peer)
        await asyncio.sleep(0)
        if not self.has[peer]:
            raise Unavailable("not whole here yet")
        match body:
            case FetchResults(job=job, position=position, here_only=True):
                machine = Machine()
                page = self.results.segments(job, position, 1)  # one a page
                if position >= 4 - self.short_by:
                    page = type(page)(position)
                view = job_view(Job.of(job, SPEC, index=1, wall_ms=0), machine)
                segments, positions = tuple(page.segments), tuple(page.positions)
                return ResultPage(segments, view, page.next_position, positions)
            case FetchHistory(job=job, after=after, here_only=True):
                events = self.results.history(job, after, 2)
                return History(tuple(events), len(events) >= 2, self.results.spec(job))
            case ListAttempts(job=job, after_grant=grant, after_start=start, here_only=True):
                return AttemptPage(tuple(self.results.attempts(job, (grant, start), 1)))
            case FetchItem(here_only=True):
                return ItemAnswer("succeeded", "ok", b"", None)
            case _:
                raise AssertionError(body)


def _of_level(level: int) -> LedgerState:
    state = LedgerState()
    state.level = level
    return state


def run(
    results: MemoryResults, others: Peers, story: Callable[[ResultWriter, Source], Awaitable[None]]
) -> None:
    async def main() -> None:
        failures: list[BaseException] = []
        writer = ResultWriter(results, on_failed=failures.append)
        source = Source(others, lambda: LEADER, _of_level(KNOWN_LEVEL))
        async with asyncio.TaskGroup() as group:
            task = group.create_task(BackFill(writer, source).run())
            async with asyncio.timeout(20):
                await story(writer, source)
            task.cancel()
        writer.close()
        assert not failures

    asyncio.run(main())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 (there is no event for every condition)
        await asyncio.sleep(0.001)


def test_everything_that_is_missing_is_fetched_from_a_peer_that_has_it() -> None:
    results, others = lacking(), Peers(near=False, far=True)

    async def story(writer: ResultWriter, _: Source) -> None:
        assert await writer.gap_of(JOB) is not None
        await until(lambda: not writer.gap_count)
        assert await writer.gap_of(JOB) is None

    run(results, others, story)
    expected = whole()
    page, other = results.segments(JOB, 0, 10_000), expected.segments(JOB, 0, 10_000)
    assert (page.segments, page.positions) == (other.segments, other.positions)
    assert results.history(JOB, 0, 100) == expected.history(JOB, 0, 100)
    assert results.spec(JOB) == SPEC
    assert results.attempts(JOB, (-1, -1), 10_000) == expected.attempts(JOB, (-1, -1), 10_000)
    assert results.attempt(JOB, 1, 4) is not None


def test_the_peer_that_leads_is_asked_last() -> None:
    others = Peers(leader=True, far=True)

    async def story(writer: ResultWriter, _: Source) -> None:
        await until(lambda: not writer.gap_count)

    run(lacking(), others, story)
    assert set(others.asked) == {FAR}


def test_half_of_the_results_are_not_taken_for_all_of_them() -> None:
    results, others = lacking(), Peers(far=True)
    others.short_by = 1

    async def story(writer: ResultWriter, _: Source) -> None:
        await until(lambda: others.asked.count(FAR) > 20)
        assert await writer.gap_of(JOB) is not None
        others.short_by = 0
        await until(lambda: not writer.gap_count)

    run(results, others, story)
    assert len(results.segments(JOB, 0, 10_000).segments) == 4


def test_a_question_is_passed_on_to_a_peer_that_has_the_whole_job() -> None:
    others = Peers(near=False, far=True)

    async def story(_: ResultWriter, source: Source) -> None:
        answer = await source.ask(FetchItem(JOB, 3, here_only=True))
        assert isinstance(answer, ItemAnswer)

    run(whole(), others, story)
    assert others.asked == [NEAR, FAR]


def test_where_nobody_has_it_the_caller_is_told_and_not_given_less() -> None:
    others = Peers(near=False, far=None)

    async def story(writer: ResultWriter, source: Source) -> None:
        with pytest.raises(Unavailable, match="no other peer within reach"):
            await source.ask(FetchResults(JOB, 0, here_only=True))
        assert writer.gap_count

    run(lacking(), others, story)


def test_a_restored_state_that_the_store_has_seen_leaves_no_gap() -> None:
    async def story(writer: ResultWriter, _: Source) -> None:
        state = Machine()
        state.applied_index = 1
        writer.on_restored(state)
        assert await writer.gap_of(JOB) is None
        state.applied_index = 2
        writer.on_restored(state)
        assert await writer.gap_of(PEERS) is not None  # the look for gaps is over by then

    run(whole(), Peers(), story)
