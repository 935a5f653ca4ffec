"""The client on real peers: few commands, other loops and threads, and peers that die."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from p2psched.client.client import Client
from p2psched.client.results import RemoteTraceback
from p2psched.model.errors import Unavailable, UsageError
from p2psched.model.job import JobState
from p2psched.model.limits import CALLS_IN_FLIGHT_MAX
from p2psched.model.messages import JobView
from tests.client import work
from tests.cluster import LiveCluster, wait_until

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[2]
MANY = 10_000
INTERRUPTED = """
import asyncio, sys
from p2psched import Client
from tests.client import work

async def main():
    async with Client() as client:
        task = client.submit(work.wait_for, sys.argv[1])
        await task.accepted()
        print("waits", flush=True)
        await task

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveCluster]:
    with LiveCluster(tmp_path_factory.mktemp("client")) as cluster:
        cluster.env["PYTHONPATH"] = str(ROOT)
        for name in "abc":
            cluster.start(name, slots=2)
        yield cluster


def test_ten_thousand_submits_of_one_turn_are_two_commands(cluster: LiveCluster) -> None:
    async def main(client: Client) -> None:
        before = {view.job for view in await client.jobs(limit=1000)}
        tasks = [client.submit(work.square, number) for number in range(MANY)]
        assert await client.gather(tasks) == [number * number for number in range(MANY)]
        made = [view for view in await client.jobs(limit=1000) if view.job not in before]
        assert sorted(view.tasks for view in made) == [MANY - 8192, 8192]

    cluster.ask(main)


@pytest.mark.smoke
def test_a_value_an_exception_and_a_lambda(cluster: LiveCluster) -> None:
    async def main(client: Client) -> None:
        assert await client.submit(work.square, number=5) == 25
        assert await client.submit("tests.client.work:square", 5) == 25
        assert await client.submit(lambda: work.square(3)) == 9
        with pytest.raises(LookupError) as caught:
            await client.submit(work.fail, 7)
        assert caught.value.args == (7,)
        assert isinstance(caught.value.__cause__, RemoteTraceback)
        tasks = [client.submit(work.square, 2), client.submit(work.fail, 1)]
        results = await client.gather(tasks, return_exceptions=True)
        assert results[0] == 4
        assert isinstance(results[1], LookupError)

    cluster.ask(main)


@pytest.mark.smoke
def test_starmap_calls_with_each_tuple_and_takes_the_options_of_map(cluster: LiveCluster) -> None:
    async def main(client: Client) -> None:
        job = await client.starmap(divmod, [(7, 2), [9, 4]], name="divided", retries=1)
        assert await job.results() == [(3, 1), (2, 1)]
        assert (await job.show()).name == "divided"
        constant = await client.starmap(int, [("11",), ("1",)], kwargs={"base": 2})
        assert await constant.results() == [3, 1]

    cluster.ask(main)


def test_what_was_submitted_before_the_block_ends_is_accepted(
    cluster: LiveCluster, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"

    async def leave() -> str:
        async with cluster.client() as client:
            task = client.submit(work.wait_for, str(gate))
        with pytest.raises(Unavailable, match="client closed"):
            await task
        return str(task.job.id)

    job_id = asyncio.run(leave())
    gate.touch()

    async def look(client: Client) -> list[object]:
        return await (await client.job(job_id)).results()

    assert cluster.ask(look) == [str(gate)]


@pytest.mark.smoke
def test_a_cancelled_task_is_cancelled_in_the_ledger(cluster: LiveCluster, tmp_path: Path) -> None:
    gate = tmp_path / "gate"

    async def main(client: Client) -> tuple[JobView, JobView]:
        task = client.submit(work.wait_for, str(gate))
        await task.accepted()
        await client.cancel(task)
        with pytest.raises(asyncio.CancelledError):
            await task
        job = await client.map(work.wait_for, [str(gate)])
        await client.cancel([client.submit(work.wait_for, str(gate)), job])
        return await task.job.show(), await job.wait()

    assert [view.state for view in cluster.ask(main)] == [JobState.CANCELLED] * 2


def test_ctrl_c_and_deadlines_go_through(cluster: LiveCluster, tmp_path: Path) -> None:
    gate = tmp_path / "gate"

    async def main(client: Client) -> None:
        task = client.submit(work.wait_for, str(gate))
        await task.accepted()
        for waiting in (
            client.gather([task]),
            client.wait([task]),
            anext(aiter(task.job)),
            task.job.wait(),
        ):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await waiting
        gate.touch()
        assert await task == str(gate)

    cluster.ask(main)


def test_clients_in_several_threads_and_one_client_in_loops_one_after_another(
    cluster: LiveCluster,
) -> None:
    one = cluster.client("a")
    values: list[int] = []

    async def use(client: Client, number: int) -> None:
        async with client:
            values.append(await client.submit(work.square, number))

    for number in range(3):
        asyncio.run(use(one, number))
    assert values == [0, 1, 4]

    def run(number: int) -> None:
        asyncio.run(use(cluster.client(), number))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(10, 14)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(values[3:]) == [number * number for number in range(10, 14)]


def test_what_is_no_text_names_no_job() -> None:
    with pytest.raises(UsageError, match="5 is no id or name of a job: both are text"):
        asyncio.run(Client().job(cast("str", 5)))


def test_a_client_is_used_where_it_was_opened(cluster: LiveCluster) -> None:
    async def main(client: Client) -> None:
        with pytest.raises(UsageError, match="open"):
            await client.__aenter__()

        async def elsewhere() -> None:
            with pytest.raises(UsageError, match="event loop"):
                client.submit(work.square, 1)
            with pytest.raises(UsageError, match="event loop"):
                await client.jobs()

        def without_a_loop() -> None:
            with pytest.raises(UsageError, match="Executor"):
                client.submit(work.square, 1)

        await asyncio.to_thread(asyncio.run, elsewhere())
        await asyncio.to_thread(without_a_loop)
        assert await client.submit(work.square, 2) == 4

    cluster.ask(main)
    with pytest.raises(UsageError, match="async with"):
        cluster.client().submit(work.square, 1)


def test_a_client_opened_in_one_task_works_in_others(cluster: LiveCluster) -> None:
    """As in the cells of a notebook, or with fixtures."""

    async def main() -> None:
        client = cluster.client()
        loop = asyncio.get_running_loop()
        await loop.create_task(client.open())
        submitted = await loop.create_task(asyncio.sleep(0, client.submit(work.square, 3)))
        assert await submitted == 9
        await loop.create_task(client.close())
        await client.close()
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())


def test_hundreds_of_open_jobs_keep_no_new_one_waiting(cluster: LiveCluster) -> None:
    """More than a connection has calls; no peer has as many cpus as they ask for."""

    async def main(client: Client) -> None:
        async with asyncio.TaskGroup() as group:
            jobs = [
                group.create_task(client.map(work.square, [1], cpus=1000))
                for _ in range(CALLS_IN_FLIGHT_MAX + 20)
            ]
        open_jobs = [job.result() for job in jobs]
        async with asyncio.TaskGroup() as group:
            waiting = [group.create_task(job.wait()) for job in open_jobs]
            for number in range(5):
                assert await client.submit(work.square, number) == number * number
            await client.cancel(open_jobs)
        assert {view.result().state for view in waiting} == {JobState.CANCELLED}

    cluster.ask(main)


def test_ctrl_c_ends_a_script_that_waits(cluster: LiveCluster, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", INTERRUPTED, str(gate)],
        env=cluster.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waits\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    gate.touch()
    assert (process.returncode, out) == (-signal.SIGINT, "")
    assert err.splitlines()[-1] == "KeyboardInterrupt"
    assert "never" not in err
    assert "destroyed" not in err


@pytest.mark.smoke
def test_tasks_end_though_the_peer_that_the_client_talks_to_is_killed(
    cluster: LiveCluster, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"

    async def main() -> None:
        async with cluster.client("c") as client:
            waiting = client.submit(work.wait_for, str(gate))
            await waiting.accepted()
            before = [client.submit(work.square, number) for number in range(500)]
            await before[0].accepted()
            cluster.kill("c")
            after = [client.submit(work.square, number) for number in range(500)]
            gate.touch()
            expected = [number * number for number in range(500)]
            assert await client.gather(before) == expected
            assert await client.gather(after) == expected
            assert await waiting == str(gate)
            for task in (before[0], after[0]):
                same = [v for v in await client.jobs(limit=1000) if v.job == task.job.id]
                assert [view.tasks for view in same] == [500]

    asyncio.run(main())
    cluster.restart("c")
    wait_until(
        lambda: all(v.state == "alive" for v in cluster.ask(lambda client: client.peers())),
        "the killed peer to be back",
    )
