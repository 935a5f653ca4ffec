"""What is due when, in ledger time. Order: by time, then by key, so equal on all peers."""

from __future__ import annotations

import heapq
from typing import Final, Generic, TypeVar

K = TypeVar("K", str, int, bytes, tuple[str, int])

SLACK: Final = 64  # entries of the heap that stand for nothing any more, besides as many as keys


class Deadlines(Generic[K]):
    """Each key has one time at most."""

    def __init__(self) -> None:
        self._due: dict[K, int] = {}
        self._heap: list[tuple[int, K]] = []  # old times stay in it until they surface

    def __len__(self) -> int:
        return len(self._due)

    def clear(self) -> None:
        self._due.clear()
        self._heap.clear()

    def keys(self) -> list[K]:
        return list(self._due)

    def of(self, key: K) -> int | None:
        """When this one is due."""
        return self._due.get(key)

    def set(self, key: K, due_ms: int) -> None:
        self._due[key] = due_ms
        heapq.heappush(self._heap, (due_ms, key))
        if len(self._heap) > 4 * len(self._due) + SLACK:
            self._heap = [(due_ms, key) for key, due_ms in self._due.items()]
            heapq.heapify(self._heap)

    def drop(self, key: K) -> None:
        self._due.pop(key, None)

    def next_ms(self) -> int | None:
        """When the next one is due."""
        heap = self._heap
        while heap and self._due.get(heap[0][1]) != heap[0][0]:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def take(self, upto_ms: int) -> K | None:
        """The first that is due by then; it is due no more."""
        next_ms = self.next_ms()
        if next_ms is None or next_ms > upto_ms:
            return None
        _, key = heapq.heappop(self._heap)
        del self._due[key]
        return key
