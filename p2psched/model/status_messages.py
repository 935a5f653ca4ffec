"""What a peer tells of itself: the answer to `GetStatus`. Fields are appended, with defaults."""

from __future__ import annotations

from typing import Final

import msgspec

from p2psched.model.commands import PeerInfo
from p2psched.model.ids import ClusterId, PeerId
from p2psched.model.load_messages import LoadStatus
from p2psched.model.reconcile import Reconciliation
from p2psched.model.stalls import StallStatus

BLOBS_SHORT_MAX: Final = 1_000  # as far as a peer counts for its status


class GossipStatus(msgspec.Struct, frozen=True, array_like=True):
    """What gossip sees and costs, since the process started. Bytes are with the heads of IP."""

    problem: str  # why no datagrams come in; empty: they do
    alive: int  # others, as gossip sees them
    suspect: int
    dead: int
    left: int
    health: int  # 0: it hears well; up to 8: it doubts itself, and waits longer
    refuted: int  # what was said of it and not true
    probes: int
    probes_failed: int
    datagrams_sent: int
    datagrams_received: int
    bytes_sent: int  # of datagrams, and of comparisons about
    bytes_received: int  # of datagrams
    bytes_per_s: int  # sent, over the last minute
    carried: int  # datagrams over links
    foreign: int  # dropped: not sealed by a peer of this cluster
    malformed: int  # dropped: sealed, and nothing that we know
    unsent: int  # dropped: the socket did not take them


class CheckpointStatus(msgspec.Struct, frozen=True, array_like=True):
    """Of a peer, since its process started."""

    tasks: int  # whose checkpoints are on its disk, its own and those of others
    disk_bytes: int
    running: int  # tasks here that may save
    behind: int  # of these, whose newest is on no other peer yet
    copied: int  # to other peers
    skipped: int  # that a newer one overtook before they were copied
    resumed: int  # attempts that went on from one
    damaged: int  # that were set aside


class DoorStatus(msgspec.Struct, frozen=True, array_like=True):
    """What a peer has refused since its process started, and how long its line is."""

    refused: int = 0
    refused_bytes: int = 0  # of these, for their bytes
    refused_jobs: int = 0  # of these, since the ledger holds as many jobs as it may
    waiting: int = 0
    waiting_bytes: int = 0
    line: int = 0  # so many may wait just now
    wait_ms: int = 0  # that outcomes take, lately


class SpaceStatus(msgspec.Struct, frozen=True, array_like=True):
    """Of the disk with a peer's data folder."""

    room: str  # enough; low or none: it takes no jobs, tasks and data
    free_bytes: int
    least_bytes: int  # with less there is little room


class SeparationStatus(msgspec.Struct, frozen=True, array_like=True):
    """Of a peer that may be cut off from the majority."""

    away_ms: int  # for how long it is that now; 0: it isn't
    max_disconnect_ms: int  # that it goes on with tasks of jobs that don't say
    overdue: int  # jobs that it has ended because that takes too long
    spooled: int  # jobs in its spool
    results_kept: int  # of tasks, that the ledger has not judged
    newest: Reconciliation | None  # the last report


class Kept(msgspec.Struct, frozen=True, array_like=True):
    """A limit of tasks, as this peer enforces it."""

    limit: str
    by: str  # empty: it does not
    lack: str  # why not, or not by something better


class StatusAnswer(msgspec.Struct, frozen=True, array_like=True, tag=10):
    """One peer's view of itself and the cluster. Answered without a quorum too."""

    info: PeerInfo
    cluster: ClusterId
    role: str
    term: int
    leader: PeerId | None
    quorum: bool  # a leader is known and was heard within an election timeout
    applied_index: int
    commit_index: int
    last_index: int
    state_hash: str
    jobs_running: int
    jobs_total: int
    tasks_running: int
    tasks_queued: int
    results_refused: int
    loop_late_ms_p99: float
    loop_late_ms_max: float
    fsync_ms: float  # moving average
    uptime_s: float
    log_bytes: int
    bytes_sent: int
    bytes_received: int
    event_loop: str  # uvloop or asyncio
    leaderless_ms: int = 0  # the longest time without a leader that this peer has seen
    events_dropped: int = 0
    blob_bytes: int = 0  # of blobs on this peer's disk
    blobs_short: int = (
        0  # large results on fewer live disks than asked for, BLOBS_SHORT_MAX at most
    )
    forgotten_known: int = 0  # ids of forgotten jobs that are still taken
    snapshot_index: int = 0  # the last entry that this peer's newest snapshot stands for
    first_index: int = 1  # the first entry that its log in memory still holds
    jobs_lacking: int = 0  # whose results or history it still fetches from other peers
    frames_sent: int = 0  # to peers and clients, on the connections that are open
    blobs_counted: int = 0  # large results that were looked at for `blobs_short`, not all if many
    peers_live: int = 0
    # Bytes that this process has written to its disk since it started.
    written_log: int = 0
    written_snapshots: int = 0
    written_results: int = 0  # about
    written_blobs: int = 0
    timing: str = ""  # the preset that it was started with
    heartbeat_ms: int = 0  # while it leads
    election_ms_min: int = 0  # without a word of a leader, before it campaigns; as it is just now
    election_ms_max: int = 0
    level: int = 1  # of features that the cluster uses; `info.level` is what this peer knows
    syncs: int = 0  # groups of its log that this peer has made durable since it started
    leader_heartbeat_ms: int = 0  # of the peer that it follows: its own should be the same
    drain: str = ""  # draining, drained, or nothing
    feeder: PeerId | None = None  # of a follower: who feeds it
    followers: int = 0  # that this peer feeds
    # Stealing, since the process started.
    steals_asked: int = 0  # requests of this peer
    steals_got: int = 0  # of these, answered with tasks that came
    steal_ms_p50: float = 0.0  # from the question until the tasks were there, lately
    steal_ms_p99: float = 0.0
    tasks_got: int = 0
    steals_answered: int = 0  # requests of others
    tasks_given: int = 0
    tasks_stayed: int = 0  # of these, could not move in the end
    gossip: GossipStatus | None = None
    load: LoadStatus | None = None
    checkpoints: CheckpointStatus | None = None
    stalls: StallStatus | None = None
    quarantine: str = ""  # why this peer gets nothing, or little, as far as it knows that
    separation: SeparationStatus | None = None
    limits: tuple[Kept, ...] = ()
    outputs_kept: int = 0  # streams of attempts, on this peer's disk
    outputs_bytes: int = 0
    door: DoorStatus | None = None
    space: SpaceStatus | None = None
