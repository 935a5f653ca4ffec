"""Frames between the peer and its helper processes: one layout, loaded on both sides.

A frame is its length (u32, of what follows), its kind (u8) and a body. Bodies are structs, or JSON
with raw bytes behind it; nothing here is ever pickled, so that the peer opens no user's value.
A frame over FRAME_BYTES_MAX is a ValueError: the helper that sent it is ended.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from typing import Final

FRAME_BYTES_MAX: Final = 4 * 1024 * 1024

# peer -> starter
FORK: Final = 1  # JSON; comes with three descriptors: the host's socket, its shared memory, and
# the pipe of its tickets
WATCH: Final = 2  # a task takes longer, so drain its output for it: `WATCHED`, its job
KILL: Final = 3  # host, grace in seconds
QUIT: Final = 4  # grace in seconds: end everything, then yourself
# starter -> peer
HELLO: Final = 10  # JSON
EXITED: Final = 11  # host, exit code or -signal, then the item of the task that ran
# peer -> host
FUNCTION: Final = 20  # JSON, the function's code, its modules
DROP: Final = 21  # number of a function: forget it
RUN: Final = 22  # functions: see `orders`; programs: JSON and the sent files
STOP: Final = 23  # batch
END: Final = 24  # batch, task, cause, why: end this one, and go on with the next
# host -> peer
RESULTS: Final = 30

# How tasks end, by number in records and RESULTS; the strings are those of model.job.Cause.
CAUSES: Final = (
    "ok",
    "exit",
    "exception",
    "signal",
    "timeout",
    "not-startable",
    "not-serialisable",
    "too-large",
    "ok",  # and the item names blobs that lie in the spill folder
    "no-space",
    "oom",
    "stalled",
)
OK, EXIT, EXCEPTION, SIGNAL, TIMEOUT, NOT_STARTABLE, NOT_SERIALISABLE, TOO_LARGE = range(8)
OK_WITH_BLOBS: Final = 8
NO_SPACE: Final = 9
OOM: Final = 10
STALLED: Final = 11

LAPSED: Final = "lapsed"  # in the item of EXITED: the host was ended, for its lease was over

HOST: Final = struct.Struct("<I")
HOST_NUMBER: Final = struct.Struct("<Id")  # a grace in seconds
HOST_STATUS: Final = struct.Struct("<Ii")
NUMBER: Final = struct.Struct("<d")
WATCHED: Final = struct.Struct("<IQQQ")  # host, batch, index of the task, grant
FUNCTION_NUMBER: Final = struct.Struct("<I")
BATCH: Final = struct.Struct("<Q")
END_TASK: Final = struct.Struct("<QQB")

_HEAD = struct.Struct("<IB")
_LENGTH = struct.Struct("<I")
_RESULTS = struct.Struct("<QBqI")  # batch, over, index of a task that was ended or -1, segments
_SEGMENT = struct.Struct("<QQBQI")  # start, stop, cause, busy_us, bytes of data

Piece = tuple[int, int, int, int, bytes]  # start, stop, cause, busy_us, chunk of items


def frame(kind: int, *parts: bytes) -> bytes:
    """One frame, ready to send."""
    return b"".join((_HEAD.pack(1 + sum(map(len, parts)), kind), *parts))


def frame_json(kind: int, header: object, *bodies: bytes) -> bytes:
    """A frame of a JSON header and the bytes behind it."""
    text = json.dumps(header).encode()
    return frame(kind, _LENGTH.pack(len(text)), text, *bodies)


def open_json(body: bytes) -> tuple[dict[str, object], bytes]:
    """Header and the bytes behind it."""
    (size,) = _LENGTH.unpack_from(body)
    header = json.loads(body[4 : 4 + size])
    if not isinstance(header, dict):
        raise ValueError("not a frame: the header is not a map")
    return header, body[4 + size :]


def number(value: object) -> int:
    """A field of a header. Raises ValueError."""
    if not isinstance(value, int):
        raise ValueError(f"not a number: {value!r}")
    return value


def ref_words(ref: tuple[bytes, int] | None) -> list[object] | None:
    """A blob's name in a header."""
    return None if ref is None else [ref[0].hex(), ref[1]]


def open_ref(words: object) -> tuple[bytes, int] | None:
    """The other end of `ref_words`. Raises ValueError."""
    if words is None:
        return None
    match words:
        case [str(digest), int(size)]:
            return bytes.fromhex(digest), size
    raise ValueError(f"not the name of a blob: {words!r}")


class Reader:
    """Cuts a stream of bytes into frames."""

    def __init__(self) -> None:
        self._rest = bytearray()  # the beginning of a frame

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """The frames that are complete now. Raises ValueError for one that is too long."""
        rest = self._rest
        if rest:
            rest += data
            source: bytes | bytearray = rest
        else:
            source = data  # as mostly: what came are whole frames, and nothing is copied twice
        length, position = len(source), 0
        while length - position >= _HEAD.size:
            size, kind = _HEAD.unpack_from(source, position)
            if not 1 <= size <= FRAME_BYTES_MAX:
                raise ValueError(f"a frame of {size} bytes; the limit is {FRAME_BYTES_MAX}")
            if length - position < 4 + size:
                break
            yield kind, bytes(source[position + 5 : position + 4 + size])
            position += 4 + size
        if source is rest:
            del rest[:position]
        else:
            rest += source[position:]


def results(batch: int, pieces: Sequence[Piece], *, over: bool, ended: int = -1) -> bytes:
    """A RESULTS frame. `ended`: the task that was running when its batch was stopped."""
    parts = [_RESULTS.pack(batch, over, ended, len(pieces))]
    for start, stop, cause, busy_us, data in pieces:
        parts.append(_SEGMENT.pack(start, stop, cause, busy_us, len(data)))
        parts.append(data)
    return frame(RESULTS, *parts)


def open_results(body: bytes) -> tuple[int, bool, int, list[Piece]]:
    """Batch, whether it is over, the task that was ended (or -1), pieces. Raises ValueError."""
    try:
        batch, over, ended, count = _RESULTS.unpack_from(body)
        position = _RESULTS.size
        pieces: list[Piece] = []
        for _ in range(count):
            start, stop, cause, busy_us, size = _SEGMENT.unpack_from(body, position)
            position += _SEGMENT.size
            pieces.append((start, stop, cause, busy_us, body[position : position + size]))
            position += size
    except struct.error as error:
        raise ValueError("not a results frame") from error
    if position != len(body):
        raise ValueError("not a results frame: lengths don't agree")
    return batch, bool(over), ended, pieces
