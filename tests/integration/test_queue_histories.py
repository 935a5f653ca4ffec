"""What producers and consumers saw of a queue while their leader was killed has an order (P7)."""

from __future__ import annotations

import asyncio
from typing import Final

import pytest

from p2psched.testing.linear_models import Queues
from p2psched.testing.linearizable import History, check
from tests.integration.callers import Clients, QueueCaller, answered
from tests.integration.rig import Rig, over_a_killed_leader

pytestmark = [pytest.mark.process, pytest.mark.timeout(300)]

NAME: Final = "history"
CLIENTS: Final = 6
ANSWERS: Final = 150


async def record(rig: Rig) -> History:
    history = History()
    queued: dict[str, int] = {}

    async def work(number: int, stop: asyncio.Event) -> None:
        async with rig.client("abc"[number % 3]) as client:
            clients = Clients(patient=client, hasty=client)
            await QueueCaller(f"client {number}", history, clients, [NAME], queued).work(stop)

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
