"""Results in pieces that fit an entry of the ledger."""

from __future__ import annotations

from typing import Final

from p2psched.model.job import Segment
from p2psched.model.limits import SEGMENT_BYTES_MAX
from p2psched.model.taskset import TaskSet

# What an entry takes for a segment, and for the name of a large result and of one holder, at most.
_SEGMENT_BYTES: Final = 64
_BLOB_BYTES: Final = 72
_HOLDER_BYTES: Final = 34


def entry_size(segment: Segment) -> int:
    """What it takes of an entry, at most."""
    return len(segment.data) + _SEGMENT_BYTES + _names_size(segment)


def split(segment: Segment, copies: int) -> list[Segment]:
    """Pieces that fit an entry, also with the names of what is large in them and its holders."""
    if not segment.blobs:
        return segment.split()
    pieces = []
    for piece in segment.split():
        size = piece.stop - piece.start
        if size == 1 or _names_size(piece, copies) <= SEGMENT_BYTES_MAX:
            pieces.append(piece)
            continue
        middle = piece.start + size // 2
        for half in (TaskSet.of(piece.start, middle), TaskSet.of(middle, piece.stop)):
            pieces += [small for part in piece.parts(half) for small in split(part, copies)]
    return pieces


def _names_size(segment: Segment, copies: int = 0) -> int:
    """Bytes that the names of large results take, with `copies` holders each at least."""
    if not segment.blobs:
        return 0
    return sum(
        _BLOB_BYTES + len(blob.name) + _HOLDER_BYTES * max(copies, len(blob.holders))
        for blob in segment.blobs
    )
