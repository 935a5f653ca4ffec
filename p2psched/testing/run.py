"""Run many seeds: `python -m p2psched.testing.run --seeds 1000`.

Prints each failure with its replay line, then what really happened over all seeds; a fault that
never happened was not tested. Exit code 1 if a seed failed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from p2psched.testing.sim import SimulationError
from p2psched.testing.simulate import EVENTS, Options, Report, simulate


@dataclass(slots=True)
class Summary:
    """Over all seeds of a run."""

    seeds: int = 0
    events: int = 0
    virtual_ms: int = 0
    failures: int = 0
    happened: Counter[str] = field(default_factory=Counter)
    regrant_ms: list[int] = field(default_factory=list)
    peace_ms: list[int] = field(default_factory=list)

    def add(self, report: Report) -> None:
        self.events += report.events
        self.virtual_ms += report.virtual_ms
        self.happened += report.happened
        self.regrant_ms += report.regrant_ms
        self.peace_ms.append(report.peace_ms)

    def lines(self, seconds: float) -> Iterator[str]:
        yield (
            f"{self.seeds} seeds, {self.failures} failed, {seconds:.1f} s: "
            f"{self.seeds / seconds:.1f} seeds/s, {self.events / seconds:,.0f} events/s, "
            f"{self.virtual_ms / 1000 / seconds:.0f} x real time"
        )
        for what, count in sorted(self.happened.items()):
            yield f"  {what:24} {count:>10,}"
        for what, values in (
            ("owner lost to next grant", self.regrant_ms),
            ("peace to all jobs ended", self.peace_ms),
        ):
            yield f"  {what:24} {_quantiles(values)}"


def _quantiles(values: list[int]) -> str:
    if len(values) < 2:
        return f"{values} ms"
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return f"p50 {cuts[49]:.0f} ms, p99 {cuts[98]:.0f} ms, max {max(values)} ms, n {len(values)}"


def run_seed(seed: int, options: Options) -> Report | str:
    """The report of a seed, or why it failed."""
    try:
        return simulate(seed, options)
    except SimulationError as exc:
        return str(exc)


def main(arguments: Sequence[str] | None = None) -> int:
    asked = _parser().parse_args(arguments)
    peers = None if asked.peers == "drawn" else int(asked.peers)
    options = Options(peers=peers, events=asked.events)
    seeds = range(asked.start, asked.start + asked.seeds)
    if asked.seed is not None:
        seeds = range(asked.seed, asked.seed + 1)
    summary = Summary(seeds=len(seeds))
    began = time.perf_counter()
    for seed, result in zip(seeds, _results(seeds, options, asked.jobs), strict=True):
        if isinstance(result, str):
            summary.failures += 1
            sys.stdout.write(f"seed {seed} failed: {result}\n")
            continue
        summary.add(result)
        if asked.verbose:
            sys.stdout.write(
                f"seed {seed}: {result.peers} peers, {result.events} events, "
                f"{result.virtual_ms / 1000:.1f} s, trace {result.trace:08x}\n"
            )
    for line in summary.lines(time.perf_counter() - began):
        sys.stdout.write(f"{line}\n")
    return 1 if summary.failures else 0


def _results(seeds: range, options: Options, jobs: int) -> Iterator[Report | str]:
    if jobs == 1 or len(seeds) == 1:
        yield from (run_seed(seed, options) for seed in seeds)
        return
    with ProcessPoolExecutor(max_workers=jobs) as pool:
        yield from pool.map(partial(run_seed, options=options), seeds, chunksize=8)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m p2psched.testing.run", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many")
    parser.add_argument("--from", dest="start", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, help="this one only")
    parser.add_argument("--peers", default="drawn", help="3, 5, or drawn for each seed")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--events", type=int, default=EVENTS, help="while faults last")
    parser.add_argument("--verbose", action="store_true", help="a line for each seed")
    return parser


if __name__ == "__main__":
    sys.exit(main())
