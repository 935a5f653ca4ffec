"""Many real peers on one machine: `python -m bench.followers`. What they take, idle and after a job
of functions and one of programs that all of them worked on. Records it in bench/results/.

Seven hold the ledger, all others follow. Memory is PSS of peers, starters and workers, so that
what they share counts once.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import json
import platform
import re
import time
from collections import Counter
from pathlib import Path
from typing import Final

import psutil

from bench.cluster import Cluster
from bench.work import work
from p2psched.core.feed import SPARES
from p2psched.core.raft.group import VOTERS_WANTED
from p2psched.model.taskset import TaskSet

RESULTS: Final = Path(__file__).parent / "results"
PEERS: Final = 50
HOLDERS: Final = VOTERS_WANTED + SPARES
STARTING_MAX: Final = 4  # at a time: a start takes a core for half a second
TASKS_EACH: Final = 200
LOOK_S: Final = 10.0  # at the CPU of idle peers


def pss_mib(cluster: Cluster) -> list[float]:
    """Of each peer with all of its processes."""
    found = []
    for number in range(len(cluster.processes)):
        total = 0
        for process in cluster.family(number):
            try:
                text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
            except OSError:  # it has ended meanwhile
                continue
            match = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
            total += int(match.group(1)) if match is not None else 0
        found.append(total / 1024)
    return found


async def measure(peers: int = PEERS) -> dict[str, float]:
    """Raises AssertionError if a peer took no part."""
    cluster = Cluster([1] * peers)
    try:
        return await _measure(cluster, peers)
    finally:
        await asyncio.to_thread(cluster.stop)


async def _measure(cluster: Cluster, peers: int) -> dict[str, float]:
    began = time.perf_counter()
    await cluster.start_many(HOLDERS, STARTING_MAX)
    found = {"started_s": time.perf_counter() - began}
    async with cluster.client(peers - 1) as client:  # a follower's
        roles = Counter(view.role for view in await client.peers())
        assert roles["follower"] == peers - HOLDERS, roles
        found["idle_pss_mib"] = sum(pss_mib(cluster))
        cpu_s = cluster.cpu_s()
        await asyncio.sleep(LOOK_S)
        found["idle_cpu_percent"] = (cluster.cpu_s() - cpu_s) / LOOK_S * 100
        began = time.perf_counter()
        numbers = range(peers * TASKS_EACH)
        job = await client.map(work, numbers)
        assert await job.results() == [work(number) for number in numbers]
        found["functions_s"] = time.perf_counter() - began
        found["functions_peers"] = len((await job.show()).finished_by)
        each = pss_mib(cluster)
        found["functions_pss_mib"] = sum(each)
        found["holder_pss_mib"] = sum(each[:HOLDERS]) / HOLDERS
        found["follower_pss_mib"] = sum(each[HOLDERS:]) / (peers - HOLDERS)
        job = await client.submit_program(
            ["sleep", "3"], tasks=TaskSet.of(0, peers), policy="round-robin"
        )
        assert (await job.wait()).succeeded == peers
        found["programs_peers"] = len((await job.show()).finished_by)
        found["programs_pss_mib"] = sum(pss_mib(cluster))
        await asyncio.sleep(LOOK_S)  # then processes that run programs have ended
        found["settled_pss_mib"] = sum(pss_mib(cluster))
    fed = [status.followers for status in await cluster.statuses()]
    leader = await cluster.number_of("leader")
    found["fed_by_leader"], found["fed_most"] = fed[leader], max(fed)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", type=int, default=PEERS)
    parser.add_argument("--no-record", action="store_true", help="print only")
    options = parser.parse_args()
    found = asyncio.run(measure(options.peers))
    for name, value in found.items():
        print(f"{name:20}{value:10.1f}")
    if not options.no_record:
        now = dt.datetime.now(dt.UTC)
        machine = {
            "cpus": psutil.cpu_count(),
            "memory_gib": round(psutil.virtual_memory().total / 2**30),
            "python": platform.python_version(),
        }
        record = {"date": f"{now:%Y-%m-%dT%H%M%SZ}", "machine": machine, "peers": options.peers}
        path = RESULTS / f"{now:%Y-%m-%dT%H%M%SZ}-followers.json"
        path.write_text(json.dumps({**record, "figures": found}, indent=1) + "\n")
        print(path)


if __name__ == "__main__":
    main()
