"""Tasks that run on more peers than their owner: what the ledger makes of them."""

from __future__ import annotations

from typing import TypeVar

import msgspec
import pytest

from p2psched.core.jobs import Job
from p2psched.core.machine import Machine
from p2psched.core.snapshot import encode_machine, restore_machine
from p2psched.model import chunks
from p2psched.model.backing import BackedUp, Backing, BackUp, Promoted
from p2psched.model.commands import (
    Cancel,
    Complete,
    Completed,
    Envelope,
    GiveBack,
    KeptGrant,
    NewGeneration,
    PeerDown,
    PeerUp,
    Placed,
    Recorded,
    Rejected,
    Retried,
    Revoked,
    SubmitJob,
)
from p2psched.model.execution import Committed
from p2psched.model.hold import Hold
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause, JobSpec, JobState, ProgramWork, Segment
from p2psched.model.job_head import digest_of
from p2psched.model.moves import Transfer
from p2psched.model.once import Start
from p2psched.model.pace_rules import OnStall, PaceRules
from p2psched.model.retry import RetryPolicy, RetryRule, usual_rule
from p2psched.model.taskset import EMPTY, TaskSet
from tests.core.retry_rig import Ledger, P, Q, R, info, spec

Said = TypeVar("Said")
ALL = TaskSet.of(0, 4)
SOME = TaskSet.of(1, 3)


def backed_spec(count: int = 4, *, replicas: int = 2, speculate: bool = False) -> JobSpec:
    return msgspec.structs.replace(spec(count), backing=Backing(replicas, speculate))


class Case:
    """A job of P, and its backups."""

    def __init__(self, wanted: JobSpec | None = None) -> None:
        self.ledger = Ledger()
        self.job: Job = self.ledger.submit(wanted or backed_spec())
        self.owner = self.ledger.place(self.job, P).grant
        self.ledger.events.clear()

    def back_up(
        self, tasks: TaskSet = ALL, peer: PeerId = Q, *, late: bool = False, ends: bool = False
    ) -> tuple[int, TaskSet]:
        outcome = self.ledger.do(BackUp(self.job.id, tasks, peer, 1, late, ends))
        assert isinstance(outcome, Placed)
        return outcome.grant, outcome.tasks

    def end(self, grant: int, tasks: TaskSet = ALL, cause: Cause = Cause.OK) -> Completed:
        segments = tuple(
            Segment(start, stop, cause, chunks.pack([b""] * (stop - start)), 1_000)
            for start, stop in tasks.ranges
        )
        outcome = self.ledger.do(Complete(self.job.id, grant, segments))
        assert isinstance(outcome, Completed)
        return outcome

    def said(self, kind: type[Said]) -> list[Said]:
        return [event for event in self.ledger.events if isinstance(event, kind)]

    def loads(self) -> list[int]:
        return [self.ledger.machine.peers[peer].owned for peer in (P, Q, R)]


# --- who may have one -----------------------------------------------------------------------------


def test_a_backup_counts_as_load_of_its_peer_and_owns_nothing() -> None:
    case = Case()
    grant, tasks = case.back_up()
    assert tasks == ALL
    assert case.said(BackedUp) == [BackedUp(case.job.id, grant, Q, ALL)]
    assert (case.loads(), case.job.owned_count) == ([4, 4, 0], 4)
    assert case.job.current_part(grant, ALL) == EMPTY
    assert case.job.answerable(grant, ALL) == ALL


def test_nobody_has_a_task_twice_and_no_task_more_replicas_than_its_job_wants() -> None:
    case = Case()
    assert case.back_up(peer=P)[1] == EMPTY
    assert case.back_up(SOME)[1] == SOME
    assert case.back_up(ALL)[1] == ALL - SOME
    assert case.back_up(ALL, R)[1] == EMPTY


def test_what_waits_has_no_backup() -> None:
    ledger = Ledger()
    job = ledger.submit(backed_spec())
    assert ledger.do(BackUp(job.id, ALL, Q, 1)) == Placed(5 + 1, EMPTY)


def test_a_peer_that_is_down_has_none_nor_one_of_another_incarnation() -> None:
    case = Case()
    case.ledger.do(PeerDown(Q, 1, "gone"))
    assert case.back_up()[1] == EMPTY
    outcome = case.ledger.do(BackUp(case.job.id, ALL, R, 2))
    assert isinstance(outcome, Placed)
    assert outcome.tasks == EMPTY


def test_a_job_that_asks_for_none_has_none() -> None:
    case = Case(spec(4))
    assert case.back_up()[1] == EMPTY
    assert case.back_up(late=True)[1] == EMPTY


@pytest.mark.parametrize(
    ("option", "value", "what"),
    [("start", Start.ONCE, "must not start twice"), ("hold", Hold("db"), "holds a lock")],
)
def test_who_may_start_once_only_or_holds_a_lock_is_refused(
    option: str, value: object, what: str
) -> None:
    for wanted in (backed_spec(), msgspec.structs.replace(spec(4), pace=SPECULATES)):
        with pytest.raises(ValueError, match=what):
            msgspec.structs.replace(wanted, **{option: value})


SPECULATES = PaceRules(on_stall=OnStall.SPECULATE)


@pytest.mark.parametrize("replicas", [0, 6, True])
def test_replicas_are_one_to_five(replicas: int) -> None:
    with pytest.raises(ValueError, match="1 to 5"):
        Backing(replicas=replicas)


def test_below_its_level_such_a_job_is_refused_with_a_word() -> None:
    ledger = Ledger(level=5)
    outcome = ledger.do(SubmitJob(JobId("j"), backed_spec()))
    assert isinstance(outcome, Rejected)
    assert "level 6" in outcome.message


# --- the first good end ---------------------------------------------------------------------------


def test_the_first_good_end_counts_and_all_others_are_told_to_stop() -> None:
    case = Case(backed_spec(replicas=3))
    quick, _ = case.back_up()
    other, _ = case.back_up(peer=R)
    assert case.end(quick).accepted == ALL
    assert {(event.grant, event.cause) for event in case.said(Revoked)} == {
        (case.owner, Cause.OVERTAKEN),
        (other, Cause.OVERTAKEN),
    }
    (recorded,) = case.said(Recorded)
    assert (recorded.grant, recorded.peer) == (quick, Q)
    assert (case.job.state, case.job.backups_won) == (JobState.SUCCEEDED, 4)
    assert case.loads() == [0, 0, 0]


def test_of_a_set_each_task_is_taken_from_whoever_ends_it_first() -> None:
    case = Case()
    backup, _ = case.back_up()
    assert case.end(backup, SOME).accepted == SOME
    assert case.end(case.owner).accepted == ALL - SOME
    assert case.job.state is JobState.SUCCEEDED
    assert case.job.finished_by == {P: 2, Q: 2}


def test_what_who_was_overtaken_brings_is_refused_and_counted() -> None:
    case = Case()
    backup, _ = case.back_up()
    case.end(case.owner, SOME)
    assert case.end(backup, SOME).stale == SOME
    assert (case.job.results_refused, case.job.succeeded) == (2, SOME)


def test_an_end_that_is_said_twice_is_a_duplicate() -> None:
    case = Case()
    backup, _ = case.back_up()
    case.end(backup, SOME)
    assert case.end(backup, SOME).duplicate == SOME


# --- bad ends -------------------------------------------------------------------------------------


def test_a_bad_end_while_another_runs_costs_no_retry_and_ends_nothing() -> None:
    for peer in (P, Q):
        case = Case()
        backup, _ = case.back_up()
        grant = case.owner if peer == P else backup
        assert case.end(grant, SOME, Cause.EXIT).accepted == SOME
        assert [event.segment.tasks for event in case.said(Retried)] == [SOME]
        assert (case.job.waiting, case.job.failed, case.job.bad_ends) == (
            EMPTY,
            EMPTY,
            {Cause.EXIT: 2},
        )
        assert case.job.retried == EMPTY
        other = backup if peer == P else case.owner
        assert case.end(other).accepted == ALL
        assert case.job.state is JobState.SUCCEEDED


def test_the_last_bad_end_is_the_tasks() -> None:
    case = Case()
    backup, _ = case.back_up()
    case.end(backup, SOME, Cause.EXIT)
    case.end(case.owner, SOME, Cause.EXIT)
    assert case.job.failed == SOME


def test_what_ended_badly_beside_another_gets_no_other_backup_until_it_runs_anew() -> None:
    rule = RetryRule(Cause.EXIT, 1)
    wanted = msgspec.structs.replace(spec(4, rule), backing=Backing(2))
    case = Case(wanted)
    backup, _ = case.back_up()
    case.end(backup, SOME, Cause.EXIT)
    assert case.back_up(peer=R)[1] == EMPTY
    case.end(case.owner, SOME, Cause.EXIT)
    assert case.job.waiting == SOME
    case.ledger.place(case.job, P, SOME)
    assert case.back_up(SOME, R)[1] == SOME


# --- losses ---------------------------------------------------------------------------------------


def test_a_lost_owner_is_followed_by_its_backup_at_once() -> None:
    case = Case()
    backup, _ = case.back_up(SOME)
    case.ledger.do(PeerDown(P, 1, "gone"))
    assert case.said(Promoted) == [Promoted(case.job.id, backup, Q, SOME)]
    assert case.job.current_part(backup, ALL) == SOME
    assert case.job.orphaned == ALL - SOME
    assert list(case.job.attempts(SOME)) == [(1, SOME)]
    assert case.end(backup, SOME).accepted == SOME


def test_a_lost_backup_leaves_the_owner_alone_and_may_be_replaced() -> None:
    case = Case()
    backup, _ = case.back_up()
    case.ledger.do(PeerDown(Q, 1, "gone"))
    assert [event.grant for event in case.said(Revoked)] == [backup]
    assert (case.job.backed, case.job.current_part(case.owner, ALL)) == (EMPTY, ALL)
    assert case.back_up(peer=R)[1] == ALL


def test_who_comes_back_keeps_what_it_kept() -> None:
    case = Case()
    backup, _ = case.back_up()
    kept = (KeptGrant(case.job.id, backup, SOME),)
    case.ledger.do(PeerUp(msgspec.structs.replace(info(Q), incarnation=2), kept))
    assert case.job.backed == SOME
    kept = (KeptGrant(case.job.id, case.owner, TaskSet.of(0, 1)),)
    case.ledger.do(PeerUp(msgspec.structs.replace(info(P), incarnation=2), kept))
    assert (case.job.current_part(backup, ALL), case.job.backed) == (SOME, EMPTY)
    assert case.job.waiting == TaskSet.of(3, 4)


def test_deaths_with_a_backup_count_and_the_last_one_goes_on() -> None:
    case = Case(backed_spec(1, replicas=3))
    one = TaskSet.of(0, 1)
    case.back_up(one)
    last, _ = case.back_up(one, R)
    case.ledger.do(PeerDown(Q, 1, "gone"))
    case.ledger.do(PeerDown(P, 1, "gone"))
    assert case.job.suspects == one
    assert case.job.current_part(last, one) == one
    case.ledger.do(PeerUp(msgspec.structs.replace(info(Q), incarnation=2)))
    outcome = case.ledger.do(BackUp(case.job.id, one, Q, 2))
    assert isinstance(outcome, Placed)
    assert outcome.tasks == EMPTY, "a suspect is alone"
    case.ledger.do(PeerDown(R, 1, "gone"))
    assert case.job.placeable == one


def test_the_third_death_of_a_task_fails_it_only_if_nobody_runs_it() -> None:
    case = Case(backed_spec(1, replicas=5))
    one = TaskSet.of(0, 1)
    peers = [Q, R, PeerId("s"), PeerId("t")]
    for peer in peers[2:]:
        case.ledger.do(PeerUp(info(peer)))
    for peer in peers:
        case.back_up(one, peer)
    for peer in (P, *peers[:3]):
        case.ledger.do(PeerDown(peer, 1, "gone"))
    assert (len(case.job.killed[0]), case.job.failed) == (4, EMPTY)
    case.ledger.do(PeerDown(peers[3], 1, "gone"))
    case.ledger.do(PeerUp(msgspec.structs.replace(info(peers[3]), incarnation=2)))
    assert case.job.failed == one


# --- given back, moved, over ----------------------------------------------------------------------


def test_what_is_given_back_is_left_to_the_others() -> None:
    case = Case()
    backup, _ = case.back_up(SOME)
    case.ledger.do(GiveBack(case.job.id, case.owner, ALL))
    assert case.job.current_part(backup, ALL) == SOME
    assert case.job.waiting == ALL - SOME
    case.ledger.do(GiveBack(case.job.id, backup, SOME))
    assert case.job.waiting == ALL


def test_a_backup_that_is_given_back_is_gone() -> None:
    case = Case()
    backup, _ = case.back_up()
    case.ledger.do(GiveBack(case.job.id, backup, SOME))
    assert (case.job.backed, case.job.waiting) == (ALL - SOME, EMPTY)


def test_nothing_that_is_backed_up_moves() -> None:
    case = Case(backed_spec(speculate=True, replicas=1))
    backup, _ = case.back_up(TaskSet.of(0, 1), late=True)
    moved = case.ledger.do(Transfer(case.job.id, case.owner, ALL, Q, 1))
    assert isinstance(moved, Placed)
    assert moved.tasks == TaskSet.of(1, 4)
    case.ledger.do(PeerDown(P, 1, "gone"))
    assert case.job.grants[backup].stays


def test_nothing_of_a_job_with_replicas_moves() -> None:
    case = Case()
    moved = case.ledger.do(Transfer(case.job.id, case.owner, ALL, Q, 1))
    assert isinstance(moved, Placed)
    assert moved.tasks == EMPTY


def test_a_cancelled_job_leaves_nobody_running() -> None:
    case = Case()
    backup, _ = case.back_up()
    case.ledger.do(Cancel(case.job.id))
    assert {event.grant for event in case.said(Revoked)} == {case.owner, backup}
    assert (case.job.backups, case.loads()) == ({}, [0, 0, 0])


def test_a_new_generation_has_no_backups() -> None:
    case = Case()
    case.back_up()
    case.ledger.do(NewGeneration(2, P))
    assert (case.job.backups, case.job.waiting) == ({}, ALL)


# --- the state ------------------------------------------------------------------------------------


def test_backups_are_in_snapshots() -> None:
    case = Case()
    case.back_up(SOME)
    restored = Machine()
    restore_machine(restored, encode_machine(case.ledger.machine))
    assert restored.dump() == case.ledger.machine.dump()
    assert list(restored.backed) == [case.job.id]
    assert restored.jobs[case.job.id].backed == SOME


def test_a_repeated_proposal_backs_nothing_up_again() -> None:
    case = Case()
    machine, envelope = case.ledger.machine, Envelope(R, 7, BackUp(case.job.id, SOME, Q, 1))

    def commit() -> Placed:
        index = machine.applied_index + 1
        (outcome,), _ = machine.apply(Committed(index, 1_000, 1_000, (envelope,)))
        assert isinstance(outcome, Placed)
        return outcome

    backup = commit()
    case.ledger.do(GiveBack(case.job.id, backup.grant, SOME))
    assert (backup.tasks, commit().tasks) == (SOME, EMPTY)


def test_a_spec_without_backups_has_the_digest_that_it_had_before_there_were_any() -> None:
    """A caller that submits again after an upgrade means the same job."""
    rules = RetryPolicy((usual_rule(Cause.EXIT, 1),))
    plain = JobSpec("j", TaskSet.of(0, 3), ProgramWork(("true",)))
    ruled = msgspec.structs.replace(plain, retry=rules, pace=PaceRules(heartbeat_ms=5_000))
    assert digest_of(plain).hex() == "e3d3891900644170baffb412aa9266d2"
    assert digest_of(ruled).hex() == "323519f69984ed596cf74948a6b1b0c8"
    asked = {digest_of(msgspec.structs.replace(plain, backing=Backing(n))) for n in (1, 2)}
    assert len(asked - {digest_of(plain)}) == 2
