"""Clusters in which each job is packed as soon as it may be, and each look unpacks one."""

from __future__ import annotations

import pytest

from p2psched.core import job_table, state
from p2psched.core.job_table import JobTable
from p2psched.core.jobs import Job
from p2psched.model.ids import JobId
from p2psched.testing.simulate import simulate


@pytest.mark.parametrize(
    "seed", [7_651_001, *(pytest.param(n, marks=pytest.mark.wide) for n in (7_651_004, 7_651_007))]
)
def test_no_promise_breaks_when_all_that_has_ended_is_packed(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpacked = 0
    unpack = JobTable._unpack

    def counted(table: JobTable, name: JobId, packed: bytes) -> Job:
        nonlocal unpacked
        unpacked += 1
        return unpack(table, name, packed)

    monkeypatch.setattr(state, "ENDED_WHOLE_MAX", 1)
    monkeypatch.setattr(job_table, "UNPACKED_MAX", 1)
    # The referees know of no job that has become smaller: this is about packing alone.
    monkeypatch.setattr(Job, "shrink", lambda _job: None)
    monkeypatch.setattr(JobTable, "_unpack", counted)
    simulate(seed)
    assert unpacked > 0
