"""`make bench`: measure, compare within the run, print, and record in bench/results/.

Absolute figures belong to the machine and the minute; ratios within one run travel better. Rivals
and limits are interleaved with our own runs, A B A B, so that both meet the same machine. What
can't be measured here is named in the report with its reason.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import itertools
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Final

import psutil

from bench import targets
from bench.cluster import running
from bench.measures import registry
from bench.registry import Found, Measure, Stage, Unsupported
from bench.rivals import session
from bench.rivals.etcd import Etcd
from bench.rivals.redis import Redis
from p2psched.peer.process import loop_factory

RESULTS: Final = Path(__file__).parent / "results"
KILLS: Final = 20
KILLS_ALL: Final = 200  # what is promised is a matter of percentiles


class Report:
    """What was found, and what could not be measured."""

    def __init__(self) -> None:
        self.figures: dict[str, list[float]] = {}
        self.missing: dict[str, str] = {}
        self.versions: dict[str, str] = {}

    def note(self, name: str, found: Found) -> None:
        for unit, value in found.items():
            values = value if isinstance(value, Sequence) else [value]
            self.figures.setdefault(f"{name}.{unit}", []).extend(values)

    def miss(self, name: str, reason: str) -> None:
        self.missing.setdefault(name, reason)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="a measure, or `reads_*`"
    )
    parser.add_argument("--repeat", type=int, default=5, help="runs of each measure")
    parser.add_argument(
        "--kills",
        type=int,
        default=KILLS,
        help=f"of leaders, in leader_killed_*: {KILLS_ALL} in earnest",
    )
    parser.add_argument(
        "--rivals", action="store_true", help="Dask, Ray and Celery too: make bench-peers"
    )
    parser.add_argument("--no-record", action="store_true", help="print only")
    parser.add_argument("--list", action="store_true", help="show the measures")
    options = parser.parse_args()
    try:
        chosen = registry().choose(options.only)
    except KeyError as error:
        parser.error(error.args[0])
    if options.list:
        for measure in chosen:
            print(f"{measure.name:16}{measure.what}: {', '.join(measure.contenders)}")
        return
    # The environment reaches the workers: they import the tasks by their path.
    os.environ["PYTHONPATH"] = str(Path(__file__).parent.parent)
    machine = describe_machine()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        report = runner.run(measure_all(chosen, options))
    print_report(report, machine)
    if not options.no_record:
        print(f"\nrecorded in {record(report, machine, options.repeat)}")


async def measure_all(chosen: Sequence[Measure], options: argparse.Namespace) -> Report:
    report = Report()
    with ProcessPoolExecutor(2) as pool:
        for slots, group in itertools.groupby(chosen, lambda measure: measure.slots):
            measures = list(group)
            async with (
                running(slots) as cluster,
                cluster.client() as client,
                Etcd(len(slots)) as etcd,
                Redis() as redis,
            ):
                stage = Stage(cluster, client, pool, etcd, redis, options.kills)
                await _warm_up(stage)
                for number in range(options.repeat):
                    for measure in measures:
                        if number < measure.repeat_max:
                            await _measure(stage, measure, report)
                    rivals = [measure.name for measure in measures if measure.rivals]
                    if options.rivals and rivals:
                        await _measure_rivals(rivals, report)
                for name, version_ in (("etcd", etcd.version), ("redis", redis.version)):
                    if version_:
                        report.versions[name] = version_
    return report


async def _warm_up(stage: Stage) -> None:
    await (await stage.client.map("bench.work:work", range(1000))).results()
    list(stage.pool.map(abs, range(1000)))


async def _measure(stage: Stage, measure: Measure, report: Report) -> None:
    for _ in range(measure.times):
        for contender, run in measure.contenders.items():
            name = f"{measure.name}.{contender}"
            if name in report.missing:
                continue
            try:
                report.note(name, await run(stage))
            except (Unsupported, TimeoutError) as reason:
                report.miss(name, str(reason))
            print(f"  {name}", file=sys.stderr, flush=True)


async def _measure_rivals(measures: Sequence[str], report: Report) -> None:
    """A rival runs only while it is measured: idle ones would take their share of the cores."""
    for rival in session.RIVALS:
        for group in session.apart(measures):
            if rival in report.missing:
                continue
            try:
                found = await session.run(rival, group)
            except Unsupported as reason:
                report.miss(rival, str(reason))
                continue
            report.versions[rival] = found.version
            for measure, figures in found.figures.items():
                report.note(f"{measure}.{rival}", figures)
            for measure, text in found.missing.items():
                report.miss(f"{measure}.{rival}", text)
            print(f"  {rival} {' '.join(group)}", file=sys.stderr, flush=True)


def print_report(report: Report, machine: Mapping[str, object]) -> None:
    print(json.dumps({**machine, "rivals": report.versions}))
    for lines in (
        targets.table(report.figures),
        targets.comparisons(report.figures),
        targets.verdicts(report.figures),
        (f"not measured: {name}: {reason}" for name, reason in report.missing.items()),
    ):
        for line in lines:
            print(line)


def record(report: Report, machine: Mapping[str, object], repeat: int) -> Path:
    date = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H%M%SZ")
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{date}.json"
    content = {
        "date": date,
        "machine": machine,
        "repeat": repeat,
        "rivals": report.versions,
        "missing": report.missing,
        "figures": report.figures,
    }
    path.write_text(json.dumps(content, indent=1) + "\n")
    return path


def describe_machine() -> dict[str, object]:
    names = ("p2psched", "uvloop", "msgspec", "zstandard")
    return {
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load": [round(load, 2) for load in os.getloadavg()],
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "python": sys.version.split()[0],
        "versions": {name: version(name) for name in names},
    }


if __name__ == "__main__":
    main()
