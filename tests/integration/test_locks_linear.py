"""What real clients saw of locks has one order that explains it, also while their leader dies."""

from __future__ import annotations

import asyncio
import random
from typing import Final

import pytest

from p2psched.client.client import Client
from p2psched.model.errors import Unavailable
from p2psched.model.ids import new_id
from p2psched.model.lease_actions import LeaseTaken, TakeLease
from p2psched.model.lock_actions import AcquireLock, LockBusy, LockHeld
from p2psched.testing.linear_models import Locks
from p2psched.testing.linearizable import History, check
from tests.integration.rig import Rig, over_a_killed_leader
from tests.linearizable.second import second_opinion

pytestmark = pytest.mark.process

CLIENTS: Final = 5
LOCKS: Final = 2
ANSWERS: Final = 400  # before the kill, after it, and after the leader is back
TTL_MS: Final = 600_000  # no lease ends: the model knows of none


class Taker:
    """Takes locks that are free, writes to what they guard, and lets go; all by itself."""

    def __init__(self, number: int, history: History, client: Client, seen: dict[str, int]) -> None:
        self._name = f"client {number}"
        self._history = history
        self._client = client
        self._seen = seen  # by what each lock guards: the newest token
        self._rng = random.Random(number)
        self._round = 0  # an act whose end nobody knows may hold a lock for ever

    async def work(self, stop: asyncio.Event) -> None:
        acting = self._client.session.acting
        lease = new_id(random.SystemRandom())
        await acting.act(TakeLease(lease, TTL_MS), LeaseTaken)
        while not stop.is_set():
            name = f"linear-{self._rng.randrange(LOCKS)}"
            wish = AcquireLock(name, new_id(random.SystemRandom()), lease, wait=False)
            operation = self._history.call(self._name, ("acquire", name))
            try:
                answer: object = await acting.act(wish, object)
            except Unavailable:
                continue
            if isinstance(answer, LockBusy):
                self._history.answer(operation, None)
                continue
            assert isinstance(answer, LockHeld)
            self._history.answer(operation, answer.token)
            self._write(name, answer.token)
            await self._release(name, answer.token)

    def _write(self, name: str, token: int) -> None:
        operation = self._history.call(self._name, ("write", name, token))
        taken = token >= self._seen.get(name, 0)
        if taken:
            self._seen[name] = token
        self._history.answer(operation, taken)

    async def _release(self, name: str, token: int) -> None:
        operation = self._history.call(self._name, ("release", name, token))
        try:
            was_held = await self._client.release_lock(name, token=token)
        except Unavailable:
            return
        self._history.answer(operation, was_held)


async def record(rig: Rig) -> History:
    history = History()
    seen: dict[str, int] = {}

    def answered() -> int:
        return sum(operation.answered is not None for operation in history.operations)

    async def work(number: int, stop: asyncio.Event) -> None:
        async with rig.client("abc"[number % 3]) as client:
            await Taker(number, history, client, seen).work(stop)

    await over_a_killed_leader(rig, work, answered, CLIENTS, ANSWERS)
    return history


def test_locks_of_clients_whose_leader_dies_have_an_order_that_explains_them(rig: Rig) -> None:
    history = asyncio.run(record(rig))
    result = check(history.operations, Locks())
    assert result.ok, result.explain()
    assert second_opinion(history.operations, Locks())

    # Had a lock been given once more under the token of before, it would be noticed.
    given = [op for op in history.operations if op.asked[0] == "acquire" and op.answer]  # type: ignore[index]  # a tuple
    given[-1].answer = given[0].answer
    assert check(history.operations, Locks()).broken is not None
