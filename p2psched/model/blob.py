"""Blobs: bytes named by their digest, too large for the ledger, on the disks of some peers."""

from __future__ import annotations

import json

import msgspec

from p2psched.model import digests, limits
from p2psched.model.ids import PeerId
from p2psched.model.items import Header


class BlobRef(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The name of a blob. Equal bytes have equal names, so the same blob is stored once."""

    digest: bytes  # see `model.digests`
    size: int  # bytes

    def __post_init__(self) -> None:
        if len(self.digest) != digests.DIGEST_BYTES:
            raise ValueError(f"a digest has {digests.DIGEST_BYTES} bytes, not {len(self.digest)}")
        if not 0 <= self.size <= limits.BLOB_BYTES_MAX:
            raise ValueError(
                f"a blob has up to {limits.BLOB_BYTES_MAX // limits.GIB} GiB, not {self.size:,} "
                "bytes: split it, or pass a path that all peers see"
            )

    def __str__(self) -> str:
        return self.digest.hex()


def wait_s(size: int) -> float:
    """How long the bytes of a blob may take from disk to disk; then somebody is too slow."""
    return size / limits.BLOB_BYTES_PER_S_MIN


class ResultBlob(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A blob that belongs to the result of one task, and who has it on disk.

    `name` is empty for the task's value, that of a file for one which a program hands over, and
    the digest for a file inside a value: a task has one blob of each name. `holders` are sorted;
    peers that were lost with their disks stay in it until somebody says so.
    """

    index: int
    name: str
    ref: BlobRef
    holders: tuple[PeerId, ...] = ()


def outputs_of(header: Header) -> list[tuple[str, BlobRef]]:
    """The files in the header of a program's item. Raises ValueError."""
    text = header.get("outputs")
    if text is None:
        return []
    try:
        outputs = json.loads(str(text))
    except RecursionError:
        raise ValueError("outputs are nested too deeply") from None
    if not isinstance(outputs, list):
        raise ValueError("outputs are a list")
    found = []
    for output in outputs:
        match output:
            case [str(name), str(digest), int(size)]:
                found.append((name, BlobRef(bytes.fromhex(digest), size)))
            case _:
                raise ValueError("an output has a name, a digest and a size")
    return found
