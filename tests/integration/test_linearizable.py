"""Submits, cancels and all reads of real clients are single steps, also while their leader dies."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Final

import pytest

from p2psched.client.session import Session
from p2psched.model.errors import NotFound, Unavailable
from p2psched.model.ids import JobId, new_id
from p2psched.model.job import JobSpec, JobState, ProgramWork
from p2psched.model.messages import (
    CancelJob,
    Done,
    FetchResults,
    FindJob,
    JobAccepted,
    JobList,
    JobView,
    ListJobs,
    ResultPage,
    ShowJob,
    Submit,
)
from p2psched.model.taskset import TaskSet
from p2psched.store.folder import read_secret_file
from p2psched.testing.linear_models import Tasks
from p2psched.testing.linearizable import UNKNOWN, History, Operation, check
from tests.integration.rig import Rig, until
from tests.linearizable.second import second_opinion

pytestmark = pytest.mark.process

CLIENTS: Final = 6
JOBS: Final = 40  # ids, a few of which are worked on at any time
TOGETHER: Final = 4
ANSWERS: Final = 500  # before the kill, after it, and after the leader is back
# One try for each call: what a client tries again by itself is two operations, not one.
PATIENCE_S: Final = 0.0
# More slots than any peer has: it waits, and only clients change what becomes of it.
SPEC: Final = JobSpec(name="waits", tasks=TaskSet.of(0, 1), work=ProgramWork(("true",)), cpus=64)
LOOKS: Final = {JobState.RUNNING: "waiting", JobState.CANCELLED: "cancelled"}


class Caller:
    """One client: one request at a time, on one of the youngest few jobs."""

    def __init__(self, name: str, history: History, jobs: list[JobId], session: Session) -> None:
        self._name = name
        self._history = history
        self._jobs = jobs
        self._session = session
        self._rng = random.Random(name)

    async def work(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            rng = self._rng
            if len(self._jobs) < JOBS and rng.random() < 0.05:
                self._jobs.append(JobId(new_id(rng)))
            job = rng.choice(self._jobs[-TOGETHER:])
            word = rng.choices(("submit", "cancel", "look"), weights=(3, 1, 6))[0]
            operation = self._history.call(self._name, (word, job))
            try:
                await self._call(word, job, operation)
            except Unavailable:  # it may have happened, or may happen yet
                if word == "look":
                    self._history.void(operation)

    async def _call(self, word: str, job: JobId, operation: Operation) -> None:
        match word:
            case "submit":
                await self._session.call(Submit(job, SPEC), JobAccepted)
                self._history.answer(operation, UNKNOWN)  # a client isn't told who was first
            case "cancel":
                try:
                    await self._session.call(CancelJob(job), Done)
                except NotFound:
                    self._history.answer(operation, False)
                else:
                    self._history.answer(operation, True)
            case "look":
                state = await self._look(job)
                self._history.answer(operation, None if state is None else LOOKS[state])

    async def _look(self, job: JobId) -> JobState | None:
        """By one of the reads that tell of a job."""
        session = self._session
        try:
            match self._rng.randrange(4):
                case 0:
                    return (await session.call(ShowJob(job), JobView)).state
                case 1:
                    return (await session.call(FindJob(job), JobView)).state
                case 2:
                    return (await session.call(FetchResults(job, 0), ResultPage)).view.state
                case _:
                    found = await session.call(ListJobs(1000), JobList)
                    return next((view.state for view in found.jobs if view.job == job), None)
        except NotFound:
            return None


def _answered(history: History) -> int:
    return sum(operation.answered is not None for operation in history.operations)


async def _until_answered(history: History, more: int) -> None:
    wanted = _answered(history) + more
    await until(lambda: _answered(history) >= wanted)


async def _record(rig: Rig) -> History:
    """Clients at work, and their leader killed in the midst of it."""
    history = History()
    jobs: list[JobId] = [JobId(new_id(random.Random(1)))]
    secret = read_secret_file(rig.cluster.secret_path)
    addresses = [peer.address for peer in rig.cluster.peers.values()]

    async def work(number: int, stop: asyncio.Event) -> None:
        nearest_first = addresses[number % 3 :] + addresses[: number % 3]
        async with Session(nearest_first, secret=secret, patience_s=PATIENCE_S) as session:
            await Caller(f"client {number}", history, jobs, session).work(stop)

    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for number in range(CLIENTS):
            group.create_task(work(number, stop))
        await _until_answered(history, ANSWERS)
        leader = await rig.leader()
        rig.cluster.kill(leader)
        await _until_answered(history, ANSWERS)
        rig.cluster.restart(leader)
        await _until_answered(history, ANSWERS)
        stop.set()
    async with rig.client() as client:
        for job in jobs:  # none of them ends by itself
            with contextlib.suppress(NotFound):
                await client.session.call(CancelJob(job), Done)
    return history


def test_what_clients_saw_while_their_leader_died_has_an_order_that_explains_it(rig: Rig) -> None:
    history = asyncio.run(_record(rig))
    result = check(history.operations, Tasks())
    assert result.ok, result.explain()
    assert second_opinion(history.operations, Tasks())

    # Had one look been answered from before a cancel that another had seen, it would be noticed.
    seen = [op for op in history.operations if op.answer == "cancelled"]
    stale = next(
        late
        for late in seen
        for early in seen
        if early.asked == late.asked and early.answered and early.answered < late.called
    )
    stale.answer = "waiting"
    broken = check(history.operations, Tasks()).broken
    assert broken is not None
    assert broken.key == Tasks().key(stale.asked)
