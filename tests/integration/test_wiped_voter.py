"""A voter whose disk is gone is back, with all of a large state, once its folder is empty and it is
started again: how long that takes is printed, and bounded."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from p2psched.client.client import Client
from tests.cluster import LiveCluster, wait_until
from tests.integration import work

STATE_MB: Final = int(os.environ.get("P2PSCHED_STATE_MB", "100"))
WITHIN_S: Final = 60.0  # issue 5; on a machine that does little else
ARGUMENT_BYTES: Final = 60_000  # what an argument may take and travel with its job
AT_ONCE: Final = 16

pytestmark = [pytest.mark.process, pytest.mark.long, pytest.mark.timeout(600)]


@pytest.fixture
def three(tmp_path: Path) -> Iterator[LiveCluster]:
    with LiveCluster(tmp_path) as cluster:
        for name in "abc":  # nobody runs tasks: what is submitted stays in the state
            cluster.start(name, slots=0)
        wait_until(lambda: len(voters(cluster)) == 3, "three voters")
        yield cluster


def peers_of(cluster: LiveCluster) -> dict[str, dict[str, Any]]:
    """By id."""
    found = json.loads(cluster.ok("peers", "-o", "json"))["peers"]
    return {peer["id"]: peer for peer in found}


def voters(cluster: LiveCluster) -> dict[str, str]:
    """By name: leader or voter."""
    views = peers_of(cluster).values()
    return {v["name"]: v["role"] for v in views if v["role"] != "learner" and v["state"] != "dead"}


def status_of(cluster: LiveCluster, name: str) -> dict[str, Any]:
    address = cluster.peers[name].address
    found: dict[str, Any] = json.loads(cluster.ok("status", "-o", "json", "--peer", address))
    return dict(found.get("status", found))


async def fill(client: Client) -> int:
    """Jobs that wait, with arguments that don't compress; how many."""
    room = asyncio.Semaphore(AT_ONCE)
    count = STATE_MB * 1_000_000 // ARGUMENT_BYTES

    async def submit() -> None:
        async with room:
            await client.map(work.square, [os.urandom(ARGUMENT_BYTES)])

    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(submit())
    return count


def test_a_wiped_voter_votes_again_and_has_all_of_the_state(three: LiveCluster) -> None:
    count = three.ask(fill)
    wiped = next(name for name, role in sorted(voters(three).items()) if role == "voter")
    data = three.peers[wiped].data
    secret = three.folder / "secret"
    shutil.copy(data / "secret", secret)
    three.kill(wiped)
    shutil.rmtree(data)
    other = next(name for name in "abc" if name != wiped)
    began_s = time.monotonic()
    # One command: the rest is the group's own business.
    join = ("--join", three.peers[other].address, "--secret-file", str(secret))
    three.wait_ready(three.move_nowait(wiped, "127.0.0.1:0", "--slots", "0", *join))
    new = three.peers[wiped].id

    def votes() -> bool:
        view = peers_of(three).get(new)
        return view is not None and view["role"] in {"leader", "voter"} and view["lag"] == 0

    wait_until(votes, "it votes again", timeout_s=WITHIN_S)
    votes_s = time.monotonic() - began_s
    wait_until(lambda: not status_of(three, wiped)["jobs_lacking"], "it has all", timeout_s=300)
    whole_s = time.monotonic() - began_s
    print(
        f"{STATE_MB} MB of state, load {os.getloadavg()[0]:.1f}: it votes after {votes_s:.1f} s, "
        f"and lacks nothing after {whole_s:.1f} s"
    )

    found = status_of(three, wiped)
    assert found["jobs_running"] == found["jobs_total"] == count
    assert found["state_hash"] == status_of(three, other)["state_hash"]
