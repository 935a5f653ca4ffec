"""Chunks: many small values in one opaque piece of bytes.

Arguments and results travel as chunks so that peers move them without looking at a single value.
Only a worker and the caller's `result()` open the values inside. Standard library only: the
interpreter that runs users' functions loads this file too, and may have nothing else installed.

Layout: count (u32), then count + 1 offsets (u32, from the start of the data), then the data.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import pairwise

_U32 = struct.Struct("<I")
_HEAD = struct.Struct("<II")  # the count and the first offset
_ONE = struct.Struct("<III")  # the head of a chunk with one value


def pack(items: Sequence[bytes]) -> bytes:
    """Pack values into one chunk, in order. The whole must stay under 4 GiB."""
    offsets = [0]
    total = 0
    for item in items:
        total += len(item)
        offsets.append(total)
    head = struct.pack(f"<{len(offsets) + 1}I", len(items), *offsets)
    return b"".join((head, *items))


def count(chunk: bytes) -> int:
    """How many values a chunk holds. Raises ValueError if `chunk` is not one."""
    if len(chunk) < 8:
        raise ValueError("not a chunk: too short")
    number: int
    number, first = _HEAD.unpack_from(chunk)
    head = 8 + 4 * number
    if len(chunk) < head or head + _U32.unpack_from(chunk, head - 4)[0] != len(chunk):
        raise ValueError("not a chunk: lengths don't agree")
    if first != 0:  # bytes that no value holds would be lost by a cut
        raise ValueError("not a chunk: its data doesn't start at 0")
    return number


def check(chunk: bytes) -> int:
    """As `count`, and the offsets are in order too, so that no later `cut` can fail."""
    size = len(chunk) - 12
    if size >= 0 and _ONE.unpack_from(chunk) == (1, 0, size):
        return 1
    number = count(chunk)
    if number > 1:  # what `count` looks at is all that there is of fewer
        offsets = struct.unpack_from(f"<{number + 1}I", chunk, 4)
        if list(offsets) != sorted(offsets):  # six times faster than comparing pairs
            raise ValueError("not a chunk: offsets run backwards")
    return number


def unpack(chunk: bytes) -> list[bytes]:
    """All values of a chunk. Raises ValueError if `chunk` is not one."""
    return _items(chunk, 0, count(chunk))


def cut(chunk: bytes, start: int, stop: int) -> bytes:
    """The chunk of the values `start` to `stop - 1` of this one; positions, not task indices."""
    number = count(chunk)
    if not 0 <= start <= stop <= number:
        raise ValueError(f"no values {start} to {stop} in a chunk of {number}")
    return chunk if (start, stop) == (0, number) else pack(_items(chunk, start, stop))


def _items(chunk: bytes, start: int, stop: int) -> list[bytes]:
    number = _U32.unpack_from(chunk)[0]
    base = 8 + 4 * number
    offsets = struct.unpack_from(f"<{stop - start + 1}I", chunk, 4 + 4 * start)
    if any(a > b for a, b in pairwise(offsets)) or base + offsets[-1] > len(chunk):
        raise ValueError("not a chunk: offsets run backwards")
    return [chunk[base + a : base + b] for a, b in pairwise(offsets)]
