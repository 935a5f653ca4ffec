"""Tasks: values, errors, cancelling, and waiting for many."""

from __future__ import annotations

import asyncio
import gc
import operator
import weakref
from typing import cast

import pytest

from p2psched.client import futures
from p2psched.client.futures import ReturnWhen, Task
from p2psched.client.pipeline import Pipeline, keep_house
from p2psched.client.results import RemoteTraceback
from p2psched.model.errors import Refused, TaskFailed, Unavailable, UsageError
from tests.client.fake import FakeSession, opened, submit, turns


@pytest.fixture(autouse=True, params=["quick", "task"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches leave with one call, or have a task each."""
    monkeypatch.setattr(FakeSession, "takes_quick", request.param == "quick")


def divide(one: int, two: int) -> float:
    return one / two


def test_awaiting_raises_what_the_task_raised_with_its_traceback_as_the_cause() -> None:
    async def main() -> None:
        async with opened(FakeSession()) as pipeline:
            task = submit(pipeline, divide, 1, 0)
            for _ in range(2):
                with pytest.raises(ZeroDivisionError) as caught:
                    await task
                assert isinstance(caught.value.__cause__, RemoteTraceback)
                assert "return one / two" in str(caught.value.__cause__)
            assert isinstance(task.exception(), ZeroDivisionError)
            assert "failed: ZeroDivisionError" in repr(task)

    asyncio.run(main())


def test_a_task_that_goes_on_has_no_result_yet() -> None:
    async def main() -> None:
        session = FakeSession(runs=False)
        async with opened(session) as pipeline:
            task = submit(pipeline, operator.neg, 1)
            assert (task.index, task.done()) == (None, False)
            await task.accepted()
            assert (task.index, task.done()) == (0, False)
            for look in (task.result, task.exception):
                with pytest.raises(asyncio.InvalidStateError):
                    look()
            session.newest.run()
            assert await task == -1
            assert (task.result(), task.exception(), task.done()) == (-1, None, True)

    asyncio.run(main())


def test_a_deadline_ends_the_wait_and_not_the_task() -> None:
    async def main() -> None:
        session = FakeSession(runs=False)
        async with opened(session) as pipeline:
            task = submit(pipeline, operator.neg, 1)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await task
            await task.accepted()
            assert (task.cancelled(), session.cancels) == (False, [])
            session.newest.run()
            assert await task == -1

    asyncio.run(main())


def test_what_is_cancelled_before_it_left_never_leaves() -> None:
    async def main() -> None:
        session = FakeSession()
        async with opened(session) as pipeline:
            tasks = [submit(pipeline, operator.neg, number) for number in range(4)]
            alone = submit(pipeline, operator.pos, 1)
            assert [tasks[1].cancel(), alone.cancel(), alone.cancel()] == [True, True, False]
            assert [await task for task in tasks if not task.cancelled()] == [0, -2, -3]
            assert [task.index for task in tasks] == [0, None, 1, 2]
            with pytest.raises(asyncio.CancelledError):
                await tasks[1]
            assert [len(spec.tasks) for spec in session.submits] == [3]
            assert session.cancels == []

    asyncio.run(main())


def test_the_job_is_cancelled_once_nobody_waits_for_any_unfinished_task_of_it() -> None:
    async def main() -> None:
        session = FakeSession(runs=False)
        async with opened(session) as pipeline:
            tasks = [submit(pipeline, operator.neg, number) for number in range(3)]
            await tasks[0].accepted()
            session.newest.run(1)
            assert await tasks[1] == -1
            tasks[0].cancel()
            await tasks[0].wait_cancelled()
            assert session.cancels == []
            tasks[2].cancel()
            await tasks[2].wait_cancelled()
            assert session.cancels == [session.newest.id]
            assert tasks[1].result() == -1

    asyncio.run(main())


def test_what_is_cancelled_on_its_way_is_cancelled_in_the_ledger_once_it_is_accepted() -> None:
    async def main() -> None:
        session = FakeSession(runs=False)
        session.gate.clear()
        async with opened(session) as pipeline:
            task = submit(pipeline, operator.neg, 1)
            await turns()
            task.cancel()
            await turns()
            assert session.cancels == []
            session.gate.set()
            await task.wait_cancelled()
            assert session.cancels == [session.newest.id]

    asyncio.run(main())


def test_a_result_that_comes_after_the_cancel_changes_nothing() -> None:
    async def main() -> None:
        session = FakeSession(runs=False)
        async with opened(session) as pipeline:
            dropped, kept = (submit(pipeline, operator.neg, number) for number in (1, 2))
            await kept.accepted()
            dropped.cancel()
            session.newest.run()
            assert await kept == -2
            assert dropped.cancelled()

    asyncio.run(main())


def test_a_cancel_that_reaches_nobody_is_told() -> None:
    async def main() -> None:
        session = FakeSession(runs=False)
        async with opened(session) as pipeline:
            task = submit(pipeline, operator.neg, 1)
            await task.accepted()
            session.failure = Unavailable("nobody")
            task.cancel()
            with pytest.raises(Unavailable):
                await task.wait_cancelled()

    asyncio.run(main())


def test_a_job_cancelled_by_somebody_else_fails_its_unfinished_tasks() -> None:
    async def main() -> None:
        session = FakeSession(runs=False)
        async with opened(session) as pipeline:
            tasks = [submit(pipeline, operator.neg, number) for number in range(2)]
            await tasks[0].accepted()
            session.newest.run(0)
            session.newest.cancel()
            assert await tasks[0] == 0
            with pytest.raises(TaskFailed, match="was cancelled"):
                await tasks[1]

    asyncio.run(main())


def test_accepted_raises_what_kept_the_task_from_being_accepted() -> None:
    async def main() -> None:
        session = FakeSession()
        session.failure = Refused("not here")
        async with opened(session) as pipeline:
            task = submit(pipeline, operator.neg, 1)
            with pytest.raises(Refused, match="not here"):
                await task.accepted()
            cancelled = submit(pipeline, operator.neg, 1)
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled.accepted()

    asyncio.run(main())


def test_tasks_that_a_closed_client_left_open_are_unavailable() -> None:
    async def main() -> None:
        session = FakeSession(runs=False)
        async with opened(session) as pipeline:
            accepted = submit(pipeline, operator.neg, 1)
            await accepted.accepted()
            session.gate.clear()
            left = submit(pipeline, operator.neg, 2)
            await turns()
            waits = submit(pipeline, operator.pos, 3)
        for task in (accepted, left, waits):
            with pytest.raises(Unavailable, match="client closed"):
                await task
        with pytest.raises(Unavailable, match="client closed"):
            submit(pipeline, operator.neg, 1)

    asyncio.run(main())


def test_all_is_sent_once_it_is_accepted_though_it_goes_on() -> None:
    async def main() -> None:
        session = FakeSession(runs=False)
        async with opened(session) as pipeline:
            await pipeline.wait_sent()
            session.gate.clear()
            task = submit(pipeline, operator.neg, 1)
            async with asyncio.TaskGroup() as group:
                sent = group.create_task(pipeline.wait_sent())
                await turns()
                assert not sent.done()
                session.gate.set()
            assert not task.done()
            session.failure = Refused("no")
            refused = submit(pipeline, operator.neg, 1)
            await pipeline.wait_sent()
            assert isinstance(refused.exception(), Refused)

    asyncio.run(main())


def test_after_a_fault_of_the_client_nothing_waits_for_ever_and_the_log_has_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        session = FakeSession(runs=False)
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[Pipeline] = loop.create_future()
        house = loop.create_task(keep_house(session, ready, session.send, submitter=""))
        pipeline = await ready
        waits = submit(pipeline, operator.neg, 1)
        await waits.accepted()
        session.failure = KeyError("a bug")
        tasks = [waits, submit(pipeline, operator.neg, 2)]
        for task in tasks:
            with pytest.raises(Unavailable):
                await task
        with pytest.raises(ExceptionGroup):
            await house
        with pytest.raises(Unavailable, match="a fault of its own: see the log"):
            submit(pipeline, operator.neg, 3)

    asyncio.run(main())
    assert [record.message for record in caplog.records] == ["client-fault"]
    assert "KeyError: 'a bug'" in caplog.text


def test_callbacks_get_the_task_once_it_has_ended_and_not_if_they_were_removed() -> None:
    async def main() -> None:
        seen: list[Task[int]] = []
        removed: list[Task[int]] = []
        async with opened(FakeSession()) as pipeline:
            task = submit(pipeline, operator.neg, 1)
            task.add_done_callback(seen.append)
            task.add_done_callback(removed.append)
            assert task.remove_done_callback(removed.append) == 1
            await task
            await turns()
            task.add_done_callback(seen.append)
            assert len(seen) == 1  # never inside the call that adds it
            await turns()
            assert (seen, removed) == ([task, task], [])

    asyncio.run(main())


def test_a_task_is_not_awaited_in_another_loop() -> None:
    async def main() -> Task[int]:
        session = FakeSession(runs=False)
        async with opened(session) as pipeline:
            task = submit(pipeline, operator.neg, 1)
            await task.accepted()

            async def elsewhere() -> None:
                with pytest.raises(UsageError, match="event loop"):
                    await task

            await asyncio.to_thread(asyncio.run, elsewhere())
            session.newest.run()
            await task
            return task

    async def read(task: Task[int]) -> int:
        return await task  # what has ended is a value, anywhere

    assert asyncio.run(read(asyncio.run(main()))) == -1


# --- many -----------------------------------------------------------------------------------------


def test_gather_gives_values_in_order_and_raises_as_soon_as_one_has_failed() -> None:
    async def main() -> None:
        session = FakeSession(runs=False)
        async with opened(session) as pipeline:
            tasks = [submit(pipeline, divide, 6, number) for number in (3, 0, 2)]
            await tasks[0].accepted()
            session.newest.run(1)
            with pytest.raises(ZeroDivisionError):
                await futures.gather(tasks, return_exceptions=False)
            assert not tasks[0].done()
            session.newest.run(2, 0)
            assert await futures.gather(tasks[::2], return_exceptions=False) == [2, 3]
            values = await futures.gather(tasks, return_exceptions=True)
            assert [values[0], type(values[1]), values[2]] == [2, ZeroDivisionError, 3]
            assert await futures.gather([], return_exceptions=False) == []

    asyncio.run(main())


def test_as_completed_gives_each_task_once_in_the_order_in_which_they_end() -> None:
    async def main() -> None:
        session = FakeSession(runs=False)
        async with opened(session) as pipeline:
            tasks = [submit(pipeline, operator.neg, number) for number in range(4)]
            await tasks[0].accepted()
            session.newest.run(2)
            await tasks[2]
            ended = futures.as_completed([*tasks, *tasks])
            assert await anext(ended) is tasks[2]
            session.newest.run(3, 0, 1)
            assert [task.index async for task in ended] == [3, 0, 1]

    asyncio.run(main())


def test_as_completed_holds_no_task_that_it_gave_out() -> None:
    async def main() -> None:
        async with opened(FakeSession()) as pipeline:
            tasks = [submit(pipeline, operator.neg, number) for number in range(3)]
            ended = futures.as_completed(iter(tasks))
            tasks.clear()
            async for task in ended:
                await turns()
                seen = weakref.ref(task)
                del task
                gc.collect()
                assert seen() is None

    asyncio.run(main())


@pytest.mark.parametrize(
    ("return_when", "ended", "done"),
    [
        ("FIRST_COMPLETED", [1], [1]),
        ("FIRST_EXCEPTION", [1, 0], [0, 1]),
        ("ALL_COMPLETED", [2, 1, 0], [0, 1, 2]),
    ],
)
def test_wait_returns_when_it_shall(return_when: str, ended: list[int], done: list[int]) -> None:
    async def main() -> None:
        session = FakeSession(runs=False)
        async with opened(session) as pipeline:
            tasks = [submit(pipeline, divide, 6, number) for number in range(3)]
            await tasks[0].accepted()
            async with asyncio.TaskGroup() as group:
                waiting = group.create_task(
                    futures.wait(tasks, timeout_s=None, return_when=cast("ReturnWhen", return_when))
                )
                for index in ended:
                    await turns()
                    assert not waiting.done()
                    session.newest.run(index)
            found, left = waiting.result()
            assert sorted(task.index or 0 for task in found) == done
            assert found | left == set(tasks)

    asyncio.run(main())


def test_wait_ends_at_its_time_limit_without_an_error() -> None:
    async def main() -> None:
        async with opened(FakeSession(runs=False)) as pipeline:
            task = submit(pipeline, operator.neg, 1)
            await task.accepted()
            found = await futures.wait([task], timeout_s=0, return_when="ALL_COMPLETED")
            assert found == (set(), {task})
            with pytest.raises(UsageError, match="FIRST_COMPLETED"):
                await futures.wait([task], timeout_s=0, return_when=cast("ReturnWhen", "x"))

    asyncio.run(main())
