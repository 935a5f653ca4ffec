"""The log in memory: the tail that replication and elections look at.

Invariants: indices are contiguous from `first`; terms never fall; `stable <= last_index` and every
entry up to `stable` is on disk. What stands before `first` is committed and in a snapshot: of it
only the base is known, the last entry that was dropped.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from p2psched.model.raft import Entry, Snapshot

ENTRY_OVERHEAD_BYTES: Final = 32  # the fields around a payload, at most


def size_of(entry: Entry) -> int:
    """Bytes that an entry takes, about."""
    return len(entry.payload) + ENTRY_OVERHEAD_BYTES


def _term_of(entry: Entry) -> int:
    return entry.term


class LogBase(msgspec.Struct, frozen=True):
    """The last entry that is not in the log any more; all zero for a whole log."""

    index: int = 0
    term: int = 0
    stamp_ms: int = 0


class RaftLog:
    """Entries `first`..`last_index`, behind `base`."""

    __slots__ = ("_entries", "base", "stable")

    def __init__(self, entries: Iterable[Entry] = (), base: LogBase | None = None) -> None:
        self._entries = list(entries)
        self.base = base or LogBase()
        self.stable = self.last_index
        assert all(e.index == i for i, e in enumerate(self._entries, start=self.first))

    @property
    def first(self) -> int:
        return self.base.index + 1

    @property
    def last_index(self) -> int:
        return self.base.index + len(self._entries)

    @property
    def last_term(self) -> int:
        return self._entries[-1].term if self._entries else self.base.term

    @property
    def last_stamp_ms(self) -> int:
        return self._entries[-1].stamp_ms if self._entries else self.base.stamp_ms

    def term_at(self, index: int) -> int | None:
        """Term of an entry or of the base; 0 at index 0; None if we don't have it."""
        base, entries = self.base, self._entries
        place = index - base.index - 1
        if 0 <= place < len(entries):
            return entries[place].term
        if index == base.index:
            return base.term
        return 0 if index == 0 else None

    def slice(self, start: int, stop: int) -> list[Entry]:
        """Entries `start` to `stop - 1`, as far as they exist."""
        place, end = start - self.base.index - 1, stop - self.base.index - 1
        assert place >= 0
        return self._entries[place : max(0, end)]

    def bounded(self, start: int, *, count_max: int, bytes_max: int) -> tuple[Entry, ...]:
        """Entries from `start` on: at least one if there is one, then as many as fit."""
        taken: list[Entry] = []
        size = 0
        for entry in self.slice(start, start + count_max):
            size += size_of(entry)
            if taken and size > bytes_max:
                break
            taken.append(entry)
        return tuple(taken)

    def append(self, entry: Entry) -> None:
        assert entry.index == self.last_index + 1
        assert entry.term >= self.last_term
        self._entries.append(entry)

    def truncate_from(self, index: int) -> None:
        """Drop `index` and everything after it."""
        assert index >= self.first
        del self._entries[index - self.first :]
        self.stable = min(self.stable, index - 1)

    # --- compaction ---

    def drop_until(self, index: int) -> None:
        """Drop everything up to `index`, which becomes the base. No more than there is."""
        if index < self.first:
            return
        count = index - self.base.index
        last = self._entries[count - 1]
        del self._entries[:count]
        self.base = LogBase(last.index, last.term, last.stamp_ms)
        self.stable = max(self.stable, index)  # the snapshot that stands for it is on disk

    def reset(self, base: LogBase, *, stable: int) -> None:
        """Drop all entries; the log goes on behind `base`. `stable`: how much of what `base`
        stands for is on disk until `base` is."""
        self._entries.clear()
        self.base = base
        self.stable = stable

    def tail_start(self, upto: int, *, count_max: int, bytes_max: int) -> int:
        """The first of the entries before and at `upto` that fit both bounds together."""
        index, size = upto, 0
        while index >= self.first and upto - index < count_max:
            size += size_of(self._entries[index - self.first])
            if size > bytes_max:
                break
            index -= 1
        return index + 1

    # --- terms ---

    def first_of_term_at(self, index: int) -> int:
        """The first index that we have of the run of equal terms that `index` stands in, the base
        aside. O(log entries), for terms never fall."""
        term = self.term_at(index)
        if term is None or index < self.first:
            return index
        return self.first + bisect_left(self._entries, term, key=_term_of)

    def last_of_term(self, term: int, before: int) -> int | None:
        """The last index up to `before` with this term, the base included, or None."""
        stop = max(0, min(before, self.last_index) - self.base.index)
        index = self.base.index + bisect_right(self._entries, term, hi=stop, key=_term_of)
        return index if 0 < index <= before and self.term_at(index) == term else None


def recovered_log(entries: Sequence[Entry], snapshot: Snapshot | None) -> RaftLog:
    """What the disk gave back: entries of before the snapshot may be missing, none behind it."""
    if snapshot is None:
        return RaftLog(entries)
    if not entries or entries[0].index == snapshot.index + 1:
        base = LogBase(snapshot.index, snapshot.term, snapshot.stamp_ms)
        return RaftLog(entries, base)
    first = entries[0]
    assert first.index <= snapshot.index <= entries[-1].index
    if first.index == 1:
        return RaftLog(entries)
    return RaftLog(entries[1:], LogBase(first.index, first.term, first.stamp_ms))
