"""Events between real processes: told once and in order whoever dies, also those of long ago, and
the state as it was."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from p2psched.client import events
from p2psched.client.client import Client
from p2psched.model.event_messages import EventRecord, Place
from tests.cluster import LiveCluster

pytestmark = [pytest.mark.process, pytest.mark.timeout(400)]

JOBS: Final = 7
SNAPSHOT_LOG: Final = 128 * 1024
Fields = dict[str, Any]  # of an event, as JSON has it


@pytest.fixture
def live(tmp_path: Path) -> LiveCluster:
    return LiveCluster(tmp_path)


def events_in(text: str) -> list[Fields]:
    return [json.loads(line) for line in text.splitlines()]


def exported(cluster: LiveCluster, *options: str) -> list[Fields]:
    return events_in(cluster.ok("events", "export", *options))


def status_of(cluster: LiveCluster, name: str) -> Fields:
    answer = cluster.ok("status", "-o", "json", "--peer", cluster.peers[name].address)
    fields: Fields = json.loads(answer)["status"]
    return fields


def run_job(cluster: LiveCluster, *options: str) -> str:
    """The id of a program job that has ended."""
    job = cluster.ok("submit-job", "-o", "quiet", *options, "--", "true").strip()
    cluster.ok("job", "wait", job)
    return job


async def run_jobs(client: Client, count: int) -> None:
    for _ in range(count):
        await (await client.submit_program(["true"])).wait()


async def read_to(client: Client, last: Place) -> list[EventRecord]:
    found = events.pages(client.session, start=Place(1), upto=last)
    return [record async for page in found for record in page.events]


def test_a_reader_whose_leader_is_killed_gets_each_event_once(live: LiveCluster) -> None:
    async def story() -> tuple[list[EventRecord], dict[str, list[EventRecord]]]:
        told: list[EventRecord] = []
        async with live.client() as client, live.client() as other:
            views = await client.peers()
            leader = next(view.info.name for view in views if view.role == "leader")
        async with live.client(leader) as client, live.client(leader) as other:

            async def follow() -> None:
                ended = 0
                async for record in events.each(client.session, start=Place(1)):
                    told.append(record)
                    ended += record.kind == "job.ended"
                    if ended == JOBS:
                        return

            async with asyncio.TaskGroup() as group:
                group.create_task(follow())
                await run_jobs(other, 4)
                live.kill(leader)
                await run_jobs(other, JOBS - 4)
        held = {}
        for name in sorted({*"abc"} - {leader}):
            async with live.client(name) as client:
                held[name] = await read_to(client, told[-1].place.behind)
        return told, held

    with live:
        for name in "abc":
            live.start(name)
        live.await_voters(3)
        told, held = asyncio.run(story())
        assert len(held) == 2
        for whole in held.values():  # the same of each peer, at the same places
            assert told == whole
        places = [record.place for record in told]
        assert places == sorted(set(places))
        kinds = [record.kind for record in told]
        assert (kinds.count("job.submitted"), kinds.count("job.ended")) == (JOBS, JOBS)


def grow(cluster: LiveCluster, is_enough: Callable[[], bool]) -> None:
    """Jobs with some bytes, until the ledger has grown so far."""
    for _ in range(100):
        if is_enough():
            return
        words = ["x" * 60_000] * 2
        cluster.ok("submit-job", "-o", "quiet", "--", "true", *words)
    raise AssertionError("the ledger does not grow")


def test_what_memory_and_this_peer_have_let_go_of_comes_from_snapshots_or_others(
    live: LiveCluster,
) -> None:
    """First a restart, after which nothing is in memory; then a peer that never had the past."""
    with live:
        options = ["--snapshot-log-bytes", str(SNAPSHOT_LOG)]
        live.start("a", options=options)
        first = run_job(live, "--name", "first")
        grow(live, lambda: status_of(live, "a")["snapshot_index"] > 0)
        before = exported(live)
        live.stop("a")
        live.restart("a")
        after = exported(live)
        assert after[: len(before)] == before
        live.start("b", options=options)
        assert status_of(live, "b")["snapshot_index"] > 0
        through_b = exported(live, "--peer", live.peers["b"].address)
        assert through_b[: len(before)] == before
        # As it was: then it ran, now it has ended, and before it there was none.
        submitted = next(e for e in before if e["kind"] == "job.submitted")
        for name in "ab":
            peer = ("--peer", live.peers[name].address, "-o", "json")
            index = submitted["index"]
            then = json.loads(live.ok("job", "show", "first", "--at", str(index), *peer))["job"]
            assert (then["state"], then["ended"]) == ("running", None)
            now = json.loads(live.ok("job", "show", first, *peer))["job"]
            assert now["state"] == "succeeded"
            none = json.loads(live.ok("jobs", "--at", str(index - 1), *peer))
            assert none["jobs"] == []
            peers = json.loads(live.ok("peers", "--at", str(index), *peer))["peers"]
            assert [(p["name"], p["role"], p["state"]) for p in peers] == [("a", "voter", "alive")]


def test_whoever_asks_for_what_is_gone_hears_from_where_on_there_is_something(
    live: LiveCluster,
) -> None:
    with live:
        live.start("a", options=["--snapshot-log-bytes", str(SNAPSHOT_LOG)])

        def is_gone() -> bool:
            return live.run("events", "export", "--from", "1").returncode == 5

        grow(live, is_gone)
        refused = live.run("events", "tail", "--from", "1")
        assert refused.returncode == 5
        assert "are gone, and 1:0 was asked for: begin at" in refused.stderr
        oldest = Place.parse(refused.stderr.partition("begin at ")[2].partition(".")[0])
        assert exported(live, "--from", str(oldest)) == exported(live)
        past = live.run("jobs", "--at", "1")
        assert past.returncode == 5
        assert f"peers keep what leads back to entry {oldest.index}" in past.stderr


@pytest.mark.smoke
def test_a_file_of_events_is_what_was_told_and_is_replaced_only_when_asked(
    live: LiveCluster, tmp_path: Path
) -> None:
    with live:
        live.start("a")
        job = run_job(live)
        out = tmp_path / "events.jsonl"
        live.ok("events", "export", "--job", job, "--out", str(out))
        assert events_in(out.read_text()) == exported(live, "--job", job)
        kinds = [event["kind"] for event in events_in(out.read_text())]
        assert kinds == ["job.submitted", "tasks.granted", "tasks.ended", "job.ended"]
        again = live.run("events", "export", "--out", str(out))
        assert (again.returncode, "--force" in again.stderr) == (5, True)
        last = exported(live)[-1]
        assert exported(live, "--from", last["cursor"]) == [last]
        tail = live.ok("events", "tail", "--from", "1", "--kind", "peer.", "--limit", "1")
        assert "peer.up" in tail
        gone_on = live.ok("events", "tail", "--after", "1:0", "--limit", "1", "-o", "quiet")
        assert Place.parse(gone_on) > Place(1)
