"""Packed values: what arguments and results are inside an item, and what a peer may read of them.

A packed value is MessagePack or a pickle as they are, or it starts with MARK (a byte that starts
neither) and a kind:

- BUFFERS: a pickle and the large buffers that it refers to (pickle protocol 5, out of band), each
  at a multiple of ALIGN from the start, so that arrays can stay where they arrived;
- BLOB: the name of a blob that holds the packed value;
- NEEDS: names of blobs that the packed value behind them refers to.

A peer reads names of blobs and nothing else: values are opened by workers and callers only.
Standard library only: workers load this file too.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from . import digests, limits

MARK: Final = 0xC1  # reserved in MessagePack for ever; no opcode that starts a pickle
BUFFERS: Final = 1
BLOB: Final = 2
NEEDS: Final = 3
ALIGN: Final = 64
BUFFERS_MAX: Final = 4096  # of one value; what has more is pickled in one piece

_HEAD: Final = struct.Struct("<BB")
_COUNT: Final = struct.Struct("<BBI")
_REF: Final = struct.Struct(f"<{digests.DIGEST_BYTES}sQ")

Ref = tuple[bytes, int]  # digest and size of a blob
Buffer = bytes | bytearray | memoryview


def pack_buffers(pickled: Buffer, buffers: Sequence[Buffer]) -> list[Buffer]:
    """A packed value in pieces, for whoever writes them one by one. Buffers are flat bytes."""
    assert len(buffers) <= BUFFERS_MAX
    sizes = [len(pickled), *map(len, buffers)]
    head = _COUNT.pack(MARK, BUFFERS, len(buffers)) + struct.pack(f"<{len(sizes)}Q", *sizes)
    parts: list[Buffer] = [head]
    position = len(head)
    for part in (pickled, *buffers):
        parts.append(bytes(-position % ALIGN))
        parts.append(part)
        position += -position % ALIGN + len(part)
    return parts


def unpack_buffers(value: Buffer) -> tuple[memoryview, list[memoryview]]:
    """The pickle and its buffers, as views into `value`. Raises ValueError."""
    view = memoryview(value)
    try:
        mark, kind, count = _COUNT.unpack_from(view)
        sizes = struct.unpack_from(f"<{count + 1}Q", view, _COUNT.size)
    except struct.error:
        raise ValueError("not a value with buffers: too short") from None
    if (mark, kind) != (MARK, BUFFERS) or count > BUFFERS_MAX:
        raise ValueError("not a value with buffers")
    position = _COUNT.size + 8 * len(sizes)
    parts = []
    for size in sizes:
        position += -position % ALIGN
        parts.append(view[position : position + size])
        position += size
    if position != len(view):
        raise ValueError("not a value with buffers: lengths don't agree")
    return parts[0], parts[1:]


def pack_blob(ref: Ref) -> bytes:
    """The packed value that stands in a blob."""
    return _HEAD.pack(MARK, BLOB) + _REF.pack(*ref)


def pack_needs(refs: Sequence[Ref], value: bytes) -> bytes:
    """A packed value together with the blobs that it refers to."""
    assert 0 < len(refs) <= limits.BLOBS_PER_JOB_MAX
    head = _COUNT.pack(MARK, NEEDS, len(refs))
    return b"".join((head, *(_REF.pack(*ref) for ref in refs), value))


def kind_of(value: Buffer) -> int:
    """BUFFERS, BLOB or NEEDS; 0 for plain MessagePack or a pickle."""
    return value[1] if len(value) > 1 and value[0] == MARK else 0


def names_blobs(value: Buffer) -> bool:
    """True if `refs_of` finds some."""
    return kind_of(value) in {BLOB, NEEDS}


def blob_of(value: Buffer) -> Ref:
    """The blob that holds a value of kind BLOB. Raises ValueError."""
    if kind_of(value) != BLOB or len(value) != _HEAD.size + _REF.size:
        raise ValueError("not the name of a blob")
    return _ref(value, _HEAD.size)


def needs_of(value: Buffer) -> tuple[list[Ref], Buffer]:
    """The blobs that a value of kind NEEDS refers to, and the value. Raises ValueError."""
    if kind_of(value) != NEEDS or len(value) < _COUNT.size:
        raise ValueError("not a value with names of blobs")
    _, _, count = _COUNT.unpack_from(value)
    end = _COUNT.size + count * _REF.size
    if not 0 < count <= limits.BLOBS_PER_JOB_MAX or end > len(value):
        raise ValueError("not a value with names of blobs: lengths don't agree")
    refs = [_ref(value, _COUNT.size + number * _REF.size) for number in range(count)]
    inner = memoryview(value)[end:]
    if kind_of(inner) == NEEDS:
        raise ValueError("names of blobs inside names of blobs")
    return refs, inner


def refs_of(value: Buffer) -> list[Ref]:
    """Every blob that must be at hand to open a packed value. Raises ValueError."""
    kind = kind_of(value)
    if kind == BLOB:
        return [blob_of(value)]
    if kind == NEEDS:
        refs, inner = needs_of(value)
        return [*refs, *refs_of(inner)]
    return []


def _ref(value: Buffer, at: int) -> Ref:
    digest, size = _REF.unpack_from(value, at)
    if size > limits.BLOB_BYTES_MAX:
        raise ValueError(f"no blob has {size} bytes")
    return digest, size
