"""The item of one task inside a segment's chunk: its value or its failure, and its output.

A peer stores and moves items without opening them. Standard library only, like `chunks`: the
workers load this file by its path.

Layout: header length (u32), header (JSON), then the bodies that the header names, in this order:
`value_bytes` (the pickled value, or the pickled exception), `stdout_bytes`, `stderr_bytes`.
A bare value (a function that succeeded and printed nothing) is a header length of 0 and the pickle.

Header fields, all optional: `exit` (int), `signal` (int), `type`, `message`, `traceback` (str, of
an exception), `stdout_total`, `stderr_total` (bytes that the task wrote; more than the bytes here
if the middle was dropped, and then `stdout_head` or `stderr_head` is where the gap lies).
"""

from __future__ import annotations

import json
import struct

_U32 = struct.Struct("<I")
_BARE = _U32.pack(0)

Header = dict[str, "int | str"]


def pack_value(value: bytes) -> bytes:
    """The item of a function that succeeded and printed nothing."""
    return _BARE + value


def pack(header: Header, value: bytes = b"", stdout: bytes = b"", stderr: bytes = b"") -> bytes:
    """Any other item."""
    sizes = {"value_bytes": len(value), "stdout_bytes": len(stdout), "stderr_bytes": len(stderr)}
    head = json.dumps({**header, **{key: size for key, size in sizes.items() if size}}).encode()
    return b"".join((_U32.pack(len(head)), head, value, stdout, stderr))


def unpack(item: bytes) -> tuple[Header, bytes, bytes, bytes]:
    """Header, value, stdout, stderr. Raises ValueError if `item` is not one."""
    if len(item) < 4:
        raise ValueError("not an item: too short")
    (size,) = _U32.unpack_from(item)
    if size == 0:
        return {}, item[4:], b"", b""
    header = _read_header(item[4 : 4 + size])
    bodies = []
    position = 4 + size
    for key in ("value_bytes", "stdout_bytes", "stderr_bytes"):
        length = header.pop(key, 0)
        if type(length) is not int or length < 0:
            raise ValueError("not an item: a length is no number")
        bodies.append(item[position : position + length])
        position += length
    if position != len(item):
        raise ValueError("not an item: lengths don't agree")
    return header, bodies[0], bodies[1], bodies[2]


def _read_header(text: bytes) -> Header:
    try:
        header = json.loads(text)
    except RecursionError:
        raise ValueError("not an item: the header is nested too deeply") from None
    # `type` and not isinstance: True is an int to Python, and no exit code.
    if type(header) is not dict or any(type(v) not in (int, str) for v in header.values()):
        raise ValueError("not an item: the header is no map of numbers and texts")
    return header
