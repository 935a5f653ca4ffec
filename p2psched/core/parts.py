"""Entries of commands that are cut into parts, for engines that can't carry them whole.

The parts of one entry are of one term and follow each other in the log without a gap. A leader
that fails may leave only the first of them: whatever comes instead of the next one voids them, on
every peer alike.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from p2psched.core.raft.made import open_entry
from p2psched.model.execution import Committed
from p2psched.model.raft import Entry, EntryKind

_MORE, _LAST = b"\1", b"\0"  # in front of what a part holds


def cut(payload: bytes, part_bytes: int) -> Iterator[tuple[EntryKind, bytes]]:
    """What the entries for one payload of commands hold: all of it if it is that short."""
    if len(payload) <= part_bytes:
        yield EntryKind.COMMANDS, payload
        return
    for start in range(0, len(payload), part_bytes):
        stop = start + part_bytes
        yield EntryKind.PART, (_MORE if stop < len(payload) else _LAST) + payload[start:stop]


class Opener:
    """Opens the entries of one log in order. What a part belongs to is delivered as the last part;
    the ones before it are delivered without commands."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._term = 0

    def open(self, entry: Entry) -> Committed:
        if entry.kind is not EntryKind.PART or entry.term != self._term:
            self._parts.clear()
        self._term = entry.term
        if entry.kind is not EntryKind.PART:
            return open_entry(entry)
        self._parts.append(entry.payload[1:])
        if entry.payload[:1] == _MORE:
            return Committed(entry.index, entry.stamp_ms, entry.wall_ms, ())
        whole, self._parts = b"".join(self._parts), []
        return open_entry(msgspec.structs.replace(entry, kind=EntryKind.COMMANDS, payload=whole))
