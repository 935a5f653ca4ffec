"""Dask distributed: a scheduler process and two worker processes of one thread each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import distributed

CLOSE_TIMEOUT_S: Final = 5.0


class Dask:
    version = str(distributed.__version__)

    def __init__(self) -> None:
        self._cluster = distributed.SubprocessCluster(
            host="127.0.0.1",
            scheduler_kwargs={"dashboard": False},
            worker_kwargs={"nthreads": 1, "dashboard": False},
        )
        self._cluster.scale(2)
        self._client = distributed.Client(self._cluster)
        self._client.wait_for_workers(2, timeout=60)
        self._begun: list[Any] = []

    def many(self, function: Callable[[int], object], count: int) -> list[object]:
        futures = self._client.map(function, range(count), pure=False)
        return list(self._client.gather(futures))

    def many_on_one(self, function: Callable[[int], object], count: int) -> list[object]:
        worker = min(self._client.scheduler_info()["workers"])
        futures = self._client.map(
            function, range(count), pure=False, workers=[worker], allow_other_workers=True
        )
        return list(self._client.gather(futures))

    def one(self, function: Callable[[int], object], argument: int) -> object:
        found: object = self._client.submit(function, argument, pure=False).result()
        return found

    # --- parts that die: see `bench.rivals.recovery` ---

    def begin(self, function: Callable[[int, str], int], count: int, path: str) -> None:
        self._begun = self._client.map(function, range(count), [path] * count, pure=False)

    def done(self) -> int:
        return sum(future.status == "finished" for future in self._begun)

    def worker_pids(self) -> list[int]:
        """A nanny: its worker is its child."""
        return [next(iter(self._cluster.workers.values())).process.pid]

    def centre_pids(self) -> list[int]:
        return [self._cluster.scheduler.process.pid]

    def close(self) -> None:
        self._client.close(timeout=CLOSE_TIMEOUT_S)
        self._cluster.close(timeout=CLOSE_TIMEOUT_S)


def start() -> Dask:
    return Dask()
