"""Large values: results of a megabyte each, and one of a gibibyte as result and as argument."""

from __future__ import annotations

import asyncio
import importlib
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from bench.registry import OURS, Measure, Stage, Unsupported
from bench.work import MEGABYTE, megabyte
from p2psched.model.errors import TaskFailed, UsageError

RESULTS: Final = 200
GIB: Final = 1 << 30
LOOK_S: Final = 0.02


async def megabytes(stage: Stage) -> Mapping[str, float]:
    """200 results of 1 MB each to the client, every byte compared."""
    cpu_s, started = stage.cpu_s(), time.perf_counter()
    try:
        job = await stage.client.map("bench.work:megabyte", range(RESULTS))
        seen = set()
        async for result in job.as_completed():
            assert result.value == megabyte(result.index)
            seen.add(result.index)
    except (TaskFailed, UsageError) as error:
        raise Unsupported(str(error)) from error
    took_s = time.perf_counter() - started
    assert len(seen) == RESULTS
    return _rate(RESULTS * MEGABYTE, took_s, stage.cpu_s() - cpu_s)


async def pool_megabytes(stage: Stage) -> Mapping[str, float]:
    cpu_s, started = stage.cpu_s(), time.perf_counter()
    futures = [stage.pool.submit(megabyte, number) for number in range(RESULTS)]
    assert all(future.result() == megabyte(number) for number, future in enumerate(futures))
    return _rate(RESULTS * MEGABYTE, time.perf_counter() - started, stage.cpu_s() - cpu_s)


def _rate(size: int, took_s: float, cpu_s: float) -> dict[str, float]:
    return {"mb_per_s": size / took_s / 1e6, "cpu_us": cpu_s / (size / MEGABYTE) * 1e6}


class _Watch:
    """The most resident memory that each process of the cluster had, and this one."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.peak: dict[str, float] = {}

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.wait(LOOK_S):
            for name, mib in {**self._stage.cluster.rss_mib(), "client": _own_mib()}.items():
                self.peak[f"{name}_mib"] = max(mib, self.peak.get(f"{name}_mib", 0.0))


def _own_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


async def gibibyte(stage: Stage) -> Mapping[str, float]:
    """A file of 1 GiB as an argument, and the same file as the result, saved at the client."""
    try:
        file = importlib.import_module("p2psched").File
    except AttributeError as error:
        raise Unsupported("this version has no p2psched.File") from error
    source, target = stage.cluster.folder / "gib-in", stage.cluster.folder / "gib-out"
    await asyncio.to_thread(_make, source)
    try:
        with _Watch(stage) as watch:
            started = time.perf_counter()
            job = await stage.client.map("bench.blobs:give_back", [file(str(source))])
            value = await job.result()
            await asyncio.to_thread(value.save, str(target))  # type: ignore[attr-defined]
            took_s = time.perf_counter() - started
        assert await asyncio.to_thread(_same, source, target)
    except (TaskFailed, UsageError) as error:
        raise Unsupported(str(error)) from error
    finally:
        source.unlink(missing_ok=True)
        target.unlink(missing_ok=True)
    return {"mb_per_s": 2 * GIB / took_s / 1e6, **watch.peak}


def _make(path: Path) -> None:
    with path.open("wb") as file:
        for _ in range(GIB // MEGABYTE + 1):
            file.write(os.urandom(MEGABYTE))
        file.truncate(GIB)


def _same(a: Path, b: Path) -> bool:
    with a.open("rb") as one, b.open("rb") as other:
        while piece := one.read(MEGABYTE):
            if piece != other.read(MEGABYTE):
                return False
        return not other.read(1)


MEASURES: Final = (
    Measure(
        "results_1mb",
        "200 results of 1 MB to the client",
        {OURS: megabytes, "pool": pool_megabytes},
        rivals=True,
    ),
    Measure("gib", "1 GiB there and back: peak memory", {OURS: gibibyte}, repeat_max=1),
)
