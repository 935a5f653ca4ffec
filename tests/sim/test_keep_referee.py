"""The referees' own reading of forget, pin, retry and held, and what they object to."""

from __future__ import annotations

import msgspec
import pytest

from p2psched.core.machine import Machine
from p2psched.model import chunks
from p2psched.model.blob import BlobRef, ResultBlob
from p2psched.model.commands import (
    Acknowledged,
    Cancel,
    Command,
    Complete,
    Envelope,
    Forget,
    Held,
    PeerDown,
    PeerInfo,
    PeerUp,
    Pin,
    Place,
    Recorded,
    Retry,
    SubmitJob,
)
from p2psched.model.execution import Committed
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause, Segment
from p2psched.model.taskset import TaskSet
from p2psched.testing.keep_referee import KeepReferee
from p2psched.testing.promises import BrokenPromiseError
from p2psched.testing.referees import Referees
from p2psched.testing.shadow import Shadow
from p2psched.testing.shadow_job import WAITING
from p2psched.testing.sim_jobs import sim_job

JOB, P, Q = JobId("job"), PeerId("p"), PeerId("q")
TWO = TaskSet.of(0, 2)
SPEC = sim_job(TWO, mean_us=1, keep_ms=1_000)
BLOB = ResultBlob(1, "", BlobRef(b"d" * 32, 10), (P,))
DATA = chunks.pack([b"x"])
SETUP: tuple[Command, ...] = (
    PeerUp(PeerInfo(P, 1, "", "", 0, 1, "", "")),
    PeerUp(PeerInfo(Q, 1, "", "", 0, 1, "", "")),
    SubmitJob(JOB, SPEC),
    Place(JOB, TWO, P, 1),
    Complete(
        JOB,
        4,
        (
            Segment(0, 1, Cause.TOO_LARGE, DATA),
            Segment(1, 2, Cause.OK, DATA, blobs=(BLOB,)),
        ),
    ),
)


@pytest.fixture
def shadow() -> Shadow:
    """A job whose first task failed and whose second has a large result."""
    made = Shadow()
    for command in SETUP:
        made.apply(command, stamp_ms=500)
    return made


def lost(held: bool = False) -> Held:
    return Held(JOB, P, ((1, "", BLOB.ref.digest),), held)


def test_the_shadow_runs_again_what_failed(shadow: Shadow) -> None:
    assert shadow.apply(Retry(JOB, SPEC)) == [("reopened", JOB, 0, "")]
    assert shadow.jobs[JOB].owner[0] == WAITING
    assert shadow.apply(Retry(JOB, SPEC)) == []


def test_the_shadow_runs_again_what_is_lost_or_out_of_reach(shadow: Shadow) -> None:
    only = TaskSet.of(1, 2)
    assert shadow.apply(Retry(JOB, SPEC, only)) == []
    assert shadow.apply(lost()) == [("lost", JOB, 1, "")]
    assert shadow.apply(lost(held=True)) == []
    assert shadow.jobs[JOB].lost == set()
    shadow.apply(PeerDown(P, 1, ""))
    assert shadow.apply(Retry(JOB, SPEC, only)) == [("reopened", JOB, 1, "")]
    assert shadow.jobs[JOB].blobs == {}
    assert shadow.apply(lost()) == []


def test_the_shadow_forgets_once_and_for_good(shadow: Shadow) -> None:
    assert shadow.apply(Forget(JOB)) == [("forgotten", JOB, -1, "")]
    assert shadow.apply(Forget(JOB)) == []
    assert shadow.apply(SubmitJob(JOB, SPEC)) == []


def test_the_shadow_spares_what_was_pinned_or_ran_again_meanwhile(shadow: Shadow) -> None:
    shadow.apply(Pin(JOB, pinned=True))
    assert shadow.apply(Forget(JOB, 500)) == []
    shadow.apply(Pin(JOB, pinned=False))
    assert shadow.apply(Forget(JOB, 499)) == []
    assert shadow.apply(Forget(JOB, 500, shadow.stamp_ms + 1)) == []
    assert shadow.apply(Forget(JOB, 500)) == [("forgotten", JOB, -1, "")]


def test_the_shadow_takes_each_proposal_once(shadow: Shadow) -> None:
    shadow.apply(lost(), (P, 7))
    shadow.apply(lost(held=True), (P, 8))
    assert shadow.apply(lost(), (P, 7)) == []
    assert shadow.jobs[JOB].lost == set()


def machine_of(*commands: Command) -> Machine:
    machine = Machine()
    for index, command in enumerate(commands, start=1):
        machine.apply(Committed(index, 500, 0, (Envelope(Q, index, command),)))
    return machine


def test_a_machine_that_agrees_with_the_shadow_is_not_objected_to(shadow: Shadow) -> None:
    KeepReferee(shadow).compare(machine_of(*SETUP), [JOB])


@pytest.mark.parametrize(
    "command", [Pin(JOB, pinned=True), lost(), Held(JOB, Q, ((1, "", BLOB.ref.digest),), held=True)]
)
def test_a_machine_that_knows_something_else_is_objected_to(
    shadow: Shadow, command: Command
) -> None:
    with pytest.raises(BrokenPromiseError, match="P6: results of job"):
        KeepReferee(shadow).compare(machine_of(*SETUP, command), [JOB])


def test_a_job_that_only_one_of_them_knows_is_objected_to(shadow: Shadow) -> None:
    with pytest.raises(BrokenPromiseError, match="P9: job job is there for one only"):
        KeepReferee(shadow).compare(machine_of(*SETUP, Forget(JOB)), [JOB])


def test_a_job_that_is_forgotten_too_early_is_objected_to(shadow: Shadow) -> None:
    referee = KeepReferee(shadow)
    referee.on_committed(Forget(JOB), 501)  # somebody asked for it
    referee.on_committed(Forget(JOB, 500), 1_500)
    kept = sim_job(TWO, mean_us=1)
    shadow.jobs[JOB].spec = kept
    with pytest.raises(BrokenPromiseError, match="P9: job job is forgotten 1000 ms"):
        referee.on_committed(Forget(JOB, 500), 1_500)
    referee.on_committed(Forget(JOB, 500, 1_501), 1_500)  # the machine refuses it
    with pytest.raises(BrokenPromiseError, match="P9: job job is forgotten 1001 ms"):
        referee.on_committed(Forget(JOB, 500, 1_501), 1_501)


def test_a_holder_that_never_got_a_result_is_objected_to(shadow: Shadow) -> None:
    referee = KeepReferee(shadow)
    event = Recorded(JOB, 4, P, 1, Segment(1, 2, Cause.OK, DATA, blobs=(BLOB,)))
    referee.disks = {P: {BLOB.ref.digest: False}}  # it had it
    referee.on_recorded(event)
    two = msgspec.structs.replace(BLOB, holders=(P, Q))
    event = Recorded(JOB, 4, P, 1, Segment(1, 2, Cause.OK, DATA, blobs=(two,)))
    with pytest.raises(BrokenPromiseError, match="P1: result job/1 '' never came to holder q"):
        referee.on_recorded(event)


def test_an_acknowledged_forget_that_was_not_committed_is_objected_to() -> None:
    with pytest.raises(BrokenPromiseError, match="P9: job job is said to be forgotten"):
        Referees().on_answered(Forget(JOB), Acknowledged())


def test_an_acknowledged_cancel_of_a_job_that_runs_is_objected_to(shadow: Shadow) -> None:
    referees = Referees()
    referees.shadow.apply(SubmitJob(JOB, SPEC))
    with pytest.raises(BrokenPromiseError, match="E6: cancel of job acknowledged"):
        referees.on_answered(Cancel(JOB), Acknowledged())
