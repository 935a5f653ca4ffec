"""E9: a task that runs on several peers has one owner and one end, runs on none of them twice, and
waits for nobody as long as one of them lives.

Read from what peers say of commands alone: who was given a task, and who has it no more.
"""

from __future__ import annotations

from collections.abc import Iterable, Set

from p2psched.model.backing import BackedUp, Promoted
from p2psched.model.commands import Event, GivenBack, Granted, Recorded, Retried, Revoked
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause
from p2psched.model.moves import Moved
from p2psched.model.once import Doubted
from p2psched.model.taskset import TaskSet
from p2psched.testing.promises import demand

Task = tuple[JobId, int]


class BackupReferee:
    def __init__(self) -> None:
        self._runs: dict[Task, dict[int, PeerId]] = {}  # grant -> peer
        self.late = 0  # tasks that were begun once more because of that
        self.overtaken = 0

    def on_events(self, events: Iterable[Event]) -> None:
        """Of one command. What it takes away it takes first."""
        said = list(events)
        backed = {event.grant for event in said if isinstance(event, BackedUp)}
        # Of several ends in one command the last may end the whole job.
        revoked = {(e.grant, index) for e in said if isinstance(e, Revoked) for index in e.tasks}
        for event in said:
            self._take(event)
        for event in said:
            if isinstance(event, Granted):
                self._begin(event, is_backup=event.grant in backed)
            elif isinstance(event, BackedUp):
                self.late += len(event.tasks) * event.speculates
            elif isinstance(event, Promoted):
                self._promote(event, revoked)
            elif isinstance(event, Recorded):
                self._record(event)

    def _take(self, event: Event) -> None:
        if isinstance(event, Retried):
            self._end(event.job, event.grant, event.segment.tasks)
        elif isinstance(event, Revoked | GivenBack | Doubted | Moved):
            self._end(event.job, event.grant, event.tasks)
            is_overtaken = isinstance(event, Revoked) and event.cause is Cause.OVERTAKEN
            self.overtaken += len(event.tasks) * is_overtaken

    def _end(self, job: JobId, grant: int, tasks: TaskSet) -> None:
        for index in tasks:
            self._runs.get((job, index), {}).pop(grant, None)

    def _begin(self, event: Granted, *, is_backup: bool) -> None:
        for index in event.tasks:
            task = event.job, index
            runs = self._runs.setdefault(task, {})
            demand(bool(runs) == is_backup, "E9", f"task {task} is placed, and runs on {runs}")
            peers = [*runs.values(), event.peer]
            demand(len(set(peers)) == len(peers), "E9", f"task {task} is twice on one of {peers}")
            runs[event.grant] = event.peer

    def _promote(self, event: Promoted, revoked: Set[tuple[int, int]]) -> None:
        for index in event.tasks:
            runs = self._runs.get((event.job, index), {})
            known = runs.get(event.grant) == event.peer or (event.grant, index) in revoked
            demand(known, "E9", f"task {event.job}/{index} is left to who does not run it")

    def _record(self, event: Recorded) -> None:
        for index in event.segment.tasks:
            runs = self._runs.pop((event.job, index), {})
            others = set(runs) - {event.grant}
            what = f"task {event.job}/{index} has ended, and {others} run it still"
            demand(not others, "E9", what)
