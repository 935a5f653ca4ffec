"""One limit for many waits: it behaves as `asyncio.timeout` does for each of them."""

from __future__ import annotations

import asyncio

import pytest

from p2psched.net.patience import Patience
from tests.net.conftest import Run

SHORT_S = 0.01


async def never() -> None:
    await asyncio.get_running_loop().create_future()


def test_every_wait_that_takes_too_long_is_ended_in_the_order_in_which_they_began(run: Run) -> None:
    ended: list[int] = []

    async def wait(patience: Patience, number: int) -> None:
        with pytest.raises(TimeoutError):
            async with patience.limit():
                await never()
        ended.append(number)

    async def main() -> None:
        patience = Patience(SHORT_S)
        for first in (0, 100):  # the second hundred needs the timer that the first one used
            async with asyncio.TaskGroup() as group:
                for number in range(first, first + 100):
                    group.create_task(wait(patience, number))

    run(main())
    assert ended == list(range(200))


def test_one_that_raises_when_its_time_is_over_holds_up_no_other(run: Run) -> None:
    class Wait:
        def __init__(self, ended: asyncio.Event, error: Exception | None = None) -> None:
            self.ended, self.error = ended, error

        def expire(self) -> None:
            self.ended.set()
            if self.error is not None:
                raise self.error

    async def main() -> None:
        told: list[object] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: told.append(context["exception"]))
        patience, error = Patience(SHORT_S), ValueError("a waiter's own")
        waits = [Wait(asyncio.Event(), error), Wait(asyncio.Event())]
        for wait in waits:
            patience.begin(wait)
        for wait in waits:
            await wait.ended.wait()
        assert told == [error]

    run(main())


def test_a_wait_that_began_later_outlives_the_end_of_an_earlier_one(run: Run) -> None:
    async def main() -> None:
        patience = Patience(SHORT_S)
        began = asyncio.Event()

        async def second() -> None:
            await began.wait()
            async with patience.limit():
                pass  # in time, whatever became of the first one
            with pytest.raises(TimeoutError):
                async with patience.limit():
                    await never()

        async def first() -> None:
            async with patience.limit():
                began.set()
                await never()

        async with asyncio.TaskGroup() as group:
            group.create_task(second())
            with pytest.raises(TimeoutError):
                await first()

    run(main())


def test_what_ends_in_time_gives_its_value_and_is_not_cancelled_afterwards(run: Run) -> None:
    async def main() -> None:
        patience = Patience(SHORT_S)
        async with patience.limit():
            pass
        with pytest.raises(TimeoutError):  # the timer of the first wait is long over by then
            async with patience.limit():
                await never()
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    run(main())


def test_an_error_inside_comes_out_as_it_is(run: Run) -> None:
    async def main() -> None:
        patience = Patience(60)
        with pytest.raises(ZeroDivisionError):
            async with patience.limit():
                _ = 1 // 0
        patience.close()

    run(main())


def test_somebody_elses_cancellation_is_no_timeout(run: Run) -> None:
    async def wait(patience: Patience, began: asyncio.Event) -> None:
        async with patience.limit():
            began.set()
            await never()

    async def main() -> None:
        patience, began = Patience(60), asyncio.Event()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(wait(patience, began))
            await began.wait()
            task.cancel()
        assert task.cancelled()
        patience.close()

    run(main())


def test_limits_nest_and_the_shorter_one_ends_the_wait(run: Run) -> None:
    async def main() -> None:
        outer, inner = Patience(60), Patience(SHORT_S)
        async with outer.limit():
            with pytest.raises(TimeoutError):
                async with inner.limit():
                    await never()
            with pytest.raises(TimeoutError):
                async with inner.limit():
                    await never()
        outer.close()

    run(main())


def test_after_a_close_it_may_be_used_again(run: Run) -> None:
    async def main() -> None:
        patience = Patience(SHORT_S)
        async with patience.limit():
            pass
        patience.close()
        patience.close()
        with pytest.raises(TimeoutError):
            async with patience.limit():
                await never()

    run(main())
