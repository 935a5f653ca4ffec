"""A webhook between real processes: its receiver fails now and then, and who delivers is killed."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from pathlib import Path
from typing import Final

import pytest

from p2psched.client.client import Client
from tests.cluster import LiveCluster, wait_until
from tests.peer.receiver import Receiver, receiving

pytestmark = [pytest.mark.process, pytest.mark.timeout(400)]

KILLS: Final = 2
JOBS: Final = 4  # before each kill, and after the last


@pytest.fixture
def live(tmp_path: Path) -> LiveCluster:
    return LiveCluster(tmp_path)


def status_of(number: int) -> int:
    return 503 if number % 3 == 2 else 200


async def run_jobs(client: Client) -> list[str]:
    jobs = [await client.submit_program(["true"]) for _ in range(JOBS)]
    for job in jobs:
        await job.wait()
    return [str(job.id) for job in jobs]


async def leader_of(client: Client) -> str:
    views = await client.peers()
    return next((view.info.name for view in views if view.role == "leader"), "")


def test_each_event_arrives_though_the_receiver_fails_and_who_delivers_is_killed(
    live: LiveCluster,
) -> None:
    def enough(receiver: Receiver, jobs: list[str]) -> bool:
        return {event["job"] for event in receiver.events} >= set(jobs)

    async def story() -> list[str]:
        async with live.client() as client:
            jobs = await run_jobs(client)
            for _ in range(KILLS):
                leader = await leader_of(client)
                live.kill(leader)
                jobs += await run_jobs(client)
                await asyncio.to_thread(live.restart, leader)
            return jobs

    with live, receiving(status_of) as receiver:
        for name in "abc":
            live.start(name)
        live.await_voters(3)
        options = ("--name", "w", "--kind", "job.ended", "-o", "json")
        added = json.loads(live.ok("webhook", "add", receiver.url, *options))
        jobs = asyncio.run(story())
        receiver.wait(lambda: enough(receiver, jobs))
        events = receiver.events
        assert {event["kind"] for event in events} == {"job.ended"}
        assert {event["job"] for event in events} == set(jobs)
        exported = [
            json.loads(line)
            for line in live.ok("events", "export", "--kind", "job.ended").splitlines()
        ]
        first = list({event["cursor"]: event for event in events}.values())
        assert first == exported  # in order, the first time that each came
        key = bytes.fromhex(added["key"])
        for headers, body in receiver.taken:
            expected = "sha256=" + hmac.new(key, body, hashlib.sha256).hexdigest()
            assert headers["P2PSched-Signature"] == expected

        def is_acked() -> bool:
            (hook,) = json.loads(live.ok("webhook", "list", "-o", "json"))["webhooks"]
            place = [int(part) for part in hook["following"].split(":")]
            return place > [int(part) for part in events[-1]["cursor"].split(":")]

        wait_until(is_acked, "the last batch to be acked")
        live.ok("webhook", "remove", "w")
        again = live.run("webhook", "remove", "w")
        assert (again.returncode, "no webhook w" in again.stderr) == (2, True)
        wrong = live.run("webhook", "add", "ftp://host")
        assert (wrong.returncode, "http://HOST:PORT/PATH" in wrong.stderr) == (2, True)
