"""Tasks that save what they have, on real peers that are killed, drained and stopped."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2psched import Client, Job
from p2psched.model.checkpoints import key_of
from tests.cluster import LiveCluster, wait_until
from tests.integration import work

pytestmark = pytest.mark.process

STEPS, KILLED_AT, EVERY = 1000, 700, 5
NAMES = ("a", "b", "c")
ENDS_WITHIN_S = 60.0
# Goes on from `state/now`, renames into it each ten steps, and once more if it is told to end.
LOOP = """
i=0; test -f state/now && i=$(cat state/now)
keep() {{ echo $i > state/.now; mv state/.now state/now; }}
trap 'keep; echo $P2P_PEER term $i >> {log}; exit 1' TERM
echo $P2P_PEER from $i >> {log}
test $i -gt 0 && exit 0
while :; do i=$((i+1)); test $((i%10)) = 0 && keep; echo $P2P_PEER $i >> {log}; sleep 0.01; done
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveCluster]:
    """Two that run a task at a time, and a third voter."""
    with LiveCluster(tmp_path_factory.mktemp("checkpoints")) as cluster:
        for name in NAMES:
            cluster.start(name, slots=0 if name == "c" else 1)
        cluster.await_voters(3)
        yield cluster


def lines(log: Path) -> list[list[str]]:
    return [line.split() for line in log.read_text().splitlines()] if log.exists() else []


def saved(cluster: LiveCluster, name: str) -> list[Path]:
    """The checkpoints on a peer's disk, the newest first."""
    found = (cluster.peers[name].data / "checkpoints").glob("*/*.checkpoint")
    return sorted(found, key=lambda path: path.name, reverse=True)


def newest(cluster: LiveCluster, name: str) -> int:
    found = saved(cluster, name)
    key = key_of(found[0].name) if found else None
    return key[1] if key is not None else 0


def await_nothing_kept(cluster: LiveCluster) -> None:
    def is_so() -> bool:
        folders = [cluster.peers[name].data / "checkpoints" for name in NAMES]
        return not any(list(folder.glob("*")) for folder in folders)

    wait_until(is_so, "all forget it", timeout_s=40)


async def submit(client: Client, log: Path) -> Job:
    return await client.map(work.train, [STEPS], [EVERY], [str(log)], [KILLED_AT], checkpoint=True)


@pytest.mark.parametrize("damaged", [False, pytest.param(True, marks=pytest.mark.long)])
def test_a_loop_killed_at_700_goes_on_at_690_or_later_elsewhere(
    cluster: LiveCluster, tmp_path: Path, *, damaged: bool
) -> None:
    log = tmp_path / "log"

    async def begin(client: Client) -> str:
        return (await submit(client, log)).id

    job = cluster.ask(begin, through="c")
    wait_until(lambda: bool(lines(log)), "it begins")
    owner = lines(log)[0][0]
    others = [name for name in NAMES if name != owner]
    wanted = KILLED_AT // EVERY  # a newer one overtakes others: the one before shall be there, too
    wait_until(lambda: any(newest(cluster, name) == wanted - 1 for name in others), "a copy")
    Path(f"{log}.on").touch()
    wait_until(lambda: any(newest(cluster, name) == wanted for name in others), "the next copy")
    (holder,) = [name for name in others if newest(cluster, name) == wanted]
    if damaged:
        path = saved(cluster, holder)[0]
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    cluster.kill(owner)

    async def end(client: Client) -> object:
        async with asyncio.timeout(ENDS_WITHIN_S):
            return (await (await client.job(job)).results())[0]

    done = cluster.ask(end, through=others[0])
    newer = KILLED_AT - (EVERY if damaged else 0)
    assert done == (newer, sum(range(STEPS + 1))), "as if nothing had happened"
    assert newer >= 690
    assert {name for name, first, _ in lines(log) if first != "0"} == {
        name for name in "ab" if name != owner
    }
    if damaged:
        assert "checkpoint-damaged" in "".join(cluster.peers[name].log for name in others)
    told_of(cluster, job, newer // EVERY)
    cluster.restart(owner)
    cluster.await_voters(3)


def told_of(cluster: LiveCluster, job: str, number: int) -> None:
    shown = json.loads(cluster.ok("job", "show", job, "-o", "json"))["job"]
    (resumption,) = shown["resumptions"]
    assert (shown["resumed"], resumption["checkpoint"]) == (1, number)
    for words in (("job", "show"), ("job", "history"), ("explain",)):
        said = " ".join(cluster.ok(*words, f"{job}/0" if words == ("explain",) else job).split())
        assert f"checkpoint {number}" in said, said
    told = cluster.ok("events", "export", "--job", job, "--kind", "tasks.resumed")
    assert [json.loads(line)["checkpoint"] for line in told.splitlines()] == [number]


def begin_loop(cluster: LiveCluster, log: Path) -> tuple[str, str]:
    """Returns the job and who runs it, once it has saved something."""
    words = ("submit-job", "-o", "json", "--checkpoint", "state", "--", "sh", "-c")
    done = json.loads(cluster.ok(*words, LOOP.format(log=shlex.quote(str(log)))))
    wait_until(lambda: len(lines(log)) > 30, "30 steps")
    return done["job"]["id"], lines(log)[0][0]


def await_end(cluster: LiveCluster, job: str) -> dict[str, object]:
    def state() -> dict[str, object]:
        found: dict[str, object] = json.loads(cluster.ok("job", "show", job, "-o", "json"))["job"]
        return found

    wait_until(lambda: state()["state"] != "running", "its end", timeout_s=ENDS_WITHIN_S)
    return state()


def test_who_is_drained_gives_back_what_saves_checkpoints_and_nothing_is_lost(
    cluster: LiveCluster, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    job, owner = begin_loop(cluster, log)
    cluster.ok("peer", "drain", owner)
    assert await_end(cluster, job)["state"] == "succeeded"
    cluster.ok("peer", "uncordon", owner)
    said = [line for line in lines(log) if line[1] in {"term", "from"}]
    (_, _, ended_at) = said[1]
    other = "b" if owner == "a" else "a"
    assert said == [[owner, "from", "0"], [owner, "term", ended_at], [other, "from", ended_at]]


@pytest.mark.long
def test_who_stops_brings_it_elsewhere_first(cluster: LiveCluster, tmp_path: Path) -> None:
    log = tmp_path / "log"
    job, owner = begin_loop(cluster, log)
    assert cluster.stop(owner) == 0
    assert await_end(cluster, job)["state"] == "succeeded"
    cluster.restart(owner)
    cluster.await_voters(3)
    said = [line[1:] for line in lines(log) if line[1] in {"term", "from"}]
    assert said == [["from", "0"], ["term", said[1][1]], ["from", said[1][1]]]


@pytest.mark.long
def test_after_a_kill_of_all_peers_it_goes_on_and_then_nothing_is_kept(
    cluster: LiveCluster, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    job, _ = begin_loop(cluster, log)
    reached = int(lines(log)[-1][1])
    for name in NAMES:
        cluster.peers[name].process.send_signal(signal.SIGKILL)
    for name in NAMES:
        cluster.peers[name].process.wait()
    for peer in [cluster.restart_nowait(name) for name in NAMES]:
        cluster.wait_ready(peer)
    assert await_end(cluster, job)["state"] == "succeeded"
    (_, again) = [line for line in lines(log) if line[1] == "from"]
    assert int(again[2]) >= reached - 20
    await_nothing_kept(cluster)


def test_a_job_without_the_option_is_told_of_it(cluster: LiveCluster) -> None:
    async def story(client: Client) -> str:
        job = await client.map(work.train, [1], [1], [os.devnull], [0])
        async for result in job.as_completed():
            return str(result.error)
        return ""

    assert "submit it with `checkpoint=True`" in cluster.ask(story)
