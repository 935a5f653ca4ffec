"""What is left after a disaster, simulated: one disk of a cluster whose majority is lost for good,
or a backup that was taken at some moment, goes on as another cluster.

The first cluster lives through faults of its own, and works on after the copy was taken: its peers
may be there after all. The second one begins with what the real recovery makes of the copy, under
losses of power, and is judged as any other, by referees that know what was committed before.
Beyond that they demand:

- what was durable on the disk that is left, and what was accepted before a backup, is there (P1);
- no result comes under a grant of before, whoever brings it (P5, P6);
- nobody of before is heard: what they send comes to the door of the disk that went on, no further;
- two clusters that go on from one backup never grant under the same number (P5);
- an exclusive task that ran in the first cluster when the copy was made begins in the second only
  once its lease is over, as if nobody renewed it any more (E9).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from p2psched.core.generation import INDEX_BITS
from p2psched.core.machine import Machine
from p2psched.core.raft.state import decode_membership
from p2psched.core.snapshot import encode_machine, restore_machine
from p2psched.model import chunks
from p2psched.model.commands import Complete, Completed, Outcome
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause, Segment
from p2psched.model.raft import EntryKind, Member, Snapshot
from p2psched.model.taskset import EMPTY, TaskSet
from p2psched.peer import new_generation, recovering
from p2psched.store.log import LogStore
from p2psched.store.recovered import Recovered
from p2psched.store.snapshots import SnapshotFiles, described
from p2psched.testing.faults import Faults
from p2psched.testing.inheritance import inherit, inherit_snapshot
from p2psched.testing.promises import demand
from p2psched.testing.sim import ANY_PROCESS, SimCluster
from p2psched.testing.sim_disk import SimDisk
from p2psched.testing.sim_drains import Draining
from p2psched.testing.sim_exclusive import JOBS_MAX, LONG_US_MAX, left_running
from p2psched.testing.sim_items import Arrived
from p2psched.testing.sim_jobs import sim_job
from p2psched.testing.sim_leading import start_hand_overs
from p2psched.testing.sim_members import Replacing
from p2psched.testing.sim_peer import SimPeer
from p2psched.testing.sim_report import Report, report_of
from p2psched.testing.sim_storm import Storm
from p2psched.testing.sim_workload import Workload
from p2psched.testing.simulate import PEACE_MS, Options, await_end, draw_cluster

Busy = Replacing | Draining
EVENTS: Final = 2_000  # of each of the two clusters, while faults last
EVENTS_MIN: Final = 200  # before the disaster
LATER: Final = 400  # of the first one, after it
MS_MAX: Final = 400_000  # of each, in virtual time: faults end then
READ_MS: Final = 1_000  # until a read that a backup begins with is asked for again
TRIES_MAX: Final = 3  # of a recovery, before the one that meets no loss of power
STEPS_MAX: Final = 14  # of the disk, at one of which the power goes
LATE_MS: Final = 150  # between two results under grants of before
ALONE_MS: Final = 5_000  # that the other restore of a backup runs
SIZES: Final = (1, 2, 3, 3, 4)
AFTER: Final = 1 << 40  # from the seed of the first cluster to that of the next
DOOR_US: Final = 500


@dataclass(slots=True, kw_only=True)
class Copy:
    """What is left of a cluster."""

    number: int  # of the peer that it is of, or was taken through
    disk: SimDisk | None  # None: a backup
    snapshot: Snapshot | None = None
    state: bytes = b""
    state_hash: str = ""
    accepted: dict[JobId, None]
    blobs: list[bytes]  # digests of large results
    sure: dict[int, tuple[int, int]] = field(default_factory=dict)  # committed, and durable there


def simulate_disaster(seed: int, options: Options | None = None) -> Report:
    """Run one seed; the report is of the second cluster. Raises `sim.SimulationError`."""
    # Whom a task has killed is known to a referee that does not go over to another cluster.
    options = options or Options(events=EVENTS, exclusives=_exclusives(seed))
    options = replace(options, poison=False, hanging=False)
    rng = random.Random(f"disaster {seed}")
    before = draw_cluster(seed, rng, options)
    before.replay = f"simulate_disaster({seed})"
    theirs, _ = _begin(before, rng, options)
    run_some(before, rng.randrange(EVENTS_MIN, options.events))
    copy = left_disk(before, rng) if rng.random() < 0.5 else taken_backup(before, rng)
    size = options.peers or rng.choice(SIZES)
    after = go_on(copy, before, seed + AFTER, rng, replace(options, peers=size, formed=False))
    after.replay = before.replay
    others: frozenset[int] = frozenset()
    if copy.disk is None and rng.random() < 0.5:
        others = _other_grants(copy, before, seed + 2 * AFTER, rng)
        after.happened["restored twice"] += 1
        after.submit(sim_job(TaskSet.of(0, 3), mean_us=1_000))
    after.happened["went on: disk" if copy.disk is not None else "went on: backup"] += 1
    _Strangers(before, after, copy)
    left_running(before, after)
    mine, busy = _begin(after, rng, options)
    mine.inherit(theirs)
    _LateResults(before, after, rng)
    later = before.events + LATER
    while after.events < options.events and after.now_us < MS_MAX * 1000:
        if before.events < later:
            before.step()
        after.step()
    mine.stop()
    after.heal()
    for what in busy:
        if isinstance(what, Draining):
            what.end()
    healed_us = after.now_us
    _expect(after, copy)
    # Long exclusive tasks of both clusters run one after another, if there is one slot.
    await_end(after, busy, PEACE_MS + 2 * LONG_US_MAX // 1000)
    try:
        _check(after, copy, others)
    except AssertionError as exc:
        raise after._failure(str(exc)) from exc
    return report_of(after, healed_us)


def _exclusives(seed: int) -> int:
    """Drawn apart, and more often than elsewhere: what matters is what runs at one moment."""
    return random.Random(f"exclusives of a disaster {seed}").choice((0, JOBS_MAX, 2 * JOBS_MAX))


def _begin(
    cluster: SimCluster, rng: random.Random, options: Options
) -> tuple[Workload, tuple[Busy, ...]]:
    workload = Workload(cluster, rng, options)
    workload.next()
    Storm(cluster, rng)
    start_hand_overs(cluster)
    return workload, (Replacing(cluster), Draining(cluster))


def run_some(cluster: SimCluster, events: int) -> None:
    """At least until something is committed."""
    while cluster.events < events and cluster.now_us < MS_MAX * 1000:
        cluster.step()
    if not cluster.referees.committed:
        cluster.heal()
        cluster.run_until(lambda: bool(cluster.referees.committed), within_ms=PEACE_MS)


# --- what is left ---------------------------------------------------------------------------------


def left_disk(cluster: SimCluster, rng: random.Random) -> Copy:
    """All others are lost, or so people think. It is of any peer that has a ledger and no damage;
    whatever it had not synced may be gone."""
    referees, disks = cluster.referees, cluster.referees.disks
    fit = [
        peer
        for peer in cluster.peers
        if disks.durable_upto(peer.id) and not peer.is_rotten and not peer.is_hurt
    ]
    peer = rng.choice(fit or cluster.peers[:1])
    cluster.kill(peer.number)
    disk = peer.disk.copy(rng)
    disk.crash()
    committed = enumerate(referees.committed, start=1)
    return Copy(
        number=peer.number,
        disk=disk,
        accepted={},
        blobs=[digest for digest, is_here in peer.blobs.items() if is_here],
        sure={i: seen for i, seen in committed if disks.is_durable(peer.id, i, seen[0])},
    )


def taken_backup(cluster: SimCluster, rng: random.Random) -> Copy:
    """Of a state that some peer has after a linearizable read, with all large results."""
    taken: list[Copy] = []

    def ask() -> None:
        peer = rng.choice(cluster.peers)
        accepted = dict(cluster.referees.accepted)

        def on_read(index: int | None) -> None:
            if index is not None and not taken and peer.alive:
                taken.append(_state_of(cluster, peer, accepted))

        if not taken:
            cluster.read(peer.number, on_read)
            cluster.after(READ_MS, ask)

    ask()
    until_us = cluster.now_us + MS_MAX * 1000
    while not taken and cluster.now_us < until_us:
        cluster.step()
    if not taken:
        cluster.heal()
        cluster.run_until(lambda: bool(taken), within_ms=PEACE_MS)
    return taken[0]


def _state_of(cluster: SimCluster, peer: SimPeer, accepted: dict[JobId, None]) -> Copy:
    machine = peer.scheduler.machine
    state = encode_machine(machine)
    return Copy(
        number=peer.number,
        disk=None,
        snapshot=described(peer.engine.raft.describe(machine.applied_index), state),
        state=state,
        state_hash=machine.state_hash,
        accepted=accepted,
        blobs=[digest for p in cluster.peers for digest, is_here in p.blobs.items() if is_here],
    )


# --- and goes on ----------------------------------------------------------------------------------


def go_on(
    copy: Copy, before: SimCluster, seed: int, rng: random.Random, options: Options
) -> SimCluster:
    """A cluster whose first peer has what became of the copy; the others join it."""
    cluster = draw_cluster(seed, rng, options)
    founder = cluster.peers[0]
    identify(founder, before.peers[copy.number])
    founder.disk = _recovered(copy, founder.member, rng)
    for digest in copy.blobs:
        founder.blobs.put(digest)
    found = _opened(founder.disk, rng)
    referees = cluster.referees
    referees.disks.on_prepared(founder.id, found)
    referees.keeping.disks = {**before.referees.keeping.disks, **referees.keeping.disks}
    inherit(referees, before.referees, _base(found))
    if copy.snapshot is not None:
        inherit_snapshot(referees, copy.snapshot, copy.state_hash)
    groups = (e for e in found.entries if e.kind is EntryKind.MEMBERSHIP)
    begins = (e.index for e in groups if decode_membership(e).voters == (founder.member,))
    referees.members.begins_at = next(begins, 0)
    if not referees.members.begins_at:
        raise before._failure("P3: the disk that was recovered holds no new generation")
    return cluster


def identify(founder: SimPeer, before: SimPeer) -> None:
    """It has an identity that nobody of before knows; it was drawn with its cluster."""
    assert founder.id != before.id


def _recovered(copy: Copy, member: Member, rng: random.Random) -> SimDisk:
    """What the recovery makes durable, whatever loss of power meets it."""
    if copy.snapshot is not None:
        disk = SimDisk(rng)
        machine = Machine()
        restore_machine(machine, copy.state)
        SnapshotFiles(disk).save(copy.snapshot, copy.state)
        new_generation.begin_with(
            disk,
            copy.snapshot,
            member=member,
            generation=machine.generation + 1,
            rng=rng,
            wall_ms=0,
        )
        disk.crash()
        return disk
    assert copy.disk is not None
    disk = copy.disk
    for _ in range(rng.randrange(TRIES_MAX)):
        disk.steps_left = rng.randrange(1, STEPS_MAX)
        try:
            recovering.go_on(disk, member, rng=rng, wall_ms=0)
        except OSError:
            disk.crash()
        disk.steps_left = None
    recovering.go_on(disk, member, rng=rng, wall_ms=0)
    disk.crash()
    return disk


def _opened(disk: SimDisk, rng: random.Random) -> Recovered:
    """Another disk like it is read, and changed as a start changes it."""
    return LogStore.open(disk.copy(rng))[1]


def _base(found: Recovered) -> int:
    return found.snapshot.index if found.snapshot is not None else 0


# --- what meets it --------------------------------------------------------------------------------


class _Strangers:
    """Peers of before send to the address of the one that went on, and it may answer them."""

    def __init__(self, before: SimCluster, after: SimCluster, copy: Copy) -> None:
        self._before = before
        self._after = after
        self._number = copy.number
        self._old = before.peers[copy.number].id
        before.beyond, after.beyond = self._to_door, self._back

    def _to_door(self, sender: PeerId, to: PeerId, data: bytes) -> None:
        if to == self._old:
            self._after.happened["strangers at the door"] += 1
            self._after.bring(DOOR_US, 0, ANY_PROCESS, Arrived(sender, data, to))

    def _back(self, sender: PeerId, to: PeerId, data: bytes) -> None:
        for peer in self._before.peers:
            if peer.id == to and peer.number != self._number:
                item = Arrived(sender, data, to)
                self._before.bring(DOOR_US, peer.number, ANY_PROCESS, item)


class _LateResults:
    """Workers of before bring what they have, while faults last."""

    def __init__(self, before: SimCluster, after: SimCluster, rng: random.Random) -> None:
        self._before = before
        self._after = after
        self._rng = rng
        self._faults = after.faults
        self._later()

    def _later(self) -> None:
        self._after.after(self._rng.randrange(1, 2 * LATE_MS), self._again)

    def _again(self) -> None:
        cluster = self._after
        if cluster.faults is not self._faults:
            return
        self._later()
        granted = list(self._before.referees.shadow.granted_tasks.items())
        if not granted:
            return
        # The newest ones most of all: of these some had not ended.
        grant, (job, tasks) = granted[-1 - int(self._rng.random() ** 2 * len(granted))]
        if not tasks:
            return
        index = self._rng.choice(sorted(tasks))
        data = chunks.pack([f"{job}:{index}:{grant}".encode()])
        late = Complete(job, grant, (Segment(index, index + 1, Cause.OK, data),))
        cluster.happened["late results"] += 1
        cluster.ask(late, lambda outcome: _check_late(outcome, grant))


def _check_late(outcome: Outcome, grant: int) -> None:
    is_refused = not isinstance(outcome, Completed) or outcome.accepted == EMPTY
    demand(is_refused, "P5", f"a result under grant {grant} of before is accepted")


# --- what must hold -------------------------------------------------------------------------------


def _expect(cluster: SimCluster, copy: Copy) -> None:
    """What was accepted before, as far as the copy has it, has to end."""
    shadow = cluster.referees.shadow
    known = shadow.jobs.keys() | shadow.forgotten.keys()
    cluster.referees.accepted |= copy.accepted
    cluster.happened["jobs of before"] += len(copy.accepted.keys() & known)


def _check(cluster: SimCluster, copy: Copy, others: frozenset[int]) -> None:
    committed = cluster.referees.committed
    for index, seen in copy.sure.items():
        is_there = index <= len(committed) and committed[index - 1] == seen
        demand(is_there, "P1", f"entry {index} was durable on the disk that is left, and is gone")
    cluster.happened["entries of before"] += len(copy.sure)
    both = sorted(others.intersection(_grants(cluster)))
    demand(not both, "P5", f"both clusters of one backup have granted under {both[:3]}")


def _other_grants(copy: Copy, before: SimCluster, seed: int, rng: random.Random) -> frozenset[int]:
    """Of a second cluster that goes on from the same backup."""
    options = Options(peers=1, faults=Faults(), formed=False)
    cluster = go_on(copy, before, seed, rng, options)
    cluster.submit(sim_job(TaskSet.of(0, 3), mean_us=1_000))
    cluster.run_for(ALONE_MS)
    grants = frozenset(_grants(cluster))
    assert grants
    return grants


def _grants(cluster: SimCluster) -> Iterator[int]:
    """Of its own generation."""
    shadow = cluster.referees.shadow
    return (g for g in shadow.granted_tasks if g >> INDEX_BITS == shadow.generation)
