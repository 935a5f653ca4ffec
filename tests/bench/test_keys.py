"""The measures of keys beside etcd, on real processes and with few calls."""

from __future__ import annotations

import asyncio

import pytest

from bench.measures import keys, ledger
from tests.bench.test_ledger import stage

pytestmark = pytest.mark.process


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    for in_flight in ledger.COUNTS:
        monkeypatch.setitem(ledger.COUNTS, in_flight, 30)


def test_puts_are_on_every_peer_and_taken_away_again() -> None:
    async def main() -> None:
        async with stage() as here:
            assert (await keys.puts(here, in_flight=8))["per_s"] > 0
            assert len(await here.client.kv.range("run")) == 0
            assert (await keys.gets(here, in_flight=8))["per_s"] > 0
            assert len(await here.client.kv.range("read/")) == 8

    asyncio.run(main())
