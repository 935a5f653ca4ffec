"""Which running tasks take far longer than their like: what the coordinator knows of that.

It learns how long tasks of a job take from their results, and how long running ones have run from
what owners say once a second. All of it is advice, and gone with the lead. A task is late when it
has run for twice the median, and would be called an outlier by the box of a box plot: a few very
slow ones must not hide the others, as they do in a mean and a deviation.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final, NamedTuple

from p2psched.core.kinds import kind_of
from p2psched.core.pace import span
from p2psched.core.state import LedgerState
from p2psched.model.backing import LAGGING_MAX, BackedUp, Grant, Lagging, LaggingTask
from p2psched.model.commands import JobEnded, Recorded, Revoked, Stamped
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause

ENDED_MIN: Final = 5  # tasks of a job before any other of it may be called late
SAMPLES_MAX: Final = 256  # of a job: the newest
JOBS_MAX: Final = 1_000  # that are learned about; the oldest are forgotten
TOLD_MS: Final = 3_000  # after which what an owner said is old
TELLERS_MAX: Final = 10_000  # owners whose words are kept
BACKUPS_MAX: Final = 10_000  # under way, of which the end is waited for
KINDS_MAX: Final = 1_000  # of work, of which it is known whether backups are of use
USES_MAX: Final = 32  # then the older ones count half
IN_VAIN: Final = frozenset({Cause.OVERTAKEN, Cause.CANCELLED})
TIMES: Final = 2  # the median
FENCE: Final = 1.5  # quarters' distances above the upper one: an outlier of a box plot


class Late(NamedTuple):
    """A task that shall be begun elsewhere, too."""

    owner: PeerId
    task: LaggingTask
    usual_ms: int  # what its like take; 0: not known
    left_ms: int  # that it will still take
    is_late: bool  # as its like go, and not only by the rules of its job

    @property
    def why(self) -> str:
        """For people."""
        ran = span(self.task.ran_ms)
        if not self.is_late:
            return f"it had run for {ran}, and was too slow or silent by its job's own rules"
        left = f", and was to take {span(self.task.left_ms)} more" if self.task.left_ms else ""
        return f"it had run for {ran}{left}: others of its job take {span(self.usual_ms)}"


class Durations:
    """Of one job's tasks."""

    def __init__(self) -> None:
        self._newest: deque[int] = deque(maxlen=SAMPLES_MAX)
        self.ended = 0

    def add(self, mean_ms: int, count: int) -> None:
        self.ended += count
        self._newest.extend([mean_ms] * min(count, SAMPLES_MAX))

    @property
    def median_ms(self) -> int:
        return sorted(self._newest)[len(self._newest) // 2]

    @property
    def late_ms(self) -> int:
        """From when on a task is late."""
        known = sorted(self._newest)
        count = len(known)
        lower, median, upper = known[count // 4], known[count // 2], known[count * 3 // 4]
        return max(TIMES * median, round(upper + FENCE * (upper - lower)))


class Stragglers:
    def __init__(self, machine: LedgerState) -> None:
        self._machine = machine
        self._durations: dict[JobId, Durations] = {}
        self._backups: dict[Grant, int] = {}  # of late tasks, under way -> kind of work
        self._uses: dict[int, tuple[int, int]] = {}  # of each kind: see `uses_of`
        self._told: dict[PeerId, tuple[int, tuple[LaggingTask, ...]]] = {}

    def forget(self) -> None:
        for known in (self._durations, self._told, self._backups, self._uses):
            known.clear()

    # --- what comes in ---

    def on_events(self, events: Iterable[Stamped]) -> None:
        for stamped in events:
            event = stamped.event
            if isinstance(event, JobEnded):
                self._durations.pop(event.job, None)
            elif isinstance(event, BackedUp) and event.speculates:
                self._remember(event)
            elif isinstance(event, Recorded) and event.segment.cause is Cause.OK:
                self._decide(event.grant, has_won=True)
                self._learn(event)
            elif isinstance(event, Revoked) and event.cause in IN_VAIN:
                self._decide(event.grant, has_won=False)

    def _remember(self, event: BackedUp) -> None:
        job = self._machine.jobs.get(event.job)
        if job is not None and job.full is not None:
            self._backups[event.grant] = kind_of(job.full.work)
            if len(self._backups) > BACKUPS_MAX:
                del self._backups[next(iter(self._backups))]

    def _decide(self, grant: Grant, *, has_won: bool) -> None:
        kind = self._backups.pop(grant, None)
        if kind is None:
            return
        won, lost = self._uses.pop(kind, (0, 0))
        won, lost = won + has_won, lost + (not has_won)
        if won + lost > USES_MAX:
            won, lost = won // 2, lost // 2
        self._uses[kind] = won, lost
        if len(self._uses) > KINDS_MAX:
            del self._uses[next(iter(self._uses))]

    def uses_of(self, kind: int) -> tuple[int, int]:
        """How many backups of late tasks of this kind ended first, and how many won nothing: of
        the newest."""
        return self._uses.get(kind, (0, 0))

    def _learn(self, event: Recorded) -> None:
        job = self._machine.jobs.get(event.job)
        if job is None or job.full is None or not job.full.speculates:
            return
        known = self._durations.get(job.id)
        if known is None:
            known = self._durations[job.id] = Durations()
            if len(self._durations) > JOBS_MAX:
                del self._durations[next(iter(self._durations))]
        segment = event.segment
        count = segment.stop - segment.start
        known.add(segment.busy_us // count // 1000, count)

    def on_lagging(self, now_ms: int, peer: PeerId, lagging: Lagging) -> None:
        self._told.pop(peer, None)
        if lagging.tasks and len(self._told) < TELLERS_MAX:
            self._told[peer] = now_ms, lagging.tasks[:LAGGING_MAX]

    # --- what follows ---

    @property
    def has_news(self) -> bool:
        return bool(self._told)

    def late(self, now_ms: int) -> list[Late]:
        """The longest first."""
        self._told = {p: told for p, told in self._told.items() if now_ms - told[0] < TOLD_MS}
        found: list[Late] = []
        late_ms: dict[JobId, tuple[int, int]] = {}
        for peer, (told_ms, tasks) in self._told.items():
            for task in tasks:
                if task.job not in late_ms:
                    late_ms[task.job] = self._usual(task.job)
                usual_ms, limit_ms = late_ms[task.job]
                ran_ms = task.ran_ms + now_ms - told_ms
                # What has run for long runs on for as long, for all that is known.
                left_ms = ran_ms if task.left_ms is None else task.left_ms
                is_late = usual_ms > 0 and ran_ms + (task.left_ms or 0) > limit_ms
                if task.stalls or (is_late and left_ms > usual_ms):
                    found.append(Late(peer, task, usual_ms, left_ms, is_late))
        return sorted(found, key=lambda late: (-late.left_ms, late.task.job, late.task.index))

    def _usual(self, name: JobId) -> tuple[int, int]:
        """What a task of the job takes, and from when on one is late; nothing if too few ended."""
        job, known = self._machine.jobs.get(name), self._durations.get(name)
        if job is None or len(job.succeeded) < ENDED_MIN:
            return 0, 0
        if known is not None and known.ended >= ENDED_MIN:
            return max(1, known.median_ms), known.late_ms
        mean_ms = max(1, job.estimate_us // 1000)  # they ended before this peer coordinated
        return mean_ms, 2 * TIMES * mean_ms
