"""How many commands carry how many calls."""

from __future__ import annotations

import asyncio
import operator
from dataclasses import dataclass

import pytest

from p2psched.client.batching import BATCH_BYTES_MAX, BATCH_TASKS_MAX
from p2psched.client.options import Options, unwrap
from p2psched.client.pipeline import OPEN_TASKS_MAX, SUBMITS_IN_FLIGHT_MAX, Pipeline
from p2psched.model.errors import Refused, Unavailable, UsageError
from p2psched.model.job import FunctionWork
from tests.client.fake import FakeSession, opened, submit, turns


def test_calls_of_one_turn_travel_as_one_job() -> None:
    async def main() -> None:
        session = FakeSession()
        async with opened(session) as pipeline:
            tasks = [submit(pipeline, operator.neg, number) for number in range(100)]
            assert [await task for task in tasks] == [-number for number in range(100)]
            assert [len(spec.tasks) for spec in session.submits] == [100]
            assert [task.index for task in tasks] == list(range(100))
            assert {task.job.id for task in tasks} == set(session.jobs)

    asyncio.run(main())


def test_each_function_and_each_set_of_options_has_a_job_of_its_own() -> None:
    async def main() -> None:
        session = FakeSession()
        async with opened(session) as pipeline:
            tasks = [
                submit(pipeline, function, 5, **options)
                for function in (operator.neg, operator.pos, "operator:neg")
                for options in ({}, {"retries": 2}, {"cpus": 2}, {"name": "x"})
                for _ in range(2)
            ]
            await turns()
            assert all(task.done() for task in tasks)
            assert [len(spec.tasks) for spec in session.submits] == [2] * 12
            assert [spec.retries for spec in session.submits[:4]] == [0, 2, 0, 0]

    asyncio.run(main())


def test_what_is_over_a_batch_goes_into_the_next_one() -> None:
    async def main() -> None:
        session = FakeSession()
        async with opened(session) as pipeline:
            many = [submit(pipeline, operator.pos, 1) for _ in range(BATCH_TASKS_MAX + 1)]
            large = [submit(pipeline, len, b"x" * (BATCH_BYTES_MAX // 5)) for _ in range(6)]
            for task in (many[-1], *large):
                await task
            assert [len(spec.tasks) for spec in session.submits] == [BATCH_TASKS_MAX, 1, 4, 2]
            assert session.uploads == []


def test_a_large_argument_goes_up_before_its_job() -> None:
    async def main() -> None:
        session = FakeSession(runs=False)
        async with opened(session) as pipeline:
            task = submit(pipeline, len, b"x" * 10**6)
            await task.accepted()
            (upload,) = session.uploads
            assert upload.ref.size > 10**6
            (work,) = (spec.work for spec in session.submits)
            assert isinstance(work, FunctionWork)
            assert work.blobs == (upload.ref,)

    asyncio.run(main())


def test_calls_pile_up_while_enough_batches_are_on_their_way() -> None:
    async def main() -> None:
        session = FakeSession()
        session.gate.clear()
        async with opened(session) as pipeline:
            tasks = []
            for number in range(SUBMITS_IN_FLIGHT_MAX + 30):
                tasks.append(submit(pipeline, operator.neg, number))
                await turns(3)
            assert len(session.submits) == SUBMITS_IN_FLIGHT_MAX
            session.gate.set()
            assert [await task for task in tasks] == [-number for number in range(len(tasks))]
            assert [len(spec.tasks) for spec in session.submits] == [
                *[1] * SUBMITS_IN_FLIGHT_MAX,
                30,
            ]

    asyncio.run(main())


def test_arguments_are_taken_when_they_are_submitted() -> None:
    async def main() -> None:
        async with opened(FakeSession()) as pipeline:
            row = [0]
            tasks = []
            for number in range(3):
                row[0] = number
                tasks.append(submit(pipeline, sum, row))
            assert [await task for task in tasks] == [0, 1, 2]

    asyncio.run(main())


@dataclass(frozen=True)
class Times:
    """Equal to what computes something else: 1 == 1.0."""

    factor: float

    def __call__(self, number: int) -> float:
        return self.factor * number

    def method(self, number: int) -> float:
        return self.factor + number


def test_equal_functions_are_not_taken_for_the_same_one_and_a_method_is() -> None:
    async def main() -> None:
        session = FakeSession()
        async with opened(session) as pipeline:
            tasks = [submit(pipeline, Times(factor), 3) for factor in (1, 1.0)]
            assert [type(await task) for task in tasks] == [int, float]
            times = Times(2)
            tasks = [submit(pipeline, times.method, number) for number in (1, 2)]
            assert [await task for task in tasks] == [3, 4]
            assert [len(spec.tasks) for spec in session.submits] == [1, 1, 2]

    asyncio.run(main())


def test_what_cannot_be_packed_is_refused_at_once_and_harms_no_other_call() -> None:
    async def main() -> None:
        async with opened(FakeSession()) as pipeline:
            good = submit(pipeline, operator.neg, 1)
            with pytest.raises(UsageError, match="an argument can't be serialised"):
                submit(pipeline, operator.neg, (number for number in range(3)))
            lock = asyncio.Lock()
            lock_holder = (number for number in range(3))
            with pytest.raises(UsageError, match="the function can't be serialised"):
                submit(pipeline, lambda: (lock, lock_holder))
            assert await good == -1

    asyncio.run(main())


def test_what_the_cluster_refuses_is_raised_by_each_task_of_the_batch() -> None:
    async def main() -> None:
        session = FakeSession()
        async with opened(session) as pipeline:
            session.failure = Refused("no")
            for task in [submit(pipeline, operator.neg, 1) for _ in range(2)]:
                with pytest.raises(Refused, match="no"):
                    await task

    asyncio.run(main())


def test_more_open_tasks_than_the_limit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2psched.client.pipeline.OPEN_TASKS_MAX", 3)
    assert OPEN_TASKS_MAX >= 10**6

    async def fill(pipeline: Pipeline) -> None:
        tasks = [submit(pipeline, operator.neg, 1) for _ in range(3)]
        with pytest.raises(Unavailable, match="await some first"):
            submit(pipeline, operator.neg, 1)
        for task in tasks:
            await task
        await turns()

    async def main() -> None:
        async with opened(FakeSession()) as pipeline:
            await fill(pipeline)
            await fill(pipeline)  # what has ended is not counted

    asyncio.run(main())


def test_an_object_with_options_brings_its_own() -> None:
    @dataclass
    class Given:
        retries: int = 3
        timeout_s: float | None = 2.5
        cpus: int = 4
        name: str | None = "given"

    @dataclass
    class Wrapped:
        function: object
        settings: Given

    expected = Options(retries=3, timeout_s=2.5, cpus=4, name="given")
    assert unwrap(Wrapped(len, Given())) == (len, expected)
    assert unwrap(len) == (len, Options())
    assert unwrap("math:sqrt", expected) == ("math:sqrt", expected)
    with pytest.raises(UsageError, match="not a function"):
        unwrap(3)
