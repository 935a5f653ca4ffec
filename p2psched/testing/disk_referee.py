"""What must hold of a disk when a peer starts from it: everything that a sync returned for is there
as it was written (P3), damaged or not (P10). Less than that may only be found out loud.

It keeps a book of what each peer wrote and never looks at bytes.
"""

from __future__ import annotations

import struct
import zlib
from typing import Final

from p2psched.core.raft.effects import Persist
from p2psched.model.ids import PeerId
from p2psched.model.raft import Entry, HardState, Snapshot
from p2psched.store.log import Recovered
from p2psched.testing.promises import demand

NOTHING: Final = HardState()
_FIXED: Final = struct.Struct("<Bqq")  # of an entry: kind, stamp, wall clock


class Book:
    """What one disk was given."""

    def __init__(self) -> None:
        self.terms: dict[int, int] = {}  # index -> term, of what is written and not void
        self.last = 0  # written
        self.floor = 0  # durable, and void under no circumstances
        self.hards = [NOTHING]  # the durable one, and those written since
        self.before = 0  # `last` before the newest write
        self.sure = True  # that the last of `hards` is written


class DiskReferee:
    """Disks are told apart by their peers' ids: an empty one comes with a new id."""

    def __init__(self) -> None:
        self._books: dict[PeerId, Book] = {}
        self._payloads: dict[tuple[int, int], int] = {}  # (index, term) -> checksum

    def on_writing(self, peer: PeerId, persist: Persist) -> None:
        """Before it is written: what fails on the way may be there or not."""
        book = self._books[peer]
        book.before, book.sure = book.last, True
        if persist.hard_state is not None:
            before, now = book.hards[-1], persist.hard_state
            is_later = now.term > before.term
            is_same = now.term == before.term and before.vote in (None, now.vote)
            demand(is_later or is_same, "P4", f"peer {peer} writes {now} after {before}")
            book.hards.append(now)
        if persist.truncate_from is not None:
            book.last = min(book.last, persist.truncate_from - 1)
        if persist.install is not None:
            book.last = min(book.last, persist.install.index)
        book.floor = min(book.floor, book.last)
        for entry in persist.entries:
            book.terms[entry.index] = entry.term
            book.last = entry.index
            seen = _checksum(entry)
            if self._payloads.setdefault((entry.index, entry.term), seen) != seen:
                demand(False, "P4", f"two entries {entry.index} of term {entry.term}")

    def on_refused(self, peer: PeerId, persist: Persist) -> None:
        """It found no space, and will be written again. A hard state may be there already, where
        what comes behind it in the same write found none."""
        book = self._books[peer]
        book.last = book.before
        for entry in persist.entries:
            book.terms.pop(entry.index, None)
        book.sure = False

    def on_reset(self, peer: PeerId, snapshot: Snapshot) -> None:
        """A snapshot stands for the whole log, durably."""
        book = self._books[peer]
        book.terms.clear()
        book.last = book.floor = snapshot.index
        del book.hards[:-1]
        book.sure = True

    def forget(self, peer: PeerId) -> None:
        """Demand nothing of this disk any more: somebody took away what was on it, and another
        history may begin."""
        self._books.pop(peer, None)
        self._payloads.clear()

    def on_prepared(self, peer: PeerId, found: Recovered) -> None:
        """This is what somebody has put on the disk, before the peer first starts from it."""
        self._books[peer] = Book()
        self._books[peer].hards = [found.hard_state]
        for entry in found.entries:
            self._payloads[entry.index, entry.term] = _checksum(entry)

    def durable_upto(self, peer: PeerId) -> int:
        """The last entry that is on this disk for sure."""
        return self._books[peer].floor if peer in self._books else 0

    def is_durable(self, peer: PeerId, index: int, term: int) -> bool:
        """That entry, and not only one with its index."""
        book = self._books.get(peer)
        return book is not None and index <= book.floor and book.terms.get(index, term) == term

    def on_synced(self, peer: PeerId) -> None:
        book = self._books[peer]
        book.floor = book.last
        if book.sure:
            del book.hards[:-1]

    def on_recovered(self, peer: PeerId, found: Recovered) -> None:
        """All of it counts as durable from now on. A peer that says that it lost some of it must
        still know what it has promised."""
        book = self._books.setdefault(peer, Book())
        where = f"on the disk of peer {peer}"
        base = found.snapshot.index if found.snapshot is not None else 0
        last = found.entries[-1].index if found.entries else base
        demand(
            found.hard_state in book.hards,
            "P3",
            f"{found.hard_state} {where}, which was given {book.hards}",
        )
        if found.lost is not None:
            book.floor = 0
        demand(
            max(last, base) >= book.floor,
            "P3",
            f"entries up to {max(last, base)} {where}, and it was given {book.floor} durably",
        )
        for entry in found.entries:
            if self._payloads.get((entry.index, entry.term)) != _checksum(entry):
                what = f"entry {entry.index} of term {entry.term} {where} is none that was written"
                demand(False, "P10", what)
            term = book.terms.get(entry.index, entry.term)
            if entry.term != term and entry.index <= book.floor:
                what = f"entry {entry.index} of term {entry.term} {where}, and of {term} before"
                demand(False, "P3", what)
        book.terms = {entry.index: entry.term for entry in found.entries}
        book.last = book.floor = max(last, base)
        book.hards = [found.hard_state]
        book.sure = True


def _checksum(entry: Entry) -> int:
    fixed = _FIXED.pack(entry.kind, entry.stamp_ms, entry.wall_ms)
    return zlib.crc32(entry.payload, zlib.crc32(fixed))
