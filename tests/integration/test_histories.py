"""What real clients saw of keys, locks and queues while their leaders were killed (P7, P8)."""

from __future__ import annotations

import asyncio
import random
from typing import Final

import pytest

from p2psched.store.folder import read_secret_file
from tests.integration.rig import Rig
from tests.integration.storms import Fleet, Storm

HISTORIES: Final = 5
SECONDS: Final = 30.0
KILL_EVERY_S: Final = 5.0

pytestmark = [pytest.mark.process, pytest.mark.timeout(600)]


def fleet(rig: Rig) -> Fleet:
    cluster = rig.cluster
    return Fleet(
        addresses={name: peer.address for name, peer in cluster.peers.items()},
        runtime_dir=cluster.runtime_dir,
        secret=read_secret_file(cluster.secret_path),
        kill=cluster.kill,
        restart=cluster.restart,
    )


@pytest.mark.smoke
def test_two_killed_leaders_leave_histories_that_have_an_order(rig: Rig) -> None:
    recording = asyncio.run(Storm(fleet(rig), fresh(), every_s=2.5).record(6.0))
    recording.judge()
    assert recording.kills >= 2
    print(recording.figures())
    recording.would_be_noticed()


@pytest.mark.long
@pytest.mark.parametrize("number", range(HISTORIES))
def test_leaders_killed_every_five_seconds_leave_histories_that_have_an_order(
    rig: Rig, number: int
) -> None:
    recording = asyncio.run(Storm(fleet(rig), fresh(), every_s=KILL_EVERY_S).record(SECONDS))
    recording.judge()
    assert recording.kills >= SECONDS // KILL_EVERY_S - 1
    print(f"{number}: {recording.figures()}")
    recording.would_be_noticed()


def fresh() -> int:
    """Names that no test before has left a lock or an item under."""
    return random.SystemRandom().getrandbits(32)
