"""Backup under load and restore elsewhere; going on with one disk of three; who comes back late."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2psched.client.client import Client
from p2psched.client.job import Job
from p2psched.model.errors import Refused
from p2psched.model.ids import JobId
from p2psched.model.job import JobState
from p2psched.model.taskset import TaskSet
from tests.cluster import LiveCluster, wait_until
from tests.integration import work
from tests.integration.rig import until
from tests.small_disk import small_disk

pytestmark = [pytest.mark.process, pytest.mark.timeout(300)]


@pytest.fixture
def three(tmp_path: Path) -> Iterator[LiveCluster]:
    with LiveCluster(tmp_path) as cluster:
        for name in "abc":
            cluster.start(name)
        wait_until(lambda: voters(cluster) == 3, "three voters")
        yield cluster


def voters(cluster: LiveCluster) -> int:
    views = cluster.ask(Client.peers)
    return sum(view.role != "learner" and view.state == "alive" for view in views)


def names(cluster: LiveCluster) -> set[str]:
    views = cluster.ask(Client.peers, through="a")
    return {view.info.name for view in views}


def move_away(cluster: LiveCluster, *gone: str) -> None:
    """These are gone for good, as far as the rest of the test knows."""
    for name in gone:
        cluster.kill(name)
        stdout = cluster.peers.pop(name).process.stdout
        assert stdout is not None
        stdout.close()


async def values_of(client: Client, job: JobId) -> list[object]:
    return await Job(client.session, job).results()


def happened(history: str) -> list[tuple[object, ...]]:
    """But for the names of the peers, which the new cluster has never met."""
    events = json.loads(history)["events"]
    return [(event["index"], event["event"], event["tasks"], event["time"]) for event in events]


def test_a_backup_under_load_has_all_that_was_accepted_and_ends_it_elsewhere(
    three: LiveCluster,
) -> None:
    file, data = three.folder / "cluster.p2pbackup", three.folder / "r"

    async def load_and_back_up() -> tuple[list[JobId], dict[JobId, list[object]]]:
        accepted: list[JobId] = []
        stop = asyncio.Event()

        async def submit(client: Client) -> None:
            number = 0
            while not stop.is_set():
                number += 1
                job = await client.map(work.square, range(number % 7 + 1))
                accepted.append(job.id)

        async with three.client("b") as client, asyncio.TaskGroup() as group:
            large = await client.map(work.noise, [1, 2], [200_000, 300_000])
            ended = await client.map(work.square, range(50))
            slow = await client.submit_program(["sleep", "2"], tasks=TaskSet.of(0, 12))
            before = {job.id: await job.results() for job in (large, ended)}
            accepted += [*before, slow.id]
            loading = group.create_task(submit(client))

            async def is_loaded() -> bool:
                return len(accepted) >= 40

            await until(is_loaded)
            sure = list(accepted)  # acknowledged before the backup was asked for
            done = await asyncio.to_thread(
                three.run, "backup", str(file), "--peer", three.peers["c"].address, "-o", "json"
            )
            assert done.returncode == 0, done.stderr
            stop.set()
            await loading
            told = json.loads(done.stdout)["backup"]
            assert told["jobs"] >= len(sure)
            assert not told["missing"]
            return sure, before

    sure, before = asyncio.run(load_and_back_up())
    verified = json.loads(three.ok("backup", "--verify", str(file), "-o", "json"))["backup"]
    assert verified["ok"]
    assert three.run("restore", str(file), "--dir", str(data)).returncode == 0
    events = happened(three.ok("job", "history", sure[0], "-o", "json"))
    move_away(three, "a", "b", "c")
    shutil.rmtree(three.runtime_dir)  # or commands would look for them
    three.start("r", join=False)

    async def compare() -> None:
        async with three.client() as client:
            for job, values in before.items():
                assert await values_of(client, job) == values
            for job in sure:
                view = await Job(client.session, job).wait()
                assert view.state is JobState.SUCCEEDED, job
                assert view.succeeded == view.tasks
                if view.kind == "function" and job not in before:
                    values = await values_of(client, job)
                    assert values == [n * n for n in range(len(values))]

    asyncio.run(compare())
    assert happened(three.ok("job", "history", sure[0], "-o", "json")) == events


def test_one_disk_of_three_goes_on_and_who_comes_back_with_old_grants_is_refused(
    three: LiveCluster,
) -> None:
    go = three.folder / "go"
    script = f"while [ ! -e {go} ]; do sleep 0.05; done; echo $P2P_FENCE"
    job = three.ok("submit-job", "-o", "quiet", "--array", "0-5", "--", "sh", "-c", script).strip()
    finished = three.ok("submit-job", "-o", "quiet", "--cpus", "2", "--", "true").strip()
    data = str(three.peers["a"].data)

    running = three.run("ledger", "recover", data, "--accept-loss")
    assert running.returncode == 5
    assert "in use by process" in running.stderr
    three.kill("a")
    reachable = three.run("ledger", "recover", data, "--accept-loss")
    assert reachable.returncode == 5
    assert "nothing is lost" in reachable.stderr
    three.kill("b")
    three.kill("c")

    asked = three.run("ledger", "recover", data, "-o", "json")
    assert asked.returncode == 5
    assert "--accept-loss" in asked.stderr
    told = json.loads(asked.stdout)["recover"]
    assert not told["done"]
    assert job in [running["id"][: len(job)] for running in told["running"]]
    assert three.run("ledger", "verify", data).returncode == 0
    done = three.run("ledger", "recover", data, "--accept-loss", "-o", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["recover"]["generation"] == 2
    three.restart("a")
    assert job in three.ok("jobs", "--peer", three.peers["a"].address)

    # An old peer is back, with its grants, at the address that it had.
    three.restart_nowait("b")
    wait_until(lambda: "another cluster" in three.peers["b"].log, "it to be refused")
    assert "restored or recovered" in three.peers["b"].log
    alone = three.client("a")

    async def look() -> None:
        async with alone as client:
            assert [view.info.name for view in await client.peers()] == ["a"]
            go.touch()
            view = await (await client.job(job)).wait()
            assert view.state is JobState.SUCCEEDED
            assert [peer for peer, _ in view.finished_by] == [three.peers["a"].id]
            assert (await (await client.job(finished)).wait()).succeeded == 1

    asyncio.run(look())
    results = three.ok("job", "results", job, "-o", "json", "--peer", three.peers["a"].address)
    fences = [task["stdout"].strip() for task in json.loads(results)["results"]]
    assert all(int(fence.split(".")[1]) >> 40 == 2 for fence in fences)

    # One of them joins as somebody new.
    move_away(three, "b", "c")
    three.start("d")
    wait_until(lambda: names(three) == {"a", "d"}, "d")


def test_a_backup_that_finds_no_space_or_is_interrupted_leaves_nothing(
    three: LiveCluster,
) -> None:
    big = three.folder / "big"
    big.write_bytes(bytes(range(256)) * 40_000)
    words = ("submit-job", "--wait", "--send", str(big), "--collect", "o", "--")
    assert three.run(*words, "sh", "-c", "mv big o").returncode == 0
    with small_disk(three.folder / "disk", 4 << 20) as disk:
        done = three.run("backup", str(disk.folder / "b"))
        assert done.returncode == 3
        assert "no space" in done.stderr
        assert not list(disk.folder.iterdir())
    folder = three.folder / "out"
    folder.mkdir()
    process = three.popen("backup", str(folder / "b"))
    wait_until(lambda: process.poll() is not None or any(folder.iterdir()), "it to begin")
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    process.stdout.close()
    if process.wait(30) != 0:  # it was quicker
        assert process.returncode == 130
        assert not list(folder.iterdir())
    assert three.run("backup", str(three.folder / "nowhere" / "b")).returncode == 2
    assert Refused.exit_code == three.run("backup", str(big)).returncode
