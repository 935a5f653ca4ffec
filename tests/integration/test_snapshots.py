"""Snapshots between real processes: the disk stays bounded, whoever was away catches up, and what
is gone from the log is nowhere missed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeVar

import pytest

from p2psched.client.client import Client, Job
from p2psched.client.results import results_of
from p2psched.client.session import Session
from p2psched.model.errors import Unavailable
from p2psched.model.ids import JobId
from p2psched.model.messages import (
    FetchHistory,
    FetchItem,
    FetchResults,
    GetStatus,
    History,
    ItemAnswer,
    ResultPage,
)
from p2psched.model.status_messages import StatusAnswer
from p2psched.store.folder import read_secret_file
from tests.cluster import LiveCluster, wait_until

pytestmark = pytest.mark.process
T = TypeVar("T")

SNAPSHOT_LOG: Final = 128 * 1024
TASKS: Final = 6
JOB_BYTES: Final = TASKS * 30_000
# Two snapshots and the log from the older one on, in segments of half of that; states are small.
LEDGER_BYTES_MAX: Final = 1_500_000


@pytest.fixture
def cluster(tmp_path: Path) -> LiveCluster:
    return LiveCluster(tmp_path)


def asked(cluster: LiveCluster, name: str, work: Callable[[Session], Awaitable[T]]) -> T:
    """Of this peer and no other."""

    async def main() -> T:
        secret = read_secret_file(cluster.peers["a"].data / "secret")
        session = Session([cluster.peers[name].address], secret=secret, patience_s=20)
        try:
            return await work(session)
        finally:
            await session.__aexit__()

    return asyncio.run(main())


def status(cluster: LiveCluster, name: str) -> StatusAnswer:
    return asked(cluster, name, lambda session: session.call(GetStatus(), StatusAnswer))


def run_jobs(cluster: LiveCluster, count: int, through: str) -> list[JobId]:
    def block(number: int) -> bytes:
        return bytes([number % 256]) * 30_000

    async def work(client: Client) -> list[JobId]:
        jobs: list[Job] = []
        for _ in range(count):
            job = await client.map(block, range(TASKS))
            assert (await job.wait()).succeeded == TASKS
            jobs.append(job)
        return [job.id for job in jobs]

    return cluster.ask(work, through=through)


def check_results(cluster: LiveCluster, name: str, jobs: list[JobId], *, here_only: bool) -> None:
    """Values, one item and the whole history, all as this peer tells them."""

    async def work(session: Session) -> None:
        for job in jobs:
            seen: dict[int, object] = {}
            position = 0
            while True:
                body = FetchResults(job, position, here_only=here_only)
                page = await session.call(body, ResultPage)
                for segment in page.segments:
                    for result in results_of(job, segment):
                        assert result.index not in seen
                        seen[result.index] = result.value
                position = page.next_position
                if position >= page.view.segments:
                    break
            assert seen == {n: bytes([n]) * 30_000 for n in range(TASKS)}
            item = await session.call(FetchItem(job, 3, here_only), ItemAnswer)
            assert (item.state, item.cause) == ("succeeded", "ok")
            history = await session.call(FetchHistory(job, here_only=here_only), History)
            kinds = [type(stamped.event).__name__ for stamped in history.events]
            assert (kinds[0], kinds[-1]) == ("JobAdded", "JobEnded")
            assert [e.index for e in history.events] == sorted(e.index for e in history.events)

    asked(cluster, name, work)


def agree(cluster: LiveCluster) -> bool:
    try:
        found = [status(cluster, name) for name in cluster.peers]
    except Unavailable:
        return False
    return len({(s.applied_index, s.state_hash) for s in found}) == 1


def ledger_bytes(cluster: LiveCluster, name: str) -> int:
    size = 0
    for path in (cluster.peers[name].data / "ledger").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the peer is cutting its log meanwhile
            size += path.stat().st_size
    return size


@pytest.mark.timeout(180)
def test_a_log_that_is_cut_again_and_again_loses_nothing_to_anybody(cluster: LiveCluster) -> None:
    with cluster:
        options = ["--snapshot-log-bytes", str(SNAPSHOT_LOG), "--log-level", "info"]
        for name in ("a", "b", "c"):
            cluster.start(name, options=options)
        wait_until(
            lambda: sum(status(cluster, n).role in {"leader", "voter"} for n in "abc") == 3,
            "three voters",
        )
        jobs = run_jobs(cluster, 8, "a")
        cluster.kill("c")
        behind = run_jobs(cluster, 22, "b")  # far more than what the log's tail holds
        assert len(behind) * JOB_BYTES > 2 * LEDGER_BYTES_MAX
        jobs += behind
        for name in ("a", "b"):
            assert ledger_bytes(cluster, name) < LEDGER_BYTES_MAX
            found = status(cluster, name)
            assert 0 < found.snapshot_index <= found.applied_index
            assert found.log_bytes < LEDGER_BYTES_MAX

        cluster.restart("c")
        wait_until(lambda: agree(cluster), "equal states after a peer was far behind")
        assert "snapshot-taken" in cluster.peers["c"].log
        # Asked at once, whether it has them by then or passes the question on.
        check_results(cluster, "c", jobs, here_only=False)
        wait_until(lambda: status(cluster, "c").jobs_lacking == 0, "everything to be fetched")
        check_results(cluster, "c", jobs, here_only=True)

        for name in ("a", "b", "c"):
            cluster.kill(name)
        for path in cluster.peers["b"].data.glob("results.db*"):
            path.unlink()
        for peer in [cluster.restart_nowait(name) for name in ("a", "b", "c")]:
            cluster.wait_ready(peer)
        check_results(cluster, "b", jobs, here_only=False)
        wait_until(lambda: status(cluster, "b").jobs_lacking == 0, "lost results to come back")
        jobs += run_jobs(cluster, 2, "b")
        cluster.start("d", options=options)  # somebody new, who has seen nothing of all this
        wait_until(lambda: agree(cluster), "equal states with a new peer")
        assert "snapshot-taken" in cluster.peers["d"].log
        wait_until(lambda: status(cluster, "d").jobs_lacking == 0, "a new peer to have it all")
        for name in ("a", "b", "c", "d"):
            check_results(cluster, name, jobs, here_only=True)
        wait_until(lambda: agree(cluster), "equal states at the end")
