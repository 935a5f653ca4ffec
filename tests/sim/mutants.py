"""Bugs planted on purpose: the simulator must notice each of them.

Each is a context manager that patches a core while it is open, together with the faults under
which such a bug shows. They are the bugs that others shipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Final
from unittest.mock import patch

from p2psched.core.jobs import Job
from p2psched.core.machine import Machine
from p2psched.core.raft import replication
from p2psched.core.raft.effects import Persist, RaftEffect
from p2psched.core.raft.state import RaftState, Timing
from p2psched.model.ids import PeerId
from p2psched.model.job import Segment
from p2psched.model.raft import AppendReply, Entry, HardState, RaftMessage, VoteReply
from p2psched.model.taskset import TaskSet
from p2psched.testing.faults import Faults

Planted = AbstractContextManager[object]
Planting = Callable[[], Planted]

HASTY = Timing(heartbeat_ms=20, election_ms_min=50, election_ms_max=90)


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


def _sends_at_once(kind: type[RaftMessage]) -> Planting:
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


def _clears_vote() -> Planted:
    become_follower = RaftState.become_follower

    def forgetful(state: RaftState, leader: PeerId | None) -> None:
        if state.hard.vote is not None:
            state.hard = HardState(state.term, None)
            state._hard_dirty = True
        become_follower(state, leader)

    return patch.object(RaftState, "become_follower", forgetful)


@contextmanager
def _anybody_completes() -> Iterator[None]:
    end_attempts = Machine._end_attempts

    def current_part(job: Job, grant: int, tasks: TaskSet) -> TaskSet:
        return tasks - job.waiting - job.succeeded - job.failed - job.cancelled

    def end_for_owner(machine: Machine, job: Job, grant: int, segment: Segment) -> None:
        for held in list(job.grants.values()):
            for part in segment.parts(held.tasks & segment.tasks):
                end_attempts(machine, job, held.grant, part)

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


MUTANTS: Final = (
    Mutant(
        name="vote is sent before it is on disk",
        plant=_sends_at_once(VoteReply),
        faults=RESTLESS,
        broken="P4",
    ),
    Mutant(name="vote is not stored", plant=_forgets_vote, faults=RESTLESS, broken="P4"),
    Mutant(
        name="entries are acknowledged before they are on disk",
        plant=_sends_at_once(AppendReply),
        faults=RESTLESS,
        broken="P4",
    ),
    Mutant(
        name="entries of old terms are committed by counting",
        plant=_commits_old_terms,
        faults=replace(RESTLESS, crash_at_disk=0.15, power_loss=0.0),
        broken="P4",
    ),
    Mutant(
        name="vote is forgotten when stepping down in its term",
        plant=_clears_vote,
        # Nobody crashes, half of the messages come after the next election has begun.
        faults=Faults(
            drop=0.1,
            duplicate=0.5,
            in_order=False,
            delay_us=20_000,
            tail=0.5,
            cuts=("bridge", "alone", "one-way"),
            cut_every_ms=300,
            cut_ms_max=500,
        ),
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
)
