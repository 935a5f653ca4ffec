"""The jobs that an owner works for: those of the ledger, as far as it is known here, and those that
this peer knows from its own disk, of a process before this one (see `recall`).
"""

from __future__ import annotations

from p2psched.core.jobs import Job
from p2psched.core.state import LedgerState
from p2psched.model.ids import JobId
from p2psched.model.job import JobSpec


class KnownJobs:
    def __init__(self, state: LedgerState) -> None:
        self._state = state
        self._recalled: dict[JobId, Job] = {}

    def __getitem__(self, name: JobId) -> Job:
        job = self._state.jobs.get(name)
        return job if job is not None else self._recalled[name]

    @property
    def estimate_us(self) -> int:
        """Of a task that nothing is known of."""
        return self._state.estimate_us

    def recall(self, name: JobId, spec: JobSpec) -> None:
        """Work for it although the ledger isn't known so far."""
        self._recalled[name] = Job.of(name, spec, index=0, wall_ms=0)

    def is_recalled(self, name: JobId) -> bool:
        return name in self._recalled

    def priority_of(self, name: JobId) -> int:
        """Of what is known here no more, as of most jobs, 0."""
        job = self._state.jobs.get(name) or self._recalled.get(name)
        return job.spec.priority if job is not None else 0

    def max_disconnect_ms(self, name: JobId) -> int | None:
        full = self[name].full
        return full.max_disconnect_ms if full is not None else None
