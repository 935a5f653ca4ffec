"""`peers --watch` and what `peers` and `status` say of load, on real peers."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from typing import Any

import pytest

from p2psched.cli.loads import _COLUMNS, _row
from p2psched.cli.output import table
from p2psched.model.ids import PeerId
from p2psched.model.load import Liveness, LoadReport
from p2psched.model.load_messages import GetLoads, LoadRow, LoadTable
from tests.cluster import COMMAND_S, LiveCluster, wait_until

PEER = PeerId("a" * 32)
BUSY = LoadReport(
    number=9,
    slots=16,
    running=16,
    queue=12_345,
    queue_us=90_000_000,
    takes=False,
    cores=16,
    cpu=1_000,
    foreign_cpu=512,
    memory=262_144,
    memory_free=999,
    disk_free=9_000_000,
    gpus=8,
    gpus_busy=3,
    received=5_000,
    battery=80,
    mains=False,
    temperature=71,
)


@pytest.mark.parametrize("width", range(40, 201, 20))
def test_a_table_of_loads_fits_every_terminal_from_40_columns_on(width: int) -> None:
    rows = [
        LoadRow(PEER, "some-board", Liveness.ALIVE, 400, BUSY),
        LoadRow(PEER, "b", Liveness.SUSPECT, 90_000, None),
    ]
    lines = table(_COLUMNS, [_row(row, {}) for row in rows], width=width)
    assert max(map(len, lines)) <= width
    assert "16/16" in lines[1]
    assert "12345" in lines[1]


def loads(cluster: LiveCluster, through: str) -> LoadTable:
    return cluster.ask(lambda client: client.session.call(GetLoads(), LoadTable), through=through)


def knows_all(found: LoadTable, count: int) -> bool:
    return len(found.rows) == count and all(row.load is not None for row in found.rows)


def peers_of(line: str) -> Mapping[str, Any]:
    return {peer["name"]: peer for peer in json.loads(line)["peers"]}


def assert_hears_of_all(cluster: LiveCluster, name: str, count: int) -> None:
    wait_until(
        lambda: knows_all(loads(cluster, name), count), f"{name} to hear of all", timeout_s=80
    )


@pytest.mark.process
def test_every_peer_hears_how_busy_all_are_a_follower_too(empty: LiveCluster) -> None:
    for name in "abc":
        empty.start(name, slots=1)
    empty.start("d", slots=1, options=["--follow"])
    # Who missed what was said while it came compares with somebody within half a minute.
    for name in "abcd":
        assert_hears_of_all(empty, name, 4)

    # As JSON, a line each; with the work that somebody has.
    job = empty.ok("submit-job", "-o", "quiet", "--array", "0-7", "--", "sleep", "30").strip()
    watching = empty.popen("peers", "--watch", "--every", "100ms", "-o", "json")
    assert watching.stdout is not None
    busy: set[str] = set()
    while busy != set("abcd"):
        found = peers_of(watching.stdout.readline())
        busy = {name for name, peer in found.items() if peer["load"] and peer["load"]["running"]}
    assert all(peer["load"]["slots"] == 1 for peer in found.values())
    watching.send_signal(signal.SIGINT)
    watching.communicate(timeout=COMMAND_S)
    assert watching.returncode == 130
    empty.ok("job", "cancel", job)

    whole = peers_of(empty.ok("peers", "-o", "json"))
    assert all(peer["load"]["cores"] > 0 for peer in whole.values())
    assert all(peer["load_age_ms"] >= 0 for peer in whole.values())
    status = json.loads(empty.ok("status", "-o", "json"))["status"]["load"]
    assert status["whole"] >= 1
    assert status["bytes_said"] > 0
    assert 0 < status["budget_bytes_s"] < 1_000
    assert not status["dropped"]
    assert "B/s" in empty.ok("status")


@pytest.mark.process
def test_a_table_is_shown_again_and_again_until_ctrl_c(live: LiveCluster) -> None:
    watching = live.popen("peers", "--watch", "--every", "50ms")
    assert watching.stdout is not None
    heads = 0
    while heads < 3:
        heads += watching.stdout.readline().startswith("NAME")
    watching.send_signal(signal.SIGINT)
    watching.communicate(timeout=COMMAND_S)
    assert watching.returncode == 130


@pytest.mark.process
def test_watch_is_of_now(live: LiveCluster) -> None:
    refused = live.run("peers", "--watch", "--at", "3")
    assert refused.returncode == 2
    assert "--watch shows what is now" in refused.stderr
