"""Is a peer bounded by what runs and is kept, or by what ever ran? `python -m bench.retention`.

A cluster of three takes 1,000 jobs in a row, and another 20,000 jobs of one task by 64 clients:
once with a short time to keep and few bytes, once with the defaults, which forget nothing within
such a run. After every 20 jobs (200 of the small ones) memory and disk of each peer are looked at.
Records in bench/results/, draws docs/pictures/retention.svg.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from bench.cluster import Cluster, pss_mib, running
from bench.retention_chart import draw
from bench.run import RESULTS, describe_machine
from bench.work import large, work
from p2psched import Client
from p2psched.peer.process import loop_factory

SLOTS: Final = (1, 1, 0)
KEEP_S: Final = 10
BOUNDED: Final = (
    *("--keep-results", f"{KEEP_S}s", "--keep-bytes", "32M"),
    *("--snapshot-log-bytes", str(1 << 20)),
)
KEPT: Final = {"bounded": BOUNDED, "defaults": ()}
TASKS: Final = 200  # of each job
LARGE_EVERY: Final = 10
LARGE: Final = 20  # results of such a job
CLIENTS: Final = 64
SAMPLES: Final = 50
SMALL_SAMPLES: Final = 100
SETTLE_S: Final = 120.0
MIB: Final = 2**20
PICTURE: Final = Path(__file__).parent.parent / "docs/pictures/retention.svg"
_PARTS: Final = {"ledger": "ledger", "blobs": "blobs", "results": "results.db"}


@dataclass(slots=True)
class Sample:
    """At one moment: one value for each peer."""

    jobs: int  # submitted so far, all of them ended
    s: float  # since the first one
    known: int  # jobs that the cluster remembers
    pss_mib: list[float] = field(default_factory=list)  # the peer alone, without its workers
    rss_mib: list[float] = field(default_factory=list)
    hosts_mib: list[float] = field(default_factory=list)  # PSS of its starter and workers
    ledger_mib: list[float] = field(default_factory=list)
    results_mib: list[float] = field(default_factory=list)  # results.db with its log
    blobs_mib: list[float] = field(default_factory=list)
    other_mib: list[float] = field(default_factory=list)


class Watch:
    """Takes samples of a cluster."""

    def __init__(self, cluster: Cluster, client: Client) -> None:
        self._cluster = cluster
        self._client = client
        self._started = time.monotonic()
        self.samples: list[Sample] = []

    async def take(self, jobs: int) -> Sample:
        known = (await self._client.status()).jobs_total
        sample = Sample(jobs, round(time.monotonic() - self._started, 2), known)
        for number in range(len(self._cluster.processes)):
            peer, *hosts = self._cluster.family(number)
            sample.pss_mib.append(round(pss_mib(peer), 2))
            sample.rss_mib.append(round(peer.memory_info().rss / MIB, 2))
            sample.hosts_mib.append(round(sum(map(pss_mib, hosts)), 2))
            sizes = _sizes(self._cluster.data(number))
            sample.ledger_mib.append(sizes["ledger"])
            sample.results_mib.append(sizes["results"])
            sample.blobs_mib.append(sizes["blobs"])
            sample.other_mib.append(sizes["other"])
        self.samples.append(sample)
        return sample

    async def settle(self, jobs: int) -> Sample:
        """Once everything is over its time: what is left of all those jobs."""
        async with asyncio.timeout(SETTLE_S):
            while (await self.take(jobs)).known:
                self.samples.pop()
                await asyncio.sleep(1)
        # Files go with the keeper's next look, and memory with the allocator's.
        await asyncio.sleep(5)
        self.samples.pop()
        return await self.take(jobs)


def _sizes(folder: Path) -> dict[str, float]:
    """MiB that the parts of a data folder take on the disk."""
    found = dict.fromkeys((*_PARTS, "other"), 0.0)
    for path in folder.rglob("*"):
        try:
            size = path.lstat().st_blocks * 512
        except FileNotFoundError:  # it was just replaced
            continue
        top = path.relative_to(folder).parts[0]
        part = next((name for name, start in _PARTS.items() if top.startswith(start)), "other")
        found[part] += size / MIB
    return {name: round(mib, 2) for name, mib in found.items()}


async def mixed(watch: Watch, client: Client, count: int) -> None:
    """Jobs one after another: 200 small tasks each, and every tenth 20 results of 200 KB."""
    for number in range(count):
        if number % (count // SAMPLES or 1) == 0:
            await watch.take(number)
        if number % LARGE_EVERY == LARGE_EVERY - 1:
            numbers = range(number * LARGE, (number + 1) * LARGE)
            job = await client.map("bench.work:large", numbers)
            assert await job.results() == [large(n) for n in numbers]
        else:
            job = await client.map("bench.work:work", range(TASKS))
            assert await job.results() == [work(n) for n in range(TASKS)]
    await watch.take(count)


async def small(watch: Watch, clients: Sequence[Client], count: int) -> None:
    """Jobs of one task each, from many clients at once."""
    every = count // SMALL_SAMPLES or 1
    for first in range(0, count, every):
        await watch.take(first)
        left = iter(range(first, min(first + every, count)))
        async with asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(_one_by_one(client, left))
    await watch.take(count)


async def _one_by_one(client: Client, numbers: Iterator[int]) -> None:
    for number in numbers:
        job = await client.map("bench.work:work", [number])
        assert await job.result() == work(number)


async def run(kind: str, options: Sequence[str], count: int) -> list[Sample]:
    async with running(SLOTS, options) as cluster, AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(cluster.client(number % len(SLOTS)))
            for number in range(CLIENTS if kind == "small" else 1)
        ]
        watch = Watch(cluster, clients[0])
        if kind == "small":
            await small(watch, clients, count)
        else:
            await mixed(watch, clients[0], count)
        if options:
            await watch.settle(count)
        return watch.samples


async def run_all(only: Sequence[str], counts: dict[str, int]) -> dict[str, list[Sample]]:
    found = {}
    for kind, count in counts.items():
        for name, options in KEPT.items():
            if only and f"{kind}-{name}" not in only:
                continue
            found[f"{kind}-{name}"] = await run(kind, options, count)
            print("\n".join(table(f"{kind}-{name}", found[f"{kind}-{name}"])), flush=True)
    return found


def table(name: str, samples: Sequence[Sample]) -> Iterator[str]:
    """About ten of them; of each figure the highest of the peers."""
    heads = ("s", "known", "pss", "rss", "hosts", "ledger", "results", "blobs")
    yield f"{name:>15}" + "".join(f"{head:>9}" for head in heads)
    every = max(1, len(samples) // 10)
    for sample in [*samples[:-2:every], *samples[-2:]]:
        memory = [sample.pss_mib, sample.rss_mib, sample.hosts_mib]
        disk = [sample.ledger_mib, sample.results_mib, sample.blobs_mib]
        figures = "".join(f"{max(values):9.1f}" for values in memory + disk)
        yield f"{sample.jobs:15}{sample.s:9.0f}{sample.known:9}{figures}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", default=[], metavar="KIND-KEPT")
    parser.add_argument("--jobs", type=int, default=1_000, help="of many tasks")
    parser.add_argument("--small-jobs", type=int, default=20_000, help="of one task")
    parser.add_argument("--no-record", action="store_true", help="print only")
    options = parser.parse_args()
    os.environ["PYTHONPATH"] = str(Path(__file__).parent.parent)
    machine = describe_machine()
    counts = {"mixed": options.jobs, "small": options.small_jobs}
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        found = runner.run(run_all(options.only, counts))
    if not options.no_record and not options.only:
        path = record(found, machine)
        draw(json.loads(path.read_text())["runs"], PICTURE)
        print(f"\nrecorded in {path}, drawn in {PICTURE}")


def record(found: Mapping[str, Sequence[Sample]], machine: Mapping[str, object]) -> Path:
    date = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H%M%SZ")
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{date}-retention.json"
    content = {
        "date": date,
        "machine": machine,
        "options": {name: " ".join(options) for name, options in KEPT.items()},
        "runs": {
            name: {key: [asdict(sample)[key] for sample in samples] for key in asdict(samples[0])}
            for name, samples in found.items()
        },
    }
    path.write_text(json.dumps(content).replace('], "', '],\n "') + "\n")
    return path


if __name__ == "__main__":
    main()
