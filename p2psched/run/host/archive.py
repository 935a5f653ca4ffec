"""Archives of modules, opened: zip files as the caller's `zipfile` writes them.

Only what such a file may hold: names below its folder, stored or deflated, checksummed; all else is
refused. The standard library's reader would be 4 MiB more in each worker, and 20 ms.
"""

from __future__ import annotations

import os
import struct
import zlib
from typing import Final, NamedTuple

STORED, DEFLATED = 0, 8
_END: Final = struct.Struct("<4s4H2IH")
_ENTRY: Final = struct.Struct("<4s6H3I5H2I")
_LOCAL: Final = struct.Struct("<4s5H3I2H")
_ENCRYPTED: Final = 1  # of the flags
_WIDE: Final = 0xFFFFFFFF  # the size is elsewhere: over 4 GiB


class Entry(NamedTuple):
    name: str
    method: int
    checksum: int
    packed_size: int
    size: int
    position: int  # of its local header


def entries(archive: bytes) -> list[Entry]:
    """Its directory. Raises ValueError for what is no archive."""
    at = archive.rfind(b"PK\5\6")
    if at < 0 or at + _END.size > len(archive):
        raise ValueError("it has no directory")
    _, _, _, _, count, size, position, _ = _END.unpack_from(archive, at)
    if position + size > at:
        raise ValueError("its directory is cut")
    found: list[Entry] = []
    for _ in range(count):
        if position + _ENTRY.size > at:
            raise ValueError("its directory is cut")
        (mark, _, _, flags, method, _, _, checksum, packed_size, full_size, name_len, extra_len,
         comment_len, _, _, _, header) = _ENTRY.unpack_from(archive, position)  # fmt: skip
        if mark != b"PK\1\2" or flags & _ENCRYPTED or _WIDE in {packed_size, full_size, header}:
            raise ValueError("its directory is damaged")
        position += _ENTRY.size
        name = archive[position : position + name_len].decode()
        position += name_len + extra_len + comment_len
        found.append(Entry(_checked(name), method, checksum, packed_size, full_size, header))
    return found


def _checked(name: str) -> str:
    parts = name.removesuffix("/").split("/")
    if any(part in {"", ".", ".."} for part in parts) or "\0" in name or "\\" in name:
        raise ValueError(f"{name!r} is no name of a module's file")
    return name


def read(archive: bytes, entry: Entry) -> bytes:
    """The bytes of a file. Raises ValueError if they are not what the directory says."""
    if entry.position + _LOCAL.size > len(archive):
        raise ValueError(f"{entry.name} is cut")
    header = _LOCAL.unpack_from(archive, entry.position)
    start = entry.position + _LOCAL.size + header[9] + header[10]
    packed = archive[start : start + entry.packed_size]
    if header[0] != b"PK\3\4" or len(packed) != entry.packed_size:
        raise ValueError(f"{entry.name} is cut")
    if entry.method == DEFLATED:
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            data = inflater.decompress(packed, entry.size + 1)  # no more, whatever it holds
        except zlib.error as error:
            raise ValueError(f"{entry.name} is damaged: {error}") from error
    elif entry.method == STORED:
        data = packed
    else:
        raise ValueError(f"{entry.name} is packed in a way that nobody asked for")
    if len(data) != entry.size or zlib.crc32(data) != entry.checksum:
        raise ValueError(f"{entry.name} is damaged")
    return data


def extract(archive: bytes, found: list[Entry], folder: str) -> None:
    """Into a folder that exists. Raises ValueError, OSError."""
    for entry in found:
        path = f"{folder}/{entry.name}"
        if entry.name.endswith("/"):
            os.makedirs(path, exist_ok=True)  # noqa: PTH103
            continue
        data = read(archive, entry)
        os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
        with open(path, "wb") as file:  # noqa: PTH123
            file.write(data)
