"""A cluster is upgraded peer by peer, and never uses what one of its peers doesn't know."""

from __future__ import annotations

import msgspec
import pytest

from p2psched.core import levels
from p2psched.core.levels import KNOWN_LEVEL
from p2psched.model.commands import Envelope, Outcome, Pin, RaiseLevel, Rejected
from p2psched.model.ids import JobId
from p2psched.model.raft import EntryKind
from p2psched.model.taskset import TaskSet
from p2psched.testing.sim import SimCluster
from p2psched.testing.sim_jobs import sim_job
from p2psched.testing.sim_levels import NEWER_LEVEL, upgrade
from p2psched.testing.sim_peer import SimPeer
from tests.sim.test_cluster import run_until_led

_decode = msgspec.msgpack.Decoder(tuple[Envelope, ...]).decode


@pytest.fixture(autouse=True)
def _new_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(levels.NEEDED, Pin, NEWER_LEVEL)


def is_up(peer: SimPeer, cluster: SimCluster, level: int) -> bool:
    """As the ledger sees it, everywhere."""
    return all(
        other.alive
        and (row := other.scheduler.machine.peers.get(peer.id)) is not None
        and row.live
        and row.info.level == level
        for other in cluster.peers
    )


def level_of(cluster: SimCluster) -> set[int]:
    return {peer.scheduler.machine.level for peer in cluster.peers if peer.alive}


def commands_of(peer: SimPeer) -> list[object]:
    raft = peer.engine.raft
    return [
        envelope.command
        for entry in raft.entries(raft.base_index + 1, raft.commit + 1)
        if entry.kind is EntryKind.COMMANDS
        for envelope in _decode(entry.payload)
    ]


def ready_cluster() -> tuple[SimCluster, JobId]:
    cluster = SimCluster(seed=11, peers=3)
    run_until_led(cluster)
    job = cluster.submit(sim_job(TaskSet.of(0, 2), mean_us=1_000))
    cluster.run_until(lambda: cluster.state_of(job) == "succeeded", within_ms=10_000)
    cluster.run_until(
        lambda: all(is_up(p, cluster, KNOWN_LEVEL) for p in cluster.peers), within_ms=10_000
    )
    cluster.run_until(lambda: level_of(cluster) == {KNOWN_LEVEL}, within_ms=10_000)
    return cluster, job


def test_the_level_rises_with_the_last_peer_and_newer_commands_come_only_then() -> None:
    cluster, job = ready_cluster()
    answers: list[Outcome] = []
    for peer in cluster.peers:
        for asked in range(3):
            cluster.callers.call(asked, Pin(job, pinned=True), answers.append)
        cluster.run_for(500)
        assert level_of(cluster) == {KNOWN_LEVEL}
        upgrade(cluster, peer)
        cluster.run_until(lambda p=peer: is_up(p, cluster, NEWER_LEVEL), within_ms=20_000)  # type: ignore[misc]
    assert len(answers) == 9
    assert all(isinstance(a, Rejected) and a.code == "unavailable" for a in answers)
    cluster.run_until(lambda: level_of(cluster) == {NEWER_LEVEL}, within_ms=5_000)
    cluster.ask(Pin(job, pinned=True), answers.append)
    cluster.run_until(lambda: len(answers) == 10, within_ms=10_000)
    assert not isinstance(answers[-1], Rejected)
    commands = commands_of(cluster.peers[0])
    raised = commands.index(RaiseLevel(NEWER_LEVEL))
    assert not any(isinstance(command, Pin) for command in commands[:raised])


def test_a_peer_that_was_down_all_the_while_keeps_the_level_low() -> None:
    cluster, _ = ready_cluster()
    cluster.kill(2)
    for peer in cluster.peers[:2]:
        upgrade(cluster, peer)
        cluster.run_for(6_000)
    assert level_of(cluster) == {KNOWN_LEVEL}
    cluster.peers[2].level = NEWER_LEVEL
    cluster.start(2)
    cluster.run_until(lambda: level_of(cluster) == {NEWER_LEVEL}, within_ms=20_000)


@pytest.mark.parametrize("snapshot", [False, True])
def test_an_older_version_stops_and_goes_on_once_it_is_upgraded(*, snapshot: bool) -> None:
    cluster, _ = ready_cluster()
    for peer in cluster.peers:
        upgrade(cluster, peer)
        cluster.run_until(lambda p=peer: is_up(p, cluster, NEWER_LEVEL), within_ms=20_000)  # type: ignore[misc]
    cluster.run_until(lambda: level_of(cluster) == {NEWER_LEVEL}, within_ms=5_000)
    if snapshot:
        cluster.snapshots = msgspec.structs.replace(cluster.snapshots, every=1)
        cluster.run_until(
            lambda: cluster.peers[2].engine.raft.snapshot is not None, within_ms=10_000
        )
    cluster.kill(2)
    cluster.peers[2].level = KNOWN_LEVEL
    cluster.start(2)
    cluster.run_until(lambda: cluster.happened["stopped by its level"] > 0, within_ms=20_000)
    job = cluster.submit(sim_job(TaskSet.of(0, 4), mean_us=1_000))
    cluster.run_until(lambda: cluster.state_of(job) == "succeeded", within_ms=20_000)
    cluster.start(2)
    cluster.run_until(lambda: is_up(cluster.peers[2], cluster, NEWER_LEVEL), within_ms=20_000)
