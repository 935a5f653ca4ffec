"""The simulated twin of `store.results`: port `Results` in memory.

It passes the same contract suite. It refuses to survive its process, as a peer that lost its
results does; to simulate one that kept them, hand the same object to the next incarnation.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence

from p2psched.model.commands import (
    Event,
    JobAdded,
    JobForgotten,
    JobReopened,
    Recorded,
    Retried,
    Stamped,
)
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import JobSpec, Segment
from p2psched.ports.results import Fill, Gap, KnownJob, Page
from p2psched.store.results import PEER_EVENTS_MAX, PRUNE_EVERY, SEGMENT_OVERHEAD_BYTES
from p2psched.store.results_rows import (
    event_without_data,
    history_key,
    item_of,
    parts_without,
    without_data,
)


class MemoryResults:
    """Results and history in memory; grows without bound, so only for tests."""

    def __init__(self) -> None:
        self._applied_index = 0
        self._segments: defaultdict[JobId, list[list[Segment]]] = defaultdict(list)  # by position
        self._history: defaultdict[JobId, list[Stamped]] = defaultdict(list)
        self._specs: dict[JobId, JobSpec] = {}
        self._attempts: defaultdict[JobId, list[Retried]] = defaultdict(list)
        self._grants: defaultdict[JobId, dict[int, tuple[int, PeerId]]] = defaultdict(dict)
        self._stores = 0
        self._gaps: dict[JobId, Gap] = {}

    @property
    def applied_index(self) -> int:
        return self._applied_index

    def store(self, events: Sequence[Stamped], applied_index: int) -> None:
        assert applied_index > self._applied_index, "an entry was handed over twice"
        for stamped in events:
            event = stamped.event
            kept = Stamped(stamped.index, stamped.at_ms, stamped.wall_ms, event_without_data(event))
            self._history[history_key(event)].append(kept)
            self._take(event)
        self._applied_index = applied_index
        self._stores += 1
        if self._stores % PRUNE_EVERY == 0:
            del self._history[JobId("")][:-PEER_EVENTS_MAX]

    def _take(self, event: Event) -> None:
        match event:
            case Recorded(job=job, position=position, segment=segment):
                held = self._segments[job]
                assert position == len(held), "positions of a job rise by one"
                held.append([segment])
                self._grants[job][position] = (event.grant, event.peer)
            case Retried(job=job):
                self._note_attempt(event)
            case JobAdded(job=job, spec=JobSpec() as spec):
                self._specs[job] = spec
            case JobReopened(job=job, tasks=tasks):
                for place, parts in enumerate(self._segments[job]):
                    self._segments[job][place] = [
                        left for part in parts for left in parts_without(part, tasks)
                    ]
                    for part in parts:
                        for over in parts_without(part, part.tasks - tasks):
                            self._note_attempt(Retried(job, *self._grants[job][place], over))
            case JobForgotten(job=job):
                self._forget(job)
            case _:
                pass

    def _note_attempt(self, event: Retried) -> None:
        held = self._attempts[event.job]
        known = {(one.grant, one.segment.start) for one in held}
        if event.segment.data and (event.grant, event.segment.start) not in known:
            held.append(event)
            held.sort(key=lambda one: (one.grant, one.segment.start))

    def _forget(self, job: JobId) -> None:
        kept = (self._segments, self._history, self._specs, self._attempts, self._grants)
        for known in (*kept, self._gaps):
            known.pop(job, None)

    def segments(self, job: JobId, position: int, bytes_max: int) -> Page:
        page = Page(position)
        size = 0
        for place, parts in enumerate(self._segments.get(job, [])[position:], start=position):
            size += sum(len(part.data) + SEGMENT_OVERHEAD_BYTES for part in parts)
            if page.segments and size > bytes_max:
                break
            for part in parts:
                page.add(place, part)
            page.next_position = place + 1
        return page

    def spec(self, job: JobId) -> JobSpec | None:
        return self._specs.get(job)

    def item(self, job: JobId, index: int) -> tuple[Segment, bytes] | None:
        for parts in self._segments.get(job, []):
            for part in parts:
                if part.start <= index < part.stop:
                    return without_data(part), item_of(part, job, index)
        return None

    def attempt(self, job: JobId, index: int, grant: int) -> tuple[Segment, bytes] | None:
        for event in self._attempts.get(job, []):
            if event.grant == grant and index in event.segment.tasks:
                return without_data(event.segment), item_of(event.segment, job, index)
        return None

    def attempts(self, job: JobId, after: tuple[int, int], bytes_max: int) -> list[Retried]:
        found: list[Retried] = []
        for event in self._attempts.get(job, []):
            if (event.grant, event.segment.start) > after:
                bytes_max -= len(event.segment.data)
                if found and bytes_max < 0:
                    break
                found.append(event)
        return found

    def history(self, job: JobId, after: int, limit: int) -> list[Stamped]:
        events = self._history.get(job, [])
        first = bisect_right(events, after, key=lambda stamped: stamped.index)
        end = min(first + max(limit, 1), len(events))
        while first < end < len(events) and events[end].index == events[end - 1].index:
            end += 1
        return events[first:end]

    def checkpoint(self, applied_index: int) -> None:
        self._applied_index = max(self._applied_index, applied_index)

    def jump(self, applied_index: int, jobs: Mapping[JobId, KnownJob], upto: int) -> None:
        """All that was before may be incomplete, and is fetched anew."""
        self._applied_index = applied_index
        self._gaps = {JobId(""): Gap(upto, 0)}
        self._gaps |= {job: Gap(upto, known.positions) for job, known in jobs.items()}
        for job, known in jobs.items():
            if known.spec is not None:
                self._specs[job] = known.spec
            held = self._segments[job]
            held += [[] for _ in range(known.positions - len(held))]
        for kept in (self._segments, self._history, self._specs, self._attempts):
            for job in [job for job in kept if job and job not in jobs]:
                del kept[job]

    def gaps(self) -> dict[JobId, Gap]:
        return dict(self._gaps)

    def begin_fill(self, job: JobId, gap: Gap) -> bool:
        if self._gaps.get(job) != gap:
            return False
        for place in range(gap.positions):
            self._segments[job][place] = []
        self._history[job] = [e for e in self._history[job] if e.index > gap.upto]
        return True

    def fill(self, job: JobId, gap: Gap, piece: Fill) -> bool:
        if self._gaps.get(job) != gap:
            return False
        for event in piece.attempts:
            self._note_attempt(event)
        events = [e for e in piece.events if e.index <= gap.upto]
        self._history[job] = sorted([*self._history[job], *events], key=lambda e: e.index)
        if piece.spec is not None:
            self._specs[job] = piece.spec
        again = [e.event.tasks for e in self._history[job]
                 if isinstance(e.event, JobReopened) and e.index > gap.upto]  # fmt: skip
        page = piece.page or Page(0)
        for position, segment in zip(page.positions, page.segments, strict=True):
            if position < gap.positions:
                left = segment.tasks
                for tasks in again:
                    left = left - tasks
                whole = left == segment.tasks
                self._grants[job].setdefault(position, piece.grants.get(position, (0, PeerId(""))))
                self._segments[job][position] += [segment] if whole else segment.parts(left)
        return True

    def end_fill(self, job: JobId, gap: Gap) -> bool:
        if self._gaps.get(job) != gap:
            return False
        del self._gaps[job]
        return True

    def close(self) -> None:
        """Nothing to release."""
