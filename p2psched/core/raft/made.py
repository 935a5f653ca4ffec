"""Entries as what is in them. Who made an entry still has that until it is committed, and decodes
nothing.
"""

from __future__ import annotations

from typing import Final

import msgspec

from p2psched.core.raft.log import size_of
from p2psched.core.raft.state import decode_membership
from p2psched.model.commands import Complete, Envelope, Place, SubmitJob
from p2psched.model.errors import Refused
from p2psched.model.execution import Committed
from p2psched.model.raft import Entry, EntryKind

_COMMANDS: Final = EntryKind.COMMANDS  # as `machine._OK`
# Nearly all that there are; they are made as a decoder makes them, down to each field.
_USUAL: Final = frozenset({SubmitJob, Place, Complete})

_decode = msgspec.msgpack.Decoder(tuple[Envelope, ...]).decode


class Made:
    """Of one leader, as many entries as it has in flight."""

    def __init__(self) -> None:
        self._entries: dict[int, tuple[Entry, tuple[Envelope, ...]]] = {}  # by index

    def note(self, entry: Entry, envelopes: tuple[Envelope, ...]) -> None:
        """It was made of these just now."""
        if {type(envelope.command) for envelope in envelopes} <= _USUAL:
            self._entries[entry.index] = (entry, envelopes)

    def clear(self) -> None:
        self._entries.clear()

    def open(self, entry: Entry) -> Committed:
        """Once each. What another leader put at the index of one of ours is another object."""
        made = self._entries.pop(entry.index, None)
        if made is None or made[0] is not entry:
            return open_entry(entry)
        size = size_of(entry)
        return Committed(entry.index, entry.stamp_ms, entry.wall_ms, made[1], None, size)


def open_entry(entry: Entry) -> Committed:
    envelopes: tuple[Envelope, ...] = ()
    members = decode_membership(entry) if entry.kind is EntryKind.MEMBERSHIP else None
    if entry.kind is _COMMANDS:
        try:
            envelopes = _decode(entry.payload)
        except msgspec.DecodeError as exc:
            raise Refused(
                f"ledger entry {entry.index} holds a command that this version does not know "
                f"({exc}): run the same version of p2psched as the other peers"
            ) from exc
    size = size_of(entry)
    return Committed(entry.index, entry.stamp_ms, entry.wall_ms, envelopes, members, size)
