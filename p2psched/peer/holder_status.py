"""What a peer that holds the ledger says of itself, beyond what every peer does."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Final

import msgspec

from p2psched.core.drain import standing
from p2psched.core.keeping import live_holders
from p2psched.core.machine import Machine
from p2psched.core.scheduler import Scheduler
from p2psched.core.state import LedgerState
from p2psched.model.blob import ResultBlob
from p2psched.model.ids import PeerId
from p2psched.model.raft import Membership
from p2psched.model.status_messages import BLOBS_SHORT_MAX, StatusAnswer
from p2psched.peer.result_writer import ResultWriter
from p2psched.peer.status import Process
from p2psched.peer.views import next_leaders
from p2psched.ports.engine import Engine

# Of large results whose copies are counted for one status. A few milliseconds.
COUNTED_MAX: Final = 10_000


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
