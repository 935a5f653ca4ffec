"""The load of calls: as many at a time as were asked for, each counted once."""

from __future__ import annotations

import asyncio

from bench.load import drive, measure


def test_so_many_calls_are_in_flight_and_each_lane_waits_for_its_own() -> None:
    open_lanes: set[int] = set()
    most = 0
    done: list[int] = []

    async def call(lane: int) -> None:
        nonlocal most
        assert lane not in open_lanes, "a lane has one call at a time"
        open_lanes.add(lane)
        most = max(most, len(open_lanes))
        await asyncio.sleep(0)
        open_lanes.remove(lane)
        done.append(lane)

    times = asyncio.run(drive(call, in_flight=8, count=100))
    assert len(times) == len(done) == 100
    assert most == 8
    assert set(done) == set(range(8))


class Servers:
    """Each call costs them 2 ms and three syncs; they have had some before."""

    def __init__(self) -> None:
        self.calls = 40

    def cpu_s(self) -> float:
        return self.calls * 0.002

    async def syncs(self) -> float:
        return self.calls * 3.0


def test_what_is_counted_is_of_one_call_and_without_the_warm_up() -> None:
    servers = Servers()

    async def call(_: int) -> None:
        servers.calls += 1

    found = asyncio.run(measure(call, servers, in_flight=4, count=50))
    assert servers.calls == 40 + 4 + 50
    assert round(found["servers_us"]) == 2000
    assert found["syncs"] == 3.0
    assert 0 < found["p50_ms"] <= found["p99_ms"]
    assert found["per_s"] > 0
