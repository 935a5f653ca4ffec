"""A peer without the program that tasks need fails them fast, and does not eat the queue."""

from __future__ import annotations

import json

import pytest

from p2psched.client.client import Client
from p2psched.model.peer_messages import PeerView
from tests.cluster import LiveCluster

pytestmark = pytest.mark.process

TASKS = 300
RETRIES = 3


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
    assert "succeeded elsewhere" in seen[hole].quarantine, seen
    assert not any(view.quarantine for name, view in seen.items() if name != hole)
    assert "quarantined" in live.ok("peers")
