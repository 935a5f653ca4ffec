"""`make bench`: measure, compare within the run, print, and record in bench/results/.

Absolute figures belong to the machine and the minute; ratios within one run travel better. Rivals
and limits are interleaved with our own runs, A B A B, so that both meet the same machine.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import json
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path

import psutil

from bench import measures, recovery
from bench.cluster import running

RECOVERY_SLOTS = (3, 3, 3)
SLOTS = (1, 1, 0)  # 3 peers, 2 slots in all: the same two workers as the pool's
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5, help="runs of each measure")
    parser.add_argument("--kills", type=int, default=10, help="of the leader, and of an owner")
    parser.add_argument("--no-record", action="store_true", help="print only")
    options = parser.parse_args()
    report = asyncio.run(measure(options.repeat, options.kills))
    print_report(report)
    if not options.no_record:
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{report['date']}.json"
        path.write_text(json.dumps(report, indent=1) + "\n")
        print(f"\nrecorded in {path}")


async def measure(repeat: int, kills: int) -> dict[str, object]:
    found: dict[str, list[float]] = {}

    def note(name: str, figures: dict[str, float]) -> None:
        for key, value in figures.items():
            found.setdefault(f"{name}.{key}", []).append(value)

    # The environment reaches the workers: they import this module by its path.
    os.environ["PYTHONPATH"] = str(Path(__file__).parent.parent)
    with ProcessPoolExecutor(2) as pool:
        async with running(SLOTS) as cluster, cluster.client() as client:
            await measures.functions(cluster, client)
            measures.pool_functions(pool)
            for _ in range(repeat):
                note("functions", await measures.functions(cluster, client))
                note("pool", measures.pool_functions(pool))
                note("pool_unchunked", measures.pool_functions_unchunked(pool))
                note("programs", await measures.programs(client))
                note("spawn", measures.spawned_programs())
                trips = await measures.round_trips(client)
                note("round_trip", {"p50_ms": _at(trips, 0.5), "p99_ms": _at(trips, 0.99)})
                syncs = measures.sync_us(str(cluster.folder))
                note("sync", {"p50_us": _at(syncs, 0.5), "p99_us": _at(syncs, 0.99)})
            note("footprint", await measures.footprint(cluster))
        async with running(RECOVERY_SLOTS) as cluster:
            for name, times in (
                ("leader_killed", await recovery.leader_kills(cluster, kills)),
                ("owner_killed", await recovery.owner_kills(cluster, kills)),
            ):
                found[f"{name}.s"] = times
    return {
        "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H%M%SZ"),
        "machine": _machine(),
        "repeat": repeat,
        "figures": found,
    }


def print_report(report: dict[str, object]) -> None:
    found = report["figures"]
    assert isinstance(found, dict)
    print(json.dumps(report["machine"]))
    print(f"{'':34}{'min':>12}{'median':>12}{'max':>12}")
    for name, values in sorted(found.items()):
        low, middle, high = min(values), statistics.median(values), max(values)
        print(f"{name:34}{low:12,.2f}{middle:12,.2f}{high:12,.2f}")
    for ours, theirs, what in (
        ("functions.per_s", "pool.per_s", "functions / process pool in chunks of 512"),
        ("functions.per_s", "pool_unchunked.per_s", "functions / process pool, one a message"),
        ("programs.per_s", "spawn.per_s", "programs / bare posix_spawn"),
    ):
        ratios = [a / b for a, b in zip(found[ours], found[theirs], strict=True)]
        print(f"x{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]  {what}")


def _at(values: Sequence[float], share: float) -> float:
    return values[min(len(values) - 1, int(len(values) * share))]


def _machine() -> dict[str, object]:
    names = ("p2psched", "uvloop", "msgspec", "zstandard")
    return {
        "cores": psutil.cpu_count(),
        "load": [round(load, 2) for load in os.getloadavg()],
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "python": sys.version.split()[0],
        "versions": {name: version(name) for name in names},
        "slots": list(SLOTS),
    }


if __name__ == "__main__":
    main()
