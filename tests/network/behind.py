"""Three voters, each in a namespace of its own behind the switch."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from p2psched.store.folder import read_secret_file
from tests.cluster import LiveCluster
from tests.integration.storms import Fleet
from tests.network.switch import Switch

NAMES: Final = ("a", "b", "c")


@contextmanager
def behind_a_switch(folder: Path, *, slots: int = 1) -> Iterator[tuple[LiveCluster, Switch]]:
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    with Switch(NAMES, subnet=99 + worker, seed=7) as switch, LiveCluster(folder) as cluster:
        for name in NAMES:
            cluster.before[name] = switch.inside(name)
            listen = f"{switch.address(name)}:7420"
            options = ["--insecure", *_secret_of(cluster)]
            cluster.start(name, slots=slots, listen=listen, options=options)
        yield cluster, switch


def fleet_of(cluster: LiveCluster) -> Fleet:
    return Fleet(
        addresses={name: peer.address for name, peer in cluster.peers.items()},
        runtime_dir=cluster.runtime_dir,
        secret=read_secret_file(cluster.peers["a"].data / "secret"),
        kill=cluster.kill,
        restart=cluster.restart_nowait,
    )


def _secret_of(cluster: LiveCluster) -> list[str]:
    first = cluster.peers.get("a")
    return [] if first is None else ["--secret-file", str(first.data / "secret")]


def cut_at_random(switch: Switch, rng: random.Random, leader: str) -> None:
    """The leader off, or one peer, or a link, or one way of it."""
    one, other = rng.sample(NAMES, 2)
    match rng.choice(("leader", "one", "link", "way")):
        case "leader":
            switch.cut_off(leader)
        case "one":
            switch.cut_off(one)
        case "link":
            switch.cut_between(one, other)
        case _:
            switch.cut_one_way(one, other)
