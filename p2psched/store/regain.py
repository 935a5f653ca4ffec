"""A log that is damaged is set aside, and a new one begun that the others must fill.

For: peers that have others to ask. A note on the disk says that this peer lacks what it knew: it is
durable before anything is moved, and goes when the log is whole again (`end_regain`). As long as it
is there the peer neither votes nor campaigns (`core.raft.regain`). Term and vote come from their
second copy, the marker: a peer whose promises are lost too can't be let in again, and neither can
one with nobody to ask. For these `Damaged` stays what it is, and nothing is changed.

What is set aside keeps its bytes under another name, for people; the set of before goes. Snapshots
that are sound stay: what they stand for was committed.
"""

from __future__ import annotations

import dataclasses
import re
import zlib
from typing import Final

import msgspec

from p2psched.model.errors import Damaged
from p2psched.model.raft import HardState
from p2psched.ports.disk import Disk
from p2psched.store.log import SEGMENT_BYTES_MAX, LogStore, Recovered
from p2psched.store.marker import MARKER, how_late, read_marked
from p2psched.store.recovery import ADVICE
from p2psched.store.segments import encode_header, segment_name
from p2psched.store.snapshots import check_file, snapshot_indices

NOTE: Final = "log.regain"
ASIDE: Final = "damaged-"
SET_ASIDE: Final = (
    f"It was set aside as {ASIDE}*, and this peer asks the others for what it lost; it doesn't "
    "vote before it has that"
)

_SEGMENT: Final = re.compile(r"log-\d{8}\.seg")
_CHECKSUM_BYTES: Final = 4


class Note(msgspec.Struct, frozen=True, array_like=True):
    """Why this peer lacks what it knew, and what it has promised."""

    hard_state: HardState
    what: str
    file: str = ""
    offset: int | None = None
    is_aside: bool = False  # what was damaged; the log beside is a new one

    @property
    def damage(self) -> Damaged:
        return Damaged(f"{self.what}{SET_ASIDE}", file=self.file, offset=self.offset)


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Note).decode


def read_note(disk: Disk) -> Note | None:
    """None where nothing is lacking. Raises Damaged if the note itself is not as it was written."""
    if NOTE not in disk.names():
        return None
    data = disk.read(NOTE)
    body, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
    if len(data) > _CHECKSUM_BYTES and zlib.crc32(body).to_bytes(_CHECKSUM_BYTES) == checksum:
        try:
            return _decode(body)
        except msgspec.DecodeError:
            pass  # its checksum holds: it was written wrong
    raise Damaged(
        f"{NOTE} is damaged: what this peer has promised is not known. Let it join anew, with "
        "another --data",
        file=NOTE,
        offset=0,
    )


def open_or_regain(
    disk: Disk, *, has_others: bool, segment_bytes_max: int = SEGMENT_BYTES_MAX
) -> tuple[LogStore, Recovered]:
    """`LogStore.open`; with `Recovered.lost` if that is less than this peer knew, be it damaged now
    or earlier. Raises what that does, Damaged only if it can't be helped."""
    note = read_note(disk)
    if note is not None and not note.is_aside:
        note = _set_aside(disk, note)
    try:
        store, recovered = _open(disk, segment_bytes_max, note)
    except Damaged as damage:
        if not has_others:
            raise
        note = _set_aside(disk, _noted(disk, damage, note))
        store, recovered = _open(disk, segment_bytes_max, note)
    if note is None:
        return store, recovered
    try:
        return store, _as_promised(store, recovered, note)
    except BaseException:
        store.close()
        raise


def _open(disk: Disk, segment_bytes_max: int, note: Note | None) -> tuple[LogStore, Recovered]:
    if note is not None and not _segments(disk):
        # A new log is about to be made. Beside a snapshot there must be one, if only an empty one.
        disk.replace(segment_name(1), encode_header(1, 0))
    return LogStore.open(disk, segment_bytes_max=segment_bytes_max)


def _segments(disk: Disk) -> list[str]:
    return [name for name in disk.names() if _SEGMENT.fullmatch(name)]


def _noted(disk: Disk, damage: Damaged, before: Note | None) -> Note:
    marked, _ = read_marked(disk)
    # A new log is without a marker for a moment only, and then has promised nothing yet.
    known = [before.hard_state] if before is not None else []
    known += [marked.hard_state] if marked is not None else []
    if not known:
        raise damage
    hard_state = max(known, key=how_late)
    for name in disk.names():  # of an earlier time
        if name.startswith(ASIDE):
            disk.remove(name)
    note = Note(hard_state, str(damage).removesuffix(ADVICE), damage.file, damage.offset)
    _write(disk, note)
    return note


def _set_aside(disk: Disk, note: Note) -> Note:
    """May be begun again at any point: nothing of a new log is there before it is done."""
    damaged = [name for _, name in snapshot_indices(disk) if not _is_sound(disk, name)]
    for name in (*_segments(disk), *damaged):
        disk.rename(name, ASIDE + name)
    disk.remove(MARKER)
    note = msgspec.structs.replace(note, is_aside=True)
    _write(disk, note)
    return note


def _is_sound(disk: Disk, name: str) -> bool:
    try:
        check_file(disk, name)
    except Damaged:
        return False
    return True


def _as_promised(store: LogStore, recovered: Recovered, note: Note) -> Recovered:
    """The new log must say what the old one did."""
    hard_state = max(note.hard_state, recovered.hard_state, key=how_late)
    if hard_state != recovered.hard_state:
        store.write(hard_state=hard_state, truncate_from=None, entries=())
        store.sync()
    return dataclasses.replace(recovered, hard_state=hard_state, lost=note.damage)


def _write(disk: Disk, note: Note) -> None:
    body = _encode(note)
    disk.replace(NOTE, body + zlib.crc32(body).to_bytes(_CHECKSUM_BYTES))


def end_regain(store: LogStore) -> None:
    """The log is whole again, and synced. Durable on return; may be repeated."""
    store.disk.remove(NOTE)
