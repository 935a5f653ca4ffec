"""Memory that a host (a worker or a spawner) shares with its peer and its starter.

A host notes there which task it runs and keeps the results that it has not sent yet. So no message
is needed to say "started", and a crash at any instant loses neither finished results nor the name
of the task that was running. Only the host writes (but for
the starter, that it is watched, and for the peer, how long its task may run).

The peer trusts nothing it reads here: a user's code runs in the same process as the writer.
"""

from __future__ import annotations

import mmap
import struct
import time
from typing import Final, NamedTuple

# relative: the same file is p2psched.* in the peer and a private name in the user's interpreter
from ...model import chunks  # noqa: TID252
from . import frames

_HEAD = struct.Struct("<QIIQIIQQI")
_BATCH_GENERATION = struct.Struct("<QI")
_USED_INDEX_RUNNING = struct.Struct("<IQI")
_INDEX_RUNNING_STARTED = struct.Struct("<QIIQ")
_WATCHED = struct.Struct("<I")
_RECORD = struct.Struct("<QQBQI")  # batch, index, cause, busy_us, bytes of the item
_USED_AT = 12
_INDEX_AT = 16
_RUNNING_AT = 24
_GROUP_AT = 40
STARTING: Final = 1  # instead of the group of a program that is being started
_WATCHED_AT = 48
_LEASE_AT = 56  # boot time where the lease on what runs is over; 0: it needs none
# What the task says of how far it is: number (odd while it is written), when it was said and when
# there was the last sign of life, done, total, bytes of the note, the note.
_WORD = struct.Struct("<IIQQddB80s")
_WORD_NUMBER = struct.Struct("<I")
_WORD_AT = 64
_BASE = 192

BYTES: Final = 1024 * 1024
# A host sends what it holds beyond this. Any one item is far smaller than the room left then.
FLUSH_BYTES: Final = 128 * 1024

Record = tuple[int, int, int, int, bytes]  # batch, index, cause, busy_us, item


class State:
    """Of one instant: the task that was begun last, and results that were not sent yet; these may
    be of several batches."""

    __slots__ = ("batch", "index", "records", "running", "started_ns")

    def __init__(
        self, batch: int, index: int, *, running: bool, started_ns: int, records: list[Record]
    ) -> None:
        self.batch = batch
        self.index = index
        self.running = running
        self.started_ns = started_ns  # CLOCK_MONOTONIC, one clock for all processes
        self.records = records


class Word(NamedTuple):
    """What the task that runs has said last. NaN: nothing."""

    said_ns: int
    alive_ns: int
    done: float
    total: float
    note: str


class Shared:
    """One host's page of notes, mapped from a descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._map = mmap.mmap(descriptor, BYTES)
        self._generation = 0
        self._used = 0
        self._batch = 0
        self._words = 0

    def close(self) -> None:
        self._map.close()

    # --- the host's side

    def open_batch(self, batch: int) -> None:
        """No task of the batch before runs any more. Its results stay until they are sent."""
        self._batch = batch
        self._generation += 1
        _BATCH_GENERATION.pack_into(self._map, 0, batch, self._generation)

    def begin(self, index: int, now_ns: int) -> None:
        _INDEX_RUNNING_STARTED.pack_into(self._map, _INDEX_AT, index, 1, 0, now_ns)

    def unbegin(self) -> None:
        """The task that was begun has not run, and nothing of it."""
        _INDEX_RUNNING_STARTED.pack_into(self._map, _INDEX_AT, 0, 0, 0, 0)

    def note_group(self, group: int) -> None:
        """The process group of the program that runs now; 0 for none, STARTING for one that nobody
        knows the number of yet."""
        struct.pack_into("<Q", self._map, _GROUP_AT, group)

    def tell(self, done: float, total: float, note: bytes) -> None:
        """See `say`."""
        now_ns = time.monotonic_ns()
        self.say(done, total, note, said_ns=now_ns, alive_ns=now_ns)

    def say(self, done: float, total: float, note: bytes, *, said_ns: int, alive_ns: int) -> None:
        """How far the task is that runs; NaN for what is not known. What was said before the task
        began is an earlier one's."""
        number = self._words = (self._words + 2) & 0xFFFF_FFFE
        words = (said_ns, alive_ns, done, total, len(note), note)
        _WORD_NUMBER.pack_into(self._map, _WORD_AT, number + 1)
        _WORD.pack_into(self._map, _WORD_AT, number + 1, 0, *words)
        _WORD_NUMBER.pack_into(self._map, _WORD_AT, number)

    def finish(self, index: int, cause: int, busy_us: int, item: bytes) -> bool:
        """Keep a result until it is sent. True if it is time to send."""
        at = _BASE + self._used
        end = at + _RECORD.size + len(item)
        assert end <= BYTES, "a host flushes long before its notes are full"
        _RECORD.pack_into(self._map, at, self._batch, index, cause, busy_us, len(item))
        self._map[at + _RECORD.size : end] = item
        self._used = end - _BASE
        # In this order: dead between the two, the task is found among the finished ones.
        _USED_INDEX_RUNNING.pack_into(self._map, _USED_AT, self._used, index, 0)
        return self._used > FLUSH_BYTES

    def sent(self) -> None:
        """What was kept is with the peer."""
        self._generation += 1
        self._used = 0
        struct.pack_into("<II", self._map, 8, self._generation, 0)

    # --- the others' side

    @property
    def group(self) -> int:
        """Process group of the program that a spawner runs, or what `note_group` says."""
        return int(struct.unpack_from("<Q", self._map, _GROUP_AT)[0])

    def is_running(self) -> bool:
        """True while a task runs, as far as the notes say."""
        return bool(_WATCHED.unpack_from(self._map, _RUNNING_AT)[0])

    @property
    def opened(self) -> int | None:
        """The batch that was begun last, if there was one."""
        batch, generation = _BATCH_GENERATION.unpack_from(self._map)
        return int(batch) if generation else None

    def is_watched(self) -> bool:
        """True while the starter drains the output of this host."""
        return bool(_WATCHED.unpack_from(self._map, _WATCHED_AT)[0])

    def set_watched(self, value: int) -> None:
        _WATCHED.pack_into(self._map, _WATCHED_AT, value)

    def word(self, since_ns: int) -> Word | None:
        """What the task that began then has said last; None if nothing, or if it is saying it."""
        number, _, said_ns, alive_ns, done, total, size, note = _WORD.unpack_from(
            self._map, _WORD_AT
        )
        if number % 2 or _WORD_NUMBER.unpack_from(self._map, _WORD_AT)[0] != number:
            return None
        if alive_ns < since_ns:
            return None
        text = note[:size].decode(errors="replace")
        return Word(said_ns, alive_ns, done, total, "".join(filter(str.isprintable, text)))

    def is_lapsed(self) -> bool:
        """True if nothing may run here any more: the lease is over."""
        (until_ns,) = struct.unpack_from("<Q", self._map, _LEASE_AT)
        return bool(until_ns) and time.clock_gettime_ns(time.CLOCK_BOOTTIME) >= until_ns

    def set_lease(self, until_ms: int) -> None:
        """By the peer: before it hands over a batch that needs one, and whenever it has more."""
        if not self._map.closed:  # it is dead
            struct.pack_into("<Q", self._map, _LEASE_AT, until_ms * 1_000_000)

    def read(self) -> State | None:
        """What the notes say, or None if they say nothing yet, or changed meanwhile: look again
        later."""
        batch, generation, used, index, running, _, started_ns, _, _ = _HEAD.unpack_from(self._map)
        data = self._map[_BASE : _BASE + min(used, BYTES - _BASE)]
        if not generation or struct.unpack_from("<I", self._map, 8)[0] != generation:
            return None
        records = _records(data)
        known = any(record[:2] == (batch, index) for record in records[-1:])
        is_running = bool(running) and not known
        return State(batch, index, running=is_running, started_ns=started_ns, records=records)


def _records(data: bytes) -> list[Record]:
    """The whole records in `data`; what is no record ends it."""
    records: list[Record] = []
    position = 0
    while position + _RECORD.size <= len(data):
        batch, index, cause, busy_us, size = _RECORD.unpack_from(data, position)
        position += _RECORD.size + size
        if position > len(data) or cause >= len(frames.CAUSES):
            break
        records.append((batch, index, cause, busy_us, data[position - size : position]))
    return records


def pieces(records: list[Record]) -> dict[int, list[frames.Piece]]:
    """Records as contiguous pieces of one cause each, by batch."""
    gathered: dict[int, Pieces] = {}
    for batch, index, cause, busy_us, item in records:
        gathered.setdefault(batch, Pieces()).add(index, cause, busy_us, item)
    return {batch: found.take() for batch, found in gathered.items()}


class Pieces:
    """Gathers results into contiguous ranges of one cause."""

    def __init__(self) -> None:
        self._done: list[frames.Piece] = []
        self._items: list[bytes] = []
        self._next = -1
        self._cause = -1
        self._busy_us = 0

    def __bool__(self) -> bool:
        return bool(self._items)

    def add(self, index: int, cause: int, busy_us: int, item: bytes) -> None:
        if index != self._next or cause != self._cause:
            self._close()
            self._cause = cause
        self._items.append(item)
        self._next = index + 1
        self._busy_us += busy_us

    def take(self) -> list[frames.Piece]:
        """All pieces; the gathering starts anew."""
        self._close()
        done, self._done = self._done, []
        self._next = -1
        return done

    def _close(self) -> None:
        if self._items:
            start = self._next - len(self._items)
            data = chunks.pack(self._items)
            self._done.append((start, self._next, self._cause, self._busy_us, data))
        self._items = []
        self._busy_us = 0
