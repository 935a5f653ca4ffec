"""Histories of real clients while the leader is killed again and again, and links are cut between.

All three kinds of things that clients share are at work at once: keys, locks, queues (`callers`).
What was recorded is judged by `Recording.judge`: each history has an order (P7, P8).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from p2psched.client.client import Client
from p2psched.client.session import Session
from p2psched.model.errors import P2PSchedError
from p2psched.model.messages import GetStatus
from p2psched.model.status_messages import StatusAnswer
from p2psched.testing.linear_models import Locks, Queues, Registers
from p2psched.testing.linearizable import History, Model, check
from tests.integration.callers import (
    Caller,
    Clients,
    Guards,
    KeyCaller,
    LockCaller,
    QueueCaller,
    answered,
    word,
)
from tests.integration.rig import until

EACH: Final = 4  # callers of each kind
NAMES: Final = 4  # of keys, locks and queues
PATIENT_S: Final = 30.0
HASTY_S: Final = 1.0
AWAY_S: Final = 1.2  # from the kill to the start
MODELS: Final[dict[str, Model[Any]]] = {
    "keys": Registers(),
    "locks": Locks(),
    "queues": Queues(),
}
Cut = Callable[[random.Random, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """What a storm needs of a fleet. `restart` does not wait until the peer is up."""

    addresses: Mapping[str, str]
    runtime_dir: Path
    secret: bytes
    kill: Callable[[str], object]
    restart: Callable[[str], object]

    def client(self, name: str, patience_s: float) -> Client:
        return Client(self.addresses[name], runtime_dir=self.runtime_dir, patience_s=patience_s)


@dataclass(slots=True)
class Recording:
    histories: dict[str, History] = field(
        default_factory=lambda: {kind: History() for kind in MODELS}
    )
    kills: int = 0
    cuts: int = 0
    seconds: float = 0.0
    checked_s: float = 0.0

    def counts(self) -> dict[str, int]:
        """Operations that were answered, by kind."""
        return {kind: answered(history) for kind, history in self.histories.items()}

    def judge(self) -> None:
        """Each has an order, with the waits, races and losses in it that it is about."""
        began_s = time.perf_counter()
        for kind, history in self.histories.items():
            result = check(history.operations, MODELS[kind], budget_s=300.0)
            assert result.ok, f"{kind}: {result.explain()}"
        self.checked_s = time.perf_counter() - began_s

    def would_be_noticed(self) -> None:
        """One wrong answer in each: a stale read, a lock with two holders, a lost item."""
        keys, locks, queues = self.histories.values()
        reads = [op for op in keys.operations if word(op) == "read" and op.answered]
        early = next(op for op in reads if op.answer is not None)
        late = [op for op in reads if op.asked == early.asked and op.answer != early.answer]
        late[-1].answer = early.answer
        given = [op for op in locks.operations if word(op) == "acquire" and op.answer]
        given[-1].answer = given[0].answer
        taken = [op for op in queues.operations if word(op) == "take" and op.answer]
        taken[len(taken) // 2].answer = None
        for kind, history in self.histories.items():
            assert check(history.operations, MODELS[kind], budget_s=300.0).broken, kind

    def figures(self) -> str:
        counts = ", ".join(
            f"{kind} {count} answered ({len(self.histories[kind].operations) - count} not)"
            for kind, count in self.counts().items()
        )
        return (
            f"{self.seconds:.0f} s, {self.kills} kills, {self.cuts} cuts; {counts}; "
            f"checked in {self.checked_s:.1f} s"
        )


class Storm:
    """The leader is killed every so often. `cut` cuts some links between two kills, by what it
    draws and who leads; told of nobody it mends them."""

    def __init__(self, fleet: Fleet, seed: int, *, every_s: float, cut: Cut | None = None) -> None:
        self._fleet = fleet
        self._seed = seed
        self._every_s = every_s
        self._cut = cut
        self._names = [f"storm-{seed}/{name}" for name in range(NAMES)]
        self._guards = Guards()
        self._queued: dict[str, int] = {}
        self.recording: Final = Recording()

    async def record(self, seconds: float) -> Recording:
        began_s = time.perf_counter()
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for kind in MODELS:
                for number in range(EACH):
                    group.create_task(self._work(kind, number, stop))
            storm = group.create_task(self._blow())
            await asyncio.sleep(seconds)
            storm.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await storm
            stop.set()
        self.recording.seconds = time.perf_counter() - began_s
        return self.recording

    async def _work(self, kind: str, number: int, stop: asyncio.Event) -> None:
        near = sorted(self._fleet.addresses)[number % len(self._fleet.addresses)]
        patient, hasty = self._fleet.client(near, PATIENT_S), self._fleet.client(near, HASTY_S)
        who = f"{kind} {number} of {self._seed}"
        async with patient, hasty:
            await self._caller(kind, who, Clients(patient=patient, hasty=hasty)).work(stop)

    def _caller(self, kind: str, who: str, clients: Clients) -> Caller:
        history = self.recording.histories[kind]
        match kind:
            case "keys":
                return KeyCaller(who, history, clients, self._names)
            case "locks":
                return LockCaller(who, history, clients, self._names, self._guards, waiting=0.7)
            case _:
                return QueueCaller(who, history, clients, self._names, self._queued)

    async def _blow(self) -> None:
        rng = random.Random(self._seed)
        loop = asyncio.get_running_loop()
        next_s = loop.time()
        while True:
            next_s += self._every_s
            if self._cut is not None:
                await asyncio.sleep(rng.uniform(0.5, 1.0))  # the one before is hardly back
                self._cut(rng, await leader_of(self._fleet))
                self.recording.cuts += 1
                try:
                    await asyncio.sleep(rng.uniform(0.5, 2.0))
                finally:
                    self._cut(rng, "")
            await asyncio.sleep(max(0.0, next_s - loop.time()))
            await self._kill_leader()

    async def _kill_leader(self) -> None:
        leader = await leader_of(self._fleet)
        before = self.recording.counts()
        self._fleet.kill(leader)
        self.recording.kills += 1
        try:
            await asyncio.sleep(AWAY_S)
        finally:
            self._fleet.restart(leader)

        def all_go_on() -> bool:
            now = self.recording.counts()
            return all(now[kind] > count for kind, count in before.items())

        await until(all_go_on)


async def leader_of(fleet: Fleet) -> str:
    """Who says that it leads, in the highest term."""
    found = ""

    async def is_there() -> bool:
        nonlocal found
        best_term = -1
        for name, address in fleet.addresses.items():
            status = await _status(fleet, address)
            if status is not None and status.role == "leader" and status.term > best_term:
                found, best_term = name, status.term
        return best_term >= 0

    await until(is_there)
    return found


async def _status(fleet: Fleet, address: str) -> StatusAnswer | None:
    session = Session([address], secret=fleet.secret, patience_s=0.3)
    try:
        return await session.call(GetStatus(), StatusAnswer)
    except P2PSchedError:
        return None
    finally:
        await session.__aexit__()
