"""An executor that saves: peers in memory with real files, under an executor that is played."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from p2psched.model.checkpoint_messages import CheckpointCall, CopyCheckpoint
from p2psched.model.checkpoints import Head
from p2psched.model.errors import NotFound
from p2psched.model.execution import Batch, Ended, ExecutorEvent, Progress, Standing, Tending
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import NAMELESS, Cause, JobSpec, ProgramWork
from p2psched.model.messages import AnswerBody, CallBody
from p2psched.model.resumed import NoteResumed
from p2psched.model.taskset import EMPTY, TaskSet
from p2psched.peer.blobs import Threads
from p2psched.peer.checkpoints import Checkpoints
from p2psched.store.checkpoints import CheckpointFiles

A, B = PeerId("a" * 32), PeerId("b" * 32)
JOB: Final = JobId("0123456789abcdef" * 2)
ONE: Final = TaskSet.of(0, 1)
SPEC: Final = JobSpec("j", ONE, ProgramWork(("true",)), checkpoint=NAMELESS)


def batch(number: int, *, grant: int = 7, attempt: int = 1, spec: JobSpec = SPEC) -> Batch:
    return Batch(number, JOB, spec, ONE, grant, attempt, "")


class HandClock:
    def __init__(self) -> None:
        self.ms = 0

    def now_ms(self) -> int:
        return self.ms

    def wall_ms(self) -> int:
        return 1_700_000_000_000 + self.ms


class Played:
    """The executor inside."""

    def __init__(self) -> None:
        self.started: list[int] = []
        self.stopped: list[int] = []

    def start(self, one: Batch) -> None:
        self.started.append(one.id)

    def stop(self, number: int, _cause: Cause) -> None:
        self.stopped.append(number)

    def take_back(self) -> None:
        raise AssertionError

    def standing(self) -> Standing:
        return Standing(frozenset(self.started), ())

    def end_task(self, batch: int, index: int, cause: Cause, why: str) -> None:
        raise AssertionError((batch, index, cause, why))

    def renew(self, batch: int, until_ms: int) -> None:
        pass

    def tend(self, how: Tending, batches: frozenset[int]) -> None:
        """Nothing here stands still."""


class Site:
    """One peer, and its links to the others."""

    def __init__(self, net: dict[PeerId, Site], me: PeerId, folder: Path, budget: int) -> None:
        self.me, self._net = me, net
        net[me] = self
        self.clock, self.inner, self.files = HandClock(), Played(), CheckpointFiles(folder / me)
        self.threads = Threads(lambda _error: None)
        self.told: list[ExecutorEvent] = []
        self.notes: list[NoteResumed] = []
        self.copies: list[Head] = []
        self.may_copy = asyncio.Event()
        self.may_copy.set()
        self.over = False
        self._budget = budget
        self.folder = folder

    def begin(self, group: asyncio.TaskGroup) -> None:
        self.it = Checkpoints(
            self.files,
            me=self.me,
            others=self,
            threads=self.threads,
            group=group,
            clock=self.clock,
            budget=self._budget,
        )
        self.it.around(self.inner)

        async def is_over(_job: JobId, _task: int) -> bool:
            return self.over

        def around() -> tuple[list[PeerId], list[PeerId], list[PeerId]]:
            return list(self._net), [], list(self._net)

        self.it.attach(self.told.append, around, is_over, self.notes.append)

    def connected(self) -> frozenset[PeerId]:
        return frozenset(self._net)

    async def call(self, peer: PeerId, body: CallBody) -> AnswerBody:
        assert isinstance(body, CheckpointCall)
        if isinstance(body, CopyCheckpoint):
            await self.may_copy.wait()
        answer = await self._net[peer].it.answer(body)
        if isinstance(body, CopyCheckpoint):
            self.copies.append(body.head)
        return answer

    def save(self, text: str) -> None:
        work = self.files.work(JOB, 0)
        (work / ".new").write_text(text)
        (work / ".new").rename(work / "state")

    def state(self) -> str:
        return (self.files.work(JOB, 0) / "state").read_text()


@asynccontextmanager
async def two(folder: Path, *, budget: int = 1 << 30) -> AsyncIterator[tuple[Site, Site]]:
    net: dict[PeerId, Site] = {}
    a, b = (Site(net, me, folder, budget) for me in (A, B))
    try:
        async with asyncio.TaskGroup() as group:
            for site in (a, b):
                site.begin(group)
            yield a, b
            raise _Over
    except* _Over:
        pass
    finally:
        for site in (a, b):
            site.it.close()
            site.threads.close()


class _Over(Exception):
    """Ends the group."""


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - files change without a word
            await asyncio.sleep(0.005)


def play(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(story())  # type: ignore[arg-type]  # a coroutine function


def test_the_next_owner_starts_with_what_the_one_before_has_saved(tmp_path: Path) -> None:
    async def story() -> None:
        async with two(tmp_path) as (a, b):
            a.it.start(batch(1))
            await until(lambda: a.inner.started == [1])
            assert a.notes == [], "a first attempt goes on from nothing"
            a.save("ten")
            await until(lambda: len(a.copies) == 1)
            b.it.start(batch(5, grant=9))
            await until(lambda: b.inner.started == [5])
            assert b.state() == "ten"
            assert b.notes == [NoteResumed(JOB, 9, 0, 1, 1, 1_700_000_000_000, B)]
            status = b.it.status()
            assert (status.running, status.resumed, status.damaged) == (1, 1, 0)

    play(story)


def test_a_newer_one_overtakes_those_that_the_budget_holds_back(tmp_path: Path) -> None:
    async def story() -> None:
        async with two(tmp_path, budget=100) as (a, _):
            a.it.start(batch(1))
            await until(lambda: a.inner.started == [1])
            a.save("first")
            await until(lambda: len(a.copies) == 1)
            for number in range(2, 5):
                a.save(f"state {number}")
                newest = number
                await until(lambda newest=newest: a.files.newest_key(JOB, 0) == (7, newest))  # type: ignore[misc]
            await until(lambda: a.it._runs[1].newest == (7, 4))  # it has looked at the budget, too
            assert a.it.status().behind == 1
            assert len(a.copies) == 1, "the budget is spent"
            a.clock.ms += 10 * 60_000
            a.save("state 5")
            await until(lambda: len(a.copies) == 2)
            assert [head.number for head in a.copies] == [1, 5]
            await until(lambda: a.it.status().skipped == 3)

    play(story)


def test_a_task_that_goes_is_told_of_once_its_last_checkpoint_has_gone(tmp_path: Path) -> None:
    async def story() -> None:
        async with two(tmp_path) as (a, b):
            a.it.start(batch(1))
            await until(lambda: a.inner.started == [1])
            a.may_copy.clear()
            a.it.stop(1, Cause.PEER_LOST)
            assert a.inner.stopped == [1]
            a.save("in its grace")
            a.it.on_executed(Ended(1, EMPTY))
            await until(lambda: a.files.newest_key(JOB, 0) == (7, 1))
            assert a.told == []
            assert 1 in a.it.standing().batches
            a.may_copy.set()
            await until(lambda: a.told == [Ended(1, EMPTY)])
            assert b.files.newest_key(JOB, 0) == (7, 1)

    play(story)


def test_an_attempt_waits_until_nothing_of_the_one_before_writes_into_its_folder(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        async with two(tmp_path) as (a, _):
            a.it.start(batch(1))
            await until(lambda: a.inner.started == [1])
            a.it.stop(1, Cause.PEER_LOST)
            a.it.start(batch(2, grant=9))
            a.save("in its grace")
            await until(lambda: a.files.newest_key(JOB, 0) == (7, 1))
            assert a.inner.started == [1]
            a.it.on_executed(Ended(1, EMPTY))
            await until(lambda: a.inner.started == [1, 2])
            assert a.state() == "in its grace"

    play(story)


def test_a_batch_that_is_stopped_before_it_began_has_not_begun(tmp_path: Path) -> None:
    async def story() -> None:
        async with two(tmp_path) as (a, _):
            a.it.start(batch(1))
            a.it.stop(1, Cause.CANCELLED)
            await until(lambda: a.told == [Ended(1, ONE)])
            a.it.start(batch(2))
            await until(lambda: a.inner.started == [2])

    play(story)


def test_what_still_looks_for_a_checkpoint_has_not_begun_and_says_why(tmp_path: Path) -> None:
    """Or a peer without a majority would not end it before it begins."""

    async def story() -> None:
        async with two(tmp_path) as (a, _):
            a.it.start(batch(1))
            (unbegun,) = a.it.standing().unbegun
            assert unbegun.batch == 1
            assert unbegun.reason, "it is no fault"
            await until(lambda: a.inner.started == [1])
            assert a.it.standing().unbegun == ()

    play(story)


def test_who_can_make_no_folder_refuses_the_task(tmp_path: Path) -> None:
    async def story() -> None:
        async with two(tmp_path) as (a, _):
            (tmp_path / A).write_text("in the way")
            a.it.start(batch(1))
            await until(lambda: len(a.told) == 2)
            refused, ended = a.told
            assert isinstance(refused, Progress)
            assert refused.segments[0].cause is Cause.NOT_STARTABLE
            assert ended == Ended(1, EMPTY)
            assert a.inner.started == []

    play(story)


def test_a_damaged_one_is_fetched_from_elsewhere(tmp_path: Path) -> None:
    async def story() -> None:
        async with two(tmp_path) as (a, b):
            a.it.start(batch(1))
            await until(lambda: a.inner.started == [1])
            a.save("ten")
            await until(lambda: len(a.copies) == 1)
            (path,) = a.files.path(JOB, 0).glob("*.checkpoint")
            data = bytearray(path.read_bytes())
            data[-40] ^= 8
            path.write_bytes(data)
            a.it.on_executed(Ended(1, EMPTY))
            a.it.start(batch(2, attempt=2))
            await until(lambda: a.inner.started == [1, 2])
            assert a.state() == "ten"
            assert a.notes[0].source == B
            assert a.files.damaged == 1
            assert b.files.damaged == 0

    play(story)


def test_other_tasks_pass_untouched(tmp_path: Path) -> None:
    async def story() -> None:
        async with two(tmp_path) as (a, _):
            plain = JobSpec("j", ONE, ProgramWork(("true",)))
            a.it.start(batch(1, spec=plain))
            assert a.inner.started == [1], "at once"
            a.it.on_executed(Ended(1, EMPTY))
            a.it.stop(1, Cause.CANCELLED)
            assert (a.told, a.inner.stopped) == ([Ended(1, EMPTY)], [1])
            assert a.files.tasks() == []

    play(story)


def test_a_source_that_is_gone_says_so(tmp_path: Path) -> None:
    async def story() -> None:
        async with two(tmp_path) as (a, b):
            gone = Head(JOB, 0, 7, 3, 0, 10, 0)
            with pytest.raises(NotFound, match="a newer one has taken its place"):
                await b.it.ways.fetch(gone, A)
            assert list(b.files.path(JOB, 0).glob("*.making")) == []
            assert a.files.saved(JOB, 0) == []

    play(story)
