"""The log in memory: the tail that replication and elections look at.

Invariants: indices are contiguous from `first`; terms never fall; `stable <= last_index` and every
entry up to `stable` is on disk.
"""

from __future__ import annotations

from collections.abc import Iterable

from p2psched.model.raft import Entry


class RaftLog:
    """Entries `first`..`last_index`. `first` is 1 until there is compaction."""

    __slots__ = ("_entries", "first", "stable")

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._entries = list(entries)
        self.first = 1
        self.stable = self.last_index
        assert all(e.index == i for i, e in enumerate(self._entries, start=self.first))

    @property
    def last_index(self) -> int:
        return self.first + len(self._entries) - 1

    @property
    def last_term(self) -> int:
        return self._entries[-1].term if self._entries else 0

    @property
    def last_stamp_ms(self) -> int:
        return self._entries[-1].stamp_ms if self._entries else 0

    def term_at(self, index: int) -> int | None:
        """Term of an entry; 0 at index 0; None if we don't have it."""
        if index == 0:
            return 0
        if self.first <= index <= self.last_index:
            return self._entries[index - self.first].term
        return None

    def slice(self, start: int, stop: int) -> list[Entry]:
        """Entries `start` to `stop - 1`, as far as they exist."""
        assert start >= self.first
        return self._entries[start - self.first : max(stop, self.first) - self.first]

    def bounded(self, start: int, *, count_max: int, bytes_max: int) -> tuple[Entry, ...]:
        """Entries from `start` on: at least one if there is one, then as many as fit."""
        taken: list[Entry] = []
        size = 0
        for entry in self.slice(start, start + count_max):
            size += len(entry.payload) + 32  # 32: the fields around the payload, at most
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
        del self._entries[index - self.first :]
        self.stable = min(self.stable, index - 1)

    def first_of_term_at(self, index: int) -> int:
        """The first index of the run of equal terms that `index` stands in."""
        term = self.term_at(index)
        while index > self.first and self.term_at(index - 1) == term:
            index -= 1
        return index

    def last_of_term(self, term: int, before: int) -> int | None:
        """The last index up to `before` with this term, or None."""
        index = min(before, self.last_index)
        while index >= self.first:
            found = self._entries[index - self.first].term
            if found == term:
                return index
            if found < term:
                return None
            index -= 1
        return None
