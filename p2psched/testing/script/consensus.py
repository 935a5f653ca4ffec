"""A stage for Raft alone: what is proposed is text, and the state is the texts in order."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

import msgspec

from p2psched.core.raft.core import Raft
from p2psched.core.raft.effects import (
    AddMember,
    Commit,
    Compact,
    Installed,
    LeaderChanged,
    MemberEvent,
    MembershipChanged,
    Persist,
    Propose,
    RaftEffect,
    RaftEvent,
    Read,
    ReadReady,
    Receive,
    Regained,
    Regulate,
    RemoveMember,
    RoomChanged,
    Send,
    SendPiece,
    SnapshotSaved,
    Synced,
    Tick,
    WantVoters,
    Wish,
)
from p2psched.core.raft.state import Role
from p2psched.model.ids import PeerId
from p2psched.model.raft import (
    Entry,
    EntryKind,
    HardState,
    Member,
    RaftMessage,
    Room,
    Snapshot,
)
from p2psched.store.snapshots import described
from p2psched.testing.script.actor import COMPACTION, TIMING, Actor, Standing
from p2psched.testing.script.commands import Commands
from p2psched.testing.script.stage import Words
from p2psched.testing.script.words import entries_words, names, snapshot_words

WALL_MS: Final = 0  # is for people only
SHOWN_MAX: Final = 40  # characters of a text

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[str]).decode


class Node(Actor):
    """One member, with the driver's duties done by hand."""

    raft: Raft

    def begin(
        self,
        hard_state: HardState,
        entries: list[Entry],
        snapshot: Snapshot | None,
        state: bytes | memoryview,
    ) -> None:
        self.raft = Raft(
            me=self.id,
            rng=random.Random(self.name),
            timing=TIMING,
            hard_state=hard_state,
            entries=entries,
            now_ms=self.scene.now_ms,
            snapshot=snapshot,
            compaction=COMPACTION,
            lost=self.lost,
        )
        self.applied = snapshot.index if snapshot is not None else 0
        self.texts = _decode(state) if snapshot is not None else []
        self._role = Role.FOLLOWER
        self._reads: dict[int, int] = {}  # number -> what was committed when it was asked
        self._waiting: list[tuple[int, int]] = []  # number, what must be applied first
        self._next_read = 1

    # --- events ---

    def step(self, event: RaftEvent) -> None:
        effects = self.raft.step(event)
        self._tell_role()
        for effect in effects:
            self._perform(effect)
        self.sync_if_quick()

    def receive(self, sender: PeerId, message: msgspec.Struct) -> None:
        assert isinstance(message, RaftMessage)
        self.step(Receive(self.scene.now_ms, sender, message))

    def tick(self) -> None:
        self.step(Tick(self.scene.now_ms, WALL_MS))

    def on_synced(self, token: int) -> None:
        self.step(Synced(self.scene.now_ms, token))

    def propose(self, text: str) -> None:
        if not self.raft.is_leader:
            self.scene.say(f"{self.name} doesn't lead: nothing is proposed")
        self.step(Propose(self.scene.now_ms, WALL_MS, text.encode()))

    def add(self, member: Member) -> None:
        self.change(AddMember(self.scene.now_ms, WALL_MS, member))

    def remove(self, peer: PeerId) -> None:
        self.change(RemoveMember(self.scene.now_ms, WALL_MS, peer))

    def change(self, event: MemberEvent) -> None:
        before = self.raft.last_index
        self.step(event)
        if self.raft.last_index == before:
            self.scene.say(f"{self.name} changes no member now")

    def read(self) -> None:
        number, self._next_read = self._next_read, self._next_read + 1
        self._reads[number] = self.scene.referee.last_committed
        self.step(Read(self.scene.now_ms, number))

    def save_snapshot(self) -> None:
        state = _encode(self.texts)
        snapshot = described(self.raft.describe(self.applied), state)
        self.log.snapshots.save(snapshot, state)
        self.step(SnapshotSaved(self.scene.now_ms, snapshot))

    # --- effects ---

    def _tell_role(self) -> None:
        if self.raft.role is self._role:
            return
        self._role = self.raft.role
        self.scene.say(f"{self.name} is {self._role.value} in term {self.raft.term}", "roles")
        if self._role is Role.LEADER:
            self.scene.referee.on_leader(self.name, self.raft.term, self._has)

    def _has(self, entry: Entry) -> bool:
        if entry.index <= self.raft.base_index:
            return True
        return entry in self.raft.entries(entry.index, entry.index + 1)

    def _perform(self, effect: RaftEffect) -> None:
        say, name = self.scene.say, self.name
        match effect:
            case Persist():
                self.persist(effect)
            case Send(to=to, message=message):
                self.scene.post(name, to, message)
            case SendPiece():
                self.send_piece(effect)
            case Commit():
                self._apply()
            case ReadReady(read=read, index=index):
                self._on_read(read, index)
            case LeaderChanged(leader=leader, term=term):
                what = "may decide" if leader == self.id else f"follows {leader or 'nobody'}"
                say(f"{name} {what}, term {term}", "roles")
            case MembershipChanged(membership=membership):
                say(f"{name} counts {names(membership)}")
            case Compact():
                self.log.compact()
                say(f"{name} keeps entries from {self.raft.base_index + 1} on")
            case Installed() | Regained():
                self._on_whole(effect)

    def _on_whole(self, effect: Installed | Regained) -> None:
        match effect:
            case Installed(snapshot=snapshot):
                self._restore(snapshot)
            case Regained():
                self.scene.say(f"{self.name} has all of its log again, and votes", "roles")

    def _restore(self, snapshot: Snapshot) -> None:
        self.texts = _decode(self.log.snapshots.read(snapshot.index)[1])
        self.applied = snapshot.index
        what = f"snapshot {snapshot_words(snapshot)}: {self._state()}"
        self.scene.say(f"{self.name} restores {what}")
        self._apply()

    def _apply(self) -> None:
        raft = self.raft
        if not raft.base_index <= self.applied < raft.commit:
            return  # nothing new, or a snapshot is on its way to the disk
        entries = raft.entries(self.applied + 1, raft.commit + 1)
        self.applied = raft.commit
        for entry in entries:
            if entry.kind is EntryKind.COMMANDS:
                self.texts.append(entry.payload.decode())
            self.scene.referee.on_commit(self.name, entry)
        self.scene.say(f"{self.name} commits {entries_words(entries, self.scene.payload)}")
        self._answer()

    # --- reads ---

    def _on_read(self, read: int, index: int | None) -> None:
        floor = self._reads.pop(read, None)
        if floor is None:
            return  # a second answer to the same question
        if index is None:
            self.scene.say(f"{self.name} can't tell, read {read}")
            return
        self.scene.referee.on_read(self.name, index, floor)
        self._waiting.append((read, index))
        if index > self.applied:
            self.scene.say(f"{self.name} must apply {index} first, read {read}")
        self._answer()

    def _answer(self) -> None:
        ready = [read for read, index in self._waiting if index <= self.applied]
        self._waiting = [held for held in self._waiting if held[1] > self.applied]
        for read in ready:
            self.scene.say(f"{self.name} sees {self._state()}, read {read}")

    def _state(self) -> str:
        return " ".join(map(_short, self.texts)) or "nothing"

    # --- what others may look at ---

    def log_words(self) -> str:
        raft = self.raft
        entries = raft.entries(raft.base_index + 1, raft.last_index + 1)
        before = f"snapshot up to {raft.base_index}, " if raft.base_index else ""
        held = entries_words(entries, _text) or "no entries"
        return f"{before}{held}; committed {raft.commit}, on disk {raft.stable_index}"

    @property
    def raft_due_ms(self) -> int:
        return self.raft.due_ms

    @property
    def standing(self) -> Standing:
        raft = self.raft
        return Standing(
            raft.role,
            raft.term,
            raft.vote,
            raft.leader,
            raft.commit,
            raft.last_index,
            raft.membership,
        )


def _text(payload: bytes) -> str:
    return _short(payload.decode())


def _short(text: str) -> str:
    """Large texts are there for their size."""
    return text if len(text) <= SHOWN_MAX else f"{text[:3]}... ({len(text)} bytes)"


class ConsensusStage(Commands[Node]):
    """`cluster a b c` founds a group whose log holds one entry: who votes."""

    def make(self, name: str) -> Node:
        return Node(self, name)

    def payload(self, data: bytes) -> str:
        return _text(data)

    def go_on(self, actors: Sequence[Node]) -> bool:  # noqa: ARG002  # all of it is messages
        return False

    def do_room(self, words: Words) -> None:
        """room PEER enough|low|none: how much its disk takes."""
        actor, room = self.alive(words[0]), Room[words[1].upper()]
        self.act(actor, lambda: actor.step(RoomChanged(self.now_ms, room)))

    def do_regulate(self, words: Words) -> None:
        """regulate PEER MS: let it look after the group; away is who was silent for so long."""
        actor, away_ms = self.alive(words[0]), int(words[1])
        self.act(actor, lambda: actor.change(Regulate(self.now_ms, WALL_MS, away_ms)))

    def do_want(self, words: Words) -> None:
        """want LEADER NUMBER: so many voters."""
        leader, number = self.alive(words[0]), int(words[1])
        self.act(leader, lambda: leader.change(WantVoters(self.now_ms, WALL_MS, number)))

    def do_promote(self, words: Words) -> None:
        """promote LEADER PEER: somebody says that it shall vote."""
        self._wish(words, votes=True)

    def do_demote(self, words: Words) -> None:
        """demote LEADER PEER: somebody says that it shall not vote."""
        self._wish(words, votes=False)

    def _wish(self, words: Words, *, votes: bool) -> None:
        leader, peer = self.alive(words[0]), PeerId(words[1])
        self.act(leader, lambda: leader.change(Wish(self.now_ms, WALL_MS, peer, votes)))

    def do_propose(self, words: Words) -> None:
        """propose PEER TEXT [BYTES]: with so many bytes of it."""
        actor, text = self.alive(words[0]), words[1]
        size = int(words[2]) if len(words) > 2 else len(text)
        self.act(actor, lambda: actor.propose((text * size)[:size]))
