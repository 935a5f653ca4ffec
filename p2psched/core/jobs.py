"""One job inside the state machine: which task is where, and under which grant.

Invariant: every task of the spec is in exactly one of `waiting`, one grant, `unknown`, `succeeded`,
`failed` or `cancelled`. Only `current_part` decides what a grant may still commit.
"""

from __future__ import annotations

from typing import Final

import msgspec

from p2psched.core.counter import NOTHING, RangeCounter
from p2psched.model.after import Ancestor
from p2psched.model.blob import ResultBlob
from p2psched.model.commands import Grant
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause, JobSpec, JobState, Segment
from p2psched.model.job_head import JobHead, head_of
from p2psched.model.lock_actions import ClaimId
from p2psched.model.precedence import PREEMPTIONS_MAX
from p2psched.model.resumed import Resumption
from p2psched.model.taskset import EMPTY, TaskSet

BlobKey = tuple[int, str]  # task and name of a large result
# Attempts of a task that may end because their peers' disks were full, at no cost to its retries.
SPACELESS_MAX: Final = 12
RUNNING: Final = JobState.RUNNING  # as `machine._OK`
UNBOUND: Final = (0, 0)  # a claim on a lock that no task holds by
OVER: Final = (0, 1)  # one that is let go at the end of the command
SUSPECT_DEATHS: Final = 2  # peers that died with a task before it is kept apart from others


class HeldGrant(msgspec.Struct, array_like=True, eq=False, gc=False):
    """Tasks that one incarnation owns under one grant."""

    grant: Grant
    peer: PeerId
    incarnation: int
    tasks: TaskSet
    estimate_us: int  # of one task on all its slots, when it was granted
    suspect: bool = False  # all its tasks are: its peer owns nothing else
    token: int = 0  # of the lock that its tasks hold
    moves: int = 0  # from peer to peer since they were placed
    gpus: int = 0  # of each of its tasks
    memory_mib: int = 0
    started: TaskSet = EMPTY  # of its tasks, those that its peer may have begun: see `once`
    until_ms: int = 0  # ledger time: where the lease on those is over, if they are exclusive
    stays: bool = False  # it began as a backup, and moves nowhere: see `backing`
    # Of what is unknown: what its peer ran when it died, and what of that was all that it had.
    died: TaskSet = EMPTY
    alone: TaskSet = EMPTY

    def part(self, tasks: TaskSet) -> HeldGrant:
        """The same of other tasks."""
        return msgspec.structs.replace(self, tasks=tasks)


class Job(msgspec.Struct, array_like=True, eq=False, gc=False):
    """Mutable; owned by the machine. Others only look.

    There may be very many, none in a cycle: the collector of cycles needn't look at them. A job
    stands in snapshots as its fields in this order: they are only appended, with a default.
    """

    id: JobId
    spec: JobHead
    full: JobSpec | None  # until it ends: then it is in the result store only
    index: int  # of the command that submitted it
    submitted_wall_ms: int
    ended_wall_ms: int | None
    ended_ms: int  # in ledger time; of use only once it has ended
    state: JobState
    waiting: TaskSet
    grants: dict[Grant, HeldGrant] = {}
    orphaned: TaskSet = EMPTY  # tasks under grants of incarnations that are down
    succeeded: TaskSet = EMPTY
    failed: TaskSet = EMPTY
    cancelled: TaskSet = EMPTY
    committed: dict[Grant, TaskSet] = {}  # what each grant has had its say about
    losses: RangeCounter = NOTHING
    failures: RangeCounter = NOTHING
    segments: int = 0
    attempts_lost: int = 0
    attempts_failed: int = 0
    results_refused: int = 0
    finished_by: dict[PeerId, int] = {}
    estimate_us: int = 0  # of one task; 0 until one has ended
    blobs: dict[BlobKey, ResultBlob] = {}  # large results, and who has them
    lost: TaskSet = EMPTY  # of the succeeded: a large result has no copy left
    result_bytes: int = 0  # of all that is in results, large ones counted once
    pinned: bool = False
    deaths: RangeCounter = NOTHING  # of peers that owned the task, whatever else they owned
    killed: dict[int, list[PeerId]] = {}  # task -> peers that died while it was all there
    spaceless: RangeCounter = NOTHING  # attempts that ended on a full disk
    # Its claims on the lock that its tasks hold -> grant and task that hold by each, or `UNBOUND`.
    claims: dict[ClaimId, tuple[Grant, int]] = {}
    claims_made: int = 0
    moved: tuple[tuple[PeerId, PeerId, int], ...] = ()  # from whom, to whom, tasks: see `moving`
    moved_count: int = 0
    # See `retrying`.
    ends: dict[Cause, RangeCounter] = {}  # ends of attempts, by causes that have a rule
    later: dict[int, TaskSet] = {}  # ledger time -> tasks that nobody places before
    delayed: TaskSet = EMPTY  # all of those; they wait
    avoids: dict[PeerId, TaskSet] = {}  # tasks that shall run elsewhere, if they can
    demoted: TaskSet = EMPTY  # they come behind what was submitted before: see `sunk_at`
    demoted_at: int = 0  # as an older version had it, for all of them
    alerted: dict[Cause, None] = {}
    bad_ends: dict[Cause, int] = {}  # of attempts, whatever followed
    stopped: str = ""  # why it is given up, or a part of it
    timed_from_ms: int = 0  # its limits of time count from there
    queue_over: bool = False
    tried: TaskSet = EMPTY  # of a job with a limit for the queue: some peer has owned these
    resumed: tuple[Resumption, ...] = ()  # attempts that went on from a checkpoint: the newest
    resumed_count: int = 0
    sunk: RangeCounter = NOTHING  # steps that tasks were demoted, SINK_STEPS_MAX at most
    sunk_at: dict[int, int] = {}  # step -> the command that tasks there come behind
    warned: bool = False  # a task of it was too slow or silent, and that was told
    unknown: dict[Grant, HeldGrant] = {}  # what lost owners may have begun: see `once`
    # See `backing`.
    backups: dict[Grant, HeldGrant] = {}  # who runs tasks of other owners, too; oldest first
    thinned: TaskSet = EMPTY  # an attempt of them ended badly while another ran: no more backups
    speculated: TaskSet = EMPTY  # begun once more because they were late, and that has not won
    backups_won: int = 0  # tasks whose backup ended first
    preempted: RangeCounter = NOTHING  # how often tasks were ended for those of higher jobs
    # See `dependencies`.
    awaits: dict[JobId, None] = {}  # those that it comes after and that have not ended
    aborted_by: Ancestor | None = None

    @classmethod
    def of(cls, job: JobId, spec: JobSpec, *, index: int, wall_ms: int) -> Job:
        """As it is accepted."""
        return cls(job, head_of(spec), spec, index, wall_ms, None, 0, RUNNING, spec.tasks)

    @property
    def turn(self) -> tuple[int, int]:
        """Jobs are placed in the order of this."""
        return -self.spec.priority, self.index

    @property
    def spared(self) -> TaskSet:
        """Tasks that have made way for others often enough."""
        return self.preempted.at_least(PREEMPTIONS_MAX)

    @property
    def suspects(self) -> TaskSet:
        """Tasks that may be what their peers die of (see `poison`)."""
        return self.deaths.at_least(SUSPECT_DEATHS)

    @property
    def owned_count(self) -> int:
        return sum(len(held.tasks) for held in self.grants.values())

    @property
    def ended(self) -> bool:
        return self.state is not RUNNING

    @property
    def ready(self) -> TaskSet:
        """Tasks that wait, and not for a moment to come, nor for other jobs."""
        if self.awaits:
            return EMPTY
        return self.waiting - self.delayed if self.delayed.ranges else self.waiting

    @property
    def placeable(self) -> TaskSet:
        """Tasks that nobody live owns, and that may be owned now."""
        return self.ready | self.orphaned

    @property
    def retried(self) -> TaskSet:
        """Tasks whose next attempt is another one after a bad end."""
        ends = [ends for cause, ends in self.ends.items() if cause is not Cause.LEASE_LOST]
        counters = [self.failures, self.spaceless, *ends]
        found = [counter.levels[0] for counter in counters if counter.levels]
        return TaskSet.union(found) if found else EMPTY

    def attempts(self, tasks: TaskSet) -> list[tuple[int, TaskSet]]:
        """`tasks` by the number of the attempt that runs next or now, 1 for the first."""
        parts = [(1, tasks)] if tasks else []
        for counter in (self.losses, self.spaceless, self.failures, *self.ends.values()):
            if counter.levels:
                parts = [
                    (before + count, piece)
                    for before, part in parts
                    for count, piece in counter.split(part)
                ]
        return parts

    def current_part(self, grant: Grant, tasks: TaskSet) -> TaskSet:
        """What of `tasks` is still under `grant`: the one rule that settles stolen, cancelled,
        moved and half-done sets."""
        held = self.grants.get(grant)
        return held.tasks & tasks if held is not None else EMPTY

    @property
    def doubtful(self) -> TaskSet:
        """Tasks of which nobody knows whether they have run: a person decides."""
        return TaskSet.union([held.tasks for held in self.unknown.values()])

    def answerable(self, grant: Grant, tasks: TaskSet) -> TaskSet:
        """What of `tasks` a peer may go on with under `grant`: as owner, as backup, and unknown."""
        part = self.current_part(grant, tasks)
        for record in (self.unknown.get(grant), self.backups.get(grant)):
            part = part if record is None else part | (record.tasks & tasks)
        return part

    @property
    def backed(self) -> TaskSet:
        """Tasks that run on more peers than their owner."""
        backups = self.backups
        return TaskSet.union([held.tasks for held in backups.values()]) if backups else EMPTY

    def owner_of(self, index: int) -> HeldGrant | None:
        return next((held for held in self.grants.values() if index in held.tasks), None)

    def unbind(self, grant: Grant, tasks: TaskSet) -> None:
        """These tasks are not under that grant any more."""
        hold = self.spec.hold
        assert hold is not None
        for claim, (bound, task) in self.claims.items():
            if bound == grant and task in tasks:
                self.claims[claim] = UNBOUND if hold.in_order else OVER

    def places(self, demoted: TaskSet) -> list[tuple[int, TaskSet]]:
        """Where these stand in the order of submits, by the steps that they have sunk."""
        steps = self.sunk.split(demoted)
        return [(self.sunk_at.get(step, self.demoted_at), part) for step, part in steps]

    def learn_duration(self, segment: Segment, count: int) -> None:
        """Moving average of what one task takes; whole numbers, so that all peers agree."""
        mean = max(1, segment.busy_us // (segment.stop - segment.start))
        weight = min(count, 4)
        self.estimate_us = (
            (self.estimate_us * (8 - weight) + mean * weight) // 8 if self.estimate_us else mean
        )

    def shrink(self) -> None:
        """It ended a while ago: keep no more of it than people ask for. A repeat of an old
        `Complete` is then stale instead of a duplicate, and changes as little."""
        self.committed = {}
        if self.succeeded == self.spec.tasks:
            self.succeeded = self.spec.tasks  # once in memory
        self.losses = self.failures = self.spaceless = NOTHING
        self.ends, self.avoids, self.demoted, self.tried = {}, {}, EMPTY, EMPTY
        self.sunk, self.sunk_at = NOTHING, {}
        self.thinned = self.speculated = EMPTY
        self.forget_deaths(self.spec.tasks)

    def forget_deaths(self, tasks: TaskSet) -> None:
        """These are as if they had never been there when a peer died."""
        if self.deaths is NOTHING and not self.killed:
            return
        self.deaths = self.deaths.without(tasks)
        self.killed = {i: peers for i, peers in self.killed.items() if i not in tasks}

    def check(self) -> None:
        """Assert the invariant; for referees, O(ranges)."""
        parts = [self.waiting, self.succeeded, self.failed, self.cancelled]
        parts += [held.tasks for held in (*self.grants.values(), *self.unknown.values())]
        assert not self.delayed - self.waiting, f"a delayed task of job {self.id} does not wait"
        assert self.delayed == TaskSet.union(self.later.values()), f"job {self.id} forgets a delay"
        union = TaskSet.union(parts)
        assert sum(map(len, parts)) == len(union), f"a task of job {self.id} is in two places"
        assert union == self.spec.tasks, f"a task of job {self.id} is nowhere"
        lost = EMPTY
        if self.blobs:
            results = TaskSet.from_indices(index for index, _ in self.blobs)
            assert not results - self.succeeded, f"a large result of job {self.id} is no result"
            blobs = self.blobs.items()
            lost = TaskSet.from_indices(i for (i, _), blob in blobs if not blob.holders)
        assert self.lost == lost, f"job {self.id} is wrong about which results are lost"
        alone = [held.tasks for held in self.grants.values() if held.suspect]
        assert all(not tasks - self.suspects for tasks in alone), f"job {self.id} isolates others"
        self._check_backups()
        begun = self.grants or self.succeeded or self.failed or self.unknown
        assert not (self.awaits and (begun or self.ended)), f"job {self.id} does not await others"
        assert self.ended == (self.full is None), f"job {self.id} and its spec end together"

    def _check_backups(self) -> None:
        for held in self.backups.values():
            there = [(h.peer, h.tasks) for h in (*self.grants.values(), *self.backups.values())]
            here = [tasks for peer, tasks in there if peer == held.peer]
            owned = TaskSet.union([h.tasks for h in self.grants.values()])
            assert held.tasks.ranges, f"job {self.id} keeps a backup of nothing"
            assert not held.tasks - owned, f"a task of job {self.id} has a backup and no owner"
            assert not held.tasks & self.orphaned, f"job {self.id} waits though a backup runs"
            twice = sum(len(held.tasks & tasks) for tasks in here) > len(held.tasks)
            assert not twice, f"a task of job {self.id} is twice on one peer"
