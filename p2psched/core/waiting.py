"""The queue of an owner: what it has, and made no batch of. Started from its front, given to others
from its end. Of jobs with priorities higher ones are before lower ones.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from p2psched.core.owned import Queued
from p2psched.model.commands import GiveBack, Grant
from p2psched.model.ids import JobId
from p2psched.model.taskset import EMPTY, TaskSet

GIVEN_BACK_MAX: Final = 256  # grants whose tasks are given back in one round; the next goes on


class Waiting:
    """No entry of it is empty."""

    def __init__(self, priority_of: Callable[[JobId], int] = lambda _job: 0) -> None:
        self._priority_of = priority_of
        self._is_ranked = False  # one of the entries has a priority
        self._entries: deque[Queued] = deque()
        self._held: dict[JobId, list[Queued]] = {}  # what nobody starts for now: see `hold`

    def __bool__(self) -> bool:
        return bool(self._entries)

    def __iter__(self) -> Iterator[Queued]:
        return iter(self._entries)

    @property
    def first(self) -> Queued:
        return self._entries[0]

    @property
    def count(self) -> int:
        """Of tasks."""
        return sum(len(queued.tasks) for queued in self._entries) + self.held_count

    @property
    def held_count(self) -> int:
        return sum(len(queued.tasks) for part in self._held.values() for queued in part)

    @property
    def held_jobs(self) -> Iterable[JobId]:
        return self._held.keys()

    def held(self) -> Iterator[Queued]:
        return (queued for part in self._held.values() for queued in part)

    def add(self, queued: Queued) -> None:
        if queued.job in self._held:
            self._held[queued.job].append(queued)
            return
        position = len(self._entries)
        if self._ranks(queued):
            priority_of, priority = self._priority_of, self._priority_of(queued.job)
            while position and priority_of(self._entries[position - 1].job) < priority:
                position -= 1
        self._entries.insert(position, queued)

    def put_first(self, queued: Queued) -> None:
        """Before all others of its priority."""
        if queued.job in self._held:
            self._held[queued.job].insert(0, queued)
            return
        entries, position = self._entries, 0
        if self._ranks(queued):
            priority_of, priority = self._priority_of, self._priority_of(queued.job)
            while position < len(entries) and priority_of(entries[position].job) > priority:
                position += 1
        if position < len(entries) and entries[position].continues(queued):
            entries[position].tasks = entries[position].tasks | queued.tasks
        else:
            entries.insert(position, queued)

    def _ranks(self, queued: Queued) -> bool:
        """Where it goes its priority says, or one that is here."""
        if not self._entries:
            self._is_ranked = False
        self._is_ranked = self._is_ranked or self._priority_of(queued.job) != 0
        return self._is_ranked

    def hold(self, job: JobId) -> None:
        """Nothing of this job is at the front before `go_on`, whatever comes."""
        self._held[job] = [queued for queued in self._entries if queued.job == job]
        self._entries = deque(queued for queued in self._entries if queued.job != job)

    def go_on(self) -> None:
        held, self._held = self._held, {}
        for queued in reversed([queued for part in held.values() for queued in part]):
            self.put_first(queued)

    def put_last(self, kind: Callable[[Queued], bool]) -> bool:
        """Entries of this kind go behind all others. False if there are no others."""
        others = [queued for queued in self._entries if not kind(queued)]
        if others:
            self._entries = deque([*others, *filter(kind, self._entries)])
        return bool(others)

    def take_first(self, tasks: TaskSet) -> None:
        """These tasks of the first entry go."""
        first = self._entries[0]
        first.tasks = first.tasks - tasks
        if not first.tasks.ranges:
            self._entries.popleft()

    def set_aside(self, chosen: Iterable[tuple[int, int]]) -> list[tuple[JobId, Grant, TaskSet]]:
        """The last tasks of entries: their positions, and how many. They go."""
        aside: list[tuple[JobId, Grant, TaskSet]] = []
        for position, count in chosen:
            queued = self._entries[position]
            rest = queued.tasks.take(len(queued.tasks) - count)
            aside.append((queued.job, queued.grant, queued.tasks - rest))
            queued.tasks = rest
        self._settle()
        return aside

    def _settle(self) -> None:
        """Forget entries of which everything has gone."""
        self._entries = deque(queued for queued in self._entries if queued.tasks.ranges)

    def revoke(self, job: JobId, grant: Grant, tasks: TaskSet) -> TaskSet:
        """What of these was here."""
        gone = EMPTY
        for queued in (*self._entries, *self._held.get(job, ())):
            if queued.job == job and queued.grant == grant:
                gone = gone | (queued.tasks & tasks)
                queued.tasks = queued.tasks - tasks
        self._settle()
        if job in self._held:
            self._held[job] = [queued for queued in self._held[job] if queued.tasks.ranges]
        return gone

    def give_back(self) -> list[GiveBack]:
        """Everything, or as much as fits a round."""
        given: list[Queued] = []
        while self._entries and len(given) < GIVEN_BACK_MAX:
            given.append(self._entries.popleft())
        return _grouped(given)

    def give_back_below(self, priority: int) -> list[GiveBack]:
        """Of lower ones likewise, but for what has a word of the ledger that it may start."""
        entries = list(self._entries)
        lower = [e for e in entries if self._priority_of(e.job) < priority and not e.cleared]
        given = lower[:GIVEN_BACK_MAX]
        self._entries = deque(entry for entry in entries if entry not in given)
        return _grouped(given)


def _grouped(given: Iterable[Queued]) -> list[GiveBack]:
    """One command for each grant."""
    groups: dict[tuple[JobId, Grant], list[TaskSet]] = {}
    for queued in given:
        groups.setdefault((queued.job, queued.grant), []).append(queued.tasks)
    return [GiveBack(job, grant, TaskSet.union(of)) for (job, grant), of in groups.items()]
