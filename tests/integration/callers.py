"""Clients at work on keys, locks and queues, who write down what they asked and were told.

Each has a patient client and a hasty one. What the hasty one gave up may have happened: it stands
in the history without an answer. A patient one that gives up fails the test.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import Final, Protocol

from p2psched.client.client import Client
from p2psched.client.keys import Entry
from p2psched.model.errors import Conflict, Redelivered, Unavailable
from p2psched.model.ids import new_id
from p2psched.model.lease_actions import LeaseTaken, TakeLease
from p2psched.model.lock_actions import AcquireLock, LockBusy, LockHeld, LockWaiting
from p2psched.model.lock_messages import AwaitLock, LockNow
from p2psched.testing.linearizable import History, Operation

TTL_MS: Final = 600_000  # no lease ends: the models know of none
QUEUED: Final = 20  # about so many items wait in a queue
AWAIT_MS: Final = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Clients:
    """Of one caller. `hasty` may be the same."""

    patient: Client
    hasty: Client


class Caller(Protocol):
    async def work(self, stop: asyncio.Event) -> None: ...


def answered(history: History) -> int:
    return sum(operation.answered is not None for operation in history.operations)


def word(operation: Operation) -> str:
    assert isinstance(operation.asked, tuple)
    return str(operation.asked[0])


class KeyCaller:
    """Reads, writes and swaps; each value is written once."""

    def __init__(self, who: str, history: History, clients: Clients, names: list[str]) -> None:
        self._who = who
        self._history = history
        self._clients = clients
        self._names = names
        self._rng = random.Random(who)
        self._seen: dict[str, tuple[object, int]] = dict.fromkeys(names, (None, 0))
        self._count = 0

    async def work(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            key = self._rng.choice(self._names)
            what = self._rng.choices(("read", "write", "swap"), weights=(3, 1, 3))[0]
            client = self._rng.choice((self._clients.patient, self._clients.hasty))
            self._count += 1
            value = f"{self._who}.{self._count}"
            old, version = self._seen[key]
            asked = {"read": (), "write": (value,), "swap": (old, value)}[what]
            operation = self._history.call(self._who, (what, key, *asked))
            try:
                await self._call(client, value, version, operation)
            except Unavailable:
                if client is self._clients.patient:
                    raise
                if what == "read":
                    self._history.void(operation)

    async def _call(self, client: Client, value: str, version: int, operation: Operation) -> None:
        assert isinstance(operation.asked, tuple)
        key = operation.asked[1]
        match word(operation):
            case "read":
                self._note(key, entry := await client.kv.get(key))
                self._history.answer(operation, entry.value if entry is not None else None)
            case "write":
                self._seen[key] = (value, await client.kv.put(key, value))
                self._history.answer(operation, True)
            case _:
                try:
                    self._seen[key] = (value, await client.kv.cas(key, version, value))
                except Conflict as conflict:
                    current = conflict.current
                    self._note(key, current if isinstance(current, Entry) else None)
                    self._history.answer(operation, False)
                else:
                    self._history.answer(operation, True)

    def _note(self, key: str, entry: Entry | None) -> None:
        self._seen[key] = (entry.value, entry.version) if entry is not None else (None, 0)


@dataclass(slots=True)
class Guards:
    """What the locks guard: it refuses a token older than the newest that has written."""

    newest: dict[str, int] = field(default_factory=dict)

    def write(self, name: str, token: int) -> bool:
        is_newest = token >= self.newest.get(name, 0)
        if is_newest:
            self.newest[name] = token
        return is_newest


class LockCaller:
    """Takes a lock, writes to what it guards, and lets go. Some wait for their turn (`waiting`: a
    share), others take no for an answer."""

    def __init__(
        self,
        who: str,
        history: History,
        clients: Clients,
        names: list[str],
        guards: Guards,
        *,
        waiting: float = 0.0,
    ) -> None:
        self._who = who
        self._history = history
        self._clients = clients
        self._names = names
        self._guards = guards
        self._waiting = waiting
        self._rng = random.Random(who)

    async def work(self, stop: asyncio.Event) -> None:
        lease = new_id(random.SystemRandom())
        acting = self._clients.patient.session.acting
        await acting.act(TakeLease(lease, TTL_MS), LeaseTaken)
        while not stop.is_set():
            name = self._rng.choice(self._names)
            operation = self._history.call(self._who, ("acquire", name))
            token = await self._acquire(name, lease)
            self._history.answer(operation, token)
            if token is None:
                continue
            written = self._history.call(self._who, ("write", name, token))
            self._history.answer(written, self._guards.write(name, token))
            if not await self._release(self._clients.hasty, name, token):
                assert await self._release(self._clients.patient, name, token)

    async def _acquire(self, name: str, lease: str) -> int | None:
        """By acts, not as `client.lock`: that lets go by itself of what it gave up."""
        session = self._clients.patient.session
        wait = self._rng.random() < self._waiting
        wish = AcquireLock(name, new_id(random.SystemRandom()), lease, wait=wait)
        now: object = await session.acting.act(wish, object)
        while isinstance(now, LockWaiting):
            now = (await session.call(AwaitLock(wish.claim, AWAIT_MS), LockNow)).standing
        if isinstance(now, LockBusy):
            return None
        assert isinstance(now, LockHeld)
        return now.token

    async def _release(self, client: Client, name: str, token: int) -> bool:
        """False if nobody knows whether it is free now."""
        operation = self._history.call(self._who, ("release", name, token))
        try:
            was_held = await client.release_lock(name, token=token)
        except Unavailable:
            return False
        self._history.answer(operation, was_held)
        return True


class QueueCaller:
    """Puts values that nobody else puts, and takes whatever comes first."""

    def __init__(
        self, who: str, history: History, clients: Clients, names: list[str], queued: dict[str, int]
    ) -> None:
        """`queued`: how many items each queue has, as callers know it; they share it."""
        self._who = who
        self._history = history
        self._clients = clients
        self._names = names
        self._queued = queued
        self._rng = random.Random(who)
        self._count = 0

    async def work(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            name = self._rng.choice(self._names)
            is_short = self._queued.get(name, 0) < QUEUED
            if self._rng.random() < (0.55 if is_short else 0.3):
                await self._put(name)
            else:
                await self._take(name)

    async def _put(self, name: str) -> None:
        client = self._rng.choice((self._clients.patient, self._clients.hasty))
        self._count += 1
        value = f"{self._who}/{self._count}"
        operation = self._history.call(self._who, ("put", name, value))
        try:
            await client.queue(name, visibility=None).put(value)
        except Unavailable:
            if client is self._clients.patient:
                raise
        else:
            self._history.answer(operation, True)
            self._queued[name] = self._queued.get(name, 0) + 1

    async def _take(self, name: str) -> None:
        """Patiently: what was taken and given back has lost its place, for a while."""
        operation = self._history.call(self._who, ("take", name))
        item = await self._clients.patient.queue(name, visibility=None).get(wait=0)
        self._history.answer(operation, item.value if item is not None else None)
        if item is None:
            self._queued[name] = 0
            return
        self._queued[name] = max(0, self._queued.get(name, 0) - 1)
        try:
            await item.ack()
        except Redelivered as error:
            raise AssertionError(f"{item!r} was somebody else's before its ack") from error
