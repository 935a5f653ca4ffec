"""Outputs and history of attempts after their peers were killed and all were restarted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import LiveCluster, wait_until

pytestmark = [pytest.mark.process, pytest.mark.long]

# Fails at first; then runs on its peer until that is killed, and ends well on another.
SCRIPT = """
echo out $P2P_ATTEMPT; echo err $P2P_ATTEMPT >&2
test $P2P_ATTEMPT = 1 && exit 3
test $P2P_ATTEMPT = 2 && sleep 600
exit 0
"""


def attempts_of(cluster: LiveCluster, *words: str) -> list[dict[str, Any]]:
    told = cluster.ok("job", "logs", "hard/0", "--attempt", "all", "-o", "json", *words)
    found: list[dict[str, Any]] = json.loads(told)["attempts"]
    return found


def steps_of(cluster: LiveCluster, *words: str) -> list[tuple[str, str | None, str | None]]:
    told = json.loads(cluster.ok("job", "history", "hard", "0", "-o", "json", *words))
    return [(step["event"], step["peer"], step["cause"]) for step in told["events"]]


def test_outputs_and_history_survive_the_peers_that_made_them(tmp_path: Path) -> None:
    with LiveCluster(tmp_path) as cluster:
        for name in "abc":
            cluster.start(name)
        cluster.await_voters(3)
        cluster.ok("submit-job", "--retries", "1", "--name", "hard", "--", "sh", "-c", SCRIPT)
        wait_until(lambda: len(attempts_of(cluster)) == 2, "the second attempt")
        wait_until(lambda: attempts_of(cluster)[1]["stdout"] == "out 2\n", "what it prints")
        first, second = attempts_of(cluster)
        # The peers of both are gone, one after the other: of three, one may be missing.
        cluster.kill(second["peer"])
        others = [peer for peer in cluster.peers.values() if peer.name != second["peer"]]
        address = ("--peer", others[0].address)
        cluster.ok("job", "wait", "hard", *address)
        for peer in others:
            told = attempts_of(cluster, "--peer", peer.address)
            assert [(one["cause"], one["stdout"], one["stderr"]) for one in told] == [
                ("exit", "out 1\n", "err 1\n"),
                ("peer-lost", "", ""),
                ("ok", "out 3\n", "err 3\n"),
            ]
            assert told[0] == first
            lost_words = f"; peer {second['peer']}, which ran it and may have all of it, can't be"
            assert lost_words in told[1]["note"]
        lost = second["peer"]
        steps = steps_of(cluster, *address)
        assert ("peer-lost", lost) in [step[:2] for step in steps]
        assert ("taken-away", lost, "peer-lost") in steps
        assert steps[-1][0] == "job-ended"
        for peer in others:
            cluster.kill(peer.name)
        again = [cluster.restart_nowait(name) for name in "abc"]
        for peer in again:
            cluster.wait_ready(peer)
        everywhere = [attempts_of(cluster, "--peer", peer.address) for peer in again]
        assert everywhere[0] == everywhere[1] == everywhere[2]
        # Who was killed while it ran the second one still has what that had printed.
        assert [one["stdout"] for one in everywhere[0]] == ["out 1\n", "out 2\n", "out 3\n"]
        assert everywhere[0][1]["note"].endswith(f"from the disk of peer {lost}")
        assert steps_of(cluster)[: len(steps)] == steps
