"""The referees of a simulation: what must hold after every event, whatever went wrong.

They look at peers from outside and keep books of their own (`shadow`). A broken promise raises
`BrokenPromiseError`, named after the promise in `docs`: P1 durability, P4 Raft, P5 one owner, P6
one result, P8 reads, P9 idempotent submit, P14 determinism, E2 poison, E6 cancel, E9 backups.
"""

from __future__ import annotations

import zlib
from itertools import groupby

import msgspec

from p2psched.core.raft.state import LEADER
from p2psched.model import chunks
from p2psched.model.commands import (
    Acknowledged,
    Cancel,
    Command,
    Envelope,
    Forget,
    Granted,
    JobReopened,
    Outcome,
    Recorded,
    Stamped,
    SubmitJob,
    Submitted,
)
from p2psched.model.execution import Batch
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause
from p2psched.model.moves import Transfer
from p2psched.model.raft import (
    Entry,
    EntryKind,
    RaftMessage,
    SnapshotReply,
    VoteReply,
    VoteRequest,
)
from p2psched.testing.act_referee import ActReferee
from p2psched.testing.backup_referee import BackupReferee
from p2psched.testing.checkpoint_referee import CheckpointReferee
from p2psched.testing.cutoff_referee import CutOffReferee
from p2psched.testing.disk_referee import DiskReferee
from p2psched.testing.event_referee import EventReferee
from p2psched.testing.exclusive_referee import ExclusiveReferee
from p2psched.testing.facts import Fact, facts_of
from p2psched.testing.keep_referee import KeepReferee
from p2psched.testing.lock_referee import LockReferee
from p2psched.testing.member_referee import MemberReferee
from p2psched.testing.once_referee import OnceReferee
from p2psched.testing.order_referee import OrderReferee
from p2psched.testing.poison_referee import PoisonReferee
from p2psched.testing.preemption_referee import PreemptionReferee
from p2psched.testing.promises import BrokenPromiseError, demand
from p2psched.testing.queue_referee import QueueReferee
from p2psched.testing.shadow import ACTS_ONCE, Shadow
from p2psched.testing.sim_drains import is_drained
from p2psched.testing.sim_peer import SimPeer
from p2psched.testing.sim_world import Process
from p2psched.testing.snapshot_referee import SnapshotReferee
from p2psched.testing.steal_referee import StealReferee

__all__ = ["BrokenPromiseError", "Referees", "Start", "demand"]

_decode = msgspec.msgpack.Decoder(tuple[Envelope, ...]).decode


class Start(msgspec.Struct, frozen=True):
    """A task began somewhere."""

    at_us: int
    peer: PeerId
    process: int
    job: JobId
    index: int
    grant: int
    attempt: int


class Referees:
    """Cheap after each event: they look at what moved since they last looked at a peer."""

    def __init__(self) -> None:
        self.shadow = Shadow()
        self.committed: list[tuple[int, int]] = []  # term and checksum, from index 1
        self.entries: list[Entry] = []  # the same
        self.leaders: dict[int, PeerId] = {}  # term -> who led
        self.starts: list[Start] = []
        self.accepted: dict[JobId, None] = {}  # acknowledged to a caller
        self.cancelled: dict[JobId, int] = {}  # cancel acknowledged: by which command
        self.regrant_ms: list[int] = []  # from the crash of an owner to the next grant of its task
        self.now_us = 0
        self._expected: dict[int, list[Fact]] = {}  # command index -> facts, until a peer says them
        self._said = 0  # commands whose facts a peer has said; the others must have equal hashes
        self._votes: dict[tuple[PeerId, int], PeerId] = {}  # voter, term -> candidate
        self._committed_in: list[int] = []  # of each entry: the term of who first committed it
        self._last_command: list[int] = []  # of each entry, from index 1
        self._hashes: dict[int, str] = {}  # entry index -> state hash
        self._recorded: set[tuple[JobId, int]] = set()
        self._begun: dict[tuple[JobId, int, int, int], int] = {}  # with grant, attempt -> peer
        self._lost_us: dict[tuple[JobId, int], int] = {}
        self._once: list[tuple[int, Envelope]] = []  # with the entry that brought it
        self.disks, self.members = DiskReferee(), MemberReferee()
        self.keeping = KeepReferee(self.shadow)
        self.events = EventReferee()
        self.acts = ActReferee()
        self.locks = LockReferee()
        self.poison = PoisonReferee(self.shadow)
        self.queues = QueueReferee()
        self.steals = StealReferee()
        self.cutoff = CutOffReferee()
        self.once, self.exclusive = OnceReferee(self.shadow), ExclusiveReferee()
        self.backups, self.checkpoints = BackupReferee(), CheckpointReferee()
        self.preemption, self.order = PreemptionReferee(self.shadow), OrderReferee(self.shadow)
        self.snapshots = SnapshotReferee(self.committed, self._hashes, self._once)

    # --- after each event of a peer ---

    def look_at(self, peer: SimPeer) -> None:
        raft = peer.engine.raft
        state = raft.state
        if state.role is LEADER and state.term != peer.term_led:
            peer.term_led = raft.term
            self._on_leader(peer)
        if state.membership is not peer.membership_seen:
            self.members.look_at(peer)
        if state.commit > peer.commit_seen:
            start, peer.commit_seen = peer.commit_seen + 1, raft.commit
            if raft.commit > raft.last_index:
                demand(False, "P4", f"{peer.number} commits what it lacks")
            if raft.is_leader and raft.term_at(raft.commit) != raft.term:
                where = f"peer {peer.number} leads term {raft.term}"
                demand(False, "P4", f"{where} and commits up to an older one's entry")
            if raft.base_index >= start:  # what a snapshot stands for: see `snapshots`, too
                self._on_base(peer)
                start = raft.base_index + 1
            for entry in raft.entries(start, raft.commit + 1):
                self._on_committed(peer, entry)
            self.members.on_commit(peer)

    def _on_base(self, peer: SimPeer) -> None:
        raft = peer.engine.raft
        base = raft.base_index
        demand(
            base <= len(self.committed) and self.committed[base - 1][0] == raft.term_at(base),
            "P4",
            f"the log of peer {peer.number} goes on from entry {base}, which was not committed so",
        )

    def _on_leader(self, peer: SimPeer) -> None:
        raft = peer.engine.raft
        known = self.leaders.setdefault(raft.term, peer.id)
        demand(known == peer.id, "P4", f"two leaders in term {raft.term}")
        base, now = raft.base_index, raft.term
        if base:
            self._on_base(peer)
        for index, (term, _) in enumerate(self.committed[max(base, 1) - 1 :], start=max(base, 1)):
            # One that was elected long ago and learns of it now may lack what others did since.
            if self._committed_in[index - 1] < now and raft.term_at(index) != term:
                lacks = f"leads term {now} without committed entry {index}"
                demand(False, "P4", f"peer {peer.number} {lacks}")

    def _on_committed(self, peer: SimPeer, entry: Entry) -> None:
        seen = (entry.term, zlib.crc32(entry.payload, entry.stamp_ms & 0xFFFFFFFF))
        if entry.index <= len(self.committed):
            first = self.committed[entry.index - 1]
            if first != seen:
                what = f"entry {entry.index} was committed in term {first[0]}, and now peer"
                other = f"{peer.number} commits another one, of term {entry.term}"
                demand(False, "P4", f"{what} {other}")
            return
        demand(entry.index == len(self.committed) + 1, "P4", "a commit skips entries")
        self.on_first_committed(entry, seen, peer.engine.raft.term)

    def on_first_committed(self, entry: Entry, seen: tuple[int, int], term: int) -> None:
        self.committed.append(seen)
        self.entries.append(entry)
        self._committed_in.append(term)
        if entry.kind is EntryKind.MEMBERSHIP:
            self.members.on_committed(entry)
        if entry.kind is EntryKind.COMMANDS:
            for envelope in _decode(entry.payload):
                if isinstance(envelope.command, ACTS_ONCE):
                    self._once.append((entry.index, envelope))
                proposal, stamp_ms = (envelope.proposer, envelope.request), entry.stamp_ms
                self.members.on_command(envelope.command)
                self.keeping.on_committed(envelope.command, stamp_ms)
                self.poison.on_committed(envelope.command)
                self.cutoff.on_committed(envelope.command)
                facts = self.shadow.apply(envelope.command, proposal, stamp_ms=stamp_ms)
                self._expected[self.shadow.command] = facts
                self._note_regrants(facts)
                self.checkpoints.on_committed(facts)
                self.preemption.on_committed(envelope.command, facts)
                self.order.on_committed(facts)
                self.once.on_committed(envelope.command, facts)
                if isinstance(envelope.command, Transfer):
                    moves = self.shadow.moves.get(self.shadow.command, 0)
                    self.steals.on_committed(facts, moves)
        self._last_command.append(self.shadow.index)

    # --- what peers say ---

    def on_said(self, peer: SimPeer, to: PeerId, message: RaftMessage) -> None:
        """A peer gives one vote a term, its own candidature included, whatever it forgets."""
        match message:
            case VoteReply(term=term, granted=True, pre=False):
                candidate = to
            case VoteRequest(term=term, pre=False):
                candidate = peer.id
            case SnapshotReply():
                self.snapshots.on_said(peer, message)
                return
            case _:
                return
        known = self._votes.setdefault((peer.id, term), candidate)
        demand(known == candidate, "P4", f"peer {peer.number} votes twice in term {term}")

    def on_stored(self, peer: SimPeer, events: tuple[Stamped, ...], applied_index: int) -> None:
        """The events of all entries up to `applied_index` were said."""
        machine = peer.scheduler.machine
        state = machine.state_hash
        known = self._hashes.setdefault(machine.applied_index, state)
        if known != state:
            where = f"at entry {machine.applied_index} on peer {peer.number}"
            demand(False, "P14", f"states differ {where}")
        self.order.on_stored(machine, events)
        names = [getattr(stamped.event, "job", None) for stamped in events]
        touched = [name for name in dict.fromkeys(names) if name is not None]
        for name in touched:
            if name in machine.jobs:
                machine.jobs[name].check()
        if (touched or self.shadow.blamed) and machine.applied_index == len(self.committed):
            self.keeping.compare(machine, [*touched, *self.shadow.blamed])
        for command, group in groupby(events, key=lambda stamped: stamped.index):
            if command > self._said:
                self._on_first_said(peer, command, list(group))
        last = self._last_command[applied_index - 1]
        while self._expected and (command := next(iter(self._expected))) <= last:
            expected = self._expected.pop(command)
            demand(not expected, "P6", f"command {command} left out {expected[:3]}")
        self._said = max(self._said, last)

    def _on_first_said(self, peer: SimPeer, command: int, events: list[Stamped]) -> None:
        expected, said = self._expected[command], facts_of(events)
        if said != expected:
            less, more = _less(expected, said), _less(said, expected)
            where = f"command {command} on peer {peer.number}"
            demand(False, "P6", f"{where}: said {more}, expected {less}")
        self._expected[command] = []
        self.backups.on_events([stamped.event for stamped in events])
        for stamped in events:
            self.cutoff.on_event(stamped.event)
            match stamped.event:
                case Recorded():
                    self._on_recorded(command, stamped.event)
                case JobReopened(job=job, tasks=tasks):
                    self._recorded -= {(job, index) for index in tasks}
                    self.poison.on_reopened(job, tasks)
                case Granted(grant=grant):
                    demand(grant == command, "P5", f"grant {grant} came of command {command}")
                case _:
                    pass

    def _on_recorded(self, command: int, event: Recorded) -> None:
        self.keeping.on_recorded(event)
        self.poison.on_recorded(event)
        cancelled_by = self.cancelled.get(event.job, command)
        demand(command <= cancelled_by, "E6", f"a result of cancelled job {event.job}")
        values = chunks.unpack(event.segment.data)
        for index, value in zip(event.segment.tasks, values, strict=True):
            is_first = (event.job, index) not in self._recorded
            demand(is_first, "P6", f"a second result of task {event.job}/{index}")
            self._recorded.add((event.job, index))
            if event.segment.cause is Cause.OK:
                self.once.check_result(event.job, index, event.grant, value)

    def on_answered(self, command: Command, outcome: Outcome) -> None:
        match command, outcome:
            case SubmitJob(job=job), Submitted():
                known = job in self.shadow.jobs or job in self.shadow.forgotten
                demand(known, "P1", f"job {job} acknowledged, not committed")
                self.accepted[job] = None
            case Cancel(job=job), Acknowledged():
                self._on_cancelled(job)
            case Forget(job=job), Acknowledged():
                is_gone = job in self.shadow.forgotten
                demand(is_gone, "P9", f"job {job} is said to be forgotten, and is not")
            case _:
                pass

    def _on_cancelled(self, job: JobId) -> None:
        """Cancelled, or it had ended before; then it may run again, or be forgotten since."""
        if job in self.shadow.cancelled_by:
            self.cancelled[job] = self.shadow.cancelled_by[job]
        known = self.shadow.jobs.get(job)
        has_ended = known is not None and (known.state != "running" or known.ran_again)
        is_over = has_ended or job in self.shadow.forgotten
        demand(is_over, "E6", f"cancel of {job} acknowledged, not committed")

    def on_read(self, index: int, floor: int) -> None:
        demand(index >= floor, "P8", f"a read at {index} when {floor} was committed before it")

    def on_started(self, peer: Process, batch: Batch, index: int) -> None:
        job, tasks = self.shadow.granted_tasks.get(batch.grant, (None, frozenset()))
        demand(
            job == batch.job and index in tasks and self.shadow.holders[batch.grant][0] == peer.id,
            "P5",
            f"peer {peer.number} starts {batch.job}/{index} without a grant",
        )
        demand(
            not (peer.leaving or is_drained(peer)) or batch.id <= peer.last_batch,
            "E5",
            f"peer {peer.number} leaves or is drained, and starts {batch.job}/{index}",
        )
        key = (batch.job, index, batch.grant, batch.attempt)
        demand(
            key not in self._begun,
            "P5",
            f"peer {peer.number} starts {batch.job}/{index} under grant {batch.grant}, attempt "
            f"{batch.attempt}, as peer {self._begun.get(key)} did before",
        )
        self._begun[key] = peer.number
        self.cutoff.on_started(peer.id, batch, index)
        self.once.on_started(batch, index)
        self.order.on_started(batch.job, index)
        self.steals.on_started(batch, index, peer.number, (peer.id, peer.process))
        which = batch.job, index, batch.grant, batch.attempt
        self.starts.append(Start(self.now_us, peer.id, peer.process, *which))

    def on_left(self, peer: SimPeer) -> None:
        """A peer was told that it may stop: nobody has to miss it first."""
        incarnation, is_up = self.shadow.live.get(peer.id, (0, False))
        here = peer.scheduler.info.incarnation
        demand(
            not is_up or incarnation > here,
            "E5",
            f"peer {peer.number} may stop, and its incarnation {here} is up",
        )

    # --- how long it takes until lost tasks have another owner ---

    def on_crash(self, peer: SimPeer) -> None:
        self.poison.on_away(peer.id, peer.scheduler.info.incarnation)
        for task in self.shadow.owned_by(peer.id):
            self._lost_us.setdefault(task, self.now_us)

    def _note_regrants(self, facts: list[Fact]) -> None:
        if not self._lost_us:
            return
        for what, job, index, _ in facts:
            if what in {"granted", "promoted", "recorded"}:
                lost_us = self._lost_us.pop((JobId(job), index), None)
                if lost_us is not None and what != "recorded":
                    self.regrant_ms.append((self.now_us - lost_us) // 1000)

    # --- at the end, when nothing goes wrong any more ---

    def has_ended(self, peers: list[SimPeer]) -> bool:
        """True if every accepted job ended, every peer knows, and none lacks what it had."""
        if any(peer.engine.raft.is_regaining for peer in peers):
            return False
        machines = [peer.scheduler.machine for peer in peers]
        if not all(peer.alive for peer in peers) or any(machine.running for machine in machines):
            return False
        if any(machine.applied_index != len(self.committed) for machine in machines):
            return False
        known = {*machines[0].jobs, *self.shadow.forgotten}
        return known.issuperset(self.accepted)

    def check_end(self, peers: list[SimPeer]) -> None:
        """All peers know the same, and it is what the shadow says."""
        dumps = [peer.scheduler.machine.dump() for peer in peers]
        demand(all(dump == dumps[0] for dump in dumps), "P14", "peers end in different states")
        self.queues.check_end(peers)
        machine = peers[0].scheduler.machine
        for job in machine.jobs.values():
            job.check()
            state = self.shadow.jobs[job.id].state
            demand(str(job.state) == state, "P1", f"job {job.id} is {job.state}, not {state}")
        for name in self.accepted:
            is_known = name in machine.jobs or name in self.shadow.forgotten
            demand(is_known, "P1", f"accepted job {name} is lost")
        for name in self.shadow.forgotten:
            demand(name in machine.forgotten, "P9", f"the id of job {name} is free again")
        self.keeping.check_end(peers)
        self.poison.check_end()
        self.cutoff.check_end()
        for peer in peers:
            left = peer.scheduler.owner.kept()
            demand(not left, "L5", f"peer {peer.number} still works on {left}, all jobs ended")


def _less(facts: list[Fact], other: list[Fact]) -> list[Fact]:
    """A few of `facts` that the other side lacks."""
    return [fact for fact in facts if fact not in other][:3]
