"""Snapshots of the state on a peer's disk, one file each, beside the segments of the log.

    magic 8s | format u16 | zeros 2 | head bytes u32 | checksum u32 over all before it, and the head
    | head: MessagePack of `model.raft.Snapshot` | the state's bytes, whose digest the head holds

A file is written aside, synced, renamed, and its name synced, before anybody hears of it: so a file
with a snapshot's name is whole, or it is damaged. The newest two are kept, and the log from the
older one on: a damaged one is stood in for by the one before and the log. Where both fail the peer
does not start: a state that lacks something would be wrong without anybody noticing.
"""

from __future__ import annotations

import hashlib
import re
import struct
import zlib
from dataclasses import dataclass
from typing import Final

import msgspec

from p2psched.model.errors import Damaged, Refused
from p2psched.model.raft import Snapshot
from p2psched.ports.disk import AppendFile, Disk
from p2psched.store.recovery import ADVICE, Findings
from p2psched.store.space import NO_SPACE, no_room

FORMAT: Final = 1
KEPT: Final = 2
INCOMING: Final = "snapshot.incoming"  # one of the leader's, on its way here

_MAGIC: Final = b"p2psnap\n"
_FIXED: Final = struct.Struct("<8sHxxI")
_CHECKSUM: Final = struct.Struct("<I")
_NAME: Final = re.compile(r"snapshot-(\d{20})\.snap")
_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Snapshot).decode


def snapshot_name(index: int) -> str:
    return f"snapshot-{index:020d}.snap"


def digest_of(state: bytes) -> bytes:
    return hashlib.blake2b(state, digest_size=16).digest()


def described(snapshot: Snapshot, state: bytes) -> Snapshot:
    """The snapshot with the size and the digest of its state."""
    return msgspec.structs.replace(snapshot, size=len(state), digest=digest_of(state))


def encode_head(snapshot: Snapshot) -> bytes:
    """Everything in front of the state's bytes."""
    head = _encode(snapshot)
    fixed = _FIXED.pack(_MAGIC, FORMAT, len(head))
    return fixed + _CHECKSUM.pack(zlib.crc32(head, zlib.crc32(fixed))) + head


def decode_file(name: str, data: bytes) -> tuple[Snapshot, bytes]:
    """Raises Damaged, or Refused for a newer format."""
    snapshot, start = _decode_head(name, data)
    state = data[start:]
    if len(state) != snapshot.size or digest_of(state) != snapshot.digest:
        raise Damaged(
            f"{name} is damaged: its state fails its checksum. {ADVICE}", file=name, offset=start
        )
    return snapshot, state


def _decode_head(name: str, data: bytes) -> tuple[Snapshot, int]:
    fixed = _FIXED.size + _CHECKSUM.size
    if len(data) >= fixed:
        magic, version, size = _FIXED.unpack_from(data)
        end = fixed + size
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


class SnapshotFiles:
    """The snapshots in one folder. `save` and `read_piece` may run in other threads than the rest,
    which belongs to the log's."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._incoming: AppendFile | None = None
        self._gone_on = 0  # the snapshot of which pieces behind the first were read
        self.written_bytes = 0  # by this process

    def indices(self) -> list[int]:
        """Of the files that there are, oldest first."""
        return _indices(self._disk)

    def save(self, snapshot: Snapshot, state: bytes) -> None:
        """Durable on return. Raises OSError."""
        assert snapshot.size == len(state)
        self._disk.replace(snapshot_name(snapshot.index), encode_head(snapshot) + state)
        self.written_bytes += len(state)

    def read(self, index: int) -> tuple[Snapshot, bytes]:
        """Raises Damaged, or OSError (FileNotFoundError if there is none)."""
        name = snapshot_name(index)
        return decode_file(name, self._disk.read(name))

    def read_piece(self, snapshot: Snapshot, offset: int, size: int) -> bytes | None:
        """Bytes of the state, or None if this very snapshot is not there any more.

        Raises Damaged, where whoever takes the pieces begins anew because they didn't fit the
        digest: sent once more they never would. Looking before is too dear where they do."""
        head = encode_head(snapshot)
        name = snapshot_name(snapshot.index)
        try:
            if self._disk.read_part(name, 0, len(head)) != head:
                self.read(snapshot.index)  # another one, or not sound
                return None
            if offset == 0 and (size == snapshot.size or self._gone_on == snapshot.index):
                self._gone_on = 0
                self.read(snapshot.index)
            elif offset:
                self._gone_on = snapshot.index
            return self._disk.read_part(name, len(head) + offset, size)
        except FileNotFoundError:
            return None

    # --- one that comes in ---

    def take_piece(self, snapshot: Snapshot, offset: int, data: bytes) -> None:
        """Pieces follow each other; the first one throws away what came in before. Raises NoRoom
        if there is no space: then it may be repeated."""
        head = b""
        if offset == 0:
            self.drop_incoming()
            self._incoming = self._disk.open_append(INCOMING)
            head = encode_head(snapshot)
        assert self._incoming is not None, "a snapshot begins with its first piece"
        before = self._incoming.size
        try:
            self._incoming.write(head + data)
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            self._incoming.close()
            self._disk.truncate(INCOMING, before)
            self._incoming = self._disk.open_append(INCOMING)
            raise no_room(error) from error
        self.written_bytes += len(data)

    def install(self, snapshot: Snapshot) -> None:
        """Make what came in durable under its own name, after a look at what the disk holds."""
        assert self._incoming is not None
        self._incoming.sync()
        self._incoming.close()
        self._incoming = None
        found, _ = decode_file(INCOMING, self._disk.read(INCOMING))
        assert found == snapshot
        self._disk.rename(INCOMING, snapshot_name(snapshot.index))

    def drop_incoming(self) -> None:
        if self._incoming is not None:
            self._incoming.close()
            self._incoming = None
        if INCOMING in self._disk.names():
            self._disk.remove(INCOMING)

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
    state: bytes
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
            snapshot, state = decode_file(name, disk.read(name))
            if snapshot.index != index:
                raise Damaged(f"{name} says that it is of entry {snapshot.index}. {ADVICE}")
        except Damaged:
            damaged.append(name)
            continue
        _check_cover(index, found, newest, damaged)
        return Standing(snapshot=snapshot, state=state, damaged=tuple(damaged))
    _check_cover(0, found, newest, damaged)
    return Standing(snapshot=None, state=b"", damaged=tuple(damaged))


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
