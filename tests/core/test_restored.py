"""A scheduler that is given a state instead of what led to it: its work fits it afterwards."""

from __future__ import annotations

from p2psched.core.machine import Machine
from p2psched.core.owner import StopBatch
from p2psched.core.scheduler import Began, Executed, RenewIncarnation, Restored
from p2psched.core.snapshot import encode_machine, restore_machine
from p2psched.model.commands import (
    Cancel,
    Command,
    Complete,
    Envelope,
    PeerDown,
    Place,
    SubmitJob,
)
from p2psched.model.execution import Committed, Progress
from p2psched.model.ids import JobId
from p2psched.model.job import Cause
from p2psched.model.taskset import TaskSet
from tests.core.test_machine import JOB, P, Q, ended, spec
from tests.core.test_scheduler import Peer

SIX = TaskSet.of(0, 6)
OTHER = JobId("f" * 32)


class Elsewhere:
    """Another peer's machine, which goes on while ours hears nothing."""

    def __init__(self, peer: Peer) -> None:
        self.machine = Machine()
        restore_machine(self.machine, encode_machine(peer.scheduler.machine))

    def commit(self, *commands: Command) -> None:
        index = self.machine.applied_index + 1
        envelopes = tuple(
            Envelope(Q, 9_000 + 100 * index + i, command) for i, command in enumerate(commands)
        )
        self.machine.apply(Committed(index, index, 0, envelopes))


def busy(tasks: TaskSet = SIX) -> Peer:
    """It is up, owns tasks of a job, and runs the first of them."""
    peer = Peer()
    peer.do(Began(peer.now_ms))
    peer.round()
    peer.commit()
    peer.commit_from_elsewhere(SubmitJob(JOB, spec(SIX)))
    peer.grant(tasks)
    return peer


def restore(peer: Peer, elsewhere: Elsewhere) -> None:
    peer.done.clear()
    peer.do(Restored(peer.now_ms, encode_machine(elsewhere.machine)))
    peer.round()


def test_grants_that_came_meanwhile_are_begun() -> None:
    peer = busy(TaskSet.of(0, 2))
    elsewhere = Elsewhere(peer)
    elsewhere.commit(Place(JOB, TaskSet.of(2, 6), P, 1))
    restore(peer, elsewhere)
    held = peer.scheduler.owner.held()
    assert sum(map(len, held.values())) == 6
    assert {grant for _, grant in held} == set(elsewhere.machine.jobs[JOB].grants)


def test_what_it_works_on_already_is_not_begun_again() -> None:
    peer = busy()
    running = [batch.tasks for batch in peer.batches()]
    elsewhere = Elsewhere(peer)
    elsewhere.commit(SubmitJob(OTHER, spec(SIX)))
    restore(peer, elsewhere)
    assert peer.batches() == []
    assert sum(map(len, peer.scheduler.owner.held().values())) == 6
    assert len(running) == 2


def test_work_that_is_not_ours_any_more_is_ended() -> None:
    peer = busy()
    elsewhere = Elsewhere(peer)
    elsewhere.commit(Cancel(JOB))
    restore(peer, elsewhere)
    stops = [effect for effect in peer.done if isinstance(effect, StopBatch)]
    assert [stop.cause for stop in stops] == [Cause.CANCELLED, Cause.CANCELLED]
    assert not any(peer.scheduler.owner.held().values())


def test_whoever_was_declared_down_meanwhile_takes_a_new_incarnation() -> None:
    peer = busy()
    elsewhere = Elsewhere(peer)
    elsewhere.commit(PeerDown(P, 1, "not heard"))
    restore(peer, elsewhere)
    assert peer.of(RenewIncarnation) == [RenewIncarnation()]
    kept = peer.scheduler.owner.kept()
    assert [entry.tasks for entry in kept] == [SIX]  # still its own, until somebody gets them


def test_a_result_that_was_committed_meanwhile_is_proposed_again_and_counts_once() -> None:
    peer = busy()
    first, *_ = peer.batches()
    peer.do(Executed(peer.now_ms, Progress(first.id, (ended(0, 1),))))
    (proposed,) = [c for c in peer.round() if isinstance(c, Complete)]
    envelope = peer.proposed[-1]
    elsewhere = Elsewhere(peer)
    elsewhere.machine.apply(Committed(elsewhere.machine.applied_index + 1, 1, 0, (envelope,)))
    restore(peer, elsewhere)
    job = peer.scheduler.machine.jobs[JOB]
    assert job.succeeded == TaskSet.of(0, 1)
    peer.proposed.clear()
    again = peer.wait(2_000)
    assert proposed in again
    peer.commit()
    assert (job.succeeded, job.results_refused) == (TaskSet.of(0, 1), 0)
    assert peer.scheduler.owner.results_refused == 0
