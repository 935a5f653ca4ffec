"""Digests of blobs: one level of a hash tree, so that every piece can be verified by itself.

A blob is cut into chunks of CHUNK_BYTES (the last one may be shorter, an empty blob has none). Its
digest is SHA-256 over a mark, its size and the SHA-256 of each chunk. Whoever knows the digest and
has the list of chunk digests (32 bytes each, checked against the digest) can take chunks from
anybody, in any order, and go on after a break.

On disk a blob is a file of exactly its bytes, named as `file_name` says. Its list may lie beside it
and may always be made again from the bytes. Standard library only: workers load this file too.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from . import limits

try:  # as the standard library's `random` does
    from _sha2 import sha256 as _builtin_sha256  # type: ignore[import-not-found, unused-ignore]
except ImportError:  # before Python 3.12
    try:
        from _sha256 import sha256 as _builtin_sha256  # type: ignore[import-not-found, no-redef, unused-ignore]
    except ImportError:
        from hashlib import sha256 as _builtin_sha256

if TYPE_CHECKING:
    from hashlib import _Hash

CHUNK_BYTES: Final = 512 * limits.KIB
DIGEST_BYTES: Final = 32
SMALL_BYTES: Final = 64 * limits.KIB
_ROOT_MARK: Final = b"p2psched blob 1\n"


def _sha256(size: int) -> Callable[..., _Hash]:
    """For so many bytes. OpenSSL's is quick, and 0.6 MiB of each starter and worker."""
    if size <= SMALL_BYTES:
        return _builtin_sha256  # type: ignore[no-any-return, unused-ignore]
    from hashlib import sha256  # noqa: PLC0415 (not before it pays)

    return sha256


class Hasher:
    """Digests what passes through it, in pieces of any length."""

    __slots__ = ("_chunk", "_filled", "_sha256", "digests", "size")

    def __init__(self, *, seldom: bool = False) -> None:
        """`seldom`: for so few bytes that OpenSSL is not worth its memory."""
        self._sha256 = _sha256(0 if seldom else SMALL_BYTES + 1)
        self.size = 0
        self.digests: list[bytes] = []  # of the whole chunks so far; of all after `finish`
        self._chunk = self._sha256()
        self._filled = 0

    def update(self, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data).cast("B")
        self.size += len(view)
        while len(view):
            room = CHUNK_BYTES - self._filled
            self._chunk.update(view[:room])
            self._filled += min(room, len(view))
            view = view[room:]
            if self._filled == CHUNK_BYTES:
                self._close_chunk()

    def finish(self) -> bytes:
        """The blob's digest. Nothing may follow."""
        if self._filled:
            self._close_chunk()
        return root(self.size, self.digests)

    def _close_chunk(self) -> None:
        self.digests.append(self._chunk.digest())
        self._chunk = self._sha256()
        self._filled = 0


def digest_of(data: bytes | bytearray | memoryview) -> bytes:
    """The digest of a blob that is in memory."""
    hasher = Hasher(seldom=len(data) <= SMALL_BYTES)
    hasher.update(data)
    return hasher.finish()


def chunk_count(size: int) -> int:
    return -(-size // CHUNK_BYTES)


def chunk_size(size: int, number: int) -> int:
    """Bytes of chunk `number` of a blob of `size` bytes."""
    assert 0 <= number < chunk_count(size)
    return min(CHUNK_BYTES, size - number * CHUNK_BYTES)


def root(size: int, digests: Sequence[bytes]) -> bytes:
    """The digest of a blob from those of its chunks. Raises ValueError if they don't fit `size`."""
    if (
        size < 0
        or len(digests) != chunk_count(size)
        or any(len(d) != DIGEST_BYTES for d in digests)
    ):
        raise ValueError(f"{len(digests)} chunk digests for a blob of {size} bytes")
    said = b"".join((_ROOT_MARK, struct.pack("<Q", size), *digests))
    return _sha256(len(said))(said).digest()


def fits(chunk: bytes | memoryview, digest: bytes) -> bool:
    """True if a chunk is the one that `digest` names."""
    return _sha256(len(chunk))(chunk).digest() == digest


def file_name(digest: bytes) -> str:
    """Path of a blob below a folder of blobs: two levels, so that no folder grows huge."""
    text = digest.hex()
    return f"{text[:2]}/{text}"


def parse_list(data: bytes, size: int, digest: bytes) -> list[bytes]:
    """A list of chunk digests as bytes, verified. Raises ValueError if it isn't this blob's."""
    found = [data[at : at + DIGEST_BYTES] for at in range(0, len(data), DIGEST_BYTES)]
    if root(size, found) != digest:
        raise ValueError("these are not the checksums of this blob")
    return found
