"""What tasks that have failed before may take of the cluster while others want it.

A retry is work that was paid for once. While anything else runs or waits, all retries together get
`share` of the slots, as a bucket of slot time that fills with it: what they are expected to take is
spent before they are placed. Once there has been nothing but retries for a while they get all.

Kept by whoever coordinates, and begun anew by the next one: so a change of leader may grant one
bucket more. Advice, as all placement is: nothing rests on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from p2psched.core.jobs import Job
from p2psched.core.machine import Machine
from p2psched.core.placement import Candidate
from p2psched.model.commands import Recorded, Retried
from p2psched.model.ids import JobId
from p2psched.model.job import Cause
from p2psched.model.taskset import TaskSet

SHARE_PERCENT: Final = 10  # of all slots
FULL_MS: Final = 10_000  # of refilling: what the bucket holds
QUIET_MS: Final = 10_000  # without other work, before retries get everything
LOOKED_AT_MAX: Final = 64  # running jobs, to see whether there is other work; more than that: yes


class RetryBudget:
    """`percent`: 0 lets no retry run beside other work, 100 is no limit."""

    def __init__(self, machine: Machine, *, percent: int = SHARE_PERCENT) -> None:
        assert 0 <= percent <= 100
        self._machine = machine
        self._percent = percent
        self._left_us = self._most_us = 0
        self._at_ms: int | None = None
        self._healthy_ms: int | None = None  # when jobs ran last of which nothing has failed
        self._bad_us: dict[JobId, int] = {}  # what an attempt took that ended badly
        self.spent_us = 0

    def on_event(self, event: Retried | Recorded) -> None:
        """An attempt has ended badly, or well."""
        segment = event.segment
        if segment.cause is Cause.OK or event.job not in self._machine.running:
            if self._bad_us:
                self._bad_us.pop(event.job, None)
            return
        mean_us = segment.busy_us // (segment.stop - segment.start)
        self._charge(event, mean_us)
        self._bad_us[event.job] = (self._bad_us.get(event.job, mean_us) + mean_us) // 2

    def _charge(self, event: Retried | Recorded, mean_us: int) -> None:
        """What retries took over what they were thought to."""
        job = self._machine.jobs[event.job]
        thought_us = self.cost_us(job, job.estimate_us or self._machine.estimate_us)
        first = 2 if isinstance(event, Retried) else 1  # attempt, next
        parts = job.attempts(event.segment.tasks)
        retries = sum(len(part) for number, part in parts if number > first)
        self._left_us -= retries * max(0, mean_us * job.spec.cpus - thought_us)

    def on_job_ended(self, job: JobId) -> None:
        self._bad_us.pop(job, None)

    def on_time(self, now_ms: int, slots: int) -> None:
        """`slots`: those of all peers that take tasks."""
        rate = slots * self._percent * 10  # microseconds of slot time, each millisecond
        passed_ms = FULL_MS if self._at_ms is None else max(0, now_ms - self._at_ms)
        self._at_ms = now_ms
        self._most_us = FULL_MS * rate
        if self._percent < 100 and self._is_healthy_work():
            self._healthy_ms = now_ms
        self._left_us = min(self._most_us, self._left_us + passed_ms * rate)

    def begin(self) -> None:
        """This peer coordinates from now on: the bucket is full, as soon as time passes."""
        self._at_ms, self._left_us = None, 0

    def allowed(
        self, job: Job, tasks: TaskSet, cost_us: int, candidates: Sequence[Candidate]
    ) -> tuple[list[Candidate], TaskSet]:
        """Where retries may be placed now, and which. One that costs more than is left may, as
        long as anything is: the rest is owed.

        They get slots that are free, and wait in no queue that others stand behind; but one a peer
        once the bucket is full, for where slots are never free they would never run. Who has a
        lock is not kept waiting: others wait for the lock."""
        if self._percent == 100 or job.spec.hold is not None or not self._is_other_work():
            return list(candidates), tasks
        if self._left_us <= 0:
            return [], tasks.take(0)
        part = tasks.take(max(1, self._left_us // max(1, cost_us)))
        idle = [c for c in candidates if c.slots - c.owned >= job.spec.cpus]
        if idle:
            return idle, part.take(sum((c.slots - c.owned) // job.spec.cpus for c in idle))
        is_full = self._left_us >= self._most_us
        return (list(candidates), part.take(len(candidates))) if is_full else ([], tasks.take(0))

    def spend(self, count: int, cost_us: int) -> None:
        self.spent_us += count * cost_us
        self._left_us -= count * cost_us

    def cost_us(self, job: Job, usual_us: int) -> int:
        """Of one retry: no less than what its bad ends took."""
        return max(usual_us, self._bad_us.get(job.id, 0) * job.spec.cpus)

    def _is_other_work(self) -> bool:
        """True if first attempts wait, or jobs run of which nothing has failed, or did lately."""
        lately_ms = self._healthy_ms
        if lately_ms is not None and self._at_ms is not None and self._at_ms - lately_ms < QUIET_MS:
            return True
        jobs = map(self._machine.jobs.__getitem__, self._machine.running)
        return self._is_healthy_work() or any(job.placeable - job.retried for job in jobs)

    def _is_healthy_work(self) -> bool:
        machine = self._machine
        if len(machine.running) > LOOKED_AT_MAX:
            return True
        jobs = map(machine.jobs.__getitem__, machine.running)
        return any(not (job.failures.levels or job.ends) for job in jobs)
