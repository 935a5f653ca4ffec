"""Small jobs in the result store: what befalls many of them goes into one row, a page.

A job of one task is four events. As rows of its own they cost more than all else that its peer does
for it; as they came, behind each other, they are encoded in one piece and written as one row. Which
pages a job is in is kept in memory and read from their rows at start.

Invariants:
- A job is in pages or in rows of its own, never in both (`SqliteResults` sees to that).
- A page holds its events in the order in which they came, whole with specs and data, and the ids of
  its jobs before them, so that a start decodes no events. Its checksum covers all of it.
- What is taken out of a page is gone from the file with the end of the transaction.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from p2psched.model import limits
from p2psched.model.commands import JobAdded, JobEnded, Recorded, Retried, Stamped
from p2psched.model.ids import JobId
from p2psched.model.job import JobSpec, Segment, argument_size
from p2psched.ports.results import KnownJob, Page
from p2psched.store.results_rows import Mismatch, event_without_data, item_of, without_data

SMALL_BYTES: Final = 4 * limits.KIB  # of code and arguments of a job that goes into pages
PLACES_MAX: Final = 8  # pages that a small job is in; one with more of a story gets its own rows
PAGE_EVENTS_MAX: Final = 400  # a read decodes a whole page: this takes half a millisecond ...
PAGE_BYTES_MAX: Final = 256 * limits.KIB  # ... and so does this, of data
_OPEN_MAX: Final = 3  # pages that are kept decoded

_encode: Final = msgspec.msgpack.Encoder().encode
_events: Final = msgspec.msgpack.Decoder(list[Stamped]).decode
_ids: Final = msgspec.msgpack.Decoder(list[JobId]).decode

Places = tuple[int, ...]


def is_small(spec: JobSpec | None) -> bool:
    """True for a job that starts in pages."""
    return spec is not None and len(spec.tasks) == 1 and argument_size(spec.work) <= SMALL_BYTES


class JobPages:
    """All changes belong to the transaction that is open; `load` again after one was taken back."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._places: dict[JobId, Places] = {}  # of each small job, oldest page first
        self._counts: dict[int, int] = {}  # jobs that are still in each page
        self._last = 0
        self._new: list[Stamped] = []  # of the transaction
        self._dropped: set[JobId] = set()  # of the transaction: what is new of these goes, too
        self._gone: dict[int, set[JobId]] = {}  # of the transaction: taken out, by page
        self._open: OrderedDict[int, dict[JobId, list[Stamped]]] = OrderedDict()
        self.load()

    def load(self) -> None:
        """Cost O(small jobs). Raises Mismatch."""
        self._places.clear()
        self._counts.clear()
        self._new.clear()
        self._dropped.clear()
        self._gone.clear()
        self._open.clear()
        self._last = 0
        same: dict[tuple[Places, int], Places] = {}  # most jobs share theirs with many others
        for number, crc, jobs in self._db.execute(
            "SELECT number, ids_crc, ids FROM page ORDER BY number"
        ):
            if crc != zlib.crc32(_encode((number, jobs))):
                raise Mismatch(f"the list of jobs in page {number} fails its checksum")
            self._note(number, _ids(jobs), same)

    def _note(
        self, number: int, jobs: Sequence[JobId], same: dict[tuple[Places, int], Places]
    ) -> None:
        places = self._places
        for job in jobs:
            before = places.get(job, ())
            places[job] = same.setdefault((before, number), (*before, number))
        self._counts[number] = len(jobs)
        self._last = number

    # --- changes ---

    def __contains__(self, job: JobId) -> bool:
        return job in self._places

    def begin(self, stamped: Stamped, job: JobId) -> None:
        """The first event of a small job."""
        if job in self._dropped:
            self._drop()
        self._places[job] = ()
        self._new.append(stamped)

    def add(self, stamped: Stamped, job: JobId) -> bool:
        """One more event of a job. False if it isn't here, or if there is too much of it for pages
        by now: `take_out` and give it its own rows."""
        places = self._places.get(job)
        if places is None or len(places) >= PLACES_MAX:
            return False
        self._new.append(stamped)
        return True

    def take_out(self, job: JobId) -> list[Stamped]:
        """Remove a job that is here. Its events so far, whole. Raises Mismatch."""
        events = list(self._story(job))
        events += [stamped for stamped in self._new if _job_of(stamped) == job]
        self.forget(job)
        return events

    def forget(self, job: JobId) -> None:
        """Remove a job that is here."""
        for number in self._places.pop(job):
            self._gone.setdefault(number, set()).add(job)
        self._dropped.add(job)

    def _drop(self) -> None:
        self._new = [stamped for stamped in self._new if _job_of(stamped) not in self._dropped]
        self._dropped.clear()

    def write(self) -> None:
        """At the end of a transaction. Raises Mismatch if a page that loses a job is damaged."""
        for number, gone in self._gone.items():
            self._cut(number, gone)
        self._gone.clear()
        if self._dropped:
            self._drop()
        new, self._new = self._new, []
        same: dict[tuple[Places, int], Places] = {}
        for start in range(0, len(new), PAGE_EVENTS_MAX):
            self._append(new[start : start + PAGE_EVENTS_MAX], same)

    def _append(self, events: list[Stamped], same: dict[tuple[Places, int], Places]) -> None:
        data = _encode(events)
        if len(data) > PAGE_BYTES_MAX and len(events) > 1:
            middle = len(events) // 2
            self._append(events[:middle], same)
            self._append(events[middle:], same)
        else:
            number = self._last + 1
            self._note(number, self._put(number, events, data), same)

    def _put(self, number: int, events: list[Stamped], data: bytes) -> list[JobId]:
        jobs = list(dict.fromkeys([_job_of(stamped) for stamped in events]))
        ids = _encode(jobs)
        self._db.execute(
            "INSERT OR REPLACE INTO page VALUES (?, ?, ?, ?, ?)",
            (number, zlib.crc32(_encode((number, ids))), ids, _crc(number, data), data),
        )
        return jobs

    def _cut(self, number: int, gone: set[JobId]) -> None:
        left = self._counts[number] - len(gone)
        if left:
            events = [e for e in self._decode(number) if _job_of(e) not in gone]
            self._put(number, events, _encode(events))
            self._counts[number] = left
        else:
            self._db.execute("DELETE FROM page WHERE number = ?", (number,))
            del self._counts[number]
        self._open.pop(number, None)

    # --- reads; all raise Mismatch ---

    def jobs(self) -> list[JobId]:
        return list(self._places)

    def is_whole(self, job: JobId, known: KnownJob) -> bool:
        """True if this is all that there is of a job that has ended."""
        ended, positions = None, 0
        for stamped in self._story(job):
            if isinstance(stamped.event, JobEnded):
                ended = stamped.wall_ms
            positions += isinstance(stamped.event, Recorded)
        return ended is not None and (ended, positions) == (known.ended_wall_ms, known.positions)

    def segments(self, job: JobId, position: int, bytes_max: int, overhead_bytes: int) -> Page:
        """As port `Results`; each segment counts `overhead_bytes` more than its data."""
        page = Page(position)
        size = 0
        for recorded in self._recorded(job):
            if recorded.position < position:
                continue
            size += len(recorded.segment.data) + overhead_bytes
            if page.segments and size > bytes_max:
                break
            page.add(recorded.position, recorded.segment)
        return page

    def spec(self, job: JobId) -> JobSpec | None:
        for stamped in self._story(job):
            if isinstance(stamped.event, JobAdded):
                return stamped.event.spec
        return None

    def item(self, job: JobId, index: int) -> tuple[Segment, bytes] | None:
        """As port `Results`."""
        for recorded in self._recorded(job):
            segment = recorded.segment
            if segment.start <= index < segment.stop:
                return without_data(segment), item_of(segment, job, index)
        return None

    def attempt(self, job: JobId, index: int, grant: int) -> tuple[Segment, bytes] | None:
        """As port `Results`."""
        for event in self.attempts(job, (grant, -1)):
            if event.grant == grant and index in event.segment.tasks:
                return without_data(event.segment), item_of(event.segment, job, index)
        return None

    def attempts(self, job: JobId, after: tuple[int, int]) -> list[Retried]:
        """As port `Results`; they are few, and short."""
        events = (stamped.event for stamped in self._story(job))
        found = [event for event in events if isinstance(event, Retried)]
        return [event for event in found if (event.grant, event.segment.start) > after]

    def history(self, job: JobId, after: int) -> Iterator[Stamped]:
        """Events behind the command `after`, without specs and data."""
        for stamped in self._story(job):
            if stamped.index > after:
                event = event_without_data(stamped.event)
                yield Stamped(stamped.index, stamped.at_ms, stamped.wall_ms, event)

    def _recorded(self, job: JobId) -> Iterator[Recorded]:
        for stamped in self._story(job):
            if isinstance(stamped.event, Recorded):
                yield stamped.event

    def _story(self, job: JobId) -> Iterator[Stamped]:
        for number in self._places[job]:
            yield from self._opened(number).get(job, ())

    def _opened(self, number: int) -> dict[JobId, list[Stamped]]:
        """A page by its jobs. Who asks for one job often asks for its neighbours next."""
        found = self._open.get(number)
        if found is None:
            found = {}
            for stamped in self._decode(number):
                found.setdefault(_job_of(stamped), []).append(stamped)
            self._open[number] = found
            if len(self._open) > _OPEN_MAX:
                self._open.popitem(last=False)
        return found

    def _decode(self, number: int) -> list[Stamped]:
        row = self._db.execute("SELECT crc, events FROM page WHERE number = ?", (number,))
        found = row.fetchone()
        if found is None or found[0] != _crc(number, found[1]):
            raise Mismatch(f"page {number} of small jobs fails its checksum")
        return _events(found[1])


def _job_of(stamped: Stamped) -> JobId:
    return stamped.event.job  # type: ignore[union-attr]  # events of peers never come here


def _crc(number: int, data: object) -> int:
    """A damaged row may hold another type: it is other bytes."""
    return zlib.crc32(_encode((number, data)))
