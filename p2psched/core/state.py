"""The ledger's state as data, and the few moves that several commands share.

`machine` folds commands over it; `peering` and `keeping` are parts of that fold. No move here is
legal outside `Machine.apply`.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from p2psched.core.deadlines import Deadlines
from p2psched.core.forgotten import Forgotten
from p2psched.core.job_table import JobTable
from p2psched.core.jobs import HeldGrant, Job
from p2psched.core.lineage import Lineage
from p2psched.core.lock_table import Claim, Locks
from p2psched.core.ownings import Ownings
from p2psched.core.queue_state import Item, ItemKey, QueueClaim, QueueHead, Queues
from p2psched.model.blob import BlobRef
from p2psched.model.commands import DrainMode, Event, JobEnded, PeerInfo, Recorded, Revoked
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause, JobState, Segment, argument_size
from p2psched.model.key_actions import Entry
from p2psched.model.lease_actions import Lease, LeaseId
from p2psched.model.lock_actions import ClaimId
from p2psched.model.needs import NOTHING
from p2psched.model.taskset import EMPTY, TaskSet
from p2psched.model.webhook import Webhook

_RUNNING, _SUCCEEDED = JobState.RUNNING, JobState.SUCCEEDED  # as `machine._OK`
_OFF, _ON, _ONCE = DrainMode.OFF, DrainMode.ON, DrainMode.ONCE  # likewise
ESTIMATE_US_UNKNOWN: Final = 500_000  # of a task, before the cluster has run any
PULL: Final = "pull"  # the policy
ENDED_WHOLE_MAX = 1_000  # ended jobs that still know what each grant has said


class PeerRow:
    """A peer as the ledger knows it. `load_us` is the expected work that it owns."""

    __slots__ = (
        "alone",
        "blamed",
        "down_reason",
        "drain",
        "gpus",
        "info",
        "live",
        "load_us",
        "memory_mib",
        "offers",
        "owned",
        "stopped",
        "suspects",
    )

    def __init__(self, info: PeerInfo) -> None:
        self.info = info
        self.live = True
        self.down_reason = ""
        self.owned = 0
        self.load_us = 0
        self.stopped = False  # it is down because it wanted to be
        self.alone: tuple[JobId, int] | None = None  # the one task that it owned when it went down
        self.blamed: tuple[JobId, int] | None = None  # that task, once it was lost
        self.suspects = 0  # of those that it owns: none, or all
        self.drain = DrainMode.OFF
        self.offers = NOTHING  # as its newest process has said, or one before
        self.gpus = 0  # of those, what the tasks need that it owns
        self.memory_mib = 0

    @property
    def takes_tasks(self) -> bool:
        return self.live and self.drain is _OFF

    @property
    def drains(self) -> bool:
        """It gives back what it has not begun, too: who is only cordoned stays."""
        return self.drain is _ON or self.drain is _ONCE


class LedgerState:
    """Jobs and peers at one ledger index."""

    def __init__(self) -> None:
        self.jobs = JobTable()
        self.peers: dict[PeerId, PeerRow] = {}
        self.running: dict[JobId, None] = {}  # jobs that haven't ended, oldest first
        self.running_bytes = 0  # of their specs
        self.ended: dict[JobId, None] = {}  # jobs that have, in order of their end
        # The youngest of those: not shrunk yet. To find the oldest, a plain dict would walk over
        # all that has left its front.
        self.whole: OrderedDict[JobId, None] = OrderedDict()
        self.unplaced: dict[JobId, None] = {}  # jobs with tasks that nobody live owns
        self.with_blobs: dict[JobId, None] = {}  # jobs with large results
        # Blobs that jobs were submitted with, and of how many jobs: thousands may be of one code.
        self.sent: dict[BlobRef, int] = {}
        self.suspected: dict[JobId, None] = {}  # jobs with tasks that may kill their peers
        self.choosy: dict[JobId, None] = {}  # running ones that say where their tasks may go
        self.apart: dict[JobId, None] = {}  # of those, who stay apart from others
        self.backed: dict[JobId, None] = {}  # running ones whose tasks may run on several peers
        self.ranked: dict[JobId, None] = {}  # running ones with a precedence
        self.lineage = Lineage()
        self.forgotten = Forgotten()
        self.generation = 1  # rises when the ledger goes on from a copy: see `generation`
        self.generation_ms = 0  # ledger time of its begin; 0: the first, or of an older version
        self.level = 1  # of features in use: see `levels`
        self.webhooks: dict[str, Webhook] = {}
        self.gone: dict[PeerId, str] = {}  # lately removed peers, oldest first -> their names
        self.callers: dict[int, tuple[int, int]] = {}  # see `acts`
        self.acted: dict[tuple[int, int], bytes] = {}  # caller, number -> outcome, encoded
        self.acted_bytes = 0
        self.leases: dict[LeaseId, Lease] = {}
        self.lease_ends: Deadlines[LeaseId] = Deadlines()
        self.keys: dict[str, Entry] = {}
        self.key_order: list[str] = []
        self.key_bytes = 0
        self.lease_keys: dict[LeaseId, dict[str, None]] = {}  # what hangs on each
        self.key_marks: list[tuple[int, int]] = []  # a version, and the entry that it came in
        self.key_marks_apart = 1  # entries, at least
        self.lock_claims: dict[ClaimId, Claim] = {}  # on locks, in the order they were made
        self.lock_token = 0  # the newest that was given
        self.locks = Locks(self.lock_claims)
        self.turning: dict[JobId, None] = {}  # jobs that hold locks, touched by this command
        self.job_dues: Deadlines[str] = Deadlines()  # of jobs: see `retrying`
        self.queue_heads: dict[str, QueueHead] = {}
        self.queue_items: dict[ItemKey, Item] = {}
        self.queue_claims: dict[str, QueueClaim] = {}
        self.last_receipt = 0  # of an item of a queue
        self.queues = Queues(self.queue_heads, self.queue_items, self.queue_claims)
        self.applied_index = 0  # of entries
        self.command_index = 0
        self.stamp_ms = self.wall_ms = 0
        self.results_refused = 0
        self.result_bytes = 0  # of all jobs
        self.estimate_us = ESTIMATE_US_UNKNOWN  # of a task of an unknown job
        self.ownings: Ownings | None = None  # where somebody wants to know what changes
        self.events: list[Event] = []  # of the command that is being applied

    # --- peers ---

    @property
    def awaits_pull(self) -> bool:
        """True if tasks wait that somebody has to ask the coordinator for."""
        jobs = self.jobs
        return any(jobs[name].spec.policy == PULL for name in self.choosy if name in self.unplaced)

    def is_live(self, peer: PeerId, incarnation: int) -> bool:
        row = self.peers.get(peer)
        return row is not None and row.live and row.info.incarnation == incarnation

    def is_down(self, peer: PeerId, incarnation: int) -> bool:
        """True if it is the newest incarnation of its peer, and was declared down."""
        row = self.peers.get(peer)
        return row is not None and not row.live and row.info.incarnation == incarnation

    def is_up(self, peer: PeerId) -> bool:
        """True if some incarnation of the peer is live."""
        row = self.peers.get(peer)
        return row is not None and row.live

    def name_of(self, peer: PeerId) -> str:
        """For people."""
        row = self.peers.get(peer)
        return (row.info.name if row is not None else self.gone.get(peer)) or peer

    def jobs_with_grants(self) -> list[Job]:
        return [job for name in self.running if (job := self.jobs[name]).grants or job.unknown]

    # --- jobs ---

    def note_sent(self, job: Job) -> None:
        """The job is there."""
        if job.full is not None:
            self.running_bytes += argument_size(job.full.work)
        for ref in job.spec.blobs:
            self.sent[ref] = self.sent.get(ref, 0) + 1

    def drop_sent(self, job: Job) -> None:
        """The job is forgotten."""
        for ref in job.spec.blobs:
            self.sent[ref] -= 1
            if not self.sent[ref]:
                del self.sent[ref]

    def note_unplaced(self, job: Job) -> None:
        if job.spec.hold is not None:
            self.turning[job.id] = None  # see `holding`
        elif job.ready.ranges or job.orphaned.ranges:
            self.unplaced[job.id] = None
        else:
            self.unplaced.pop(job.id, None)

    def end(self, job: Job, state: JobState) -> None:
        job.state = state
        job.ended_wall_ms = self.wall_ms
        job.ended_ms = self.stamp_ms
        assert job.full is not None, "a job ends once"
        self.running_bytes -= argument_size(job.full.work)
        job.full = None
        if job.later:
            job.later, job.delayed = {}, EMPTY
        self.job_dues.drop(job.id)
        del self.running[job.id]
        if job.spec.hold is not None:
            self.turning[job.id] = None  # see `holding`
        else:
            self.unplaced.pop(job.id, None)
        self.suspected.pop(job.id, None)
        if self.choosy and self.choosy.pop(job.id, job) is None:
            self.apart.pop(job.id, None)
        if self.backed:
            self.backed.pop(job.id, None)
        if self.ranked:
            self.ranked.pop(job.id, None)
        if self.lineage.awaiting:
            self.lineage.part(job)
        self.ended[job.id] = self.whole[job.id] = None
        if len(self.whole) > ENDED_WHOLE_MAX:
            oldest, _ = self.whole.popitem(last=False)
            self.jobs[oldest].shrink()
            self.jobs.pack(oldest)
        self.events.append(JobEnded(job.id, state))

    def end_if_done(self, job: Job) -> None:
        is_over = job.state is not _RUNNING
        if not (job.grants or job.waiting.ranges or job.unknown or is_over):
            bad = job.failed.ranges or job.stopped
            self.end(job, JobState.FAILED if bad else _SUCCEEDED)

    def halt(self, job: Job, state: JobState, cause: Cause) -> None:
        """End it now, whatever runs or waits: that is cancelled."""
        job.cancelled = job.cancelled | job.waiting
        self.drop_backups(job, job.backed, cause)
        for held in list(job.grants.values()):
            tasks = held.tasks
            job.cancelled = job.cancelled | tasks
            self.release(job, held, tasks)
            self.events.append(Revoked(job.id, held.grant, held.peer, tasks, cause))
        for held in job.unknown.values():
            job.cancelled = job.cancelled | held.tasks
            self.events.append(Revoked(job.id, held.grant, held.peer, held.tasks, cause))
        job.unknown = {}
        job.waiting = job.orphaned = EMPTY
        self.end(job, state)

    def record(self, job: Job, held: HeldGrant, segment: Segment) -> None:
        """These tasks have ended for good."""
        count = segment.stop - segment.start
        job.finished_by[held.peer] = job.finished_by.get(held.peer, 0) + count
        self.events.append(Recorded(job.id, held.grant, held.peer, job.segments, segment))
        job.segments += 1
        job.result_bytes += len(segment.data)
        self.result_bytes += len(segment.data)

    # --- grants ---

    def lose(self, job: Job, held: HeldGrant, tasks: TaskSet) -> None:
        """Take tasks from an owner that is lost. What becomes of them is for `poison` to say."""
        self.release(job, held, tasks)
        job.attempts_lost += len(tasks)
        self.events.append(Revoked(job.id, held.grant, held.peer, tasks, Cause.PEER_LOST))

    def release(self, job: Job, held: HeldGrant, tasks: TaskSet) -> None:
        if held.token:
            job.unbind(held.grant, tasks)
            self.turning[job.id] = None
        held.tasks = held.tasks - tasks
        if job.orphaned.ranges:
            job.orphaned = job.orphaned - tasks
        self.load(job, held, -len(tasks))
        if not held.tasks.ranges:
            del job.grants[held.grant]

    # --- backups: see `backing` ---

    def drop_backups(self, job: Job, tasks: TaskSet, cause: Cause) -> None:
        """Of these no backup runs any more."""
        for held in list(job.backups.values()) if tasks.ranges else ():
            part = held.tasks & tasks
            if part.ranges:
                self.drop_backup(job, held, part, cause)

    def drop_backup(self, job: Job, held: HeldGrant, tasks: TaskSet, cause: Cause) -> None:
        self.release_backup(job, held, tasks)
        self.events.append(Revoked(job.id, held.grant, held.peer, tasks, cause))

    def release_backup(self, job: Job, held: HeldGrant, tasks: TaskSet) -> None:
        held.tasks = held.tasks - tasks
        self.load(job, held, -len(tasks))
        if not held.tasks.ranges:
            del job.backups[held.grant]

    def load(self, job: Job, held: HeldGrant, count: int) -> None:
        """Note on the owner that it owns more, or less."""
        row = self.peers[held.peer]
        row.owned += count
        row.load_us += count * held.estimate_us
        row.suspects += count * held.suspect
        if held.gpus or held.memory_mib:
            row.gpus += count * held.gpus
            row.memory_mib += count * held.memory_mib
        assert row.owned >= 0
        if self.ownings is not None:
            self.ownings.add(job.id, held.peer, count)

    def touch(self, peer: PeerId) -> None:
        """Its row changes otherwise, or is new, or gone."""
        if self.ownings is not None:
            self.ownings.touched[peer] = None
