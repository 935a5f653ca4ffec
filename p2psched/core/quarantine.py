"""Peers on which innocent tasks fail: a broken interpreter, a missing program, a full /tmp. They
fail fast, so they are always free, and would eat the queue.

Whether a task is innocent others say: it failed here, and a try elsewhere succeeded. A job that
fails everywhere blames nobody, and neither does one success here between two failures. A peer
where a job only fails is watched: it gets nothing for a moment, until others have tried, too, and
one task at a time as long as they have not. Then it is out, probed with one task at a time after
growing pauses, and back after a success. Some peer is always left. All of this is advice for
placement, made of what is committed, and part of no state: who leads anew has seen the same, or
learns it again.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

from p2psched.model.commands import Recorded, Retried
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause
from p2psched.model.stalls import Fault, Stalled
from p2psched.model.taskset import EMPTY, TaskSet

FAILURES_MIN: Final = 3  # without a success, before a peer is watched
INNOCENT_MIN: Final = 3  # that failed here and succeeded elsewhere, before it is out
WATCH_MS: Final = 3_000
WATCH_MS_MAX: Final = 12_000  # again, while nobody else has tried, and the next task failed, too
PAUSE_MS: Final = 10_000  # before the first probe
PAUSE_MS_MAX: Final = 600_000
JOBS_MAX: Final = 256  # that are remembered; the one that was quiet for longest is forgotten
# What a peer says of itself that has given back what it could not start.
_GIVEN_BACK: Final = frozenset({(Fault.QUEUE, 2), (Fault.EXECUTOR, 4)})
# How a task can have failed through its peer.
THROUGH_PEER: Final = frozenset({Cause.EXIT, Cause.EXCEPTION, Cause.NOT_STARTABLE, Cause.SIGNAL})


class _Tally:
    """Of one job at one peer, since its last success there."""

    def __init__(self) -> None:
        self.failures = 0
        self.tasks = EMPTY  # that failed here and nowhere else yet
        self.innocent = 0
        self.succeeded = False


class Phase(enum.Enum):
    WATCHED = enum.auto()
    OUT = enum.auto()


class _Case:
    def __init__(self, phase: Phase, until_ms: int, job: JobId) -> None:
        self.phase = phase
        self.until_ms = until_ms
        self.job = job
        self.pause_ms = PAUSE_MS if phase is Phase.OUT else WATCH_MS
        self.innocent = 0
        self.note = ""  # what it has found of itself

    def again(self, now_ms: int) -> None:
        """A probe has failed."""
        most_ms = PAUSE_MS_MAX if self.phase is Phase.OUT else WATCH_MS_MAX
        self.pause_ms = min(2 * self.pause_ms, most_ms)
        self.until_ms = now_ms + self.pause_ms


class Quarantine:
    """Events in the order of the ledger, ledger time beside them."""

    def __init__(self) -> None:
        self._tallies: OrderedDict[JobId, dict[PeerId, _Tally]] = OrderedDict()
        self._cases: dict[PeerId, _Case] = {}

    def on_event(self, event: Retried | Recorded | Stalled, now_ms: int) -> None:
        if isinstance(event, Stalled):
            self._on_stalled(event, now_ms)
            return
        segment = event.segment
        tasks = TaskSet.of(segment.start, segment.stop)
        if segment.cause is Cause.OK:
            self._on_success(event.job, event.peer, tasks, now_ms)
        elif segment.cause in THROUGH_PEER:
            self._on_failure(event.job, event.peer, tasks, now_ms)

    @property
    def listens(self) -> bool:
        """False while successes tell it nothing."""
        return bool(self._tallies or self._cases)

    @property
    def suspects(self) -> bool:
        """False while nobody is `shut`."""
        return bool(self._cases)

    def forget(self, job: JobId) -> None:
        """It has ended."""
        self._tallies.pop(job, None)
        for peer, case in list(self._cases.items()):
            if case.phase is Phase.WATCHED and case.job == job:
                del self._cases[peer]

    def _on_stalled(self, event: Stalled, now_ms: int) -> None:
        """A peer that could not start what it had, whatever it tried, is out as well."""
        if (event.fault, event.step) not in _GIVEN_BACK:
            return
        case = self._cases.get(event.peer)
        if case is None or case.phase is Phase.WATCHED:
            case = self._cases[event.peer] = _Case(Phase.OUT, now_ms + PAUSE_MS, event.job)
        elif now_ms >= case.until_ms:
            case.again(now_ms)
        case.note = event.note

    def _on_success(self, job: JobId, peer: PeerId, tasks: TaskSet, now_ms: int) -> None:
        self._cases.pop(peer, None)
        known = self._tallies.get(job)
        if known is None:
            return
        known[peer] = _Tally()
        known[peer].succeeded = True
        for other, tally in known.items():
            proven = tally.tasks & tasks
            if other != peer and proven:
                tally.tasks = tally.tasks - proven
                tally.innocent += len(proven)
                self._judge(job, other, tally, now_ms)

    def _on_failure(self, job: JobId, peer: PeerId, tasks: TaskSet, now_ms: int) -> None:
        known = self._tallies.setdefault(job, {})
        self._tallies.move_to_end(job)
        if len(self._tallies) > JOBS_MAX:
            self._tallies.popitem(last=False)
        here = known.setdefault(peer, _Tally())
        here.failures += len(tasks)
        here.tasks = here.tasks | tasks
        for other, tally in known.items():
            if other != peer:  # it failed there as well: that peer is not what is wrong with it
                here.tasks, tally.tasks = here.tasks - tally.tasks, tally.tasks - tasks
                self._clear(job, other, by=here)
        case = self._cases.get(peer)
        if case is not None and now_ms >= case.until_ms:
            case.again(now_ms)
        self._judge(job, peer, here, now_ms)

    def _clear(self, job: JobId, peer: PeerId, *, by: _Tally) -> None:
        """The job fails elsewhere, too."""
        case = self._cases.get(peer)
        is_bad = by.failures >= FAILURES_MIN and not by.succeeded
        if case is not None and case.phase is Phase.WATCHED and case.job == job and is_bad:
            del self._cases[peer]

    def _judge(self, job: JobId, peer: PeerId, tally: _Tally, now_ms: int) -> None:
        if tally.failures < FAILURES_MIN:
            return
        case = self._cases.get(peer)
        if tally.innocent >= INNOCENT_MIN:
            if case is None or case.phase is Phase.WATCHED:
                case = self._cases[peer] = _Case(Phase.OUT, now_ms + PAUSE_MS, job)
            case.innocent = max(case.innocent, tally.innocent)
        elif case is None and not self._fails_elsewhere(job, peer):
            self._cases[peer] = _Case(Phase.WATCHED, now_ms + WATCH_MS, job)

    def _fails_elsewhere(self, job: JobId, peer: PeerId) -> bool:
        others = (tally for other, tally in self._tallies[job].items() if other != peer)
        return any(tally.failures >= FAILURES_MIN and not tally.succeeded for tally in others)

    # --- what follows from it ---------------------------------------------------------------------

    def shut(
        self, takers: Mapping[PeerId, int], now_ms: int
    ) -> tuple[frozenset[PeerId], frozenset[PeerId]]:
        """Of those that take tasks (and how many slots they have): who gets nothing, and who gets
        one task at a time. At most half of them, the oldest cases; and a task that fits one of
        these fits one of the others."""
        if not self._cases:
            return frozenset(), frozenset()
        here = [peer for peer in self._cases if peer in takers]
        here.sort(key=lambda peer: self._cases[peer].phase is Phase.WATCHED)
        del here[len(takers) // 2 :]
        others = max((slots for peer, slots in takers.items() if peer not in here), default=0)
        out, probed = set[PeerId](), set[PeerId]()
        for peer in (peer for peer in here if takers[peer] <= others):
            case = self._cases[peer]
            if now_ms < case.until_ms:
                out.add(peer)
            else:
                probed.add(peer)
        return frozenset(out), frozenset(probed)

    def story(self, peer: PeerId, now_ms: int) -> str:
        """Why it gets nothing, for people; empty if it does."""
        case = self._cases.get(peer)
        if case is None or case.phase is Phase.WATCHED:
            return ""
        left_s = max(0, case.until_ms - now_ms) / 1000
        then = f"the next try in {left_s:.0f} s" if left_s else "one task at a time"
        if case.note:
            return f"{case.note}; {then}"
        return f"{case.innocent} tasks that failed here succeeded elsewhere; {then}"
