"""Raft cores in a row, wired by hand: messages wait in a list until a test lets them through."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from p2psched.core.raft.core import Raft
from p2psched.core.raft.effects import (
    AddMember,
    HandOver,
    LeaderChanged,
    Persist,
    Propose,
    RaftEffect,
    RaftEvent,
    Read,
    ReadReady,
    Receive,
    RemoveMember,
    Send,
    Synced,
    Tick,
)
from p2psched.core.raft.state import Role, encode_membership
from p2psched.core.raft.timing import Timing
from p2psched.model.ids import PeerId
from p2psched.model.raft import (
    Append,
    AppendReply,
    Entry,
    EntryKind,
    HardState,
    Member,
    Membership,
    RaftMessage,
    VoteReply,
    VoteRequest,
)

ABC = (PeerId("a"), PeerId("b"), PeerId("c"))
TIMING = Timing()


def member(peer: str, *, votes: bool = True) -> Member:
    return Member(PeerId(peer), peer, f"{peer}:1", votes)


def entry(index: int, term: int, payload: bytes = b"") -> Entry:
    kind = EntryKind.COMMANDS if payload else EntryKind.NOOP
    return Entry(index, term, kind, 0, 0, payload)


def founding(voters: Sequence[str], learners: Sequence[str] = ()) -> Entry:
    """Entry 1: who belongs."""
    membership = Membership(tuple(map(member, voters)), tuple(map(member, learners)))
    return Entry(1, 1, EntryKind.MEMBERSHIP, 0, 0, encode_membership(membership))


class Node:
    """One core with a disk that syncs when it is told to, or at once."""

    def __init__(
        self,
        me: str,
        *,
        voters: Sequence[str] = ABC,
        entries: Sequence[Entry] = (),
        term: int = 1,
        vote: str | None = None,
        syncs_at_once: bool = True,
    ) -> None:
        self.raft = Raft(
            me=PeerId(me),
            rng=random.Random(me),
            timing=TIMING,
            hard_state=HardState(term, PeerId(vote) if vote else None),
            entries=[founding(voters), *entries],
            now_ms=0,
        )
        self.now_ms = 0
        self.syncs_at_once = syncs_at_once
        self.sync_ms = 0.0  # that each sync is said to have taken
        self.unsynced: list[Persist] = []
        self.sent: list[Send] = []
        self.others: list[RaftEffect] = []  # effects besides writes and messages

    def step(self, event: RaftEvent) -> None:
        self._perform(self.raft.step(event))

    def _perform(self, effects: Sequence[RaftEffect]) -> None:
        for effect in effects:
            match effect:
                case Persist():
                    self.unsynced.append(effect)
                case Send():
                    self.sent.append(effect)
                case _:
                    self.others.append(effect)
        if self.syncs_at_once and self.unsynced:
            self.sync()

    def sync(self) -> None:
        token = self.unsynced[-1].token
        self.unsynced.clear()
        self.step(Synced(self.now_ms, token, self.sync_ms))

    def receive(self, sender: str, message: RaftMessage) -> list[RaftMessage]:
        """Take a message; what is sent because of it."""
        self.sent.clear()
        self.step(Receive(self.now_ms, PeerId(sender), message))
        return [send.message for send in self.sent]

    def time_out(self) -> list[Send]:
        """Let the next timer fire."""
        self.sent.clear()
        self.now_ms = max(self.now_ms, self.raft.due_ms)
        self.step(Tick(self.now_ms, 0))
        return list(self.sent)

    def wait(self, duration_ms: int) -> None:
        """Time passes, and nothing happens in it."""
        self.now_ms += duration_ms

    def propose(self, payload: bytes, *concerned: str, many: bool = False) -> None:
        """Without names it concerns everybody."""
        peers = frozenset(map(PeerId, concerned)) if concerned else None
        self.step(Propose(self.now_ms, 0, payload, concerned=peers, many=many))

    def hand_over(self) -> list[Send]:
        """What is sent because of it."""
        self.sent.clear()
        self.step(HandOver(self.now_ms))
        return list(self.sent)

    def read(self, number: int) -> None:
        self.step(Read(self.now_ms, number))

    def add(self, peer: str, *, votes: bool = True) -> None:
        self.step(AddMember(self.now_ms, 0, member(peer, votes=votes)))

    def remove(self, peer: str) -> None:
        self.step(RemoveMember(self.now_ms, 0, PeerId(peer)))

    def is_now(self, role: Role) -> bool:
        return self.raft.role is role

    @property
    def reads(self) -> list[ReadReady]:
        return [effect for effect in self.others if isinstance(effect, ReadReady)]

    @property
    def leaders(self) -> list[LeaderChanged]:
        return [effect for effect in self.others if isinstance(effect, LeaderChanged)]

    def terms(self) -> list[int]:
        return [e.term for e in self.raft.entries(1, self.raft.last_index + 1)]

    def step_vote(self, voter: str, *, pre: bool) -> None:
        """A vote for what this node asks for now."""
        term = self.raft.term + 1 if pre else self.raft.term
        self.receive(voter, VoteReply(term, True, pre))

    def become_candidate(self) -> None:
        """Win the pre-vote of one other, and campaign."""
        asked = [send for send in self.time_out() if isinstance(send.message, VoteRequest)]
        self.receive(asked[0].to, VoteReply(self.raft.term + 1, True, pre=True))
        assert self.is_now(Role.CANDIDATE)

    def lead(self, *voters: str) -> None:
        """Win an election with the votes of others, one if none are named."""
        self.become_candidate()
        for voter in voters or [p for p in ABC if p != self.raft._s.me][:1]:
            self.receive(voter, VoteReply(self.raft.term, True, pre=False))
        assert self.is_now(Role.LEADER)

    def ack(self, sender: str, match: int | None = None) -> list[RaftMessage]:
        """An answer to an append: everything up to `match`, or all, is on the sender's disk."""
        upto = self.raft.last_index if match is None else match
        reply = AppendReply(self.raft.term, self.raft._s.round, True, upto)
        return self.receive(sender, reply)


def appends(sent: Sequence[RaftMessage]) -> list[Append]:
    return [message for message in sent if isinstance(message, Append)]


class Group:
    """Nodes that deliver to each other until they are quiet, unless `lost` says no."""

    def __init__(self, *nodes: Node) -> None:
        self.nodes = {node.raft._s.me: node for node in nodes}
        self.lost: Callable[[PeerId, Send], bool] = lambda sender, send: False

    def settle(self, rounds: int = 50) -> None:
        for _ in range(rounds):
            moved = False
            for me, node in self.nodes.items():
                sent, node.sent = node.sent, []
                for send in sent:
                    if send.to in self.nodes and not self.lost(me, send):
                        target = self.nodes[send.to]
                        target.step(Receive(target.now_ms, me, send.message))
                        moved = True
            if not moved:
                return
        raise AssertionError("the group never becomes quiet")

    def pass_time(self, duration_ms: int) -> None:
        """All clocks run; timers fire when they are due; messages arrive at once."""
        until = max(node.now_ms for node in self.nodes.values()) + duration_ms
        while True:
            node = min(self.nodes.values(), key=lambda n: (n.raft.due_ms, n.raft._s.me))
            now_ms = node.raft.due_ms
            if now_ms > until:
                return
            for other in self.nodes.values():
                other.now_ms = max(other.now_ms, now_ms)
            node.step(Tick(now_ms, 0))
            self.settle()
