"""What real clients saw of locks has one order that explains it, also while their leader dies."""

from __future__ import annotations

import asyncio
from typing import Final

import pytest

from p2psched.testing.linear_models import Locks
from p2psched.testing.linearizable import History, check
from tests.integration.callers import Clients, Guards, LockCaller, answered, word
from tests.integration.rig import Rig, over_a_killed_leader
from tests.linearizable.second import second_opinion

pytestmark = pytest.mark.process

CLIENTS: Final = 5
LOCKS: Final = 2
ANSWERS: Final = 400  # before the kill, after it, and after the leader is back


async def record(rig: Rig) -> History:
    history = History()
    guards = Guards()
    names = [f"linear-{number}" for number in range(LOCKS)]

    async def work(number: int, stop: asyncio.Event) -> None:
        async with rig.client("abc"[number % 3]) as client:
            clients = Clients(patient=client, hasty=client)
            await LockCaller(f"client {number}", history, clients, names, guards).work(stop)

    await over_a_killed_leader(rig, work, lambda: answered(history), CLIENTS, ANSWERS)
    return history


def test_locks_of_clients_whose_leader_dies_have_an_order_that_explains_them(rig: Rig) -> None:
    history = asyncio.run(record(rig))
    result = check(history.operations, Locks())
    assert result.ok, result.explain()
    assert second_opinion(history.operations, Locks())

    # Had a lock been given once more under the token of before, it would be noticed.
    given = [op for op in history.operations if word(op) == "acquire" and op.answer]
    given[-1].answer = given[0].answer
    assert check(history.operations, Locks()).broken is not None
