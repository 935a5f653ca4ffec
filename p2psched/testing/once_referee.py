"""E8: a task that must not start twice starts once, and once more for each time that its end was
seen and called for another attempt, or a person said so; and never before that is committed.
"""

from __future__ import annotations

from collections import Counter

from p2psched.model.commands import Command
from p2psched.model.execution import Batch
from p2psched.model.ids import JobId
from p2psched.model.once import Gone, Once, Started, Verdict
from p2psched.testing.facts import Fact
from p2psched.testing.promises import demand
from p2psched.testing.shadow import Shadow
from p2psched.testing.sim_jobs import hangs

DECIDED = b"decided"  # what persons of a simulation say that tasks have returned
_AGAIN = str(int(Verdict.RUN_AGAIN))


class OnceReferee:
    def __init__(self, shadow: Shadow) -> None:
        self._shadow = shadow
        self._cleared: set[tuple[JobId, int, int]] = set()  # job, task, grant
        self._again: Counter[tuple[JobId, int]] = Counter()  # why a task may start once more
        self._starts: Counter[tuple[JobId, int]] = Counter()

    def on_committed(self, command: Command, facts: list[Fact]) -> None:
        """After the shadow has applied it."""
        if isinstance(command, Once) and isinstance(command.step, Started):
            job, grant = self._shadow.jobs.get(command.job), command.step.grant
            for index in command.step.tasks:
                if job is not None and job.begun.get(index) == grant:
                    self._cleared.add((command.job, index, grant))
        was_seen = isinstance(command, Once) and isinstance(command.step, Gone)
        for what, name, index, detail in facts:
            is_again = what in {"retried", "reopened"} or (what == "revoked" and was_seen)
            if is_again or (what == "decided" and detail == _AGAIN):
                self._again[JobId(name), index] += 1

    def check_result(self, job: JobId, index: int, grant: int, value: bytes) -> None:
        """What the ledger has taken for the result of a task."""
        if value == DECIDED:  # a person knows best
            return
        whose = f"{job}:{index}:{grant}".encode()
        demand(value == whose, "P6", f"result {value!r} was recorded for {whose!r}")
        known = self._shadow.jobs.get(job)
        ended = not known or not hangs(known.spec.name, job, index, grant)
        demand(ended, "P6", f"task {job}/{index} never ended, and has a result")

    def on_started(self, batch: Batch, index: int) -> None:
        if not batch.spec.start:
            return
        task = batch.job, index
        is_cleared = (*task, batch.grant) in self._cleared
        demand(is_cleared, "E8", f"task {task} starts before that is committed")
        self._starts[task] += 1
        starts, may = self._starts[task], 1 + self._again[task]
        demand(starts <= may, "E8", f"task {task} starts {starts} times, and may {may} times")
