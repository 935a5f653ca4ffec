"""Where the time of 200 functions of 10 ms goes, on peers with a slot each: each task says when it
began and ended, by the clock that all processes of a machine share.

    python -m bench.gaps [--peers 2] [--repeat 7]

Of each part the least of all runs is shown beside the median: other programs only ever add. What
each task and each gap takes as a median, times their number, is what is usual. Parts are of one
slot, the mean of all; the ideal is 1.0 s on two.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from itertools import pairwise
from typing import Final

import msgspec

from bench.cluster import Cluster
from p2psched import Client

TASKS: Final = 200
TASK_NS: Final = 10_000_000
NS_IN_MS: Final = 1e6
PARTS: Final = (
    "submit to first start",
    "tasks took longer than 10 ms, the usual",
    "tasks took longer, beyond that",
    "between tasks, the usual",
    "between tasks, beyond that",
    "idle at the end",
    "last end to results",
    "in all, over ideal",
)


def parts_of(began_ns: int, told_ns: int, found: list[tuple[int, int, int]]) -> list[float]:
    """In ms, in the order of PARTS. `found`: begin, end and process of each task."""
    slots: dict[int, list[tuple[int, int]]] = {}
    for start, end, slot in sorted(found):
        slots.setdefault(slot, []).append((start, end))
    last_ns = max(end for _, end, _ in found)
    between = [b[0] - a[1] for ran in slots.values() for a, b in pairwise(ran)]
    longer = [end - start - TASK_NS for start, end, _ in found]
    count = len(slots)
    in_ns = (
        sum(ran[0][0] - began_ns for ran in slots.values()) / count,
        *(value / count for values in (longer, between) for value in _usual_and_beyond(values)),
        sum(last_ns - ran[-1][1] for ran in slots.values()) / count,
        told_ns - last_ns,
        told_ns - began_ns - TASKS * TASK_NS / count,
    )
    return [value / NS_IN_MS for value in in_ns]


def _usual_and_beyond(values: list[int]) -> tuple[float, float]:
    """As if all were the median, and what is more than that."""
    usual = statistics.median(values) * len(values)
    return usual, sum(values) - usual


async def run(client: Client) -> list[float]:
    began_ns = time.monotonic_ns()
    job = await client.map("bench.work:stamped", range(TASKS))
    found = await job.results()
    told_ns = time.monotonic_ns()
    return parts_of(began_ns, told_ns, msgspec.convert(found, list[tuple[int, int, int]]))


async def measure(peers: int, repeat: int) -> list[list[float]]:
    cluster = Cluster((1, 1, 0) if peers == 2 else (1,) * peers)
    try:
        await cluster.start()
        async with cluster.client() as client:
            await run(client)  # workers start
            return [await run(client) for _ in range(repeat)]
    finally:
        cluster.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=7)
    given = parser.parse_args()
    peers: int = given.peers
    runs = asyncio.run(measure(peers, given.repeat))
    print("| ms of one slot | least | median |\n|---|---:|---:|")
    for part, values in zip(PARTS, zip(*runs, strict=True), strict=True):
        print(f"| {part} | {min(values):.1f} | {statistics.median(values):.1f} |")


if __name__ == "__main__":
    main()
