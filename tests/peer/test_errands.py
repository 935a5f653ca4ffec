"""The thread that does what the loop hands over."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from p2psched.peer.errands import Errands


def descriptors() -> set[Path]:
    return set(Path("/proc/self/fd").iterdir())


def in_thread() -> bool:
    return threading.current_thread() is not threading.main_thread()


def test_all_is_done_in_order_in_the_thread_and_told_in_the_loop() -> None:
    async def scenario() -> None:
        errands: Errands[tuple[int, bool]] = Errands("test")
        told: list[object] = []
        last = asyncio.get_running_loop().create_future()

        def then(number: int) -> Callable[[object], None]:
            def tell(outcome: object) -> None:
                told.append((outcome, in_thread()))
                if number == 99:
                    last.set_result(None)

            return tell

        def act(number: int) -> Callable[[], tuple[int, bool]]:
            return lambda: (number, in_thread())

        for number in range(100):
            errands.do(act(number), then(number))
        await last
        assert told == [((number, True), False) for number in range(100)]
        errands.close()

    asyncio.run(scenario())


def test_what_an_act_raises_is_told_and_the_next_one_is_done() -> None:
    async def scenario() -> None:
        errands: Errands[float] = Errands("test")
        told: asyncio.Queue[object] = asyncio.Queue()
        errands.do(lambda: 1 / 0, told.put_nowait)
        errands.do(lambda: 1 / 2, told.put_nowait)
        assert isinstance(await told.get(), ZeroDivisionError)
        assert await told.get() == 0.5
        errands.close()

    asyncio.run(scenario())


def test_close_waits_for_what_was_handed_over_and_tells_nobody() -> None:
    async def scenario() -> None:
        before = descriptors()
        errands: Errands[None] = Errands("test")
        done: list[int] = []
        go = threading.Event()

        def first() -> None:
            go.wait()
            done.append(1)

        errands.do(first, lambda _: pytest.fail("it was closed"))
        errands.do(lambda: done.append(2), lambda _: pytest.fail("it was closed"))
        go.set()
        errands.close()
        errands.close()
        assert done == [1, 2]
        await asyncio.sleep(0)
        assert "test" not in {thread.name for thread in threading.enumerate()}
        assert descriptors() <= before

    asyncio.run(scenario())
