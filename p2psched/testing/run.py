"""Run many seeds in several processes, and sum up what happened.

A failure carries the line that shows it again. What really happened is counted over all seeds: a
fault that never happened was not tested. That a seed is one run, whatever the hash seed of the
process, is looked at by running some of them again.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from p2psched.testing.faults import Faults
from p2psched.testing.sim import SimulationError
from p2psched.testing.sim_report import Report
from p2psched.testing.simulate import Options, replay_line, simulate

SEEDS_AT_ONCE: Final = 4  # that a process takes: few, so that news come often
NEW_OBJECTS: Final = 20_000  # between two looks of the garbage collector
RECHECK_EVERY: Final = 50  # seeds; of so many one runs again
HASH_SEED: Final = "4242"  # of the processes that run seeds again
_HASH_VARIABLE: Final = "PYTHONHASHSEED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A seed in which a promise broke."""

    seed: int
    why: str
    text: str  # with the last events
    replay: str
    faults: Faults
    peers: int
    events: int  # until it broke
    virtual_ms: int


@dataclass(slots=True)
class Summary:
    """Over all seeds of a run."""

    seeds: int = 0
    events: int = 0
    virtual_ms: int = 0
    failures: list[Failure] = field(default_factory=list)
    happened: Counter[str] = field(default_factory=Counter)
    events_of_seeds: list[int] = field(default_factory=list)
    rechecked: int = 0  # seeds that ran again in another process
    regrant_ms: list[int] = field(default_factory=list)
    peace_ms: list[int] = field(default_factory=list)

    def add(self, result: Report | Failure) -> None:
        self.seeds += 1
        self.events += result.events
        self.virtual_ms += result.virtual_ms
        if isinstance(result, Failure):
            self.failures.append(result)
            return
        self.happened += result.happened
        self.events_of_seeds.append(result.events)
        self.regrant_ms += result.regrant_ms
        self.peace_ms.append(result.peace_ms)

    def lines(self, seconds: float) -> Iterator[str]:
        yield (
            f"{self.seeds} seeds, {len(self.failures)} failed, {seconds:.1f} s: "
            f"{self.seeds / seconds:.1f} seeds/s, {self.events / seconds:,.0f} events/s, "
            f"{self.virtual_ms / 1000 / seconds:.0f} x real time"
        )
        for what, number in sorted(self.happened.items()):
            yield f"  {what:24} {number:>10,}"
        if self.rechecked:
            yield f"{self.rechecked} of them ran again under another hash seed"
        if self.events_of_seeds:
            least, median = min(self.events_of_seeds), statistics.median(self.events_of_seeds)
            yield f"  {'events of a seed':24} at least {least:,}, p50 {median:,.0f}"
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


def run_seed(seed: int, options: Options) -> Report | Failure:
    """The report of a seed, or why it failed."""
    try:
        return simulate(seed, options)
    except SimulationError as exc:
        return Failure(
            seed=seed,
            why=exc.why,
            text=str(exc),
            replay=replay_line(seed, options),
            faults=exc.faults,
            peers=exc.peers,
            events=exc.events,
            virtual_ms=exc.virtual_us // 1000,
        )


def run_seeds(seeds: Sequence[int], options: Options, jobs: int = 1) -> Iterator[Report | Failure]:
    """In order of the seeds, each as soon as it and those before it are done."""
    if jobs == 1 or len(seeds) == 1:
        yield from (run_seed(seed, options) for seed in seeds)
        return
    with ProcessPoolExecutor(max_workers=jobs, initializer=_begin) as pool:
        yield from pool.map(partial(run_seed, options=options), seeds, chunksize=SEEDS_AT_ONCE)


def run_again(traces: Mapping[int, int], options: Options, jobs: int = 1) -> Iterator[Failure]:
    """Run these seeds once more, in new processes with another hash seed: those that weren't the
    run that they were before. `traces`: seed -> `Report.trace`."""
    context = multiprocessing.get_context("spawn")
    with (
        _environment(_HASH_VARIABLE, HASH_SEED),
        ProcessPoolExecutor(jobs, context, initializer=_begin) as pool,
    ):
        for result in pool.map(partial(run_seed, options=options), traces):
            if isinstance(result, Failure):
                yield result
            elif result.trace != traces[result.seed]:
                yield _another_run(result, traces[result.seed], options)


def _another_run(report: Report, before: int, options: Options) -> Failure:
    why = "P14: a seed is another run in another process"
    replay = replay_line(report.seed, options)
    return Failure(
        seed=report.seed,
        why=why,
        text=(
            f"{why}\ntrace {before:08x}, and {report.trace:08x} with {_HASH_VARIABLE}={HASH_SEED}"
            f"\nagain: {_HASH_VARIABLE}={HASH_SEED} {replay}"
        ),
        replay=replay,
        faults=options.faults or Faults(),
        peers=report.peers,
        events=report.events,
        virtual_ms=report.virtual_ms,
    )


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """For the processes that are started meanwhile."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _begin() -> None:
    """In each process. Ctrl-C is for whoever started them. A seed makes many objects that stay
    until its end: what was there before need not be looked through again and again."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS)
