"""Locks as a client holds them: what becomes of a claim when calls fail, are cancelled or late."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import pytest

from p2psched.client import claims
from p2psched.client.acting import Acting
from p2psched.client.claims import Claims
from p2psched.client.leases import Leases
from p2psched.client.locks import Lock, named
from p2psched.core import locks
from p2psched.core.machine import Machine
from p2psched.model.actions import Action
from p2psched.model.commands import Rejected
from p2psched.model.errors import Deadlock, LockLost, TimedOut, Unavailable, UsageError, from_wire
from p2psched.model.lease_actions import EndLease, TakeLease
from p2psched.model.lock_actions import AcquireLock, ReleaseLock
from p2psched.model.lock_messages import AwaitLock, LockNow
from p2psched.model.messages import CallBody
from tests.client.loops import in_loop
from tests.core.acts_rig import Client, Ledger

T = TypeVar("T")
TTL_MS = 10_000


class Cluster(Acting):
    """A ledger that answers at once, unless it is told otherwise."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.client = Client(self.ledger)
        self.loses: type[Action] | None = None  # answers to such acts: they act all the same
        self.away: type[Action] | None = None  # nobody takes such acts
        self.done: list[Action] = []
        self.changed = asyncio.Event()

    async def act(self, action: Action, expect: type[T]) -> T:
        await asyncio.sleep(0)
        if self.away is not None and isinstance(action, self.away):
            raise Unavailable("no quorum")
        answer: object = self.do(action)
        if self.loses is not None and isinstance(action, self.loses):
            raise Unavailable("no answer")
        if isinstance(answer, Rejected):
            raise from_wire(answer.code, answer.message, 0)
        assert isinstance(answer, expect)
        return answer

    def do(self, action: Action) -> object:
        self.done.append(action)
        outcome = self.client.act(action)
        self.changed.set()
        return outcome if isinstance(outcome, Rejected) else getattr(outcome, "answer")  # noqa: B009

    async def call(self, body: CallBody, expect: type[T], *, spent_s: float = 0.0) -> T:
        assert isinstance(body, AwaitLock)
        while (claim := self.machine.lock_claims.get(body.claim)) is not None and not claim.token:
            self.changed.clear()
            await self.changed.wait()
        answer = LockNow(None if claim is None else locks.standing(self.machine, claim))
        assert isinstance(answer, expect)
        return answer

    @property
    def machine(self) -> Machine:
        return self.ledger.machine

    def count(self, kind: type[Action]) -> int:
        return sum(isinstance(action, kind) for action in self.done)

    def lock(self, house: Claims, name: str = "a", **changes: object) -> Lock:
        options: dict[str, object] = {"timeout_s": None, "cancel": True, "ttl_ms": TTL_MS}
        wish = {key: changes[key] for key in changes if key not in options}
        options |= {key: changes[key] for key in changes if key in options}
        made = AcquireLock(name, "", "", **wish)  # type: ignore[arg-type]  # as a test says
        return Lock(house, made, **options)  # type: ignore[arg-type]

    def take_for_another(self, name: str = "a") -> str:
        lease, claim = f"{1:032x}", f"{2:032x}"
        self.do(TakeLease(lease, TTL_MS))
        self.do(AcquireLock(name, claim, lease, label="another"))
        return claim


@asynccontextmanager
async def keeping(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Cluster, Claims]]:
    monkeypatch.setattr(claims, "RETRY_S", 0.0)
    cluster = Cluster()
    house = Claims(cluster, cluster, Leases(cluster, now_ms=lambda: cluster.ledger.now_ms))
    async with asyncio.TaskGroup() as group:
        keepers = [group.create_task(house.keep())]
        await asyncio.sleep(0)
        try:
            yield cluster, house
        finally:
            for keeper in keepers:
                keeper.cancel()


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(200):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came to it")


@in_loop
async def test_claims_of_one_time_to_live_hang_on_one_lease(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with keeping(monkeypatch) as (cluster, house):
        async with cluster.lock(house, "a") as one, cluster.lock(house, "b") as other:
            assert one.lease == other.lease
            assert other.token > one.token
            async with cluster.lock(house, "c", ttl_ms=2 * TTL_MS) as third:
                assert third.lease != one.lease
        assert not cluster.machine.lock_claims
        assert cluster.count(TakeLease) == 2
        await house.close()
        assert not cluster.machine.leases


@in_loop
async def test_a_wish_whose_answer_is_lost_is_taken_back_and_its_lease_takes_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It may yet be granted: then the end of its lease ends it."""
    async with keeping(monkeypatch) as (cluster, house):
        async with cluster.lock(house, "kept") as kept:
            cluster.loses = AcquireLock
            with pytest.raises(Unavailable):
                await cluster.lock(house, "lost").acquire()
            cluster.loses = None
            await until(lambda: "lost" not in cluster.machine.locks.by_name)
            assert kept.lease in cluster.machine.leases
            async with cluster.lock(house, "next") as later:
                assert later.lease != kept.lease
        await until(lambda: len(cluster.machine.leases) == 1)


@in_loop
async def test_who_stops_waiting_leaves_the_row(monkeypatch: pytest.MonkeyPatch) -> None:
    async with keeping(monkeypatch) as (cluster, house):
        claim = cluster.take_for_another()
        with pytest.raises(TimedOut, match="did not come free within"):
            await cluster.lock(house, timeout_s=0.001).acquire()
        await until(lambda: list(cluster.machine.lock_claims) == [claim])
        waiter = asyncio.get_running_loop().create_task(cluster.lock(house).acquire())
        await until(lambda: len(cluster.machine.lock_claims) == 2)
        waiter.cancel()
        await until(lambda: list(cluster.machine.lock_claims) == [claim])
        assert cluster.count(TakeLease) == 2, "the same lease: what was asked for had its answer"


@in_loop
async def test_what_nobody_takes_back_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with keeping(monkeypatch) as (cluster, house):
        async with cluster.lock(house):
            cluster.away = ReleaseLock
        assert cluster.machine.lock_claims
        cluster.away = None
        await until(lambda: not cluster.machine.lock_claims)


@in_loop
async def test_a_lock_that_is_held_is_told_with_its_holder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with keeping(monkeypatch) as (cluster, house):
        cluster.take_for_another()
        with pytest.raises(TimedOut, match="lock a is held by another"):
            await cluster.lock(house, wait=False).acquire()


@in_loop
async def test_one_task_that_takes_a_lock_twice_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async with keeping(monkeypatch) as (cluster, house):
        async with cluster.lock(house):
            with pytest.raises(Deadlock):
                await cluster.lock(house).acquire()
            waiter = asyncio.get_running_loop().create_task(cluster.lock(house).acquire())
            await until(lambda: len(cluster.machine.lock_claims) == 2)
        assert await waiter > 0, "another task only waits"


@in_loop
async def test_a_place_in_the_row_that_was_lost_is_taken_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with keeping(monkeypatch) as (cluster, house):
        claim = cluster.take_for_another()
        lock = cluster.lock(house)
        waiter = asyncio.get_running_loop().create_task(lock.acquire())
        await until(lambda: len(cluster.machine.lock_claims) == 2)
        cluster.ledger.now_ms += TTL_MS
        mine = next(c for c in cluster.machine.lock_claims.values() if c.id != claim)
        cluster.do(EndLease(mine.lease))
        await until(lambda: len(cluster.machine.lock_claims) == 2)
        cluster.do(ReleaseLock("a", claim))
        assert await waiter == lock.token
        assert lock.lease != mine.lease


@in_loop
async def test_a_waiter_that_somebody_else_sends_away_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with keeping(monkeypatch) as (cluster, house):
        claim = cluster.take_for_another()
        waiter = asyncio.get_running_loop().create_task(cluster.lock(house).acquire())
        await until(lambda: len(cluster.machine.lock_claims) == 2)
        mine = next(name for name in cluster.machine.lock_claims if name != claim)
        cluster.do(ReleaseLock("a", mine))
        with pytest.raises(LockLost, match="somebody else let go of our claim"):
            await waiter


async def lost_within(cluster: Cluster, lock: Lock, *, waits: bool) -> None:
    async with lock:
        lock._held.footing.lease.lost.set()  # type: ignore[union-attr]
        if waits:
            await asyncio.get_running_loop().create_future()
        await lock.lost.wait()


@pytest.mark.parametrize("waits", [True, False])
@in_loop
async def test_a_block_is_cancelled_once_its_lock_is_lost(
    waits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with keeping(monkeypatch) as (cluster, house):
        lock = cluster.lock(house)
        with pytest.raises(LockLost, match="lock a was lost"):
            await lost_within(cluster, lock, waits=waits)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await asyncio.sleep(0)
        assert lock.lost.is_set()
        with pytest.raises(UsageError, match="is not held"):
            lock.token  # noqa: B018


@in_loop
async def test_a_block_that_wants_to_look_by_itself_is_only_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with keeping(monkeypatch) as (cluster, house):
        lock = cluster.lock(house, cancel=False)
        await lost_within(cluster, lock, waits=False)
        assert not lock.is_held


@in_loop
async def test_an_error_of_the_block_itself_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    async with keeping(monkeypatch) as (cluster, house):

        async def block() -> None:
            async with cluster.lock(house):
                raise KeyError("mine")

        with pytest.raises(KeyError):
            await block()
        assert not cluster.machine.lock_claims


@pytest.mark.parametrize(
    ("name", "capacity", "meant"),
    [
        ("a", None, ("a", 1)),
        ("license:3", None, ("license", 3)),
        ("license:3", 1, ("license:3", 1)),
        ("a:b", None, ("a:b", 1)),
        ("license", 3, ("license", 3)),
        (":3", None, (":3", 1)),
    ],
)
def test_a_name_may_say_how_many(name: str, capacity: int | None, meant: tuple[str, int]) -> None:
    assert named(name, capacity) == meant


@pytest.mark.parametrize("name", ["host:5432", "license:0", "a:99999999999999999999"])
def test_a_number_that_may_be_a_part_of_the_name_is_asked_about(name: str) -> None:
    with pytest.raises(UsageError, match="if that is its name, give the capacity"):
        named(name)
