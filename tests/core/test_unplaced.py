"""Jobs that wait for an owner: which of them could be placed, and which wait as they should."""

from __future__ import annotations

import msgspec
import pytest

from p2psched.core.unplaced import (
    NO_SLOT,
    ON_ITS_WAY,
    PULLED,
    RETRIES,
    UNFIT,
    unplaced_sights,
)
from p2psched.core.watchdog import Sight
from p2psched.model import chunks
from p2psched.model.commands import Complete, Drain, DrainMode, Place
from p2psched.model.ids import PeerId
from p2psched.model.job import Cause, JobSpec, Segment
from p2psched.model.needs import Needs, Offers
from p2psched.model.stalls import Fault
from p2psched.model.taskset import TaskSet
from tests.core.choosy_rig import A, B, Cluster, job_id, spec

JOB = job_id(1)


def cluster() -> Cluster:
    return Cluster({A: Offers(), B: Offers(labels=(("disk", "ssd"),))})


def sights(made: Cluster, *, on_its_way: bool = False) -> list[Sight]:
    return unplaced_sights(made.coordinator, made.machine, on_its_way=on_its_way)


def busy(made: Cluster, peer: PeerId) -> None:
    """It has something to do."""
    made.submit(2, spec(1))
    made.do(Place(job_id(2), TaskSet.of(0, 1), peer, 1))


def test_a_job_that_waits_though_somebody_has_nothing_to_do_is_a_fault() -> None:
    made = cluster()
    made.submit(1, spec(3))
    (sight,) = sights(made)
    assert (sight.fault, sight.job, sight.reason) == (Fault.PLACEMENT, JOB, "")
    assert "has nothing to do" in sight.what
    made.do(Place(JOB, TaskSet.of(0, 1), A, 1))
    assert sights(made)[0].key != sight.key, "something was placed"


@pytest.mark.parametrize(
    ("job", "reason"),
    [(spec(3, policy="pull"), PULLED), (spec(3, Needs(require=(("disk", "ssd"),))), UNFIT)],
)
def test_waiting_has_reasons_that_are_right(job: JobSpec, reason: str) -> None:
    made = cluster()
    busy(made, B)
    made.submit(1, job)
    assert [sight.reason for sight in sights(made)] == [reason]


def test_a_placement_under_way_is_a_reason() -> None:
    made = cluster()
    made.submit(1, spec(3))
    assert [sight.reason for sight in sights(made, on_its_way=True)] == [ON_ITS_WAY]


def test_where_everybody_is_busy_or_cordoned_nobody_could_begin() -> None:
    made = cluster()
    busy(made, A)
    made.do(Drain(B, DrainMode.CORDON))
    made.submit(1, spec(3))
    assert [sight.reason for sight in sights(made)] == [NO_SLOT]


def test_retries_that_wait_for_their_budget_are_no_fault() -> None:
    made = cluster()
    made.submit(1, msgspec.structs.replace(spec(1), retries=3))
    made.do(Place(JOB, TaskSet.of(0, 1), A, 1))
    (held,) = made.job(1).grants.values()
    failed = Segment(0, 1, Cause.EXIT, chunks.pack([b"x"]))
    made.do(Complete(JOB, held.grant, (failed,)))
    assert [sight.reason for sight in sights(made)] == [RETRIES]
