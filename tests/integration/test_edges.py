"""What sits at a limit, or outside it, costs its caller a clear answer and the cluster nothing."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket

import msgspec
import pytest

from bench.judge import judge
from p2psched.client.client import Client
from p2psched.model.errors import TaskFailed, Unavailable, UsageError
from p2psched.model.ids import JobId
from p2psched.model.job import FunctionWork, JobSpec, JobState
from p2psched.model.limits import JOB_ARGUMENT_BYTES_MAX, JOB_RANGES_MAX
from p2psched.model.messages import FetchResults, GetStatus, JobAccepted, ResultPage, Submit
from p2psched.model.status_messages import StatusAnswer
from p2psched.model.taskset import TaskSet
from tests.cluster import LiveCluster
from tests.integration import work
from tests.integration.rig import Rig, tasks, until

pytestmark = pytest.mark.process


def test_the_largest_jobs_that_are_accepted_end_and_every_peer_lives(rig: Rig) -> None:
    """Arguments, ranges and first placements together must fit an entry and a frame."""
    gaps = TaskSet(tuple((2 * n, 2 * n + 1) for n in range(JOB_RANGES_MAX)))

    async def story() -> None:
        pids = {name: peer.pid for name, peer in rig.cluster.peers.items()}
        async with rig.client() as client:
            wide = await client.submit_program(
                ["true", "x" * 100_000], env={"PAD": "y" * 100_000}, tasks=gaps, name="gaps"
            )
            padding = JOB_ARGUMENT_BYTES_MAX - 10_000
            full = await client.map(len, ["x" * padding])
            assert await full.results() == [padding]
            assert len(await client.jobs()) >= 2
            await wide.cancel()
            assert (await wide.show()).task_set == gaps
        assert await rig.agree()
        assert {name: peer.pid for name, peer in rig.cluster.peers.items()} == pids
        assert all(peer.runs for peer in rig.cluster.peers.values())

    asyncio.run(story())


def test_large_results_of_many_tasks_arrive_whole(rig: Rig) -> None:
    async def story() -> None:
        async with rig.client() as client:
            job = await client.map(work.block, range(100))
            values = await job.results()
            assert values == [work.block(number) for number in range(100)]

    asyncio.run(story())


@pytest.mark.parametrize("job_id", ["../../e/", "/tmp/x", "", "A" * 32, "ab" * 15])
def test_what_is_no_job_id_is_refused(rig: Rig, job_id: str) -> None:
    spec = JobSpec("x", tasks(1), FunctionWork("math:sqrt", b"", (b"",), 1, "3.11"))

    async def story() -> None:
        async with rig.client() as client:
            with pytest.raises(UsageError, match="32 hex digits"):
                await client.session.call(Submit(JobId(job_id), spec), JobAccepted)

    asyncio.run(story())


@pytest.mark.parametrize("position", [-1, 2**63, 2**64 - 1])
def test_an_impossible_position_harms_no_store(rig: Rig, position: int) -> None:
    async def story() -> None:
        async with rig.client() as client:
            job = await client.map(work.square, range(3))
            await job.wait()
            with contextlib.suppress(UsageError):  # told so, or there is nothing
                page = await client.session.call(FetchResults(job.id, position), ResultPage)
                assert page.segments == ()
            assert await job.results() == [0, 1, 4]

    asyncio.run(story())


def test_results_of_a_cancelled_job_are_not_passed_off_as_all(rig: Rig) -> None:
    side = rig.side("cancelled-results")

    async def story() -> None:
        async with rig.client() as client:
            job = await client.submit_program(side.argv, tasks=tasks(3))
            await until(lambda: len(side.starts()) == 3)
            await job.cancel()
            with pytest.raises(TaskFailed, match="cancelled: 3 of its 3"):
                await job.results()

    asyncio.run(story())


def test_all_peers_find_each_other_at_new_addresses_by_one_join(live: LiveCluster) -> None:
    """Identity is on disk, addresses are learned: everybody died at once and moved, one address is
    told, and what had been accepted ends, and once."""
    for name in ("a", "b", "c"):
        live.start(name)

    async def submit(client: Client) -> list[JobId]:
        return [(await client.map(work.square, range(20))).id for _ in range(5)]

    accepted = live.ask(submit)
    for peer in live.peers.values():
        peer.process.kill()
    for peer in live.peers.values():
        peer.process.wait()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        told = f"127.0.0.1:{probe.getsockname()[1]}"
    moved = [live.move_nowait("a", told)]
    moved += [live.move_nowait(name, "127.0.0.1:0", "--join", told) for name in ("b", "c")]
    for peer in moved:
        live.wait_ready(peer)
    live.ok("submit-job", "--wait", "--", "true")

    async def verify(client: Client) -> None:
        for job in accepted:
            await judge(await client.job(job), [number * number for number in range(20)])

    live.ask(verify)


def test_a_peer_that_was_stopped_for_long_declares_nobody_down(live: LiveCluster) -> None:
    """The only voter slept: what the others sent meanwhile lies unread when it wakes."""
    live.start("a")
    live.start("b")
    live.peers["a"].process.send_signal(signal.SIGSTOP)

    async def nothing_for_a_while() -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + 4
        await until(lambda: loop.time() >= end)

    asyncio.run(nothing_for_a_while())
    live.peers["a"].process.send_signal(signal.SIGCONT)
    live.ok("submit-job", "--wait", "--", "true")
    peers = msgspec.json.decode(live.ok("peers", "-o", "json"))["peers"]
    assert {peer["name"]: peer["state"] for peer in peers} == {"a": "alive", "b": "alive"}


def test_a_call_to_a_peer_that_is_starting_is_answered(rig: Rig) -> None:
    """It listens before it has read its log: callers are told to come back, never left waiting."""

    async def story() -> None:
        name = await rig.follower()
        rig.cluster.kill(name)
        rig.cluster.restart(name)
        session = rig.session_of(name)
        async with asyncio.timeout(20):
            while True:
                try:
                    status = await session.call(GetStatus(), StatusAnswer)
                except Unavailable:
                    continue
                break
        assert status.info.name == name
        await session.__aexit__()
        async with rig.client() as client:
            view = await (await client.map(work.square, [1])).wait()
            assert view.state is JobState.SUCCEEDED

    asyncio.run(story())
