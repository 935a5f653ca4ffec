"""The Raft machine: dispatches events to the families of messages and collects their effects."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from p2psched.core.raft import (
    election,
    group,
    membership,
    reads,
    regain,
    replication,
    room,
    snapshots,
    sparing,
    transfer,
)
from p2psched.core.raft.effects import (
    AddMember,
    HandOver,
    LoopLate,
    MemberEvent,
    Propose,
    RaftEffect,
    RaftEvent,
    Read,
    Receive,
    Regulate,
    RemoveMember,
    RoomChanged,
    SnapshotSaved,
    Synced,
    Tick,
    WantVoters,
    Wish,
)
from p2psched.core.raft.log import recovered_log
from p2psched.core.raft.progress import Compaction
from p2psched.core.raft.state import LEADER, RaftState, Role
from p2psched.core.raft.timing import NEVER_MS, Timing
from p2psched.model.ids import PeerId
from p2psched.model.raft import (
    Append,
    AppendReply,
    Entry,
    HardState,
    Member,
    Membership,
    ReadAsk,
    ReadReply,
    Room,
    Snapshot,
    SnapshotPiece,
    SnapshotReply,
    TimeoutNow,
    VoteReply,
    VoteRequest,
)


class Raft:
    """One member's view. `hard_state`, `entries` and `snapshot` are what its disk gave back: the
    entries go on behind the snapshot, or begin before it."""

    def __init__(
        self,
        *,
        me: PeerId,
        rng: random.Random,
        timing: Timing,
        hard_state: HardState,
        entries: Sequence[Entry],
        now_ms: int,
        snapshot: Snapshot | None = None,
        compaction: Compaction | None = None,
        lost: bool = False,
    ) -> None:
        """`lost`: the disk gave back less than this member knew; see `regain`."""
        self._s = self.state = RaftState(  # others only look at it
            me=me,
            rng=rng,
            timing=timing,
            hard_state=hard_state,
            log=recovered_log(entries, snapshot),
            snapshot=snapshot,
            compaction=compaction or Compaction(),
            now_ms=now_ms,
            lost=lost,
        )
        snapshots.drop_tail(self._s)

    def step(self, event: RaftEvent) -> list[RaftEffect]:
        """Take one event; perform the effects in order. Time never runs backwards."""
        s = self._s
        s.now_ms = max(s.now_ms, event.now_ms)
        match event:
            case Receive(sender=sender):
                self._receive(sender, event)
            case Synced():
                self._on_synced(event)
            case Propose(wall_ms=wall_ms, payload=payload, kind=kind):
                s.wall_ms = wall_ms
                if s.role is LEADER and not transfer.is_stopping(s):
                    replication.append_own(s, kind, payload, event.concerned, many=event.many)
                    replication.broadcast(s, heartbeat=False)
            case Tick():
                self._on_tick(event)
            case Read(read=read):
                reads.on_read(s, read)
            case AddMember() | RemoveMember() | Wish() | WantVoters() | Regulate():
                self._on_members(event)
            case SnapshotSaved() | RoomChanged() | HandOver() | LoopLate():
                self._on_own(event)
        if s.care.departing or s.care.halfway:
            membership.follow_up(s)
        return s.flush()

    def _on_tick(self, tick: Tick) -> None:
        s = self._s
        s.wall_ms = tick.wall_ms
        room.on_tick(s)
        election.on_tick(s)
        transfer.on_tick(s)
        if s.role is LEADER:
            replication.send_spared(s)
        membership.promote_if_due(s)

    def _on_members(self, event: MemberEvent) -> None:
        self._s.wall_ms = event.wall_ms
        match event:
            case AddMember(member=member):
                membership.on_add_member(self._s, member)
            case RemoveMember(peer=peer):
                membership.on_remove_member(self._s, peer)
            case Wish(peer=peer, votes=votes):
                membership.on_wish(self._s, peer, votes=votes)
            case WantVoters(count=count):
                membership.on_want(self._s, count)
            case Regulate(away_ms=away_ms):
                membership.regulate(self._s, away_ms)

    def _on_own(self, event: SnapshotSaved | RoomChanged | HandOver | LoopLate) -> None:
        match event:
            case SnapshotSaved(snapshot=snapshot):
                snapshots.on_saved(self._s, snapshot)
            case RoomChanged(room=now):
                self._s.room = now
            case HandOver(avoid=avoid):
                transfer.on_hand_over(self._s, avoid)
            case LoopLate(late_ms=late_ms):
                self._s.pace.on_late(late_ms)

    def _receive(self, sender: PeerId, event: Receive) -> None:
        s, message = self._s, event.message
        match message:
            case VoteRequest():
                election.on_vote_request(s, sender, message)
                return
            case VoteReply():
                election.on_vote_reply(s, sender, message)
                return
            case _ if message.term > s.term:
                leads = isinstance(message, Append | SnapshotPiece)
                s.enter_term(message.term, leader=sender if leads else None)
        match message:
            case Append() | SnapshotPiece() | TimeoutNow() | ReadReply():
                self._hear_leader(sender, message)
            case AppendReply() | SnapshotReply() | ReadAsk():
                self._hear_member(sender, message)

    def _hear_leader(
        self, sender: PeerId, message: Append | SnapshotPiece | TimeoutNow | ReadReply
    ) -> None:
        s = self._s
        match message:
            case Append():
                replication.on_append(s, sender, message)
            case SnapshotPiece():
                snapshots.on_piece(s, sender, message)
            case TimeoutNow():
                transfer.on_timeout_now(s, sender, message)
            case ReadReply(lost=True):
                regain.on_told(s, sender, message)
            case ReadReply():
                reads.on_read_reply(s, message)

    def _hear_member(self, sender: PeerId, message: AppendReply | SnapshotReply | ReadAsk) -> None:
        s = self._s
        match message:
            case AppendReply():
                room.on_reply(s, sender, message)
                replication.on_append_reply(s, sender, message)
                transfer.on_progress(s, sender)
                reads.answer_confirmed(s)
            case SnapshotReply():
                snapshots.on_reply(s, sender, message)
                reads.answer_confirmed(s)
            case ReadAsk(lost=True):
                regain.on_ask(s, sender, message)
            case ReadAsk():
                reads.on_read_ask(s, sender, message)

    def _on_synced(self, synced: Synced) -> None:
        for _ in self._s.take_synced(synced.token, synced.took_ms):
            election.count_vote(self._s, self._s.me)
        replication.advance_commit(self._s)
        regain.end_if_whole(self._s)

    # --- what others may look at ---

    @property
    def is_leader(self) -> bool:
        return self._s.role is LEADER

    @property
    def is_ready_leader(self) -> bool:
        """Leads and has committed in its own term."""
        return self.is_leader and self._s.commit >= self._s.leading_from

    @property
    def is_handing_over(self) -> bool:
        """Leads, and appends nothing because another is about to."""
        return transfer.is_stopping(self._s)

    @property
    def is_regaining(self) -> bool:
        """It lacks what it may have acknowledged, and does not vote."""
        return self._s.regain is not None

    @property
    def role(self) -> Role:
        return self._s.role

    @property
    def leader(self) -> PeerId | None:
        return self._s.leader

    @property
    def term(self) -> int:
        return self._s.term

    @property
    def vote(self) -> PeerId | None:
        return self._s.hard.vote

    @property
    def commit(self) -> int:
        return self._s.commit

    @property
    def last_index(self) -> int:
        return self._s.log.last_index

    @property
    def last_entry(self) -> Entry:
        """There is one."""
        return self._s.log.slice(self.last_index, self.last_index + 1)[0]

    @property
    def stable_index(self) -> int:
        return self._s.log.stable

    @property
    def base_index(self) -> int:
        """The last entry that is not in the log any more."""
        return self._s.log.base.index

    @property
    def snapshot(self) -> Snapshot | None:
        """The newest that is durable here."""
        return self._s.snapshot

    @property
    def sends_snapshot(self) -> bool:
        """On the leader: a live follower takes a snapshot just now; with the second newer one it
        would begin anew."""
        s = self._s
        heard_since = s.now_ms - s.timing.election_ms_max
        return any(
            p.sending is not None and p.contact_ms >= heard_since for p in s.progress.values()
        )

    def describe(self, index: int) -> Snapshot:
        """What a snapshot of the state at a committed entry, that the log still knows, says of
        the log; its size and digest are left open."""
        s = self._s
        assert s.log.base.index <= index <= s.commit
        base = s.log.base
        if index == base.index:
            return Snapshot(index, base.term, base.stamp_ms, s.membership_at(index))
        entry = s.log.slice(index, index + 1)[0]
        return Snapshot(index, entry.term, entry.stamp_ms, s.membership_at(index))

    @property
    def leader_heartbeat_ms(self) -> int:
        """How often our leader speaks, as it says; 0 if we lead or it doesn't say."""
        return self._s.pace.leader_heartbeat_ms

    @property
    def timing(self) -> Timing:
        """As it is just now: it adapts to disk, network and loop."""
        return self._s.timing

    @property
    def membership(self) -> Membership:
        return self._s.membership

    @property
    def is_settled(self) -> bool:
        """The membership is committed."""
        return self._s.membership_index <= self._s.commit

    def knows_removed(self, peer: PeerId) -> bool:
        """It is no member any more, for good, and this is committed."""
        return peer in self.removed

    @property
    def removed(self) -> tuple[PeerId, ...]:
        """Of the members that were removed the newest, once this is committed."""
        return self._s.membership.removed if self.is_settled else ()

    def view(self, away_ms: int) -> group.View:
        """On the leader: the group as it sees it."""
        return membership.view_of(self._s, away_ms)

    def matches(self) -> Mapping[PeerId, int]:
        """On the leader: other members -> up to which entry they have the log on their disks."""
        return {peer: p.match for peer, p in self._s.progress.items()}

    @property
    def may_change(self) -> bool:
        """On the leader: members may be changed now, one at a time."""
        return membership.may_change(self._s)

    def is_settled_member(self, member: Member) -> bool:
        """On the leader: the entry that made it a member, with just this address, is committed."""
        s = self._s
        return self.is_ready_leader and (
            s.membership_index <= s.commit and s.membership.member(member.peer) == member
        )

    def leader_is_live(self) -> bool:
        """A leader is known and was heard within the longest election timeout."""
        s = self._s
        return self.is_ready_leader or (
            s.leader not in (None, s.me)
            and s.now_ms - s.leader_heard_ms <= s.timing.election_ms_max
        )

    @property
    def word_ms(self) -> int | None:
        """When it last had a word of a leader, or as one of a majority; None: not yet."""
        s = self._s
        word_ms = election.heard_majority_ms(s) if s.role is LEADER else s.leader_heard_ms
        return None if word_ms == NEVER_MS else word_ms

    def entries(self, start: int, stop: int) -> list[Entry]:
        """Entries `start` to `stop - 1`."""
        return self._s.log.slice(start, stop)

    def term_at(self, index: int) -> int | None:
        return self._s.log.term_at(index)

    def contacts(self) -> Mapping[PeerId, int]:
        """On the leader: other members -> when they were last heard, on the events' clock, and
        could write to their disks."""
        return {peer: min(p.contact_ms, p.able_ms) for peer, p in self._s.progress.items()}

    @property
    def room(self) -> Room:
        return self._s.room

    def full_members(self) -> frozenset[PeerId]:
        """On the leader: those whose disks are full, this one among them."""
        return room.full_members(self._s)

    @property
    def due_ms(self) -> int:
        """When the next `Tick` is due."""
        s = self._s
        if s.role is not LEADER:
            return s.election_due_ms
        due_ms = min(s.heartbeat_due_ms, sparing.due_ms(s))
        return due_ms if s.transfer is None else min(due_ms, s.transfer.due_ms)
