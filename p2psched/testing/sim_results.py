"""The simulated twin of `store.results`: port `Results` in memory.

It passes the same contract suite. It refuses to survive its process, as a peer that lost its
results does; to simulate one that kept them, hand the same object to the next incarnation.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence

from p2psched.model.commands import Recorded, Stamped
from p2psched.model.ids import JobId
from p2psched.model.job import Segment
from p2psched.store.results import (
    SEGMENT_OVERHEAD_BYTES,
    event_without_data,
    history_key,
    item_of,
    without_data,
)


class MemoryResults:
    """Results and history in memory; grows without bound, so only for tests."""

    def __init__(self) -> None:
        self._applied_index = 0
        self._segments: defaultdict[JobId, list[Segment]] = defaultdict(list)
        self._by_start: defaultdict[JobId, list[Segment]] = defaultdict(list)
        self._history: defaultdict[JobId, list[Stamped]] = defaultdict(list)

    @property
    def applied_index(self) -> int:
        return self._applied_index

    def store(self, events: Sequence[Stamped], applied_index: int) -> None:
        assert applied_index > self._applied_index, "an entry was handed over twice"
        for stamped in events:
            event = stamped.event
            if isinstance(event, Recorded):
                self._record(event)
            kept = Stamped(stamped.index, stamped.at_ms, stamped.wall_ms, event_without_data(event))
            self._history[history_key(event)].append(kept)
        self._applied_index = applied_index

    def segments(self, job: JobId, position: int, bytes_max: int) -> list[Segment]:
        found: list[Segment] = []
        size = 0
        for segment in self._segments.get(job, [])[position:]:
            size += len(segment.data) + SEGMENT_OVERHEAD_BYTES
            if found and size > bytes_max:
                break
            found.append(segment)
        return found

    def item(self, job: JobId, index: int) -> tuple[Segment, bytes] | None:
        ordered = self._by_start.get(job, [])
        place = bisect_right(ordered, index, key=lambda segment: segment.start) - 1
        if place < 0 or index >= ordered[place].stop:
            return None
        return without_data(ordered[place]), item_of(ordered[place], job, index)

    def history(self, job: JobId, after: int, limit: int) -> list[Stamped]:
        events = self._history.get(job, [])
        first = bisect_right(events, after, key=lambda stamped: stamped.index)
        end = min(first + max(limit, 1), len(events))
        while first < end < len(events) and events[end].index == events[end - 1].index:
            end += 1
        return events[first:end]

    def close(self) -> None:
        """Nothing to release."""

    def _record(self, event: Recorded) -> None:
        held = self._segments[event.job]
        assert event.position == len(held), "positions of a job rise by one"
        held.append(event.segment)
        ordered = self._by_start[event.job]
        place = bisect_right(ordered, event.segment.start, key=lambda segment: segment.start)
        ordered.insert(place, event.segment)
