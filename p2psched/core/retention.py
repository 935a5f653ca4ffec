"""Which ended jobs the coordinator proposes to forget: too old, or too many, or too many bytes.

Nothing here is replicated: it is derived from the state when this peer begins to coordinate, and
followed from events until it ends. A proposal that comes too late or twice changes nothing: it
names the end that it is about. Pinned jobs are never proposed; only a person forgets them.
"""

from __future__ import annotations

import heapq
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
FORGETS_MAX: Final = 64  # in one round; the next one goes on
LOOKS_MAX: Final = 1_024  # at jobs that are over time, in one round
_ASK_AGAIN_MS: Final = 5_000
_COUNT_AGAIN_MS: Final = 1_000
_STALE_MAX: Final = 1_024  # entries of forgotten jobs, beyond as many as there are others


class Retention:
    """Asked by the coordinator alone."""

    def __init__(self, state: LedgerState, *, keep_ms: int, keep_bytes: int) -> None:
        self._state = state
        self._keep_ms = keep_ms
        self._keep_bytes = keep_bytes
        self._due: list[tuple[int, JobId]] = []  # a heap; entries may be out of date
        self._asked_ms: dict[JobId, int] = {}
        self._active = False
        self._count_at_ms: int | None = None  # there was nothing to ask for: count again then

    def begin(self) -> None:
        """This peer coordinates from now on."""
        self._active = True
        self._asked_ms.clear()
        self._count_at_ms = None
        self._list_due()

    def end(self) -> None:
        """Somebody else does: whoever only follows keeps no list."""
        self._active = False
        self._asked_ms.clear()
        self._due.clear()

    def on_event(self, event: Event) -> None:
        if not self._active:
            return
        if isinstance(event, JobEnded) and event.job in self._state.ended:
            heapq.heappush(self._due, (self._due_ms(self._job(event.job)), event.job))
        elif isinstance(event, JobForgotten):
            self._asked_ms.pop(event.job, None)
            if len(self._due) > 2 * len(self._state.ended) + _STALE_MAX:
                self._list_due()

    def _list_due(self) -> None:
        self._due = [(self._due_ms(job), job.id) for job in map(self._job, self._state.ended)]
        heapq.heapify(self._due)

    def to_forget(self, ledger_ms: int) -> list[Forget]:
        """What to propose now."""
        assert self._active, "whoever does not coordinate proposes nothing"
        over_time = self._expired(ledger_ms)
        forgets = [Forget(j.id, j.ended_ms, self._due_ms(j)) for j in map(self._job, over_time)]
        room = FORGETS_MAX - len(over_time)
        if room > 0:
            too_many = self._too_many(ledger_ms, room, skip=set(over_time))
            forgets += [Forget(job, self._job(job).ended_ms) for job in too_many]
        for forget in forgets:
            self._asked_ms[forget.job] = ledger_ms
        return forgets

    def keep_ms(self, job: Job) -> int | None:
        """How long after its end it is forgotten by itself; None if it never is."""
        return None if job.pinned else self._due_ms(job) - job.ended_ms

    def _expired(self, ledger_ms: int) -> list[JobId]:
        chosen: list[JobId] = []
        again: list[tuple[int, JobId]] = []
        for _ in range(LOOKS_MAX):  # there may be any number of pinned ones
            if not self._due or self._due[0][0] > ledger_ms or len(chosen) >= FORGETS_MAX:
                break
            _, job_id = heapq.heappop(self._due)
            job = self._state.jobs.get(job_id)
            if job is None or not job.ended:
                self._asked_ms.pop(job_id, None)
                continue
            due_ms = self._due_ms(job)
            if job.pinned or due_ms > ledger_ms or not self._may_ask(job_id, ledger_ms):
                again.append((max(due_ms, ledger_ms + _ASK_AGAIN_MS), job_id))
                continue
            chosen.append(job_id)
            again.append((ledger_ms + _ASK_AGAIN_MS, job_id))  # in case it gets lost
        for entry in again:
            heapq.heappush(self._due, entry)
        return chosen

    def _too_many(self, ledger_ms: int, room: int, *, skip: set[JobId]) -> list[JobId]:
        """The jobs that ended first, as far as there are too many jobs, or bytes. Cost O(ended
        jobs) if there are, then not again for a while unless that was of use."""
        if self._count_at_ms is not None and ledger_ms < self._count_at_ms:
            return []
        state = self._state
        bytes_over = state.result_bytes - self._keep_bytes
        jobs_over = len(state.ended) - ENDED_JOBS_MAX
        chosen: list[JobId] = []
        for job_id in state.ended if bytes_over > 0 or jobs_over > 0 else ():
            job = self._job(job_id)
            is_young = ledger_ms - job.ended_ms < GRACE_MS
            if len(chosen) >= room or (jobs_over <= 0 and (bytes_over <= 0 or is_young)):
                break
            if job.pinned:
                continue
            bytes_over -= job.result_bytes
            jobs_over -= 1
            if job_id not in skip and self._may_ask(job_id, ledger_ms):
                chosen.append(job_id)
        is_over = state.result_bytes > self._keep_bytes or len(state.ended) > ENDED_JOBS_MAX
        self._count_at_ms = ledger_ms + _COUNT_AGAIN_MS if is_over and not chosen else None
        return chosen

    def _may_ask(self, job: JobId, ledger_ms: int) -> bool:
        return ledger_ms - self._asked_ms.get(job, -_ASK_AGAIN_MS) >= _ASK_AGAIN_MS

    def _job(self, job: JobId) -> Job:
        return self._state.jobs[job]

    def _due_ms(self, job: Job) -> int:
        return job.ended_ms + (self._keep_ms if job.spec.keep_ms is None else job.spec.keep_ms)
