"""Runs under the rivals' interpreter: start one, warm it up, take each measure once, print JSON.

The same tasks and the same way of counting as for ourselves; a client uses what the rival's own
documents show for many small tasks (`map` and `gather`; a list of `remote` and one `get`).
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

import psutil

from bench.rivals.recovery import lose_centre, lose_worker
from bench.work import (
    MEGABYTE,
    PROGRAM,
    is_work,
    megabyte,
    run_program,
    ten_ms,
    uneven,
    work,
)

FUNCTIONS: Final = 10_000
PROGRAMS: Final = 500  # they are slow at it: 2,000 would take longer than all the rest
ROUND_TRIPS: Final = 300
RESULTS: Final = 200
WARM_UP: Final = 200
SPREAD: Final = 200
SLOTS: Final = 2
EVEN_S: Final = SPREAD * 0.01
UNEVEN_S: Final = SPREAD / 10 * 0.5 + SPREAD * 9 / 10 * 0.01


Many = Callable[[Callable[[int], object], int], list[object]]


class Rival(Protocol):
    version: str

    def many(self, function: Callable[[int], object], count: int) -> list[object]:
        """The values of `function` for 0, 1, ... `count` - 1."""

    def many_on_one(self, function: Callable[[int], object], count: int) -> list[object]:
        """The same, all given to one worker first; the others may take of it."""

    def one(self, function: Callable[[int], object], argument: int) -> object: ...

    def close(self) -> None: ...


def functions(rival: Rival) -> dict[str, float]:
    cpu_s, started = tree_cpu_s(), time.perf_counter()
    values = rival.many(work, FUNCTIONS)
    took_s = time.perf_counter() - started
    assert is_work(values, FUNCTIONS)
    return {"per_s": FUNCTIONS / took_s, "cpu_us": (tree_cpu_s() - cpu_s) / FUNCTIONS * 1e6}


def round_trip(rival: Rival) -> dict[str, float]:
    cpu_s = tree_cpu_s()
    times = []
    for number in range(ROUND_TRIPS):
        started = time.perf_counter()
        assert rival.one(work, number) == work(number)
        times.append((time.perf_counter() - started) * 1000)
    times.sort()
    return {
        "p50_ms": times[len(times) // 2],
        "p99_ms": times[len(times) * 99 // 100],
        "cpu_us": (tree_cpu_s() - cpu_s) / ROUND_TRIPS * 1e6,
    }


def programs(rival: Rival) -> dict[str, float]:
    cpu_s, started = tree_cpu_s(), time.perf_counter()
    assert rival.many(run_program, PROGRAMS) == [0] * PROGRAMS, PROGRAM
    took_s = time.perf_counter() - started
    return {"per_s": PROGRAMS / took_s, "cpu_us": (tree_cpu_s() - cpu_s) / PROGRAMS * 1e6}


def results_1mb(rival: Rival) -> dict[str, float]:
    cpu_s, started = tree_cpu_s(), time.perf_counter()
    values = rival.many(megabyte, RESULTS)
    took_s = time.perf_counter() - started
    assert all(value == megabyte(number) for number, value in enumerate(values))
    size_mb = RESULTS * MEGABYTE / 1e6
    return {"mb_per_s": size_mb / took_s, "cpu_us": (tree_cpu_s() - cpu_s) / RESULTS * 1e6}


def even(rival: Rival) -> dict[str, float]:
    return _over_ideal(rival.many, ten_ms, EVEN_S)


def uneven_ones(rival: Rival) -> dict[str, float]:
    return _over_ideal(rival.many, uneven, UNEVEN_S)


def misplaced(rival: Rival) -> dict[str, float]:
    return _over_ideal(rival.many_on_one, ten_ms, EVEN_S)


def _over_ideal(many: Many, function: Callable[[int], object], work_s: float) -> dict[str, float]:
    started = time.perf_counter()
    assert many(function, SPREAD) == list(range(SPREAD))
    return {"over_ideal": (time.perf_counter() - started) * SLOTS / work_s}


# A rival that can't do it says so by whatever it raises.
MEASURES: Final[dict[str, Callable[[Any], dict[str, float]]]] = {
    "functions_10k": functions,
    "round_trip": round_trip,
    "programs": programs,
    "results_1mb": results_1mb,
    "even_2": even,
    "uneven_2": uneven_ones,
    "misplaced_2": misplaced,
    "recovery_worker": lose_worker,
    "recovery_centre": lose_centre,
}


def tree_cpu_s() -> float:
    """CPU seconds so far of this process and all its descendants, dead ones included."""
    me = psutil.Process()
    total = 0.0
    for process in (me, *me.children(recursive=True)):
        try:
            total += sum(
                process.cpu_times()[:4]
            )  # user and system, its own and its dead children's
        except psutil.Error:
            continue
    return total


def main() -> None:
    name, *measures = sys.argv[1:]
    rival: Rival = importlib.import_module(f"bench.rivals.use_{name}").start()
    figures: dict[str, dict[str, float]] = {}
    missing: dict[str, str] = {}
    try:
        for warm_up in (work, run_program, megabyte):
            rival.many(warm_up, WARM_UP if warm_up is work else 4)
        for measure in measures:
            try:
                figures[measure] = MEASURES[measure](rival)
            except Exception as error:  # noqa: BLE001 (whatever a rival raises is a finding)
                missing[measure] = f"{type(error).__name__}: {error}"[:300]
    finally:
        with contextlib.suppress(Exception):  # half of it may be dead by now
            rival.close()
    print(json.dumps({"version": rival.version, "figures": figures, "missing": missing}))


if __name__ == "__main__":
    main()
