"""The naive reading of jobs that come after others, a part of `shadow`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from p2psched.model.ids import JobId
from p2psched.model.job import JobSpec
from p2psched.testing import shadow_retries
from p2psched.testing.shadow_job import ShadowJob

if TYPE_CHECKING:
    from p2psched.testing.shadow import Shadow

LEVEL: Final = 7  # the level that knows of them
MOST: Final = 10_000  # that wait at a time


def accepts(s: Shadow, spec: JobSpec) -> bool:
    if spec.after is None:
        return True
    waiting = [job for job in s.jobs.values() if job.open]
    known = all(
        name in s.jobs or (name in s.forgotten and spec.after.goes_on)
        for name in spec.after.parents
    )
    return s.level >= LEVEL and known and len(waiting) < MOST


def begin(s: Shadow, name: JobId, job: ShadowJob) -> None:
    """It is there, and so are those before it, or they were forgotten."""
    after = job.spec.after
    if after is None:
        return
    there = [(name, s.jobs[name].state) for name in after.parents if name in s.jobs]
    job.open = {name for name, state in there if state == "running"}
    bad = [name for name, state in there if state not in {"running", "succeeded"}]
    if bad and not after.goes_on:
        _abort(s, name, job)


def settle(s: Shadow, ended: list[JobId]) -> None:
    """Until nothing changes any more. `ended`: by this command, in order."""
    for parent in ended:
        for name, job in s.jobs.items():
            if job.state != "running" or parent not in job.open:
                continue
            job.open.discard(parent)
            assert job.spec.after is not None
            if s.jobs[parent].state != "succeeded" and not job.spec.after.goes_on:
                _abort(s, name, job)
                ended.append(name)
            elif not job.open:
                s.say("released", name)
                shadow_retries.begin(s, job)


def _abort(s: Shadow, name: JobId, job: ShadowJob) -> None:
    s.say("aborted", name)
    shadow_retries.stop(s, name, job, "aborted")
