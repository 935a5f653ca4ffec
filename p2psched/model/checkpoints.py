"""The file of a checkpoint, as bytes: a head, a body, and a digest of both.

    magic and version, job, index, grant, number, time, bytes of the body, kind, CRC of all that
    body: what was saved, or an archive of a folder
    the digest (`digests`) of the head and of the body's digest

Of two checkpoints of a task the newer one has the higher grant, or the higher number under the
same: who saves under an old grant never passes for newer than its successor. Standard library
only: workers load this too.
"""

from __future__ import annotations

import re
import struct
import zlib
from typing import Final, NamedTuple

from . import digests

BYTES, VALUE, FOLDER = 0, 1, 2  # kinds: as given, a pickle, an archive of files
_MAGIC: Final = b"P2PCKPT\x01"
_HEAD: Final = struct.Struct("<8s16sQQQQQB")
_CRC: Final = struct.Struct("<I")
HEAD_BYTES: Final = _HEAD.size + _CRC.size
_NAME: Final = re.compile(r"([0-9]{20})-([0-9]{12})\.checkpoint")
_NUMBER_MAX: Final = 10**12 - 1
GRANT_FILE: Final = "grant"  # beside the checkpoints: the grant under which the next ones are saved
WORK: Final = "work"  # a folder beside them, for what is saved as files


class Head(NamedTuple):
    job: str
    task: int
    grant: int
    number: int  # from 1, rising from one owner to the next
    wall_ms: int  # of the peer that saved it, for people
    body_bytes: int
    kind: int

    @property
    def key(self) -> tuple[int, int]:
        """The higher one is newer."""
        return self.grant, self.number

    @property
    def file_bytes(self) -> int:
        return HEAD_BYTES + self.body_bytes + digests.DIGEST_BYTES


def pack_head(head: Head) -> bytes:
    job, *numbers = head
    data = _HEAD.pack(_MAGIC, bytes.fromhex(job), *numbers)
    return data + _CRC.pack(zlib.crc32(data))


def open_head(data: bytes) -> Head:
    """Raises ValueError for what is none, or is damaged."""
    if len(data) < HEAD_BYTES:
        raise ValueError("it is cut")
    plain = data[: _HEAD.size]
    magic, job, *numbers = _HEAD.unpack(plain)
    if magic != _MAGIC:
        raise ValueError("it is no checkpoint, or one of another version")
    if _CRC.unpack_from(data, _HEAD.size) != (zlib.crc32(plain),):
        raise ValueError("its head is damaged")
    return Head(job.hex(), *numbers)


def seal(head: bytes, body_digest: bytes) -> bytes:
    """What ends the file."""
    return digests.digest_of(head + body_digest)


def file_name(grant: int, number: int) -> str:
    """Names are in the order of age."""
    return f"{grant:020}-{number:012}.checkpoint"


def key_of(name: str) -> tuple[int, int] | None:
    """Grant and number of the checkpoint of this name; None if it is no name of one."""
    found = _NAME.fullmatch(name)
    return (int(found[1]), int(found[2])) if found else None


def folder_name(job: str, index: int) -> str:
    """Of a task, below the folder of all checkpoints."""
    return f"{job}-{index}"


def next_number(keys: list[tuple[int, int]]) -> int:
    return min(max((number for _, number in keys), default=0) + 1, _NUMBER_MAX)
