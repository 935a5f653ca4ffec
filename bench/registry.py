"""What can be measured: each measure has contenders, which run one after the other, A B A B."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from bench.cluster import Cluster, family_cpu_s
from p2psched import Client

if TYPE_CHECKING:  # it imports this module
    from bench.rivals.etcd import Etcd
    from bench.rivals.redis import Redis

# Several values of one figure: it was taken so often in one run.
Found = Mapping[str, "float | Sequence[float]"]
Run = Callable[["Stage"], Awaitable[Found]]

OURS: Final = "p2psched"


class Unsupported(Exception):
    """This version, or this machine, can't do what is measured; the text says why."""


@dataclass(frozen=True, slots=True)
class Stage:
    """What contenders run on."""

    cluster: Cluster
    client: Client
    pool: ProcessPoolExecutor
    etcd: Etcd  # as many members as the cluster has peers, once somebody starts it
    redis: Redis
    kills: int  # of leaders, where nothing else is at work

    def cpu_s(self) -> float:
        """CPU seconds so far of all peers, hosts and programs, of this process and the pool."""
        return self.cluster.cpu_s() + family_cpu_s(os.getpid(), but=self.cluster.pids)


@dataclass(frozen=True, slots=True)
class Measure:
    name: str
    what: str
    contenders: Mapping[str, Run]
    slots: tuple[int, ...] = (1, 1, 0)  # 3 peers, 2 slots: the same two workers as the rivals'
    repeat_max: int = 1_000
    times: int = 1  # in each repetition
    rivals: bool = False  # Dask and Ray have it too: see bench/rivals


@dataclass(slots=True)
class Registry:
    measures: dict[str, Measure] = field(default_factory=dict)

    def add(self, *measures: Measure) -> None:
        for measure in measures:
            assert measure.name not in self.measures, measure.name
            self.measures[measure.name] = measure

    def choose(self, only: list[str]) -> list[Measure]:
        """All of them, or those that fit a name; `commits_*` fits several. Raises KeyError with
        the names that there are."""
        unknown = [name for name in only if not fnmatch.filter(self.measures, name)]
        if unknown:
            raise KeyError(f"no measure {unknown[0]!r}: there are {', '.join(self.measures)}")
        fitting = {found for name in only for found in fnmatch.filter(self.measures, name)}
        return [m for m in self.measures.values() if not only or m.name in fitting]
