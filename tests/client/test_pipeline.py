"""Batches that need one call and no task, and those for which that was not enough."""

from __future__ import annotations

import asyncio
import operator

import pytest

from p2psched.client.pipeline import FOLLOWED_IN_FLIGHT_MAX, SUBMITS_IN_FLIGHT_MAX
from p2psched.model import chunks
from p2psched.model.blob import BlobRef, ResultBlob
from p2psched.model.errors import Refused, ResultLost, Unavailable
from p2psched.model.job import Cause, Segment
from p2psched.model.limits import ARGUMENT_INLINE_BYTES_MAX
from p2psched.model.messages import Done, FetchResults, FirstResults, Submit
from tests.client.fake import FakeSession, opened, submit, turns


def kinds(session: FakeSession) -> list[str]:
    return [type(body).__name__ for body in session.asked]


def follows(session: FakeSession) -> list[bool]:
    return [body.follow for body in session.asked if isinstance(body, Submit)]


def test_a_job_that_ends_soon_takes_one_call() -> None:
    async def main() -> None:
        session = FakeSession()
        async with opened(session) as pipeline:
            tasks = [submit(pipeline, operator.neg, number) for number in range(3)]
            assert [await task for task in tasks] == [0, -1, -2]
            assert (kinds(session), follows(session)) == (["Submit"], [True])
            await tasks[0].accepted()

    asyncio.run(main())


def test_what_has_not_ended_with_the_first_results_is_fetched_behind_them() -> None:
    async def main() -> None:
        session = FakeSession()
        session.runs_first = (1,)
        async with opened(session) as pipeline:
            tasks = [submit(pipeline, operator.neg, number) for number in range(3)]
            assert await tasks[1] == -1
            await turns()
            assert [b.position for b in session.asked if isinstance(b, FetchResults)] == [1]
            session.newest.run(0)
            session.newest.run(2)
            assert [await task for task in tasks] == [0, -1, -2]

    asyncio.run(main())


def test_who_waits_for_the_acceptance_does_not_wait_for_results() -> None:
    async def main() -> None:
        session = FakeSession(runs=False)
        async with opened(session) as pipeline:
            task = submit(pipeline, operator.neg, 1)
            await task.accepted()
            assert follows(session) == [False]

    asyncio.run(main())


def test_few_jobs_hold_places_on_their_way_until_their_results_come() -> None:
    async def main() -> None:
        session = FakeSession()
        session.gate.clear()
        async with opened(session) as pipeline:
            for number in range(2 * SUBMITS_IN_FLIGHT_MAX):
                submit(pipeline, operator.neg, number)
                await turns()
            plain = SUBMITS_IN_FLIGHT_MAX - FOLLOWED_IN_FLIGHT_MAX
            assert follows(session) == [True] * FOLLOWED_IN_FLIGHT_MAX + [False] * plain

    asyncio.run(main())


def test_a_job_is_submitted_again_where_the_first_call_failed() -> None:
    async def main() -> None:
        session = FakeSession()
        session.quick_answers.append(Unavailable("this peer is gone"))
        async with opened(session) as pipeline:
            assert await submit(pipeline, operator.neg, 1) == -1
            assert kinds(session) == ["Submit", "Submit", "FetchResults"]
            first, second = (body for body in session.asked if isinstance(body, Submit))
            assert (first.job, first.spec) == (second.job, second.spec)

    asyncio.run(main())


def test_a_blob_is_sent_once_and_again_if_it_is_lost() -> None:
    large = bytes(ARGUMENT_INLINE_BYTES_MAX)

    async def main() -> None:
        session = FakeSession()
        async with opened(session) as pipeline:
            for uploads in (1, 1):
                await submit(pipeline, "builtins:len", large).accepted()
                assert len(session.uploads) == uploads
            session.quick_answers.append(ResultLost("nobody has this blob"))
            await submit(pipeline, "builtins:len", large).accepted()
            assert len(session.uploads) == 2

    asyncio.run(main())


def test_results_with_blobs_are_fetched_again_and_completed() -> None:
    async def main() -> None:
        session = FakeSession()
        blob = ResultBlob(0, "", BlobRef(bytes(32), 10), ())
        large = Segment(0, 1, Cause.OK, chunks.pack([b"x"]), blobs=(blob,))
        session.quick_answers.append(FirstResults((large,), 1, ended=True))
        async with opened(session) as pipeline:
            assert await submit(pipeline, operator.neg, 1) == -1
            assert kinds(session) == ["Submit", "FetchResults"]

    asyncio.run(main())


def test_a_damaged_result_is_an_error_of_its_tasks() -> None:
    async def main() -> None:
        session = FakeSession()
        damaged = Segment(0, 1, Cause.OK, b"no chunk")
        session.quick_answers.append(FirstResults((damaged,), 1, ended=True))
        async with opened(session) as pipeline:
            with pytest.raises(ValueError, match="chunk"):
                await submit(pipeline, operator.neg, 1)

    asyncio.run(main())


def test_an_answer_of_another_kind_is_another_version() -> None:
    async def main() -> None:
        session = FakeSession()
        session.quick_answers.append(Done())
        async with opened(session) as pipeline:
            with pytest.raises(Refused, match="another version"):
                await submit(pipeline, operator.neg, 1)

    asyncio.run(main())


def test_an_answer_that_comes_after_the_end_changes_nothing() -> None:
    async def main() -> None:
        session = FakeSession()
        session.gate.clear()
        async with opened(session) as pipeline:
            task = submit(pipeline, operator.neg, 1)
            await turns()
        session.gate.set()
        await turns()
        assert session.newest.segments
        assert isinstance(task.exception(), Unavailable)

    asyncio.run(main())


def test_a_waiter_that_raises_leaves_no_other_one_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def on_result(task: object, result: object) -> None:
        raise KeyError(task, result)

    async def main() -> None:
        session = FakeSession()
        async with opened(session) as pipeline:
            tasks = [submit(pipeline, operator.neg, number) for number in range(2)]
            monkeypatch.setattr(type(tasks[0]), "on_result", on_result)
            with pytest.raises(Unavailable):
                await tasks[1]
        with pytest.raises(KeyError):
            await session.calls[0]

    asyncio.run(main())
