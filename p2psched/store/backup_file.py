"""The file of a backup: what a cluster knew at one entry of its ledger, and the bytes beside it.

    magic                        16 bytes
    records                      length (u32), CRC-32 (u32), one of the structs below as MessagePack

The checksum of a record is chained: it covers all that stands before it, the length too. The last
record says how many there are and repeats a digest of everything; nothing follows. So a file that
was cut anywhere, or changed in any byte, is Damaged, with the offset of the first bad record.

It refuses to be half: it is written aside and gets its name when all of it is durable. Order: head,
state, jobs, blobs, rest, end.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final, Self

import msgspec

from p2psched.model.blob import BlobRef
from p2psched.model.commands import Forget, Retry, Stamped
from p2psched.model.errors import Damaged, NoSpace, Refused, UsageError
from p2psched.model.ids import ClusterId, JobId, PeerId
from p2psched.model.job import JobSpec, Segment
from p2psched.model.limits import MIB
from p2psched.model.raft import Snapshot
from p2psched.store.files import sync_folder
from p2psched.store.space import NO_SPACE

FORMAT: Final = 1
MAGIC: Final = b"p2psched-backup\n"
RECORD_BYTES_MAX: Final = 64 * MIB  # a longer one is no record of ours
_FRAME: Final = struct.Struct("<II")
_DIGEST_BYTES: Final = 16


class Head(msgspec.Struct, frozen=True, array_like=True, tag=1):
    format: int
    version: str  # of the program that wrote it
    made_ms: int  # Unix time, for people
    cluster: ClusterId
    peer: str  # the name of the peer that told the state
    generation: int
    level: int  # of features, which whoever restores it must know
    command_index: int
    snapshot: Snapshot  # of the state that follows
    jobs: int  # that follow, for people who wait
    blob_bytes: int  # that will follow, for people, too
    ended: bool = True  # with jobs that had ended
    large: bool = True  # with large results


class StatePart(msgspec.Struct, frozen=True, array_like=True, tag=2):
    data: bytes


class JobPart(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Results and history of a job ("": of the peers), as far as they are of the state. The parts
    of a job follow each other, and the last one says so."""

    job: JobId
    is_last: bool
    positions: int  # that the job has, as `Gap.positions`
    events: tuple[Stamped, ...] = ()
    spec: JobSpec | None = None
    position: int = 0  # where the segments begin, and where the next ones do
    next_position: int = 0
    at: tuple[int, ...] = ()  # of each segment
    segments: tuple[Segment, ...] = ()
    grants: dict[int, tuple[int, PeerId]] = {}  # by position

    def __post_init__(self) -> None:
        if len(self.at) != len(self.segments):
            raise ValueError("each segment has a position")


class BlobPart(msgspec.Struct, frozen=True, array_like=True, tag=4):
    ref: BlobRef
    offset: int
    data: bytes


class Rest(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """`after`: what became of some jobs while the backup was made, or is to become of them when it
    is restored. `missing`: large results that nobody had, or that were left out."""

    after: tuple[Forget | Retry, ...]
    missing: tuple[BlobRef, ...]
    jobs: int
    blobs: int
    blob_bytes: int


class End(msgspec.Struct, frozen=True, array_like=True, tag=6):
    records: int  # before this one
    digest: bytes  # BLAKE2b of all bytes before this record


Record = Head | StatePart | JobPart | BlobPart | Rest | End

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final[Callable[[bytes], Record]] = msgspec.msgpack.Decoder(Record).decode


class BackupWriter:
    """Makes `path` when `finish` is called; until then, and if it is left otherwise, there is
    nothing by that name. Raises Refused if there is one already, NoSpace, UsageError."""

    def __init__(self, path: Path) -> None:
        self.path: Final = path
        self._aside: Final = path.with_name(f".{path.name}.part")
        self._hasher = hashlib.blake2b(digest_size=_DIGEST_BYTES)
        self._checksum = 0
        self._records = 0
        self.size = 0
        self._file: BinaryIO | None = None
        self._check_free()
        with self._telling():
            flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            file = os.fdopen(os.open(self._aside, flags, 0o600), "wb")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                raise Refused(f"another backup is being written to {path}") from None
            self._file = file
            file.truncate(0)  # what a killed one has left
            self._put(MAGIC)

    def _check_free(self) -> None:
        if self.path.exists():
            raise Refused(f"{self.path} exists: choose another name, or remove it first")

    def add(self, record: Record) -> None:
        data = _encode(record)
        assert len(data) <= RECORD_BYTES_MAX, len(data)
        length = struct.pack("<I", len(data))
        self._checksum = zlib.crc32(data, zlib.crc32(length, self._checksum))
        with self._telling():
            self._put(_FRAME.pack(len(data), self._checksum))
            self._put(data)
        self._records += 1

    def finish(self) -> int:
        """Its size; it is durable, and has its name."""
        self.add(End(self._records, self._hasher.digest()))
        assert self._file is not None
        with self._telling():
            self._file.flush()
            os.fsync(self._file.fileno())
            self._check_free()
            self._aside.rename(self.path)
            sync_folder(self.path.parent)
            self._file.close()
            self._file = None
        return self.size

    def _put(self, data: bytes) -> None:
        assert self._file is not None
        self._file.write(data)
        self._hasher.update(data)
        self.size += len(data)

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.close()
            reason = error.strerror or str(error)
            if error.errno in NO_SPACE:
                raise NoSpace(
                    f"no space for {self.path}: nothing was kept of it. Free some, or choose "
                    "another disk"
                ) from error
            raise UsageError(f"can't write {self.path}: {reason}: choose another place") from error

    def close(self) -> None:
        """What was not finished is removed. Idempotent."""
        if self._file is not None:
            file, self._file = self._file, None
            with contextlib.suppress(OSError):
                self._aside.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class BackupReader:
    """Reads a file record by record, each checked before it is given out. Raises Damaged, Refused
    for a newer format, UsageError if it can't be read."""

    def __init__(self, path: Path) -> None:
        self.path: Final = path
        self._hasher = hashlib.blake2b(digest_size=_DIGEST_BYTES)
        self._checksum = 0
        self._at = 0
        try:
            self._file = path.open("rb")
            self.size = os.fstat(self._file.fileno()).st_size
        except OSError as error:
            raise UsageError(f"can't read {path}: {error.strerror or error}") from error
        try:
            if self._read(len(MAGIC)) != MAGIC:
                raise self._damaged(0, "it does not begin as a backup of p2psched does")
            head = self._next()
            if not isinstance(head, Head):
                raise self._damaged(len(MAGIC), "it has no head")
            if head.format > FORMAT:
                raise Refused(
                    f"{path} is of format {head.format}, and this program reads {FORMAT}: use the "
                    "p2psched that wrote it"
                )
        except BaseException:
            self._file.close()
            raise
        self.head: Final = head

    @property
    def read_bytes(self) -> int:
        return self._at

    def records(self) -> Iterator[StatePart | JobPart | BlobPart | Rest]:
        """All but head and end, which is checked."""
        count, order = 1, 0
        while True:
            at, before = self._at, self._hasher.digest()
            record = self._next()
            if isinstance(record, End):
                break
            place = _ORDER.get(type(record), 0)
            if isinstance(record, Head) or place < order:
                raise self._damaged(at, "a record in the wrong place")
            count, order = count + 1, place
            yield record
        if record != End(count, before) or order != _ORDER[Rest]:
            raise self._damaged(at, "its end does not fit what stands before it")
        if self._read(1):
            raise self._damaged(self._at - 1, "something follows its end")

    def _next(self) -> Record:
        at = self._at
        frame = self._read(_FRAME.size)
        if len(frame) < _FRAME.size:
            raise self._damaged(at, "it ends in the midst of it")
        length, checksum = _FRAME.unpack(frame)
        data = self._read(length) if length <= RECORD_BYTES_MAX else b""
        self._checksum = zlib.crc32(data, zlib.crc32(frame[:4], self._checksum))
        if len(data) < length <= RECORD_BYTES_MAX:
            raise self._damaged(at, "it ends in the midst of it")
        if self._checksum != checksum or length > RECORD_BYTES_MAX:
            raise self._damaged(at, "a record fails its checksum")
        try:
            return _decode(data)
        except (msgspec.DecodeError, ValueError) as error:  # its checksum holds: a newer version
            raise self._damaged(at, f"a record can't be read ({error})") from error

    def _read(self, size: int) -> bytes:
        try:
            data = self._file.read(size)
        except OSError as error:
            raise UsageError(f"can't read {self.path}: {error.strerror or error}") from error
        self._hasher.update(data)
        self._at += len(data)
        return data

    def _damaged(self, at: int, what: str) -> Damaged:
        return self.damaged(what, at)

    def damaged(self, what: str, at: int | None = None) -> Damaged:
        """What doesn't fit was found by whoever put the records together."""
        where = "" if at is None else f" at byte {at:,}"
        return Damaged(
            f"{self.path} is damaged{where}: {what}. Nothing was changed: use another copy of it, "
            "or another backup",
            file=str(self.path),
            offset=at,
        )

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_ORDER: Final[dict[type, int]] = {StatePart: 1, JobPart: 2, BlobPart: 3, Rest: 4}
