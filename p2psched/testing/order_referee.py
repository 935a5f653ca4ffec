"""E13: a job that comes after others begins once they have ended, and not later.

The referee reads specs and what was committed, with a rule of its own: no task of a job begins
before the ends of all jobs that it comes after, which were good ends unless it goes on whatever
they are; and where all of them have ended, no peer that knows it has the job wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from p2psched.core.machine import Machine
from p2psched.model.commands import JobEnded, Stamped
from p2psched.model.ids import JobId
from p2psched.testing.facts import Fact
from p2psched.testing.promises import demand

if TYPE_CHECKING:
    from p2psched.testing.shadow import Shadow


class OrderReferee:
    def __init__(self, shadow: Shadow) -> None:
        self._shadow = shadow
        self._ends: dict[JobId, set[str]] = {}  # how each job has ended, once or more often

    def on_committed(self, facts: list[Fact]) -> None:
        for what, name, _, state in facts:
            if what == "ended":
                self._ends.setdefault(JobId(name), set()).add(state)

    def on_started(self, name: JobId, index: int) -> None:
        job = self._shadow.jobs.get(name)
        after = job.spec.after if job is not None else None
        for parent in after.parents if after is not None else ():
            ends = self._ends.get(parent, set())
            known = self._shadow.jobs.get(parent)
            if known is not None and known.state != "running":  # also before this referee came
                ends = ends | {known.state}
            begins = f"task {name}/{index} begins"
            demand(bool(ends) or known is None, "E13", f"{begins} before the end of job {parent}")
            is_good = "succeeded" in ends or known is None or (after and after.goes_on)
            demand(bool(is_good), "E13", f"{begins}, and job {parent} has {ends}")

    def on_stored(self, machine: Machine, events: Sequence[Stamped]) -> None:
        """Once a peer has applied the entry in which a job ended."""
        if not any(isinstance(stamped.event, JobEnded) for stamped in events):
            return
        for name in machine.running:
            job = machine.jobs[name]
            if job.spec.after is None or not job.awaits:
                continue
            known = [
                machine.jobs.peek(one) for one in job.spec.after.parents if one in machine.jobs
            ]
            demand(
                any(not parent.ended for parent in known),
                "E13",
                f"job {name} waits, and all jobs that it comes after have ended",
            )
