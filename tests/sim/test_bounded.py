"""However many jobs pass, a peer's disk and its log in memory stay as small as they were."""

from __future__ import annotations

import pytest

from p2psched.core.raft.progress import Compaction
from p2psched.model.limits import KIB
from p2psched.model.taskset import TaskSet
from p2psched.testing.sim import SimCluster
from p2psched.testing.sim_jobs import sim_job
from p2psched.testing.sim_peer import SimPeer
from p2psched.testing.sim_world import Snapshots

EVERY = 50  # entries between two snapshots
TAIL = 20


def disk_bytes(peer: SimPeer) -> int:
    return sum(len(peer.disk.read(name)) for name in peer.disk.names())


def run_job(cluster: SimCluster) -> None:
    job = cluster.submit(sim_job(TaskSet.of(0, 2), mean_us=1_000))
    cluster.run_until(lambda: cluster.state_of(job) == "succeeded", within_ms=10_000)


@pytest.mark.parametrize("jobs", [300, pytest.param(1_000, marks=pytest.mark.wide)])
def test_many_jobs_in_a_row_leave_no_more_behind_than_a_hundred(jobs: int) -> None:
    cluster = SimCluster(
        seed=11,
        peers=3,
        segment_bytes=4 * KIB,
        snapshots=Snapshots(EVERY, Compaction(TAIL, 1 << 20, 0, 1_000)),
    )
    logs: list[int] = []
    disks: list[int] = []
    for number in range(1, jobs + 1):
        run_job(cluster)
        if number % 100 == 0:
            rafts = [peer.engine.raft for peer in cluster.peers]
            logs.append(max(raft.last_index - raft.base_index for raft in rafts))
            states = [raft.snapshot.size for raft in rafts if raft.snapshot is not None]
            # Two snapshots are kept: what remains is the log between and behind them.
            disks.append(max(disk_bytes(peer) - 2 * max(states) for peer in cluster.peers))
    assert max(logs) < 2 * EVERY + TAIL
    assert max(disks) < 64 * KIB
    cluster.run_for(1_000)
    cluster.check_end()
