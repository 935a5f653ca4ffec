"""Jobs that come after others on real peers: a diamond, and leaders that die while parents end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2psched import task
from p2psched.client.client import Client
from p2psched.model.errors import TaskFailed
from tests.cluster import LiveCluster, wait_until

pytestmark = pytest.mark.process

ENDS_WITHIN_S = 60.0


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LiveCluster]:
    with LiveCluster(tmp_path) as cluster:
        for name in "abc":
            cluster.start(name, slots=2)
        cluster.await_voters(3)
        yield cluster


def submitted(cluster: LiveCluster, *options: str, script: str) -> str:
    done = cluster.ok("submit-job", "-o", "json", *options, "--", "sh", "-c", script)
    job: str = json.loads(done)["job"]["id"]
    return job


def state(cluster: LiveCluster, job: str) -> str:
    found: str = json.loads(cluster.ok("job", "show", job, "-o", "json"))["job"]["state"]
    return found


def leader(cluster: LiveCluster) -> str:
    peers = json.loads(cluster.ok("peers", "-o", "json"))["peers"]
    return next((peer["name"] for peer in peers if peer["role"] == "leader"), "")


def test_a_diamond_runs_in_its_order_by_command_and_by_python(cluster: LiveCluster) -> None:
    log, go = cluster.folder / "log", cluster.folder / "go"
    top = submitted(cluster, script=f"while [ ! -e {go} ]; do sleep 0.02; done; echo top >> {log}")
    left = submitted(cluster, "--after", top, "--array", "0-1", script=f"echo side >> {log}")
    right = submitted(cluster, "--after", top, script=f"echo side >> {log}")
    end = submitted(cluster, "--after", left, "--after", right, script=f"echo end >> {log}")
    assert not log.exists()
    go.touch()
    wait_until(lambda: state(cluster, end) == "succeeded", "the end", timeout_s=ENDS_WITHIN_S)
    assert log.read_text().split() == ["top", "side", "side", "side", "end"]

    def note(path: str, word: str, fails: bool = False) -> str:
        with open(path, "a", encoding="utf-8") as file:  # noqa: PTH123 (it travels alone)
            file.write(word + "\n")
        if fails:
            raise ValueError(word)
        return word

    async def diamond(client: Client) -> str:
        path = str(cluster.folder / "python")
        step = task(note)
        first = client.submit(step, path, "top")
        sides = [
            client.submit(step.options(after=[first], name=name), path, "side") for name in "lr"
        ]
        last = client.submit(step.options(after=sides), path, "end")
        assert await last == "end"
        bad = client.submit(step.options(after=last, name="bad"), path, "bad", True)
        child = client.submit(step.options(after=[bad], name="child"), path, "never")
        with pytest.raises(TaskFailed, match=r"\(bad\) failed, and this one comes after it"):
            await client.submit(step.options(after=[child]), path, "never")
        still = step.options(after=[child], on_parent_fail="continue")
        return await client.submit(still, path, "still")

    assert cluster.ask(diamond) == "still"
    words = (cluster.folder / "python").read_text().split()
    assert words == ["top", "side", "side", "end", "bad", "still"]


def test_nothing_is_left_behind_by_leaders_that_die_while_parents_end(
    cluster: LiveCluster,
) -> None:
    """Two killed, one after another; each is back before the next."""
    log = cluster.folder / "log"
    rows: list[list[str]] = []
    for row in range(6):
        jobs = [submitted(cluster, script=f"sleep 0.5; echo {row} 0 >> {log}")]
        for number in range(1, 6):
            script = f"sleep 0.3; echo {row} {number} >> {log}"
            jobs.append(submitted(cluster, "--after", jobs[-1], script=script))
        rows.append(jobs)
    failing = submitted(cluster, script="sleep 1; exit 3")
    aborted = submitted(cluster, "--after", failing, script=f"echo never >> {log}")
    for _ in range(2):
        name = leader(cluster)
        cluster.kill(name)
        cluster.restart(name)
        wait_until(lambda: bool(leader(cluster)), "somebody leads", timeout_s=ENDS_WITHIN_S)

    def all_ended() -> bool:
        return all(state(cluster, jobs[-1]) != "running" for jobs in rows)

    wait_until(all_ended, "all rows end", timeout_s=ENDS_WITHIN_S)
    assert {state(cluster, job) for jobs in rows for job in jobs} == {"succeeded"}
    wait_until(lambda: state(cluster, aborted) == "aborted", "it is aborted")
    lines = [tuple(map(int, line.split())) for line in log.read_text().splitlines()]
    for row in range(6):
        numbers = [number for one, number in lines if one == row]
        first = list(dict.fromkeys(numbers))
        assert first == list(range(6)), "in order; what was lost with its peer may stand twice"
