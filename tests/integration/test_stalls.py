"""A real peer whose workers start nothing finds that by itself, says so, and heals it."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
from pathlib import Path
from typing import Final

import pytest

from tests.cluster import LiveCluster, wait_until

pytestmark = pytest.mark.process

STALL_AFTER = "1s"


DOC: Final = Path(__file__).resolve().parents[2] / "docs" / "stalls.md"
BLOCK: Final = re.findall(r"^```sh\n(.*?)^```$", DOC.read_text(), re.MULTILINE | re.DOTALL)


def starter_of(pid: int) -> int:
    """The one child of a peer."""
    (child,) = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return child


def status(live: LiveCluster, name: str) -> dict[str, object]:
    found = live.ok("status", "--peer", live.peers[name].address, "-o", "json")
    stalls = json.loads(found)["status"]["stalls"]
    assert isinstance(stalls, dict)
    return stalls


def test_workers_that_start_nothing_are_started_anew_and_everybody_can_see_it(
    live: LiveCluster,
) -> None:
    peer = live.start("a", slots=1, options=("--stall-after", STALL_AFTER))
    assert status(live, "a") == {"found": 0, "healed": 0, "now": [], "waits": []}
    starter = starter_of(peer.pid)
    os.kill(starter, signal.SIGSTOP)
    job = live.ok("submit-job", "-o", "quiet", "--", "echo", "hello").strip()
    wait_until(lambda: bool(status(live, "a")["now"]), "it says that it stands still")
    assert "stands still" in live.ok("status")
    assert live.run("job", "wait", job).returncode == 0
    assert live.ok("job", "logs", job).strip() == "hello"
    assert starter_of(peer.pid) != starter
    wait_until(lambda: status(live, "a")["healed"] == 1, "it says that it is healed")

    shown = json.loads(live.ok("job", "show", job, "-o", "json"))["job"]
    assert shown["attempts_lost"] == 0, "nothing of it had begun"
    explained = live.ok("explain", f"{job}/0")
    assert "found that it could run and did not" in explained
    assert "starts its workers anew" in explained
    (event,) = [
        each
        for each in map(json.loads, live.ok("events", "export").splitlines())
        if each["kind"] == "peer.stalled"
    ]
    assert event["job"].startswith(job)
    assert event["fault"] == "executor"
    assert "stall-found" in peer.log
    for command in BLOCK[0].splitlines():  # of the page about it
        program, *words = shlex.split(command)
        assert program == "p2psched"
        live.ok(*words)
