"""Dask distributed: a scheduler process and two worker processes of one thread each."""

from __future__ import annotations

from collections.abc import Callable

import distributed


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

    def close(self) -> None:
        self._client.close()
        self._cluster.close()


def start() -> Dask:
    return Dask()
