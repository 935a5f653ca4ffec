"""What producers and consumers saw of a queue while their leader was killed has an order (P7)."""

from __future__ import annotations

import asyncio
import random
from typing import Final

import pytest

from p2psched.client.client import Client
from p2psched.model.errors import Unavailable
from p2psched.testing.linear_models import Queues
from p2psched.testing.linearizable import History, check
from tests.integration.rig import Rig, over_a_killed_leader

pytestmark = [pytest.mark.process, pytest.mark.timeout(300)]

NAME: Final = "history"
CLIENTS: Final = 6
ANSWERS: Final = 150


class Caller:
    """Puts values that nobody else puts, and takes whatever comes first."""

    def __init__(self, number: int, history: History, client: Client) -> None:
        self._who = f"client {number}"
        self._history = history
        self._queue = client.queue(NAME, visibility=None)
        self._rng = random.Random(number)
        self._count = 0

    async def work(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            if self._rng.random() < 0.5:
                await self._put()
            else:
                await self._take()

    async def _put(self) -> None:
        self._count += 1
        value = f"{self._who}/{self._count}"
        operation = self._history.call(self._who, ("put", NAME, value))
        try:
            await self._queue.put(value)
        except Unavailable:
            return  # nobody knows
        self._history.answer(operation, True)

    async def _take(self) -> None:
        operation = self._history.call(self._who, ("take", NAME))
        item = await self._queue.get(wait=0)
        self._history.answer(operation, item.value if item is not None else None)
        if item is not None:
            await item.ack()


def answered(history: History) -> int:
    return sum(operation.answered is not None for operation in history.operations)


async def record(rig: Rig) -> History:
    history = History()

    async def work(number: int, stop: asyncio.Event) -> None:
        async with rig.client("abc"[number % 3]) as client:
            await Caller(number, history, client).work(stop)

    await over_a_killed_leader(rig, work, lambda: answered(history), CLIENTS, ANSWERS)
    return history


def test_puts_and_takes_have_an_order_that_explains_them_over_a_killed_leader(rig: Rig) -> None:
    history = asyncio.run(record(rig))
    result = check(history.operations, Queues())
    assert result.ok, result.explain()

    # Had two that were put one after the other been taken the other way round, it would show.
    taken = [
        operation
        for operation in history.operations
        if operation.asked == ("take", NAME) and operation.answer is not None
    ]
    assert len(taken) > ANSWERS // 4
    first, last = taken[0], taken[-1]
    first.answer, last.answer = last.answer, first.answer
    assert check(history.operations, Queues()).broken is not None
