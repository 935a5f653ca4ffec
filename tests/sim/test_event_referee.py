"""Events and the past in simulation: the referee sees what is told or kept wrong."""

from __future__ import annotations

import random
from functools import partial

import pytest

from p2psched.core.event_log import Happened, records_of
from p2psched.core.raft.progress import Compaction
from p2psched.model.errors import Unavailable
from p2psched.model.event_messages import EventRecord
from p2psched.model.ids import JobId
from p2psched.model.taskset import TaskSet
from p2psched.peer.replay import HistoryGone, Replay, Tail
from p2psched.store.snapshots import snapshot_indices
from p2psched.testing import event_referee
from p2psched.testing.promises import BrokenPromiseError
from p2psched.testing.sim import SimCluster
from p2psched.testing.sim_jobs import sim_job
from p2psched.testing.sim_peer import SimPeer
from p2psched.testing.sim_world import Snapshots


def has_succeeded(cluster: SimCluster, job: JobId) -> bool:
    return cluster.state_of(job) == "succeeded"


def cluster_after_a_job() -> SimCluster:
    cluster = SimCluster(seed=5, peers=3, snapshots=Snapshots(every=10))
    for _ in range(4):
        job = cluster.submit(sim_job(TaskSet.of(0, 6), mean_us=1_000))
        cluster.run_until(partial(has_succeeded, cluster, job), within_ms=60_000)
    cluster.run_for(500)
    return cluster


def test_every_peer_tells_all_events_and_its_state_can_be_rebuilt() -> None:
    cluster = cluster_after_a_job()
    book = cluster.referees.events
    assert book.check_end(cluster.peers, random.Random(1)) == 3
    told = [record.kind for held in book.said.values() for record in held]
    assert told.count("job.submitted") == told.count("job.ended") == 4
    assert told.count("peer.up") == 3
    assert all(peer.engine.raft.snapshot is not None for peer in cluster.peers)


def test_a_damaged_snapshot_is_no_place_to_begin_at() -> None:
    cluster = SimCluster(
        seed=5, peers=1, snapshots=Snapshots(5, Compaction(0, 0, 0)), segment_bytes=1 << 10
    )
    for _ in range(20):
        job = cluster.submit(sim_job(TaskSet.of(0, 6), mean_us=1_000))
        cluster.run_until(partial(has_succeeded, cluster, job), within_ms=60_000)
    cluster.run_for(500)
    peer = cluster.peers[0]
    (older, name), (newer, newest) = snapshot_indices(peer.disk)
    with pytest.raises(HistoryGone, match=f"^{older + 1}$"):
        past_of(peer, 0)
    peer.disk.flip_bit(name, 8 * 100)
    with pytest.raises(HistoryGone, match=f"^{newer + 1}$"):
        past_of(peer, older)
    assert past_of(peer, newer).index == newer
    peer.disk.flip_bit(newest, 8 * 100)
    with pytest.raises(Unavailable):
        past_of(peer, older)


def past_of(peer: SimPeer, behind: int) -> Replay:
    raft = peer.engine.raft
    return Replay(peer.disk, Tail(raft.base_index, raft.term_at(raft.base_index) or 0, ()), behind)


def test_a_peer_that_tells_another_event_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0

    def third_time_wrong(happened: Happened) -> list[EventRecord]:
        nonlocal asked
        records = records_of(happened)
        asked += bool(records)
        return records[1:] if asked == 3 else records

    monkeypatch.setattr(event_referee, "records_of", third_time_wrong)
    with pytest.raises((BrokenPromiseError, AssertionError), match=r"other events|stand at"):
        cluster_after_a_job()


def test_a_state_that_is_not_what_its_ledger_leads_to_is_seen() -> None:
    cluster = cluster_after_a_job()
    machine = cluster.peers[1].scheduler.machine
    next(iter(machine.jobs.values())).attempts_lost += 1
    with pytest.raises(BrokenPromiseError, match="another state is rebuilt"):
        cluster.referees.events.check_end(cluster.peers, random.Random(1))


def test_an_event_that_the_log_does_not_lead_to_is_seen() -> None:
    cluster = cluster_after_a_job()
    book = cluster.referees.events
    last = max(index for index, held in book.said.items() if held)
    book.said[last].pop()
    with pytest.raises(BrokenPromiseError, match="events of"):
        book.check_end(cluster.peers, random.Random(1))
