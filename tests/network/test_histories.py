"""Histories of real clients while leaders are killed and links between peers are cut (P7, P8)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from typing import Final

import pytest

from tests.cluster import LiveCluster
from tests.integration.storms import Storm
from tests.network.behind import behind_a_switch, cut_at_random, fleet_of
from tests.network.switch import Switch, why_not

HISTORIES: Final = 5
SECONDS: Final = 30.0
KILL_EVERY_S: Final = 5.0
_REASON: Final = why_not()

pytestmark = [
    pytest.mark.process,
    pytest.mark.long,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(_REASON), reason=_REASON),
]


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LiveCluster, Switch]]:
    with behind_a_switch(tmp_path_factory.mktemp("histories")) as (cluster, switch):
        yield cluster, switch


@pytest.mark.parametrize("seed", range(HISTORIES))
def test_killed_leaders_and_cut_links_leave_histories_that_have_an_order(
    net: tuple[LiveCluster, Switch], seed: int
) -> None:
    cluster, switch = net
    fleet = fleet_of(cluster)

    def cut(rng: random.Random, leader: str) -> None:
        if leader:
            cut_at_random(switch, rng, leader)
        else:
            switch.heal()

    storm = Storm(fleet, seed, every_s=KILL_EVERY_S, cut=cut)
    recording = asyncio.run(storm.record(SECONDS))
    recording.judge()
    assert min(recording.kills, recording.cuts) >= SECONDS // KILL_EVERY_S - 1
    print(f"{seed}: {recording.figures()}; {switch.counts.cut} packets cut")
    recording.would_be_noticed()
