"""A peer without the program that tasks need fails them fast, and does not eat the queue."""

from __future__ import annotations

import json

import pytest

from p2psched.client.client import Client
from p2psched.core.quarantine import INNOCENT_MIN
from p2psched.model.peer_messages import PeerView
from tests.cluster import LiveCluster

pytestmark = pytest.mark.process

TASKS = 300
RETRIES = 3


def status_of(live: LiveCluster, name: str) -> dict[str, str]:
    found = live.ok("status", "--peer", live.peers[name].address, "-o", "json")
    status: dict[str, str] = json.loads(found)["status"]
    return status


@pytest.mark.parametrize("hole", ["b", "a"])  # a leads
def test_nearly_all_tasks_succeed_on_the_others(live: LiveCluster, hole: str) -> None:
    live.before[hole] = ("env", "PATH=/nowhere")
    for name in "abc":
        live.start(name)
    words = ("--array", f"0-{TASKS - 1}", "--retries", str(RETRIES), "-o", "quiet")
    job = live.ok("submit-job", *words, "--", "sleep", "0.03").strip()
    live.run("job", "wait", job)
    shown = json.loads(live.ok("job", "show", job, "-o", "json"))["job"]
    assert shown["succeeded"] >= TASKS * 0.98, shown

    async def views(client: Client) -> dict[str, PeerView]:
        return {view.info.name: view for view in await client.peers()}

    seen = live.ask(views, through="a")
    assert not any(view.quarantine for name, view in seen.items() if name != hole)
    assert shown["attempts_failed"] <= TASKS * 0.1, shown  # alone it would eat nearly all
    if shown["attempts_failed"] >= 2 * INNOCENT_MIN:  # else it was watched, and had too few
        assert "succeeded elsewhere" in seen[hole].quarantine, seen
        assert "quarantined" in live.ok("peers")
        told = {name: status_of(live, name)["quarantine"] for name in "abc"}
        assert "succeeded elsewhere" in told[hole], told
        assert [name for name in "abc" if told[name]] == [hole]
        sheet = live.ok("status", "--peer", live.peers[hole].address)
        assert "succeeded elsewhere" in " ".join(sheet.split())
