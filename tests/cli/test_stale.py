"""Reads where there is no majority: refused by default, and told with their age on request (P8)."""

from __future__ import annotations

import asyncio
import json

import pytest

from p2psched.client.client import Client
from p2psched.model.errors import Unavailable
from p2psched.model.staleness import Staleness
from tests.cluster import LiveCluster, wait_until

pytestmark = pytest.mark.process


def voters(cluster: LiveCluster) -> int:
    views = cluster.ask(Client.peers)
    return sum(view.role != "learner" and view.state == "alive" for view in views)


def test_without_a_majority_reads_fail_and_name_the_way_to_read_what_is_known(
    empty: LiveCluster,
) -> None:
    for name in "abc":
        empty.start(name)
    wait_until(lambda: voters(empty) == 3, "three voters")
    job = empty.ok("submit-job", "--wait", "-o", "quiet", "--array", "0-2", "--", "echo", "hi")
    job = job.splitlines()[0].strip()
    applied = json.loads(empty.ok("status", "-o", "json"))["status"]["applied_index"]
    fresh = json.loads(empty.ok("jobs", "-o", "json"))
    assert "stale" not in fresh
    empty.kill("b")
    empty.kill("c")
    reads = [("jobs",), ("job", "show", job), ("job", "results", job)]
    reads += [("job", "history", job), ("peers",)]
    for words in reads:
        done = empty.run(*words, "--patience", "1s")  # ends by itself, or this would raise
        assert done.returncode == 3, words
        assert "no quorum" in done.stderr
        assert "--stale" in done.stderr

        done = empty.run(*words, "--stale", "-o", "json")
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)["stale"]
        assert said["applied_index"] >= applied
        assert said["age_ms"] > 0
        assert "stale: as of entry" in done.stderr

    told = json.loads(empty.run("job", "results", job, "--stale", "-o", "json").stdout)
    assert [task["index"] for task in told["results"]] == [0, 1, 2]

    # A peer that starts alone has heard nobody: its age is not known, which is said.
    empty.kill("a")
    alone = empty.restart_nowait("a")
    wait_until(lambda: empty.run("jobs", "--stale").returncode == 0, "a stale answer")
    done = empty.run("jobs", "--stale", "-o", "json")
    assert json.loads(done.stdout)["stale"]["age_ms"] is None
    assert "no word of a leader" in done.stderr
    empty.restart_nowait("b")
    empty.wait_ready(alone)
    assert job in empty.ok("jobs", "-o", "json")


def test_a_stale_client_grows_old_and_a_default_one_is_refused(empty: LiveCluster) -> None:
    for name in "abc":
        empty.start(name)
    wait_until(lambda: voters(empty) == 3, "three voters")
    empty.ok("submit-job", "--wait", "--", "true")
    empty.kill("b")
    empty.kill("c")

    async def look() -> None:
        address = empty.peers["a"].address
        runtime = empty.runtime_dir
        stale = Client(address, runtime_dir=runtime, consistency="stale")
        async with stale as client:
            (view,) = await client.jobs()
            assert view.state == "succeeded"
            first = client.staleness
            assert first is not None
            last: Staleness | None = first
            while last is not None and (last.age_ms or 0) < 3_000:
                await client.jobs()
                last = client.staleness
            assert last is not None
            assert last.applied_index == first.applied_index
        async with Client(address, runtime_dir=runtime, patience_s=1) as client:
            with pytest.raises(Unavailable, match="--stale"):
                await client.jobs()

    asyncio.run(look())
