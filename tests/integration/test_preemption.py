"""Long tasks of low priority make way on real peers, and go on from their checkpoints."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import LiveCluster, wait_until

pytestmark = pytest.mark.process

# Saves each ten steps, and once more when it is told to end; the end comes when a file is there.
LOOP = """
i=0; test -f state/now && i=$(cat state/now)
keep() {{ echo $i > state/.now; mv state/.now state/now; }}
trap 'keep; echo $P2P_INDEX term $i >> {log}; exit 1' TERM
echo $P2P_INDEX from $i >> {log}
while [ ! -e {go} ]; do i=$((i+1)); test $((i%10)) = 0 && keep; sleep 0.01; done
echo $P2P_INDEX done $i >> {log}
"""
QUICK = "echo $P2P_INDEX high >> {log}"
ENDS_WITHIN_S = 60.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveCluster]:
    """Two that run a task at a time, and a third voter."""
    with LiveCluster(tmp_path_factory.mktemp("preemption")) as cluster:
        for name in "abc":
            cluster.start(name, slots=0 if name == "c" else 1)
        cluster.await_voters(3)
        yield cluster


def said(log: Path, what: str) -> list[tuple[int, str]]:
    """Of each task, in order."""
    lines = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
    return [(int(index), " ".join(rest)) for index, word, *rest in lines if word == what]


def submitted(cluster: LiveCluster, *options: str, script: str) -> str:
    done = cluster.ok("submit-job", "-o", "json", *options, "--", "sh", "-c", script)
    job: str = json.loads(done)["job"]["id"]
    return job


def shown(cluster: LiveCluster, job: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(cluster.ok("job", "show", job, "-o", "json"))["job"]
    return found


def has_ended(cluster: LiveCluster, job: str) -> bool:
    return shown(cluster, job)["state"] != "running"


def test_low_tasks_make_way_for_high_ones_and_go_on_where_they_were(
    cluster: LiveCluster, tmp_path: Path
) -> None:
    log, go = tmp_path / "log", tmp_path / "go"
    words = {"log": shlex.quote(str(log)), "go": shlex.quote(str(go))}
    low = submitted(
        *(cluster, "--checkpoint", "state", "--array", "0-1", "--priority", "-5"),
        *("--preemptible", "--preempt-after", "1s"),
        script=LOOP.format(**words),
    )
    wait_until(lambda: len(said(log, "from")) == 2, "both run")
    high = submitted(cluster, "--array", "0-1", "--priority", "5", script=QUICK.format(**words))
    wait_until(lambda: has_ended(cluster, high), "the high ones end", timeout_s=ENDS_WITHIN_S)
    assert shown(cluster, high)["succeeded"] == 2
    reached = dict(said(log, "term"))
    assert reached, "a low one was told to end"
    wait_until(lambda: len(said(log, "from")) == 2 + len(reached), "they go on", timeout_s=30)
    again = dict(said(log, "from")[2:])
    assert again == reached, "each from where it was told to end"
    go.touch()
    wait_until(lambda: has_ended(cluster, low), "the low ones end", timeout_s=ENDS_WITHIN_S)
    job = shown(cluster, low)
    counts = [job[name] for name in ("succeeded", "preempted", "attempts_failed", "attempts_lost")]
    assert counts == [2, len(said(log, "term")), 0, 0], "at no cost to their attempts"
    told_of(cluster, low, high, next(iter(reached)))


def told_of(cluster: LiveCluster, low: str, high: str, index: int) -> None:
    for words in (("job", "history", low), ("explain", f"{low}/{index}")):
        text = " ".join(cluster.ok(*words).split())
        assert "preempted" in text, text
        assert f"job {high[:8]} goes first" in text, text
    told = cluster.ok("events", "export", "--job", low, "--kind", "tasks.preempted")
    assert {json.loads(line)["by"] for line in told.splitlines()} == {high}
    assert "preemptible after 1 s" in cluster.ok("job", "show", low)
