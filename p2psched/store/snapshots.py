"""Snapshots of the state on a peer's disk, one file each, beside the segments of the log.

    magic 8s | format u16 | zeros 2 | head bytes u32 | checksum u32 over all before it, and the head
    | head: MessagePack of `model.raft.Snapshot` | the state's bytes, whose digest the head holds

A file is written aside, synced, renamed, and its name synced, before anybody hears of it: so a file
with a snapshot's name is whole, or it is damaged. A state is never held in memory as a whole: it is
written, checked and sent in pieces, and whoever restores it looks at the file itself (`Disk.map`).

The newest two are kept, and the log from the older one on: a damaged one is stood in for by the one
before and the log. Where both fail the peer does not start: a state that lacks something would be
wrong without anybody noticing.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import msgspec

from p2psched.model.errors import Damaged, Refused
from p2psched.model.limits import KIB
from p2psched.model.raft import Entry, Snapshot
from p2psched.ports.disk import AppendFile, Disk
from p2psched.store.recovery import ADVICE, Findings
from p2psched.store.space import NO_SPACE, no_room

FORMAT: Final = 1
KEPT: Final = 2
INCOMING: Final = "snapshot.incoming"  # one of the leader's, on its way here
ANEW: Final = "snapshot.anew"  # the same, written once more
MAKING: Final = "snapshot.making"  # one of our own, which another thread may have open
DIGEST_BYTES: Final = 16
_READ_BYTES: Final = 256 * KIB  # at a time

_MAGIC: Final = b"p2psnap\n"
_FIXED: Final = struct.Struct("<8sHxxI")
_CHECKSUM: Final = struct.Struct("<I")
_NAME: Final = re.compile(r"snapshot-(\d{20})\.snap")
_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Snapshot).decode
_FIELDS: Final = Snapshot.__struct_fields__
_HEAD_BYTES_USUAL: Final = 4 * KIB
_HEAD_BYTES_MAX: Final = 1024 * KIB


def snapshot_name(index: int) -> str:
    return f"snapshot-{index:020d}.snap"


def _hasher() -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=DIGEST_BYTES)


def digest_of(state: bytes) -> bytes:
    hasher = _hasher()
    hasher.update(state)
    return hasher.digest()


def described(snapshot: Snapshot, state: bytes) -> Snapshot:
    """The snapshot with the size and the digest of its state."""
    return msgspec.structs.replace(snapshot, size=len(state), digest=digest_of(state))


def encode_head(snapshot: Snapshot) -> bytes:
    """Everything in front of the state's bytes. As long for any size of the state: the head is
    written when that is known, and the state stands behind it by then."""
    size = b"\xcf" + struct.pack(">Q", snapshot.size)  # MessagePack would take fewer bytes
    values = (getattr(snapshot, name) for name in _FIELDS)
    parts = [
        size if name == "size" else _encode(value)
        for name, value in zip(_FIELDS, values, strict=True)
    ]
    head = bytes([0x90 | len(parts)]) + b"".join(parts)
    fixed = _FIXED.pack(_MAGIC, FORMAT, len(head))
    return fixed + _CHECKSUM.pack(zlib.crc32(head, zlib.crc32(fixed))) + head


def check_file(disk: Disk, name: str) -> tuple[Snapshot, int]:
    """The snapshot in a file, and where its state begins, after a look at all of it. Raises
    Damaged, Refused for a newer format, or OSError."""
    snapshot, start = _read_head(disk, name)
    hasher, at = _hasher(), start
    while part := disk.read_part(name, at, _READ_BYTES):
        hasher.update(part)
        at += len(part)
    if at - start != snapshot.size or hasher.digest() != snapshot.digest:
        raise Damaged(
            f"{name} is damaged: its state fails its checksum. {ADVICE}", file=name, offset=start
        )
    return snapshot, start


def _read_head(disk: Disk, name: str) -> tuple[Snapshot, int]:
    fixed = _FIXED.size + _CHECKSUM.size
    data = disk.read_part(name, 0, fixed + _HEAD_BYTES_USUAL)
    if len(data) >= fixed:
        magic, version, size = _FIXED.unpack_from(data)
        end = fixed + size
        if magic == _MAGIC and len(data) < end <= _HEAD_BYTES_MAX:
            data = disk.read_part(name, 0, end)
        (checksum,) = _CHECKSUM.unpack_from(data, _FIXED.size)
        head = data[fixed:end]
        if magic == _MAGIC and zlib.crc32(head, zlib.crc32(data[: _FIXED.size])) == checksum:
            if version != FORMAT:
                raise Refused(
                    f"{name} is of format {version}, and this program reads {FORMAT}. Nothing was "
                    "changed. Start the newer p2psched that wrote it"
                )
            try:
                return _decode(head), end
            except msgspec.DecodeError:
                pass  # its checksum holds: it was written wrong
    raise Damaged(f"{name} is damaged in its head. {ADVICE}", file=name, offset=0)


class NewSnapshot:
    """One that is being made, piece by piece. May belong to another thread than `SnapshotFiles`.
    After an error nothing is left of it."""

    def __init__(self, disk: Disk, head: Snapshot) -> None:
        self._disk = disk
        self._head = msgspec.structs.replace(head, size=0, digest=bytes(DIGEST_BYTES))
        self._hasher = _hasher()
        self._size = 0
        self._file = disk.make(MAKING, len(encode_head(self._head)))

    def write(self, piece: bytes) -> None:
        """Raises OSError."""
        with self._or_drop():
            self._file.write(piece)
        self._hasher.update(piece)
        self._size += len(piece)

    def finish(self) -> Snapshot:
        """Durable on return, under its own name. Raises OSError."""
        digest = self._hasher.digest()
        made = msgspec.structs.replace(self._head, size=self._size, digest=digest)
        with self._or_drop():
            self._file.finish(encode_head(made))
            self._disk.rename(MAKING, snapshot_name(made.index))
        return made

    def drop(self) -> None:
        self._file.close()
        self._disk.remove(MAKING)

    @contextlib.contextmanager
    def _or_drop(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            # On a full disk the half-made file would hold the space that is missing.
            with contextlib.suppress(OSError):
                self.drop()
            raise


class SnapshotFiles:
    """The snapshots in one folder. `begin` and `read_piece` may run in other threads than the rest,
    which belongs to the log's."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._incoming: AppendFile | None = None
        self._installs: Snapshot | None = None  # has come in, and does not stand for the log yet
        self._in_doubt = False  # whether the disk has all of it
        self._gone_on = 0  # the snapshot of which pieces behind the first were read
        self.written_bytes = 0  # by this process

    def indices(self) -> list[int]:
        """Of the files that there are, oldest first."""
        return _indices(self._disk)

    def total_bytes(self) -> int:
        """Of the states; a damaged one counts as none."""
        sizes = 0
        for index in self.indices():
            with contextlib.suppress(Damaged):
                sizes += _read_head(self._disk, snapshot_name(index))[0].size
        return sizes

    def begin(self, head: Snapshot) -> NewSnapshot:
        """One of our own; `head` without size and digest. Raises OSError."""
        return NewSnapshot(self._disk, head)

    def note_made(self, snapshot: Snapshot) -> None:
        self.written_bytes += snapshot.size

    def save(self, snapshot: Snapshot, state: bytes) -> None:
        """A small one in one go. Durable on return. Raises OSError."""
        new = self.begin(snapshot)
        new.write(state)
        made = new.finish()
        assert made == snapshot
        self.note_made(made)

    def read(self, index: int) -> tuple[Snapshot, memoryview]:
        """The state is the file itself. Raises Damaged, or OSError (FileNotFoundError if there is
        none)."""
        name = snapshot_name(index)
        snapshot, start = check_file(self._disk, name)
        return snapshot, self._disk.map(name)[start:]

    def read_piece(self, snapshot: Snapshot, offset: int, size: int) -> bytes | None:
        """Bytes of the state, or None if this very snapshot is not there any more.

        Raises Damaged, where whoever takes the pieces begins anew because they didn't fit the
        digest: sent once more they never would. Looking before is too dear where they do."""
        name = snapshot_name(snapshot.index)
        try:
            found, start = _read_head(self._disk, name)
            if found != snapshot:
                return None
            if offset == 0 and (size == snapshot.size or self._gone_on == snapshot.index):
                self._gone_on = 0
                check_file(self._disk, name)
            elif offset:
                self._gone_on = snapshot.index
            return self._disk.read_part(name, start + offset, size)
        except FileNotFoundError:
            return None

    # --- one that comes in ---

    def take_piece(self, snapshot: Snapshot, offset: int, data: bytes) -> None:
        """Pieces follow each other; the first one throws away what came in before. Raises NoRoom
        if there is no space: then it may be repeated, and so may one that was taken."""
        if self._installs == snapshot:  # all are here
            return
        head = encode_head(snapshot)
        if offset == 0:
            self.drop_incoming()
            self._incoming = self._disk.open_append(INCOMING)
        assert self._incoming is not None, "a snapshot begins with its first piece"
        before = len(head) + offset if offset else 0
        if self._incoming.size != before:
            self._cut_incoming(before)
        try:
            self._incoming.write(data if offset else head + data)
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            self._cut_incoming(before)
            raise no_room(error) from error
        self.written_bytes += len(data)

    def _cut_incoming(self, size: int) -> None:
        assert self._incoming is not None
        self._incoming.close()
        self._disk.truncate(INCOMING, size)
        self._incoming = self._disk.open_append(INCOMING)

    def install(self, snapshot: Snapshot) -> None:
        """Make what came in durable under its own name, after a look at what the disk holds. Raises
        NoRoom, and may be repeated until `end_install`; or OSError, Damaged."""
        try:
            self._install(snapshot)
        except OSError as error:
            if error.errno not in NO_SPACE or INCOMING not in self._disk.names():
                raise  # of a name that was given nobody knows whether it is durable
            raise no_room(error) from error

    def _install(self, snapshot: Snapshot) -> None:
        self._installs = snapshot
        if self._incoming is not None:
            incoming, self._incoming = self._incoming, None
            try:
                incoming.sync()
            except OSError as error:
                if error.errno not in NO_SPACE:
                    raise
                self._in_doubt = True
            incoming.close()
        if self._in_doubt:
            self._write_incoming_anew()
            self._in_doubt = False
        if INCOMING in self._disk.names():
            found, _ = check_file(self._disk, INCOMING)
            assert found == snapshot
            self._disk.rename(INCOMING, snapshot_name(snapshot.index))

    def _write_incoming_anew(self) -> None:
        """After a sync that found no space its bytes are only in memory, and no second sync of that
        file would say more: they go to another file."""
        new, at = self._disk.make(ANEW, 0), 0
        try:
            while part := self._disk.read_part(INCOMING, at, _READ_BYTES):
                new.write(part)
                at += len(part)
            new.finish(b"")
        except OSError:
            new.close()
            self._disk.remove(ANEW)
            raise
        self._disk.rename(ANEW, INCOMING)

    def end_install(self) -> None:
        """It stands in the place of the log."""
        self._installs = None

    def drop_incoming(self) -> None:
        if self._incoming is not None:
            self._incoming.close()
            self._incoming = None
        if INCOMING in self._disk.names():
            self._disk.remove(INCOMING)

    def drop_unfinished(self) -> None:
        """At start: what a crash has left."""
        self.drop_incoming()
        for name in {MAKING, ANEW}.intersection(self._disk.names()):
            self._disk.remove(name)

    def prune(self, kept: int) -> None:
        """Remove all but the newest ones."""
        for index in self.indices()[:-kept]:
            self._disk.remove(snapshot_name(index))

    def close(self) -> None:
        if self._incoming is not None:
            self._incoming.close()


# --- at start -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """The snapshot that a peer starts from; None where the log is whole from its first entry."""

    snapshot: Snapshot | None
    state: bytes | memoryview
    damaged: tuple[str, ...]  # what was not used, though it was newer


def find_standing(disk: Disk, found: Findings) -> Standing:
    """The newest snapshot that is sound and that the log goes on from. Raises Damaged or Refused,
    and changes nothing."""
    damaged: list[str] = []
    newest = 0
    for index in reversed(_indices(disk)):
        name = snapshot_name(index)
        newest = max(newest, index)
        try:
            snapshot, start = check_file(disk, name)
            if snapshot.index != index:
                raise Damaged(f"{name} says that it is of entry {snapshot.index}. {ADVICE}")
        except Damaged:
            damaged.append(name)
            continue
        _check_cover(index, found, newest, damaged)
        state = disk.map(name)[start:]
        return Standing(snapshot=snapshot, state=state, damaged=tuple(damaged))
    _check_cover(0, found, newest, damaged)
    return Standing(snapshot=None, state=b"", damaged=tuple(damaged))


def entries_beside(standing: Standing, found: Findings) -> list[Entry] | None:
    """The entries that go with the snapshot; None if the log must begin anew behind it. A log that
    ends before it, or that says something else there, held entries that were never committed, or
    not yet: the snapshot counts."""
    snapshot = standing.snapshot
    if snapshot is None or snapshot.index + 1 == found.first:
        return found.entries
    place = snapshot.index - found.first
    if snapshot.index <= found.last_index and found.entries[place].term == snapshot.term:
        return found.entries
    return None


def _check_cover(index: int, found: Findings, newest: int, damaged: list[str]) -> None:
    """With a snapshot at `index` (0: with none) the log must lack nothing; behind a damaged one
    it must reach as far as that one did."""
    if found.first > index + 1 or (damaged and found.last_index < newest):
        what = f"With the snapshot of entry {index}" if index else "Without a snapshot"
        if damaged:
            what = f"{', '.join(damaged)} is damaged. {what}"
        raise Damaged(
            f"{what} and entries {found.first} to {found.last_index} of the log this peer would "
            f"lack what it knew. {ADVICE}"
        )


def snapshot_indices(disk: Disk) -> list[tuple[int, str]]:
    """The snapshots that there are and their files, oldest first."""
    return [(index, snapshot_name(index)) for index in _indices(disk)]


def _indices(disk: Disk) -> list[int]:
    return sorted(int(match[1]) for name in disk.names() if (match := _NAME.fullmatch(name)))
