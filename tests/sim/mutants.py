"""Bugs planted on purpose: the simulator must notice each of them.

Each is a context manager that patches a core while it is open, together with the faults under
which such a bug shows. They are the bugs that others shipped.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Final
from unittest.mock import patch

from p2psched.core import scheduler, snapshot
from p2psched.core.jobs import Job
from p2psched.core.machine import Machine
from p2psched.core.raft import election, replication
from p2psched.core.raft.effects import Persist, RaftEffect
from p2psched.core.raft.progress import Compaction
from p2psched.core.raft.state import RaftState, Role
from p2psched.core.raft.timing import Timing
from p2psched.model.ids import PeerId
from p2psched.model.job import Cause, Segment
from p2psched.model.raft import (
    AppendReply,
    Entry,
    HardState,
    RaftMessage,
    Snapshot,
    SnapshotReply,
    VoteReply,
)
from p2psched.model.taskset import EMPTY, TaskSet
from p2psched.store.snapshots import SnapshotFiles, encode_head, snapshot_name
from p2psched.testing import sim_saves, snapshot_referee
from p2psched.testing.faults import Faults
from p2psched.testing.sim_world import Snapshots
from p2psched.testing.simulate import Options

Planted = AbstractContextManager[object]
Planting = Callable[[], Planted]

NEVER: Final = Snapshots()
# Peers that grow patient in bad weather don't show what haste would.
HASTY = Timing(heartbeat_ms=20, election_ms_min=50, election_ms_max=90, stretch_max=1)


# Crashes at the durable points, and back within milliseconds, before anybody notices.
RESTLESS: Final = Faults(
    crash_at_disk=0.1,
    crashes_max=1_000,
    power_loss=1.0,
    restart_ms_max=5,
    drop=0.1,
    in_order=False,
    tail=0.05,
    cut_every_ms=1_000,
    cut_ms_max=500,
    sync_us_max=5_000,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """`plant` makes the bug; `faults` and `timing` are the weather it grows in."""

    name: str
    plant: Planting
    faults: Faults
    broken: str  # what the referees say
    timing: Timing = HASTY
    peers: int = 3
    events: int = 2_500
    jobs_max: int = 4
    snapshots: Snapshots = NEVER
    keeping: bool = False
    poison: bool = False
    hanging: bool = False
    holding: bool = False
    choosing: bool = False
    retrying: bool = False
    once: bool = False
    exclusives: int = 0
    backing: bool = False
    saving: bool = False
    preempting: bool = False
    ordering: bool = False
    stalling: bool = False
    followers: int | None = None
    healing: bool = False
    formed: bool = True
    locks: int = 0  # callers that hold locks

    def options(self) -> Options:
        return Options(
            peers=self.peers,
            faults=self.faults,
            timing=self.timing,
            events=self.events,
            formed=self.formed,
            jobs_max=self.jobs_max,
            snapshots=self.snapshots,
            keeping=self.keeping,
            poison=self.poison,
            hanging=self.hanging,
            holding=self.holding,
            choosing=self.choosing,
            retrying=self.retrying,
            once=self.once,
            exclusives=self.exclusives,
            backing=self.backing,
            saving=self.saving,
            preempting=self.preempting,
            ordering=self.ordering,
            stalling=self.stalling,
            followers=self.followers,
            healing=self.healing,
            locks=self.locks,
        )


def sends_at_once(kind: type[RaftMessage]) -> Planting:
    promise = RaftState.promise

    def hasty(state: RaftState, to: PeerId, message: RaftMessage) -> None:
        if isinstance(message, kind):
            state.send(to, message)
        else:
            promise(state, to, message)

    return lambda: patch.object(RaftState, "promise", hasty)


def _forgets_vote() -> Planted:
    flush = RaftState.flush

    def forgetful(state: RaftState) -> list[RaftEffect]:
        return [
            Persist(
                effect.token,
                HardState(effect.hard_state.term, None),
                effect.truncate_from,
                effect.entries,
            )
            if isinstance(effect, Persist) and effect.hard_state
            else effect
            for effect in flush(state)
        ]

    return patch.object(RaftState, "flush", forgetful)


@contextmanager
def _commits_old_terms() -> Iterator[None]:
    # One entry a message, or the no-op of the new term always arrives with the old entries.
    with (
        patch.object(replication, "may_commit", lambda state, index: True),
        patch.object(replication, "APPEND_ENTRIES_MAX", 1),
    ):
        yield


@contextmanager
def _clears_vote() -> Iterator[None]:
    become_follower = RaftState.become_follower

    def forgetful(state: RaftState, leader: PeerId | None) -> None:
        if state.hard.vote is not None:
            state.hard = HardState(state.term, None)
            state._hard_dirty = True
        become_follower(state, leader)

    # Nobody keeps away from candidates because a leader works: that is not what votes rest on.
    with (
        patch.object(RaftState, "become_follower", forgetful),
        patch.object(election, "_has_working_leader", lambda state: state.role is Role.LEADER),
    ):
        yield


@contextmanager
def _anybody_completes() -> Iterator[None]:
    end_attempts = Machine._end_attempts

    def current_part(job: Job, grant: int, tasks: TaskSet) -> TaskSet:
        return tasks - job.waiting - job.succeeded - job.failed - job.cancelled

    def end_for_owner(
        machine: Machine, job: Job, grant: int, segment: Segment, tasks: TaskSet
    ) -> tuple[Cause, TaskSet]:
        ended = EMPTY
        for held in list(job.grants.values()):
            for part in segment.parts(held.tasks & tasks):
                ended = ended | end_attempts(machine, job, held.grant, part, part.tasks)[1]
        return segment.cause, ended

    with (
        patch.object(Job, "current_part", current_part),
        patch.object(Machine, "_end_attempts", end_for_owner),
    ):
        yield


def _repeats_act_again() -> Planted:
    return patch.object(Machine, "_is_repeat", lambda machine, envelope: False)


def _truncates_on_overlap() -> Planted:
    def take(state: RaftState, entry: Entry) -> None:
        if state.log.term_at(entry.index) is not None:
            state.truncate_from(entry.index)
        state.append(entry)

    return patch.object(replication, "_take", take)


def _loses_a_grant() -> Planted:
    restore = snapshot.restore_machine

    def forgetful(machine: Machine, data: bytes) -> None:
        restore(machine, data)
        for name in machine.running:
            grants = machine.jobs[name].grants
            if grants:
                del grants[next(iter(grants))]
                return

    return patch.object(scheduler, "restore_machine", forgetful)


@contextmanager
def _forgets_repeats() -> Iterator[None]:
    """As if nobody had thought of the table: it is not in the bytes."""

    def encode(machine: Machine) -> bytes:
        taken, machine._taken = machine._taken, OrderedDict()
        try:
            return snapshot.encode_machine(machine)
        finally:
            machine._taken = taken

    with (
        patch.object(sim_saves, "encode_machine", encode),
        patch.object(snapshot_referee, "encode_machine", encode),
    ):
        yield


def _saves_without_a_sync() -> Planted:
    def save(files: SnapshotFiles, head: Snapshot, state: bytes) -> None:
        name = snapshot_name(head.index)
        files._disk.remove(name)
        file = files._disk.open_append(name)
        file.write(encode_head(head) + state)
        file.close()

    return patch.object(SnapshotFiles, "save", save)


def _compacts_before_it_saves() -> Planted:
    """The log lets go of what a snapshot will cover when it is on the disk, some time."""
    begin_if_due = sim_saves.Saves.begin_if_due

    def hasty(saves: sim_saves.Saves) -> None:
        before = saves._under_way
        begin_if_due(saves)
        if saves._under_way and not before:
            log = saves._peer.log
            log.sync()
            log._remove_before(max(log._older, default=0) + 1)

    return patch.object(sim_saves.Saves, "begin_if_due", hasty)


OFTEN: Final = Snapshots(5, Compaction(0, 0, 0, 2_000))
# Slow disks and cuts: followers fall behind what their leader has kept.
BEHIND: Final = replace(RESTLESS, sync_us_max=50_000, cut_every_ms=500, crash_at_disk=0.05)

MUTANTS: Final = (
    Mutant(
        name="vote is sent before it is on disk",
        plant=sends_at_once(VoteReply),
        faults=RESTLESS,
        broken="P4",
    ),
    Mutant(name="vote is not stored", plant=_forgets_vote, faults=RESTLESS, broken="P4"),
    Mutant(
        name="entries are acknowledged before they are on disk",
        plant=sends_at_once(AppendReply),
        faults=RESTLESS,
        broken="P4",
    ),
    Mutant(
        name="entries of old terms are committed by counting",
        plant=_commits_old_terms,
        faults=replace(RESTLESS, crash_at_disk=0.15, power_loss=0.0, drop=0.3),
        broken="P4",
    ),
    Mutant(
        name="vote is forgotten when stepping down in its term",
        plant=_clears_vote,
        # Nobody crashes; several campaign at a time, and requests come after the election.
        faults=Faults(
            drop=0.1,
            duplicate=0.5,
            in_order=False,
            delay_us=50_000,
            tail=0.1,
            cuts=("bridge", "alone", "one-way"),
            cut_every_ms=300,
            cut_ms_max=500,
        ),
        timing=Timing(heartbeat_ms=20, election_ms_min=50, election_ms_max=56, stretch_max=1),
        peers=5,
        broken="P4",
    ),
    Mutant(
        name="results are taken from whoever was granted the job",
        plant=_anybody_completes,
        faults=Faults(
            cut_every_ms=2_000,
            cut_ms_max=6_000,
            cuts=("alone",),
            pause_every_ms=4_000,
            pause_ms_max=6_000,
        ),
        timing=Timing(),
        broken="P6",
        events=4_000,
        jobs_max=20,
    ),
    Mutant(
        name="a proposal that is committed twice acts twice",
        plant=_repeats_act_again,
        faults=Faults(drop=0.1, tail=0.3, cut_every_ms=1_000, cut_ms_max=500, sync_us_max=5_000),
        broken="P6",
        jobs_max=40,
        events=4_000,
    ),
    Mutant(
        name="entries that agree are dropped and taken again",
        plant=_truncates_on_overlap,
        faults=Faults(duplicate=0.3, in_order=False, delay_us=20_000),
        broken="a committed entry is never dropped",
    ),
    Mutant(
        name="a grant is lost in a snapshot",
        plant=_loses_a_grant,
        faults=BEHIND,
        timing=Timing(),
        broken="P14",
        jobs_max=20,
        snapshots=OFTEN,
    ),
    Mutant(
        name="a snapshot is acknowledged before it is on disk",
        plant=sends_at_once(SnapshotReply),
        faults=BEHIND,
        broken="P4",
        jobs_max=20,
        snapshots=OFTEN,
    ),
    Mutant(
        name="what was proposed before is not in the snapshot",
        plant=_forgets_repeats,
        faults=RESTLESS,
        broken="a proposal is forgotten",
        jobs_max=20,
        snapshots=OFTEN,
    ),
    Mutant(
        name="a snapshot is not synced before the log is cut",
        plant=_saves_without_a_sync,
        faults=RESTLESS,
        broken="did not reach the disk",
        jobs_max=20,
        snapshots=OFTEN,
    ),
    Mutant(
        name="the log is cut before the snapshot is durable",
        plant=_compacts_before_it_saves,
        faults=replace(RESTLESS, power_loss=0.5),
        broken="would lack what it knew",
        jobs_max=20,
        snapshots=OFTEN,
    ),
)
