"""A job as far as a follower is told of it, and who may feed it: see `follower`."""

from __future__ import annotations

import hashlib
from collections.abc import Container

from p2psched.core.feed import members_of
from p2psched.core.jobs import HeldGrant, Job
from p2psched.core.state import LedgerState, PeerRow
from p2psched.model.commands import Complete, Completed, Outcome, PeerInfo
from p2psched.model.feed_messages import FedJob, Feed
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import JobSpec
from p2psched.model.raft import Membership
from p2psched.model.taskset import EMPTY, TaskSet


class FollowedJob(Job, array_like=True, eq=False, gc=False):
    """What this peer owns of it."""

    parts: tuple[tuple[int, TaskSet], ...] = ()
    fed_spared: TaskSet = EMPTY

    def attempts(self, tasks: TaskSet) -> list[tuple[int, TaskSet]]:
        return [(number, same) for number, part in self.parts if (same := part & tasks)]

    @property
    def spared(self) -> TaskSet:
        return self.fed_spared

    def take(self, fed: FedJob, me: PeerId) -> None:
        """That is all from here on."""
        self.parts = tuple(part for held in fed.grants for part in held.parts)
        self.fed_spared = TaskSet.union([held.spared for held in fed.grants])
        self.grants = {
            held.grant: HeldGrant(
                *(held.grant, me, held.incarnation),
                TaskSet.union([tasks for _, tasks in held.parts]),
                0,
                token=held.token,
                moves=held.moves,
                started=held.started,
                stays=held.stays,
            )
            for held in fed.grants
        }
        self.unknown = {
            grant: HeldGrant(grant, me, 0, tasks, 0, started=tasks) for grant, tasks in fed.unknown
        }


def followed(job: JobId, spec: JobSpec) -> FollowedJob:
    made = FollowedJob.of(job, spec, index=0, wall_ms=0)
    assert isinstance(made, FollowedJob)
    return made


def settle(state: LedgerState, told: Complete | None, outcome: Outcome) -> None:
    """What was judged is owned no more: a feed does not say that, for whoever proposed it knows."""
    job = state.jobs.get(told.job) if told is not None else None
    if job is None or told is None or not isinstance(outcome, Completed):
        return
    held = job.grants.get(told.grant)
    if held is not None:
        held.tasks = held.tasks - TaskSet.union([segment.tasks for segment in told.segments])


def take_life(row: PeerRow, info: PeerInfo, feed: Feed) -> None:
    """What the ledger says of this peer, of which `info` is the newest life."""
    row.info, row.drain = info, feed.drain
    row.live = feed.live and feed.incarnation == info.incarnation


def ranked(
    group: Membership, me: PeerId, *, leader: PeerId | None, mute: Container[PeerId]
) -> list[PeerId]:
    """Who may feed this peer, best first: followers spread evenly, and again if one goes. Not the
    leader, nor who said nothing lately, if there are others."""

    def rank(peer: PeerId) -> tuple[bool, bool, bytes]:
        chance = hashlib.blake2b((me + peer).encode()).digest()
        return peer == leader, peer in mute, chance

    return sorted((m.peer for m in members_of(group) if m.peer != me), key=rank)
