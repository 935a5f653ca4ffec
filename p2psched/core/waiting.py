"""The queue of an owner: what it has, and made no batch of. Started from its front, given to others
from its end.
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

    def __init__(self) -> None:
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
        else:
            self._entries.append(queued)

    def put_first(self, queued: Queued) -> None:
        if queued.job in self._held:
            self._held[queued.job].insert(0, queued)
        elif self._entries and self._entries[0].continues(queued):
            self._entries[0].tasks = self._entries[0].tasks | queued.tasks
        else:
            self._entries.appendleft(queued)

    def hold(self, job: JobId) -> None:
        """Nothing of this job is at the front before `go_on`, whatever comes."""
        self._held[job] = [queued for queued in self._entries if queued.job == job]
        self._entries = deque(queued for queued in self._entries if queued.job != job)

    def go_on(self) -> None:
        held, self._held = self._held, {}
        self._entries.extendleft(reversed([queued for part in held.values() for queued in part]))

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
        groups: dict[tuple[JobId, Grant], list[TaskSet]] = {}
        while self._entries and len(groups) < GIVEN_BACK_MAX:
            queued = self._entries.popleft()
            groups.setdefault((queued.job, queued.grant), []).append(queued.tasks)
        return [GiveBack(job, grant, TaskSet.union(of)) for (job, grant), of in groups.items()]
