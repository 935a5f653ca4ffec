"""Which ended jobs the coordinator proposes to forget: too old, or too many, or too many bytes.

Nothing here is replicated: it is derived from the state when this peer begins to coordinate, and
followed from events until it ends. A proposal that comes too late or twice changes nothing: it
names the end that it is about. Pinned jobs are never proposed; only a person forgets them.
"""

from __future__ import annotations

import heapq
from collections import deque
from typing import Final

from p2psched.core.jobs import Job
from p2psched.core.state import LedgerState
from p2psched.model.commands import Event, Forget, JobEnded, JobForgotten
from p2psched.model.ids import JobId
from p2psched.model.limits import ENDED_JOBS_MAX, GIB

KEEP_MS: Final = 7 * 86_400_000  # of ledger time, for jobs that don't say how long
KEEP_BYTES: Final = 16 * GIB  # of results of all jobs, large ones counted once
# However many bytes there are, whoever waits for a job has this long to fetch its results.
GRACE_MS: Final = 60_000
# In one round; the next one goes on. Under a flood there are a dozen rounds in a second, in each of
# which more than a hundred jobs end.
FORGETS_MAX: Final = 256
OPEN_MAX: Final = 1_024  # proposed and not seen committed; further ones wait
LOOKS_MAX: Final = 1_024  # at jobs that are over time, or that ended before this, in one round
_ASK_AGAIN_MS: Final = 5_000
_COUNT_AGAIN_MS: Final = 1_000
_STALE_MAX: Final = 1_024  # entries of forgotten jobs, beyond as many as there are others


class Retention:
    """Asked by the coordinator alone, in each round in which something `is_due`."""

    def __init__(self, state: LedgerState, *, keep_ms: int, keep_bytes: int) -> None:
        self._state = state
        self._keep_ms = keep_ms
        self._keep_bytes = keep_bytes
        self._due: list[tuple[int, JobId]] = []  # a heap; entries may be out of date
        self._unlisted: deque[JobId] = deque()  # of before we began: not in the heap yet
        self._order: deque[JobId] = deque()  # who goes if there are too many; some may be gone
        self._pinned: deque[JobId] = deque()  # were met there, and may be unpinned again
        self._asked: dict[JobId, tuple[int, int]] = {}  # when, and bytes; oldest first
        self._asked_bytes = 0
        self.active = False  # this peer coordinates
        self._count_at_ms: int | None = None  # there was nothing to ask for: count again then

    def begin(self) -> None:
        """This peer coordinates from now on. Looks at no job yet: there may be very many."""
        self.end()
        self.active = True
        self._unlisted.extend(self._state.ended)
        self._order.extend(self._state.ended)

    def end(self) -> None:
        """Somebody else does: whoever only follows keeps no list."""
        self.active = False
        self._count_at_ms = None
        self._asked_bytes = 0
        for held in (self._due, self._unlisted, self._order, self._pinned, self._asked):
            held.clear()

    def on_event(self, event: Event) -> None:
        if not self.active:
            return
        if isinstance(event, JobEnded) and event.job in self._state.ended:
            heapq.heappush(self._due, (self._due_ms(self._job(event.job)), event.job))
            self._order.append(event.job)
        elif isinstance(event, JobForgotten):
            self._drop_asked(event.job)
            ended = self._state.ended
            if len(self._due) > 2 * len(ended) + _STALE_MAX:
                self._due = [entry for entry in self._due if entry[1] in ended]
                heapq.heapify(self._due)
            if len(self._order) > 2 * len(ended) + _STALE_MAX:
                self._order = deque(name for name in self._order if name in ended)

    def is_due(self, ledger_ms: int) -> bool:
        """There may be something to forget now. Costs next to nothing."""
        if self._unlisted or (self._due and self._due[0][0] <= ledger_ms):
            return True
        waits = self._count_at_ms is not None and ledger_ms < self._count_at_ms
        return not waits and (self._jobs_over > 0 or self._bytes_over > 0)

    def to_forget(self, ledger_ms: int) -> list[Forget]:
        """What to propose now."""
        assert self.active, "whoever does not coordinate proposes nothing"
        self._take_back(ledger_ms)
        self._list_some()
        room = min(FORGETS_MAX, OPEN_MAX - len(self._asked))
        over_time = self._expired(ledger_ms, room)
        forgets = [Forget(job.id, job.ended_ms, self._due_ms(job)) for job in over_time]
        too_many = self._too_many(ledger_ms, room - len(over_time))
        return forgets + [Forget(job.id, job.ended_ms) for job in too_many]

    def keep_ms(self, job: Job) -> int | None:
        """How long after its end it is forgotten by itself; None if it never is."""
        return None if job.pinned else self._due_ms(job) - job.ended_ms

    # --- by age ---

    def _list_some(self) -> None:
        for _ in range(min(len(self._unlisted), LOOKS_MAX)):
            job = self._state.jobs.get(self._unlisted.popleft())
            if job is not None and job.ended:
                heapq.heappush(self._due, (self._due_ms(job), job.id))

    def _expired(self, ledger_ms: int, room: int) -> list[Job]:
        chosen: list[Job] = []
        again: list[tuple[int, JobId]] = []
        for _ in range(LOOKS_MAX):  # there may be any number of pinned ones
            if not self._due or self._due[0][0] > ledger_ms or len(chosen) >= room:
                break
            _, job_id = heapq.heappop(self._due)
            job = self._state.jobs.get(job_id)
            if job is None or not job.ended:
                continue
            due_ms = self._due_ms(job)
            if job.pinned or due_ms > ledger_ms or job_id in self._asked:
                again.append((max(due_ms, ledger_ms + _ASK_AGAIN_MS), job_id))
                continue
            chosen.append(job)
            self._note_asked(job, ledger_ms)
            again.append((ledger_ms + _ASK_AGAIN_MS, job_id))  # in case it gets lost
        for entry in again:
            heapq.heappush(self._due, entry)
        return chosen

    # --- by number and bytes ---

    @property
    def _jobs_over(self) -> int:
        return len(self._state.ended) - len(self._asked) - ENDED_JOBS_MAX

    @property
    def _bytes_over(self) -> int:
        return self._state.result_bytes - self._asked_bytes - self._keep_bytes

    def _too_many(self, ledger_ms: int, room: int) -> list[Job]:
        """The jobs that ended first, as far as there are too many jobs, or bytes."""
        if room <= 0 or (self._count_at_ms is not None and ledger_ms < self._count_at_ms):
            return []
        if self._count_at_ms is not None:
            self._look_at_pinned()
        chosen: list[Job] = []
        looks = 0
        while looks < LOOKS_MAX:
            looks += 1
            jobs_over, bytes_over = self._jobs_over, self._bytes_over
            is_over = jobs_over > 0 or bytes_over > 0
            if not is_over or not self._order or len(chosen) >= room:
                break
            job_id = self._order.popleft()
            if job_id not in self._state.ended or job_id in self._asked:
                continue
            job = self._job(job_id)
            if job.pinned:
                self._pinned.append(job_id)
            elif jobs_over <= 0 and ledger_ms - job.ended_ms < GRACE_MS:
                self._order.appendleft(job_id)
                break
            else:
                chosen.append(job)
                self._note_asked(job, ledger_ms)
        in_vain = not chosen and looks < LOOKS_MAX and (self._jobs_over > 0 or self._bytes_over > 0)
        self._count_at_ms = ledger_ms + _COUNT_AGAIN_MS if in_vain else None
        return chosen

    def _look_at_pinned(self) -> None:
        """At some of them, in turns."""
        for _ in range(min(len(self._pinned), LOOKS_MAX)):
            job_id = self._pinned.popleft()
            if job_id in self._state.ended:
                is_pinned = self._job(job_id).pinned
                (self._pinned if is_pinned else self._order).append(job_id)

    # --- what is asked for ---

    def _note_asked(self, job: Job, ledger_ms: int) -> None:
        self._asked[job.id] = (ledger_ms, job.result_bytes)
        self._asked_bytes += job.result_bytes

    def _drop_asked(self, job_id: JobId) -> None:
        self._asked_bytes -= self._asked.pop(job_id, (0, 0))[1]

    def _take_back(self, ledger_ms: int) -> None:
        """What was asked for and is still there: it was lost, or refused."""
        late: list[JobId] = []
        for job_id, (asked_ms, _) in self._asked.items():
            if ledger_ms - asked_ms < _ASK_AGAIN_MS:
                break
            late.append(job_id)
        for job_id in late:
            self._drop_asked(job_id)
        self._order.extendleft(reversed(late))

    def _job(self, job: JobId) -> Job:
        return self._state.jobs.peek(job)

    def _due_ms(self, job: Job) -> int:
        return job.ended_ms + (self._keep_ms if job.spec.keep_ms is None else job.spec.keep_ms)
