"""The state that all families of Raft messages share, and the two rules that hold it together:

*Nobody speaks before the disk has it*: `promise` keeps a message back until the `Persist` that it
relies on is synced; `flush` (end of each step) issues at most one `Persist`.
*A term has one vote*: `enter_term` is the only place where the vote is cleared, and it only takes
higher terms.
"""

from __future__ import annotations

import enum
import random
from collections import deque
from collections.abc import Iterable
from typing import Final

import msgspec

from p2psched.core.raft.effects import (
    Installed,
    LeaderChanged,
    MembershipChanged,
    Persist,
    RaftEffect,
    ReadReady,
    Regained,
    Send,
    StorePiece,
)
from p2psched.core.raft.log import LogBase, RaftLog
from p2psched.core.raft.progress import (
    Care,
    Compaction,
    Incoming,
    OwnVote,
    Progress,
    Regain,
    RegainEnds,
    Sparing,
    Transfer,
)
from p2psched.core.raft.timing import NEVER_MS, Pace, Timing
from p2psched.model.ids import PeerId
from p2psched.model.raft import (
    Entry,
    EntryKind,
    HardState,
    Membership,
    RaftMessage,
    ReadReply,
    Room,
    Snapshot,
)

ROUNDS_KNOWN_MAX: Final = 64  # of which the round trip can still be told
SYNC_HANGS_MS: Final = 1_000  # a write that waits for so long says more than those before it


class Role(enum.Enum):
    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


class WaitingRead(msgspec.Struct, frozen=True):
    read: int
    asker: PeerId | None  # None: this peer
    index: int
    round: int


Concerned = frozenset[PeerId] | None  # who waits for a commit; None: everybody
Promised = Send | OwnVote | Installed | RegainEnds


class RaftState:
    """Mutable, owned by one `Raft`. The families of messages are functions over it."""

    def __init__(
        self,
        *,
        me: PeerId,
        rng: random.Random,
        timing: Timing,
        hard_state: HardState,
        log: RaftLog,
        snapshot: Snapshot | None,
        compaction: Compaction,
        now_ms: int,
        lost: bool = False,
    ) -> None:
        self.me = me
        self.rng = rng
        self.pace = Pace(timing)
        self.hard = hard_state
        self.log = log
        self.now_ms = now_ms
        self.room = Room.ENOUGH  # of our disk
        self.wall_ms = 0  # for people: stamped on entries, decides nothing
        self.synced_term = hard_state.term
        self.role = Role.FOLLOWER
        self.leader: PeerId | None = None
        self.snapshot = snapshot  # the newest that is durable here
        self.compaction = compaction
        self.incoming: Incoming | None = None
        self.regain = Regain(rng.getrandbits(48)) if lost else None
        self.commit = snapshot.index if snapshot else 0
        self.leader_heard_ms = NEVER_MS  # on a leader: a majority, as of its last tick
        self.election_due_ms = 0
        self.heartbeat_due_ms = 0
        self.votes: set[PeerId] = set()
        self.progress: dict[PeerId, Progress] = {}
        self.round = 0
        self.rounds_ms: deque[int] = deque(maxlen=ROUNDS_KNOWN_MAX)  # when the newest began
        self.reads: list[WaitingRead] = []
        self.transfer: Transfer | None = None  # of our lead to another
        self.transfer_again_ms = 0  # not by ourselves before
        self.leading_from = 0  # index of the no-op that opened our term as leader
        self.care = Care()
        self.sparing = Sparing()
        self.stamp_base_ms = 0
        self.clock_base_ms = 0
        self._memberships: list[tuple[int, Membership]] = []
        if snapshot is not None:
            self._memberships.append((snapshot.index, snapshot.membership))
        self._memberships += [
            (entry.index, decode_membership(entry))
            for entry in log.slice(log.first, log.last_index + 1)
            if entry.kind is EntryKind.MEMBERSHIP and entry.index > self.commit
        ]
        self._out: list[RaftEffect] = []
        self._hard_dirty = False
        self._truncate: int | None = None
        self._unwritten: list[Entry] = []
        self._piece: StorePiece | None = None
        self._install: Snapshot | None = None
        self._regained = False
        self._promises: list[Promised] = []
        self._waiting: deque[tuple[int, Promised]] = deque()
        # [token, last index, term] once it is synced, and when it began
        self._writes: deque[list[int]] = deque()
        self._token = 0
        self.reset_election_timer()
        if self.may_vote and self.is_majority([me]):
            self.election_due_ms = now_ms  # the only voter has nobody to wait for

    @property
    def timing(self) -> Timing:
        """Of now: it adapts."""
        return self.pace.timing

    # --- who belongs ---

    @property
    def term(self) -> int:
        return self.hard.term

    @property
    def membership(self) -> Membership:
        return self._memberships[-1][1] if self._memberships else Membership()

    @property
    def membership_index(self) -> int:
        return self._memberships[-1][0] if self._memberships else 0

    def others(self) -> list[PeerId]:
        members = (*self.membership.voters, *self.membership.learners)
        return [member.peer for member in members if member.peer != self.me]

    @property
    def may_vote(self) -> bool:
        """False while this member lacks what it may have acknowledged: see `regain`."""
        return self.regain is None

    def is_majority(self, peers: Iterable[PeerId]) -> bool:
        """True if `peers` (counted once each) hold more than half of the votes."""
        voters = {member.peer for member in self.membership.voters}
        return len(voters.intersection(peers)) * 2 > len(voters)

    # --- log ---

    def append(self, entry: Entry) -> None:
        self.log.append(entry)
        self._unwritten.append(entry)
        if entry.kind is EntryKind.MEMBERSHIP:
            self._memberships.append((entry.index, decode_membership(entry)))
            self.emit(MembershipChanged(self.membership))

    def truncate_from(self, index: int) -> None:
        assert index > self.commit, "a committed entry is never dropped"
        self.log.truncate_from(index)
        self._unwritten = [entry for entry in self._unwritten if entry.index < index]
        self._truncate = index if self._truncate is None else min(index, self._truncate)
        for write in self._writes:
            write[1] = min(write[1], index - 1)
        while self._memberships and self._memberships[-1][0] >= index:
            self._memberships.pop()
            self.emit(MembershipChanged(self.membership))

    def membership_at(self, index: int) -> Membership:
        """Who belonged as of a committed entry that is not older than the newest snapshot."""
        known = [membership for since, membership in self._memberships if since <= index]
        return known[-1] if known else Membership()

    def drop_until(self, index: int) -> None:
        """Drop committed entries that a durable snapshot covers."""
        assert self.snapshot is not None
        assert index <= self.snapshot.index <= self.commit
        self.log.drop_until(index)

    def note_snapshot(self, snapshot: Snapshot) -> None:
        """A snapshot of ours is durable: it stands for the memberships of its entries, too."""
        assert snapshot.index <= self.commit
        newer = [held for held in self._memberships if held[0] > snapshot.index]
        before = [since for since, _ in self._memberships if since <= snapshot.index]
        since = before[-1] if before else snapshot.index
        self._memberships = [(since, snapshot.membership), *newer]
        self.snapshot = snapshot

    def store_piece(self, piece: StorePiece) -> None:
        assert self._piece is None
        self._piece = piece

    def install(self, snapshot: Snapshot) -> None:
        """Put a whole snapshot of the leader in the place of our log. It counts as ours only when
        it is on disk; until then we stand by what we had committed before, no more."""
        assert snapshot.index > self.commit
        assert not self._unwritten
        # Of the old log only what is committed is sure to agree with the leader's.
        stable = min(self.log.stable, self.commit)
        for write in self._writes:
            write[1] = min(write[1], self.commit)
        self.log.reset(LogBase(snapshot.index, snapshot.term, snapshot.stamp_ms), stable=stable)
        self._truncate = None
        self._install = snapshot
        self.commit = snapshot.index
        before, self._memberships = self.membership, [(snapshot.index, snapshot.membership)]
        if before != self.membership:
            self.emit(MembershipChanged(self.membership))
        self._promises.append(Installed(snapshot))

    # --- terms and votes ---

    def enter_term(self, term: int, *, leader: PeerId | None = None) -> None:
        """Follow in a higher term. Nothing of the old one is promised any more."""
        assert term > self.term
        self.hard = HardState(term, None)
        self._hard_dirty = True
        self.become_follower(leader)

    def vote_for(self, peer: PeerId) -> None:
        assert self.hard.vote in (None, peer)
        self.hard = HardState(self.term, peer)
        self._hard_dirty = True

    def become_follower(self, leader: PeerId | None) -> None:
        """Follow `leader` (None: nobody known) in the current term. The vote stays as it is."""
        for read in self.reads:
            self.answer_read(read, None)
        self.reads.clear()
        self.progress.clear()
        self.transfer = None
        self.votes.clear()
        self.role = Role.FOLLOWER
        self.set_leader(leader)
        self.reset_election_timer()

    def set_leader(self, leader: PeerId | None) -> None:
        if leader != self.leader:
            self.leader = leader
            if leader != self.me:
                self.emit(LeaderChanged(leader, self.term))

    def answer_read(self, read: WaitingRead, index: int | None) -> None:
        if read.asker is None:
            self.emit(ReadReady(read.read, index))
        else:
            self.send(read.asker, ReadReply(self.term, read.read, -1 if index is None else index))

    def reset_election_timer(self) -> None:
        low, high = self.timing.election_ms_min, self.timing.election_ms_max
        # With a full disk the others come first; but better such a leader than none.
        after_ms = 2 * high if self.room is not Room.ENOUGH else 0
        self.election_due_ms = self.now_ms + after_ms + self.rng.randrange(low, high)

    # --- effects ---

    def emit(self, effect: RaftEffect) -> None:
        self._out.append(effect)

    def send(self, to: PeerId, message: RaftMessage) -> None:
        """Send what promises nothing that isn't on disk already."""
        self._out.append(Send(to, message))

    def promise(self, to: PeerId, message: RaftMessage) -> None:
        """Send once everything that this step and the ones before wrote is on disk."""
        self._promises.append(Send(to, message))

    def end_regain(self) -> None:
        self._regained = True
        self._promises.append(RegainEnds())

    def promise_own_vote(self) -> None:
        self._promises.append(OwnVote(self.term))

    def flush(self) -> list[RaftEffect]:
        """End of a step: what it wrote becomes one `Persist`; what relies on that waits for it."""
        out, self._out = self._out, []
        if (
            self._hard_dirty
            or self._truncate is not None
            or self._unwritten
            or self._piece is not None
            or self._regained
        ):
            # Before the sends: a driver that writes at once loses no time, and none is allowed to
            # reorder a promise before its write.
            out.insert(0, self._next_write())
        for promised in self._promises:
            if self._writes:
                self._waiting.append((self._token, promised))
            elif isinstance(promised, Send):
                out.append(promised)
            else:
                raise AssertionError("a vote or a snapshot is always written first")
        self._promises.clear()
        return out

    def _next_write(self) -> Persist:
        self._token += 1
        persist = Persist(
            token=self._token,
            hard_state=self.hard if self._hard_dirty else None,
            truncate_from=self._truncate,
            entries=tuple(self._unwritten),
            piece=self._piece,
            install=self._install,
            regained=self._regained,
        )
        self._writes.append([self._token, self.log.last_index, self.term, self.now_ms])
        self._hard_dirty, self._truncate, self._unwritten = False, None, []
        self._piece = self._install = None
        self._regained = False
        return persist

    def take_synced(self, token: int, took_ms: float) -> list[OwnVote]:
        """Note that writes up to `token` are on disk; release what waited for them. Returns own
        votes of the current term that count from now on."""
        self.pace.on_sync(took_ms)
        while self._writes and self._writes[0][0] <= token:
            _, index, self.synced_term, _ = self._writes.popleft()
            self.log.stable = max(self.log.stable, index)
        assert self.log.stable <= self.log.last_index
        own_votes = []
        installed: Installed | None = None
        while self._waiting and self._waiting[0][0] <= token:
            _, promised = self._waiting.popleft()
            if isinstance(promised, Installed):  # true in whatever term
                installed = promised
            elif isinstance(promised, RegainEnds):
                self.regain = None
                self.emit(Regained())
            elif isinstance(promised, OwnVote):
                if promised.term == self.term:
                    own_votes.append(promised)
            elif promised.message.term == self.term:  # promises of older terms are void
                self.emit(promised)
        if installed is not None:
            # Of several that one sync made durable only the last is still on the disk.
            self.snapshot = installed.snapshot
            self.emit(installed)
        return own_votes

    @property
    def all_synced(self) -> bool:
        return not self._writes

    @property
    def sync_ms(self) -> float:
        """What a sync of our disk takes: the moving average, or the age of one that hangs."""
        age_ms = self.now_ms - self._writes[0][3] if self._writes else 0
        return max(self.pace.sync_ms, age_ms if age_ms >= SYNC_HANGS_MS else 0)

    def stamp_ms(self) -> int:
        """Ledger time on the leader: the log's last stamp, plus what our clock counted since."""
        counted = self.stamp_base_ms + self.now_ms - self.clock_base_ms
        return max(counted, self.log.last_stamp_ms)


LEADER: Final = Role.LEADER  # asked all the time; in its class it takes six times as long
_MEMBERSHIP, _ENCODER = msgspec.msgpack.Decoder(Membership), msgspec.msgpack.Encoder()


def decode_membership(entry: Entry) -> Membership:
    return _MEMBERSHIP.decode(entry.payload)


def encode_membership(membership: Membership) -> bytes:
    return _ENCODER.encode(membership)
