"""Term, vote and log of one member: in memory, and on disk before anybody hears of them.

Calls block for the sync. An error of the disk is the end of the member: it must not speak again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from p2psched.model.raft import Entry, HardState

SYNC_WEIGHT: Final = 0.2  # of the newest in the moving average


class Written(Protocol):
    @property
    def written_bytes(self) -> int: ...


class Store(Written, Protocol):
    """As `store.log.LogStore`: durable is what was written before a `sync` that returned."""

    @property
    def snapshots(self) -> Written: ...
    @property
    def size_bytes(self) -> int: ...

    def write(
        self,
        *,
        hard_state: HardState | None,
        truncate_from: int | None,
        entries: Sequence[Entry],
    ) -> None: ...

    def sync(self) -> None: ...

    def close(self) -> None: ...


class Marker(Protocol):
    """Tells the synced end elsewhere, a little later."""

    def on_synced(self) -> None: ...

    def close(self) -> None: ...


class MemberLog:
    def __init__(
        self, store: Store, hard: HardState, entries: list[Entry], on_synced: Callable[[], None]
    ) -> None:
        self._store = store
        self._on_synced = on_synced
        self._entries = entries
        self.hard = hard
        self.commit = 0  # only rises
        self.syncs = 0
        self.sync_ms = 0.0

    @property
    def last_index(self) -> int:
        return len(self._entries)

    @property
    def last_term(self) -> int:
        return self._entries[-1].term if self._entries else 0

    @property
    def last_stamp_ms(self) -> int:
        return self._entries[-1].stamp_ms if self._entries else 0

    def term_at(self, index: int) -> int | None:
        """None if there is no such entry."""
        if index == 0:
            return 0
        return self._entries[index - 1].term if 0 < index <= len(self._entries) else None

    def slice(self, start: int, stop: int) -> list[Entry]:
        """Entries `start` to `stop - 1`."""
        return self._entries[start - 1 : stop - 1]

    def promise(self, hard: HardState) -> None:
        """A term and a vote. Within a term a vote is never taken back."""
        if hard == self.hard:
            return
        assert hard.term > self.hard.term or (
            hard.term == self.hard.term and self.hard.vote is None
        ), (hard, self.hard)
        self._store.write(hard_state=hard, truncate_from=None, entries=())
        self._sync()
        self.hard = hard

    def put(self, entries: Sequence[Entry]) -> None:
        """Entries that follow each other, in the place of whatever stands there and behind."""
        first = entries[0].index
        assert self.commit < first <= self.last_index + 1, (first, self.commit, self.last_index)
        conflict = first if first <= self.last_index else None
        self._store.write(hard_state=None, truncate_from=conflict, entries=entries)
        self._sync()
        self._entries[first - 1 :] = entries

    def _sync(self) -> None:
        began_s = time.perf_counter()
        self._store.sync()
        took_ms = 1000 * (time.perf_counter() - began_s)
        self.syncs += 1
        self.sync_ms += SYNC_WEIGHT * (took_ms - self.sync_ms)
        self._on_synced()
