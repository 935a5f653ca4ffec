"""Makes a cluster of one out of the data folder of a peer whose majority is lost for good.

Only people can know that it is: whatever the lost disks had and this one hasn't is given up. The
folder stays where it is, with its results and blobs; behind its ledger comes a new generation, and
the peer gets another identity in another cluster. So those of before can't join it, should they
come back after all, and what they were granted is void here.

It refuses a folder that a peer runs on, a damaged ledger, and a group that can still decide. A
recovery that was killed leaves a folder from which nobody starts (`DataFolder.begin_recovery`);
begun again it goes on with the same identity.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Final

import msgspec

from p2psched.core.machine import Machine
from p2psched.core.raft.made import open_entry
from p2psched.core.raft.state import decode_membership
from p2psched.model.commands import NewGeneration
from p2psched.model.errors import Refused
from p2psched.model.ids import ClusterId, JobId, PeerId, new_id
from p2psched.model.raft import Entry, EntryKind, Member, Membership, Snapshot
from p2psched.peer import new_generation
from p2psched.peer.verify import ReadOnlyDisk, fold
from p2psched.ports.disk import Disk
from p2psched.store.disk import OsDisk
from p2psched.store.folder import RECOVERING, DataFolder, Identity
from p2psched.store.log import LogStore
from p2psched.store.recovered import Recovered
from p2psched.store.recovery import read_segments
from p2psched.store.regain import NOTE, read_note
from p2psched.store.snapshots import find_standing

JOBS_TOLD_MAX: Final = 100


class RunningJob(msgspec.Struct, frozen=True):
    id: JobId
    name: str
    tasks: int
    ended: int


class Outlook(msgspec.Struct, frozen=True, kw_only=True):
    """What this disk knows, and so what a recovery from it would go on with."""

    folder: str
    peer: PeerId
    name: str
    cluster: ClusterId | None
    voters: tuple[Member, ...]
    learners: tuple[Member, ...]
    is_voter: bool
    last_index: int
    term: int
    last_wall_ms: int | None  # when the last entry was made, by its leader's clock
    generation: int
    jobs: int
    running: tuple[RunningJob, ...]  # JOBS_TOLD_MAX at most, the newest first
    running_count: int
    lost: str  # what this disk itself has lost of its log
    is_begun: bool  # a recovery of this folder was begun

    @property
    def others(self) -> tuple[Member, ...]:
        return tuple(m for m in (*self.voters, *self.learners) if m.peer != self.peer)

    @property
    def majority(self) -> int:
        return len(self.voters) // 2 + 1


class Begun(msgspec.Struct, frozen=True, kw_only=True):
    peer: PeerId
    name: str
    cluster: ClusterId
    generation: int


def look(folder: DataFolder) -> Outlook:
    """Blocks, as long as a start takes. Raises Damaged, Refused if there is no ledger."""
    disk = ReadOnlyDisk(folder.ledger_path)
    note = read_note(disk)
    log = read_segments(disk)
    standing = find_standing(disk, log)
    machine = fold(log, standing)
    if not machine.applied_index:
        raise Refused(f"{folder.path} holds no ledger: this peer has never been in a cluster")
    membership = _membership(log.entries, standing.snapshot)
    identity = folder.identity
    last_wall_ms = log.entries[-1].wall_ms if log.entries else machine.wall_ms
    newest = list(reversed(machine.running))[:JOBS_TOLD_MAX]
    return Outlook(
        folder=str(folder.path),
        peer=identity.peer,
        name=identity.name,
        cluster=identity.cluster,
        voters=membership.voters,
        learners=membership.learners,
        is_voter=membership.is_voter(identity.peer),
        last_index=machine.applied_index,
        term=log.hard_state.term,
        last_wall_ms=last_wall_ms or None,
        generation=machine.generation,
        jobs=len(machine.jobs),
        running=tuple(_running(machine, job) for job in newest),
        running_count=len(machine.running),
        lost="" if note is None else str(note.damage),
        is_begun=(folder.path / RECOVERING).exists(),
    )


def _running(machine: Machine, name: JobId) -> RunningJob:
    job = machine.jobs[name]
    ended = len(job.succeeded) + len(job.failed)
    return RunningJob(name, job.spec.name, len(job.spec.tasks), ended)


def _membership(entries: Sequence[Entry], snapshot: Snapshot | None) -> Membership:
    """As of the last entry, committed or not."""
    membership, start = Membership(), 0
    if snapshot is not None:
        membership, start = snapshot.membership, snapshot.index
    for entry in entries:
        if entry.kind is EntryKind.MEMBERSHIP and entry.index > start:
            membership = decode_membership(entry)
    return membership


def recover(folder: DataFolder) -> Begun:
    """What is lost is lost: ask before. Durable on return. Raises Damaged, Refused."""
    look(folder)
    rng = random.SystemRandom()
    identity = folder.begin_recovery(
        Identity(
            peer=PeerId(new_id(rng)), cluster=ClusterId(new_id(rng)), name=folder.identity.name
        )
    )
    assert identity.cluster is not None
    generation = go_on(
        OsDisk(folder.ledger_path),
        Member(identity.peer, identity.name, ""),
        rng=rng,
        wall_ms=time.time_ns() // 1_000_000,
    )
    folder.address_book.save({})  # whom it knew is in another cluster from now on
    folder.end_recovery(identity)
    return Begun(
        peer=identity.peer, name=identity.name, cluster=identity.cluster, generation=generation
    )


def go_on(disk: Disk, member: Member, *, rng: random.Random, wall_ms: int) -> int:
    """Put the next generation, of this one member, behind the ledger on a disk; returns which it
    is. Durable on return; after a crash it is asked again. Raises Damaged, OSError."""
    log = read_segments(disk)
    generation = fold(log, find_standing(disk, log)).generation
    store, found = LogStore.open(disk)
    try:
        if not _has_begun(found, member.peer):
            generation += 1
            new_generation.begin(
                store,
                found,
                member=member,
                generation=generation,
                before=_membership(found.entries, found.snapshot),
                rng=rng,
                wall_ms=wall_ms,
            )
    finally:
        store.close()
    disk.remove(NOTE)  # there is nobody any more who could have what it lacks
    return generation


def _has_begun(found: Recovered, peer: PeerId) -> bool:
    """An earlier try has come so far: what it wrote stands at the end, and is whole."""
    if not found.entries:
        return False
    envelopes = open_entry(found.entries[-1]).envelopes
    return any(
        envelope.command.peer == peer
        for envelope in envelopes
        if isinstance(envelope.command, NewGeneration)
    )
