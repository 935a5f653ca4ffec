"""The measures of locks beside etcd, on real processes and with few hand-overs."""

from __future__ import annotations

import asyncio

import pytest

from bench.measures import locks
from tests.bench.test_ledger import stage

pytestmark = pytest.mark.process


def test_a_lock_is_passed_on_and_free_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(locks.COUNTS, 8, 30)

    async def main() -> None:
        async with stage() as here:
            found = await locks.ours(here, takers=8)
            assert found["per_s"] > 0
            assert found["hand_over_p50_ms"] > 0
            assert await here.client.locks() == []

    asyncio.run(main())


@pytest.mark.smoke
def test_two_inside_at_once_are_noticed() -> None:
    overs = locks.HandOvers()
    overs.enter()
    with pytest.raises(AssertionError, match="two hold one lock"):
        overs.enter()
