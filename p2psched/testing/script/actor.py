"""A peer on a stage: a disk, and a process on it that does one thing when it is told to.

What it writes is written at once with the real log format. It is synced at once, too, unless its
disk is `slow`: then when the script says so. It refuses nothing: what a core asserts stops it, and
the output says so.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from typing import Final, Protocol

import msgspec

from p2psched.core.raft.effects import Persist, SendPiece
from p2psched.core.raft.progress import Compaction
from p2psched.core.raft.state import Role
from p2psched.core.raft.timing import Timing
from p2psched.model.ids import PeerId
from p2psched.model.raft import (
    Entry,
    HardState,
    Member,
    Membership,
    Snapshot,
    SnapshotPiece,
)
from p2psched.store.log import LogStore
from p2psched.store.persist import perform
from p2psched.store.regain import open_or_regain
from p2psched.testing.script.referee import Referee
from p2psched.testing.script.words import entries_words, persist_words, usual_address
from p2psched.testing.sim_disk import SimDisk

# Every election timeout is the same, so that scripts know when: 500 ms.
TIMING: Final = Timing(heartbeat_ms=100, election_ms_min=500, election_ms_max=501)
# A snapshot stands for all that it covers, and travels in pieces of a size that scripts can drop.
COMPACTION: Final = Compaction(0, 0, 0, 1 << 18)
SEGMENT_BYTES: Final = 1 << 16


class Mishap(random.Random):
    """What a disk does with unsynced bytes when its power goes, chosen and not drawn."""

    def __init__(self) -> None:
        super().__init__(0)
        self.keeps_half = False

    def random(self) -> float:
        return 0.99  # of names and cuts nothing that wasn't synced has happened

    def randrange(self, *_: object) -> int:
        return 2 if self.keeps_half else 0  # `sim_disk._torn`: a part of it, or nothing

    def randint(self, a: int, b: int) -> int:
        return (a + b) // 2


class Scene(Protocol):
    """The stage, as a peer sees it."""

    now_ms: int
    referee: Referee

    def payload(self, data: bytes) -> str:
        """What an entry of commands holds."""
        ...

    def say(self, line: str, topic: str = "") -> None: ...

    def post(self, sender: str, to: str, message: msgspec.Struct) -> None: ...

    def founding(self, name: str) -> tuple[HardState, list[Entry]]: ...


class Actor(ABC):
    """One peer; `alive` while there is a process."""

    def __init__(self, scene: Scene, name: str) -> None:
        self.scene = scene
        self.name = name
        self.id = PeerId(name)
        self.mishap = Mishap()
        self.disk = SimDisk(self.mishap)
        self.alive = False
        self.paused = False
        self.asks_others = False  # for what its log lost
        self.lost = False  # it lacks what it had acknowledged
        self.slow = self.stuck = False  # its disk
        self.address = usual_address(name)
        self.log: LogStore
        self._written = self._synced = 0  # tokens
        self._unwritten: list[Persist] = []

    # --- life ---

    def boot(self) -> None:
        """Start a process from what is on the disk. Raises Damaged."""
        assert not self.alive
        self._written = self._synced = 0
        self._unwritten = []
        is_new = not self.disk.names()
        self.log, found = open_or_regain(
            self.disk, has_others=self.asks_others, segment_bytes_max=SEGMENT_BYTES
        )
        self.lost = found.lost is not None
        hard_state, entries = found.hard_state, found.entries
        if is_new:
            hard_state, entries = self.scene.founding(self.name)
            self.log.write(hard_state=hard_state, truncate_from=None, entries=entries)
            self.log.sync()
        else:
            self._tell_recovered(hard_state, entries, found.snapshot, torn=bool(found.torn_bytes))
        self.alive = True
        self.begin(hard_state, entries, found.snapshot, found.state)

    def _tell_recovered(
        self,
        hard_state: HardState,
        entries: list[Entry],
        snapshot: Snapshot | None,
        *,
        torn: bool,
    ) -> None:
        parts = [f"term {hard_state.term}, vote {hard_state.vote or '-'}"]
        if snapshot is not None:
            parts.append(f"snapshot {snapshot.index}@{snapshot.term}")
            entries = [entry for entry in entries if entry.index > snapshot.index]
        parts.append(f"log {entries_words(entries, self.scene.payload) or 'empty'}")
        if torn:
            parts.append("a torn tail was cut")
        self.scene.say(f"{self.name} starts with " + "; ".join(parts), "writes")

    def die(self, *, power_lost: bool) -> None:
        self.alive = self.paused = False
        if power_lost:
            self.disk.crash()
        else:
            self.disk.kill()

    # --- the disk ---

    def persist(self, effect: Persist) -> None:
        words = persist_words(effect, self.scene.payload)
        waits = ", not yet" if self.stuck else ", not synced" if self.slow else ""
        self.scene.say(f"{self.name} writes {words}{waits}", "writes")
        if self.stuck:
            self._unwritten.append(effect)
        else:
            self._write(effect)

    def _write(self, effect: Persist) -> None:
        perform(self.log, effect)
        self._written = effect.token

    def sync(self) -> None:
        """What is written is durable from now on, and so on until nothing is left to sync."""
        while self.alive and (self._unwritten or self._synced < self._written):
            waiting, self._unwritten = self._unwritten, []
            for effect in waiting:
                self._write(effect)
            self.log.sync()
            self._synced = self._written
            self.on_synced(self._written)

    def sync_if_quick(self) -> None:
        if not self.slow:
            self.sync()

    def send_piece(self, effect: SendPiece) -> None:
        data = self.log.snapshots.read_piece(effect.snapshot, effect.offset, effect.size)
        if data is not None:
            piece = SnapshotPiece(effect.term, effect.round, effect.snapshot, effect.offset, data)
            self.scene.post(self.name, effect.to, piece)

    # --- of the kind of stage ---

    @abstractmethod
    def begin(
        self,
        hard_state: HardState,
        entries: list[Entry],
        snapshot: Snapshot | None,
        state: bytes | memoryview,
    ) -> None:
        """The process comes up."""

    @abstractmethod
    def receive(self, sender: PeerId, message: msgspec.Struct) -> None: ...

    @abstractmethod
    def tick(self) -> None: ...

    @abstractmethod
    def on_synced(self, token: int) -> None: ...

    @abstractmethod
    def add(self, member: Member) -> None: ...

    @abstractmethod
    def remove(self, peer: PeerId) -> None: ...

    @abstractmethod
    def read(self) -> None: ...

    @abstractmethod
    def save_snapshot(self) -> None: ...

    @abstractmethod
    def log_words(self) -> str: ...

    @property
    @abstractmethod
    def raft_due_ms(self) -> int:
        """When Raft's timer fires."""

    @property
    def due_ms(self) -> int:
        """When the next timer fires."""
        return self.raft_due_ms

    @property
    @abstractmethod
    def standing(self) -> Standing: ...


class Standing(msgspec.Struct, frozen=True):
    """What a peer is just now, as far as Raft is concerned."""

    role: Role
    term: int
    vote: PeerId | None
    leader: PeerId | None
    commit: int
    last_index: int
    membership: Membership

    @property
    def leads(self) -> bool:
        return self.role is Role.LEADER

    def __str__(self) -> str:
        led = "" if self.role is Role.LEADER else f" of {self.leader or 'nobody'}"
        who = f"{self.role.value}{led}" if self.role in LED else self.role.value
        return (
            f"{who}, term {self.term}, vote {self.vote or '-'}, "
            f"committed {self.commit} of {self.last_index}"
        )


LED: Final = (Role.FOLLOWER, Role.LEADER)
