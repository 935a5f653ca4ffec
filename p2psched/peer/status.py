"""What a peer says of itself: `GetStatus`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

import msgspec

from p2psched.core.drain import standing, standing_without_ledger
from p2psched.core.follower import Follower
from p2psched.core.keeping import live_holders
from p2psched.core.machine import Machine
from p2psched.core.scheduler import Scheduler
from p2psched.core.state import LedgerState
from p2psched.core.stealing import Stealing
from p2psched.model.blob import ResultBlob
from p2psched.model.commands import PeerInfo
from p2psched.model.ids import ClusterId, PeerId
from p2psched.model.load_messages import LoadStatus
from p2psched.model.raft import Membership
from p2psched.model.stalls import StallStatus
from p2psched.model.status_messages import (
    BLOBS_SHORT_MAX,
    CheckpointStatus,
    GossipStatus,
    Kept,
    SeparationStatus,
    StatusAnswer,
)
from p2psched.net.peers import PeerLinks
from p2psched.net.server import Server
from p2psched.observe.lateness import LoopLateness
from p2psched.peer.result_writer import ResultWriter
from p2psched.peer.views import next_leaders
from p2psched.ports.clock import Clock
from p2psched.ports.engine import Engine
from p2psched.store.blobs import BlobFiles

# Of large results whose copies are counted for one status. A few milliseconds.
COUNTED_MAX: Final = 10_000
SHUT: Final = "this peer fails tasks, or could not start them: `p2psched peers` says more"


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """What every peer tells of itself, whatever it knows of the ledger."""

    lateness: LoopLateness
    links: PeerLinks
    server: Server
    blobs: BlobFiles
    cluster: ClusterId
    timing: str
    clock: Clock
    started_ms: int
    gossip: GossipStatus
    load: LoadStatus
    checkpoints: CheckpointStatus
    separation: SeparationStatus
    limits: tuple[Kept, ...]
    outputs: tuple[int, int]  # of attempts, that are kept: streams and bytes

    def status(
        self,
        info: PeerInfo,
        role: str,
        state: LedgerState,
        stealing: Stealing,
        *,
        applied: int,
        stalls: StallStatus,
    ) -> StatusAnswer:
        """As of one that knows of no leader. `state`: as far as it knows the ledger."""
        owner, counts, thief = stealing.owner, stealing.counts, stealing.thief
        outgoing, incoming = self.links.statistics().values(), self.server.connections
        return StatusAnswer(
            info=info,
            cluster=self.cluster,
            role=role,
            term=0,
            leader=None,
            quorum=False,
            applied_index=applied,
            commit_index=applied,
            last_index=applied,
            state_hash="",
            jobs_running=len(state.running),
            jobs_total=len(state.jobs),
            tasks_running=owner.running_count,
            tasks_queued=owner.queued_count,
            results_refused=owner.results_refused,
            loop_late_ms_p99=round(self.lateness.p99_ms, 3),
            loop_late_ms_max=round(self.lateness.max_ms, 3),
            fsync_ms=0.0,
            uptime_s=(self.clock.now_ms() - self.started_ms) / 1000,
            log_bytes=0,
            bytes_sent=sum(s.sent_bytes for s in outgoing) + sum(c.sent_bytes for c in incoming),
            bytes_received=sum(s.received_bytes for s in outgoing)
            + sum(c.received_bytes for c in incoming),
            event_loop=type(asyncio.get_running_loop()).__module__.split(".")[0],
            blob_bytes=self.blobs.total_bytes,
            frames_sent=sum(s.sent for s in outgoing) + sum(c.sent_count for c in incoming),
            written_blobs=self.blobs.written_bytes,
            peers_live=sum(row.live for row in state.peers.values()),
            timing=self.timing,
            level=state.level,
            steals_asked=thief.requests,
            steals_got=thief.successes,
            steal_ms_p50=_at(thief.round_trips_ms, 0.5),
            steal_ms_p99=_at(thief.round_trips_ms, 0.99),
            tasks_got=owner.moved_here,
            steals_answered=counts.answered,
            tasks_given=counts.given,
            tasks_stayed=owner.departing.stayed,
            gossip=self.gossip,
            load=self.load,
            checkpoints=self.checkpoints,
            separation=self.separation,
            stalls=stalls,
            limits=self.limits,
            outputs_kept=self.outputs[0],
            outputs_bytes=self.outputs[1],
        )


def _at(values: Iterable[int], share: float) -> float:
    found = sorted(values)
    return float(found[int((len(found) - 1) * share)]) if found else 0.0


def status_of(
    process: Process, scheduler: Scheduler, ledger: Engine, results: ResultWriter
) -> StatusAnswer:
    """One peer's view, without asking anybody."""
    raft, machine, me = ledger.engine.raft, scheduler.machine, scheduler.info.peer
    role = _role(me, raft.membership, is_leader=raft.is_leader)
    blobs_short, blobs_counted = short_of_copies(machine)
    return msgspec.structs.replace(
        process.status(
            scheduler.info,
            "regaining" if raft.is_regaining else role,
            machine,
            scheduler.stealing,
            applied=machine.applied_index,
            stalls=scheduler.watching.status(),
        ),
        term=raft.term,
        leader=raft.leader,
        quorum=raft.leader_is_live(),
        commit_index=raft.commit,
        last_index=raft.last_index,
        state_hash=machine.state_hash,
        results_refused=machine.results_refused,
        fsync_ms=round(ledger.sync_ms, 3),
        log_bytes=ledger.size_bytes,
        leaderless_ms=ledger.leaderless_ms_max,
        snapshot_index=raft.snapshot.index if raft.snapshot is not None else 0,
        first_index=raft.base_index + 1,
        jobs_lacking=results.gap_count,
        blobs_short=blobs_short,
        blobs_counted=blobs_counted,
        forgotten_known=len(machine.forgotten),
        written_log=ledger.store.written_bytes,
        written_snapshots=ledger.store.snapshots.written_bytes,
        written_results=results.written_bytes,
        heartbeat_ms=raft.timing.heartbeat_ms,
        election_ms_min=raft.timing.election_ms_min,
        election_ms_max=raft.timing.election_ms_max,
        syncs=ledger.syncs,
        leader_heartbeat_ms=raft.leader_heartbeat_ms,
        drain=_drain(machine, me, raft.membership, leads=raft.is_leader),
        followers=scheduler.feeding.feeder.followers,
        quarantine=scheduler.stories().get(me, ""),
        door=scheduler.door.status(),
    )


def follower_status(process: Process, follower: Follower) -> StatusAnswer:
    """Of a peer that holds no ledger: how far its feed is, and what it owns. Whether others have
    copies of its large results it doesn't know: drained it is for `peers` only."""
    machine, info = follower.machine, follower.info
    stalls, applied = follower.watching.status(), follower.cursor
    own = process.status(
        info, "follower", machine, follower.stealing, applied=applied, stalls=stalls
    )
    return msgspec.structs.replace(
        own,
        leader=follower.leader,
        quorum=follower.is_fed and follower.leader is not None,
        drain=standing_without_ledger(machine, info.peer),
        feeder=follower.feeder,
        quarantine=SHUT if info.peer in follower.shut else "",
    )


def _drain(machine: Machine, me: PeerId, membership: Membership, *, leads: bool) -> str:
    return standing(machine, me, leads=leads and bool(next_leaders(machine, membership, me)))[0]


def short_of_copies(state: LedgerState) -> tuple[int, int]:
    """Large results on fewer live disks than their jobs asked for, BLOBS_SHORT_MAX at most, and how
    many were looked at, COUNTED_MAX at most and the newest jobs first.

    Other than `copies.lacking` it counts what no further peer could take too: that a cluster of
    one keeps one copy is what people should see.
    """
    short = looked_at = 0
    for copies, blob in islice(_blobs(state), COUNTED_MAX):
        looked_at += 1
        short += len(live_holders(state, blob)) < copies
        if short == BLOBS_SHORT_MAX:
            break
    return short, looked_at


def _blobs(state: LedgerState) -> Iterator[tuple[int, ResultBlob]]:
    for job_id in reversed(state.with_blobs):
        job = state.jobs[job_id]
        for blob in job.blobs.values():
            yield job.spec.copies, blob


def _role(peer: PeerId, membership: Membership, *, is_leader: bool) -> str:
    if is_leader:
        return "leader"
    return "voter" if membership.is_voter(peer) else "learner"
