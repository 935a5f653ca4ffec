"""What an embedded peer adds to its host: `python -m bench.embedded`.

The host is the smallest asyncio program there is. It is measured alone, and with a peer that has
joined, without a vote, a cluster whose founder is another process: with no slots, and with one slot
whose worker is warm. Memory is PSS, which shares out what processes have in common, and RSS.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import psutil

from bench.cluster import Cluster, running

IDLE_S: Final = 10.0
MIB: Final = 2**20
CASES: Final = ("alone", "slots=0", "slots=1")

# Says that it is ready, idles until its input ends, and then how long leaving took.
HOST: Final = """
import asyncio, sys, threading, time

async def wait():
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    def read():
        sys.stdin.read()
        loop.call_soon_threadsafe(ended.set)
    threading.Thread(target=read, daemon=True).start()
    print("ready", flush=True)
    await ended.wait()

async def alone():
    await wait()

async def embedding(folder, join, slots):
    from p2psched import Config, Peer
    config = Config(
        name=f"guest{slots}",
        data=f"{folder}/guest{slots}",
        runtime_dir=f"{folder}/run",
        join=[join],
        slots=slots,
    )
    async with Peer(config) as peer:
        if slots:
            assert await peer.submit("operator:add", 1, 2) == 3
        await wait()
        began = time.perf_counter()
    print(time.perf_counter() - began, flush=True)

asyncio.run(embedding(sys.argv[1], sys.argv[2], int(sys.argv[3])) if sys.argv[1:] else alone())
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--idle", type=float, default=IDLE_S, help="seconds of idling measured")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = asyncio.run(measure(options.idle))
    if options.json:
        print(json.dumps(found))
        return
    columns = list(found["alone"])
    print(f"{'':10}" + "".join(f"{name:>20}" for name in columns))
    for case, figures in found.items():
        print(f"{case:10}" + "".join(f"{figures[name]:20,.2f}" for name in columns))


async def measure(idle_s: float) -> dict[str, dict[str, float]]:
    async with running((0,)) as cluster:
        return {case: await asyncio.to_thread(_measure, cluster, case, idle_s) for case in CASES}


def _measure(cluster: Cluster, case: str, idle_s: float) -> dict[str, float]:
    arguments = [] if case == "alone" else [str(cluster.folder), cluster.addresses[0], case[-1]]
    with subprocess.Popen(
        [sys.executable, "-c", HOST, *arguments],
        cwd=Path(__file__).parent.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as host:
        assert host.stdin is not None
        assert host.stdout is not None
        assert host.stdout.readline() == "ready\n"
        family = [psutil.Process(host.pid), *psutil.Process(host.pid).children(recursive=True)]
        time.sleep(1)  # what a start leaves to do
        before_s = [_cpu_s(process) for process in family]
        time.sleep(idle_s)
        spent_s = [_cpu_s(process) - was for process, was in zip(family, before_s, strict=True)]
        memory = [process.memory_full_info() for process in family]
        figures = {
            "host_pss_mib": memory[0].pss / MIB,
            "host_rss_mib": memory[0].rss / MIB,
            "children_pss_mib": sum(part.pss for part in memory[1:]) / MIB,
            "processes": float(len(family)),
            "host_threads": float(family[0].num_threads()),
            "host_files": float(family[0].num_fds()),
            "host_idle_cpu_%": spent_s[0] / idle_s * 100,
            "children_idle_cpu_%": sum(spent_s[1:]) / idle_s * 100,
        }
        host.stdin.close()
        left = host.stdout.read().strip()
        return {**figures, "leaving_ms": float(left) * 1000 if left else 0.0}


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


if __name__ == "__main__":
    main()
