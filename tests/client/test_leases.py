"""Leases as their holder counts them: by when it sent a renewal, and never for too long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import pytest

from p2psched.client import leases
from p2psched.client.acting import Acting
from p2psched.client.durations import duration_ms
from p2psched.client.leases import Lease, Leases
from p2psched.model.actions import Action
from p2psched.model.errors import Unavailable, UsageError
from p2psched.model.lease_actions import (
    EndLease,
    KeepLeases,
    LeaseOver,
    LeasesKept,
    LeaseTaken,
    margin_ms,
)
from tests.client.loops import in_loop

T = TypeVar("T")
TTL_MS = 10_000


class Ledger(Acting):
    """Answers at once; renewals as it is told."""

    def __init__(self) -> None:
        self.now_ms = 0
        self.done: list[Action] = []
        self.gone: tuple[str, ...] = ()
        self.is_away = False
        self.before_answer: Callable[[], None] = lambda: None

    async def act(self, action: Action, expect: type[T]) -> T:
        if self.is_away:
            raise Unavailable("no quorum")
        self.done.append(action)
        self.before_answer()
        answer: object = LeaseTaken(TTL_MS)
        if isinstance(action, KeepLeases):
            answer = LeasesKept(self.gone)
        elif isinstance(action, EndLease):
            answer = LeaseOver()
        assert isinstance(answer, expect)
        return answer

    @property
    def renewals(self) -> int:
        return sum(isinstance(action, KeepLeases) for action in self.done)


@asynccontextmanager
async def keeping(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Ledger, Leases]]:
    monkeypatch.setattr(leases, "LOOK_S", 0.0)
    ledger = Ledger()
    house = Leases(ledger, now_ms=lambda: ledger.now_ms)
    keeper = asyncio.get_running_loop().create_task(house.keep())
    try:
        yield ledger, house
    finally:
        keeper.cancel()
        await asyncio.wait({keeper})


def held(lease: Lease) -> bool:
    return lease.is_held


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@in_loop
async def test_a_lease_is_renewed_each_third_of_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async with keeping(monkeypatch) as (ledger, house):
        lease = await house.take(TTL_MS)
        for third in range(1, 8):
            ledger.now_ms = third * 3_334
            await turns()
            assert ledger.renewals == third
        assert held(lease)
        await lease.end()
        assert not held(lease)
        assert ledger.done[-1] == EndLease(lease.id)


@in_loop
async def test_one_act_renews_all_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    async with keeping(monkeypatch) as (ledger, house):
        taken = [await house.take(TTL_MS) for _ in range(3)]
        ledger.now_ms = 3_334
        await turns()
        assert ledger.done[-1] == KeepLeases(tuple(lease.id for lease in taken))
        assert ledger.renewals == 1


@in_loop
async def test_a_lease_is_lost_before_the_ledger_can_end_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with keeping(monkeypatch) as (ledger, house):
        lease = await house.take(TTL_MS)
        ledger.is_away = True
        ledger.now_ms = TTL_MS - margin_ms(TTL_MS) - 1
        await turns()
        assert held(lease)
        ledger.now_ms += 1
        assert not held(lease), "at once, whoever has not had its turn yet"
        await turns()
        assert lease.lost.is_set()
        await lease.end()
        assert ledger.renewals == 0


@in_loop
async def test_it_counts_from_when_the_renewal_was_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    async with keeping(monkeypatch) as (ledger, house):
        lease = await house.take(TTL_MS)

        def slowly() -> None:
            ledger.now_ms += 2_000

        ledger.before_answer = slowly
        ledger.now_ms = 4_000
        await turns()
        assert ledger.renewals == 1
        ledger.before_answer = lambda: None
        ledger.is_away = True
        ledger.now_ms = 4_000 + TTL_MS - margin_ms(TTL_MS)
        assert not held(lease)


@in_loop
async def test_what_the_ledger_has_ended_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    async with keeping(monkeypatch) as (ledger, house):
        first, second = await house.take(TTL_MS), await house.take(TTL_MS)
        ledger.gone = (first.id,)
        ledger.now_ms = 3_334
        await turns()
        assert first.lost.is_set()
        assert held(second)


@in_loop
async def test_a_renewal_that_nobody_took_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with keeping(monkeypatch) as (ledger, house):
        lease = await house.take(TTL_MS)
        ledger.is_away = True
        ledger.now_ms = 4_000
        await turns()
        ledger.is_away = False
        ledger.now_ms += leases.RETRY_MS
        await turns()
        assert ledger.renewals == 1
        ledger.now_ms = 9_800
        assert held(lease)


@pytest.mark.parametrize(
    ("text", "ms"),
    [("30s", 30_000), ("200ms", 200), ("1.5m", 90_000), ("2h", 7_200_000), (3, 3_000)],
)
def test_durations(text: str | float, ms: int) -> None:
    assert duration_ms(text) == ms


@pytest.mark.parametrize("text", ["", "30", "s", "-1s", "1 d", -1.0])
def test_what_is_no_duration(text: str | float) -> None:
    with pytest.raises(UsageError):
        duration_ms(text)
