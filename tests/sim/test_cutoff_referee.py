"""The referee of peers that are cut off: which ends of work count, and which don't."""

from __future__ import annotations

from typing import Final

import pytest

from p2psched.model.commands import Event, JobForgotten, Recorded, Revoked
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause, Segment
from p2psched.model.reconcile import Judged, Reconciliation
from p2psched.model.taskset import TaskSet
from p2psched.testing.cutoff_referee import CutOffReferee
from p2psched.testing.promises import BrokenPromiseError

JOB: Final = JobId("a" * 32)
P: Final = PeerId("b" * 32)
ONE: Final = TaskSet.of(0, 1)
LINE: Final = Judged(JOB, 7, ONE, 0)
BROUGHT: Final = Recorded(JOB, 7, P, 0, Segment(0, 1, Cause.OK, b""))
DECIDED: Final = Recorded(JOB, 7, P, 0, Segment(0, 1, Cause.PEER_LOST, b""))
TAKEN: Final = Revoked(JOB, 7, P, ONE, Cause.PEER_LOST)


def tell(report: Reconciliation, *events: Event) -> None:
    referee = CutOffReferee()
    for event in events:
        referee.on_event(event)
    referee.on_reported(P, report, set())


@pytest.mark.parametrize(
    "events",
    [
        (),
        (TAKEN,),
        (TAKEN, DECIDED),  # by the ledger, or by a person
        (BROUGHT, JobForgotten(JOB)),  # nobody knows it any more
    ],
)
def test_what_was_ended_without_a_result_may_be_told_so(events: tuple[Event, ...]) -> None:
    tell(Reconciliation(2_000, 0, 0, ended=(LINE,)), *events)


def test_what_a_result_counts_of_was_not_ended() -> None:
    with pytest.raises(BrokenPromiseError, match="don't count, and they do"):
        tell(Reconciliation(2_000, 0, 0, ended=(LINE,)), BROUGHT)


def test_what_the_ledger_said_itself_is_no_result_that_was_committed() -> None:
    with pytest.raises(BrokenPromiseError, match="count, and they don't"):
        tell(Reconciliation(2_000, 0, 0, committed=(Judged(JOB, 7, ONE, 7),)), TAKEN, DECIDED)
