"""What a peer says of itself: `GetStatus`. With a ledger it knows more: `peer.holder_status`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import msgspec

from p2psched.core.drain import standing_without_ledger
from p2psched.core.follower import Follower
from p2psched.core.state import LedgerState
from p2psched.core.stealing import Stealing
from p2psched.model.commands import PeerInfo
from p2psched.model.ids import ClusterId
from p2psched.model.load_messages import LoadStatus
from p2psched.model.stalls import StallStatus
from p2psched.model.status_messages import (
    CheckpointStatus,
    GossipStatus,
    Kept,
    SeparationStatus,
    SpaceStatus,
    StatusAnswer,
)
from p2psched.net.peers import PeerLinks
from p2psched.net.server import Server
from p2psched.observe.lateness import LoopLateness
from p2psched.ports.clock import Clock
from p2psched.store.blobs import BlobFiles

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
    space: SpaceStatus

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
            space=self.space,
        )


def _at(values: Iterable[int], share: float) -> float:
    found = sorted(values)
    return float(found[int((len(found) - 1) * share)]) if found else 0.0


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
