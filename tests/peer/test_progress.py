"""How far tasks are is asked for seldom, and told only if it is news."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from p2psched.core.owner import Owner
from p2psched.core.state import LedgerState
from p2psched.model.errors import NotFound, Unavailable
from p2psched.model.ids import JobId, PeerId
from p2psched.model.messages import AnswerBody, CallBody
from p2psched.model.progress_messages import (
    GetProgress,
    JobProgress,
    ProgressOf,
    ProgressTold,
    TaskProgress,
)
from p2psched.peer.progress import FRESH_MS, OWNERS_MAX, ProgressApi

ME, OTHER = PeerId("1" * 32), PeerId("2" * 32)
JOB, ELSE = JobId("a" * 32), JobId("b" * 32)


def row(job: JobId, index: int, done: float) -> TaskProgress:
    return TaskProgress(
        job=job, index=index, attempt=1, ran_ms=9_000, quiet_ms=500, done=done, left_ms=4_000
    )


class Peers:
    """Others, who all run the same, and note what they are asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[PeerId, int]] = []
        self.version = 1
        self.rows: tuple[TaskProgress, ...] = (row(JOB, 1, 3.0), row(ELSE, 0, 1.0))
        self.is_up = True

    def connected(self) -> frozenset[PeerId]:
        return frozenset()

    async def call(self, peer: PeerId, body: CallBody) -> AnswerBody:
        assert isinstance(body, ProgressOf)
        self.asked.append((peer, body.seen))
        if not self.is_up:
            raise Unavailable("gone")
        is_news = body.seen != self.version
        return ProgressTold(self.version, self.rows if is_news else None)


class Rig:
    def __init__(self, owners: list[PeerId]) -> None:
        self.now_ms = 1_000_000
        self.peers = Peers()
        pacing = Owner(LedgerState(), slots=1).pacing
        known: Callable[[JobId], list[PeerId] | None] = {JOB: owners, ELSE: owners}.get
        self.api = ProgressApi(ME, pacing, self.peers, known, lambda: self.now_ms)

    def ask(self, job: JobId = JOB, times: int = 1) -> JobProgress:
        async def all_of_them() -> JobProgress:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self.api.answer(GetProgress(job))) for _ in range(times)]
            answer = tasks[-1].result()
            assert isinstance(answer, JobProgress)
            return answer

        return asyncio.run(all_of_them())


def test_an_owner_is_asked_once_a_second_however_many_look_at_whatever_job() -> None:
    rig = Rig([ME, OTHER])
    for _ in range(10):  # in one second
        rig.ask(JOB, times=20)
        rig.ask(ELSE, times=20)
        rig.now_ms += FRESH_MS // 10 - 1
    assert rig.peers.asked == [(OTHER, 0)]
    rig.now_ms += FRESH_MS
    rig.ask()
    assert rig.peers.asked == [(OTHER, 0), (OTHER, 1)]


def test_only_news_is_told_and_what_is_shown_grows_older_meanwhile() -> None:
    rig = Rig([OTHER])
    (shown,) = rig.ask().tasks
    assert (shown.index, shown.done, shown.peer) == (1, 3.0, OTHER)
    rig.now_ms += 2_000
    (shown,) = rig.ask().tasks
    assert (shown.done, shown.ran_ms, shown.quiet_ms, shown.left_ms) == (3.0, 11_000, 2_500, 2_000)
    rig.peers.version, rig.peers.rows = 2, (row(JOB, 1, 4.0),)
    rig.now_ms += 1_000
    (shown,) = rig.ask().tasks
    assert (shown.done, shown.ran_ms) == (4.0, 9_000)


def test_an_owner_that_does_not_answer_is_named_and_others_are_shown() -> None:
    rig = Rig([ME, OTHER])
    rig.peers.is_up = False
    answer = rig.ask()
    assert (answer.tasks, answer.silent) == ((), (OTHER,))


def test_no_more_than_so_many_owners_are_asked_for_one_job() -> None:
    rig = Rig([PeerId(f"{number:032x}") for number in range(3 * OWNERS_MAX)])
    rig.ask()
    assert len(rig.peers.asked) == OWNERS_MAX


def test_an_unknown_job_is_an_error() -> None:
    with pytest.raises(NotFound):
        asyncio.run(Rig([]).api.answer(GetProgress(JobId("c" * 32))))
