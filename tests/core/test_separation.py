"""A peer that loses the majority: how long it goes on, what it keeps, and what it reports."""

from __future__ import annotations

from typing import Final

import msgspec
import pytest

from p2psched.core.cutoff import NOTICE_MS, SETTLE_MS
from p2psched.core.feed import Say
from p2psched.core.levels import KNOWN_LEVEL
from p2psched.core.owner import StartBatch, StopBatch
from p2psched.core.scheduler import (
    Began,
    CoordinatorChanged,
    Executed,
    Renewed,
    RenewIncarnation,
    Scheduler,
)
from p2psched.core.separation import ATTEMPTS_APART, RECALL_MS, RESTARTS_MAX
from p2psched.core.separation_effects import (
    KeepOwned,
    KeepResults,
    Recalled,
    Reported,
    SpoolDecided,
    Spooled,
)
from p2psched.model.commands import (
    KeptGrant,
    PeerDown,
    PeerInfo,
    PeerUp,
    Place,
    RaiseLevel,
    SubmitJob,
)
from p2psched.model.execution import Ended, Progress
from p2psched.model.hold import Hold
from p2psched.model.ids import JobId
from p2psched.model.job import JobSpec
from p2psched.model.once import Start
from p2psched.model.reconcile import (
    Judged,
    KeptResult,
    OwnedPart,
    Recollection,
    Reconciliation,
    SpoolOutcome,
)
from p2psched.model.reconciled import Reconciled
from p2psched.model.steal_messages import Gives, Steal
from p2psched.model.taskset import EMPTY, TaskSet
from tests.core.test_machine import JOB, P, Q, ended, spec
from tests.core.test_scheduler import Peer

FOUR: Final = TaskSet.of(0, 4)
MAX_MS: Final = 30_000
NIGHT: Final = JobId("f" * 32)


class Cut(Peer):
    """A peer with two slots, of a cluster of two that Q leads."""

    def __init__(self, incarnation: int = 1) -> None:
        super().__init__()
        info = PeerInfo(P, incarnation, "p", "", 0, 2, "", "", KNOWN_LEVEL)
        self.scheduler = Scheduler(info, max_disconnect_ms=MAX_MS)

    def begin(self, found: Recollection | None = None) -> None:
        if found is not None:
            self.do(Recalled(self.now_ms, found))
        self.do(Began(self.now_ms))
        self.round()

    def join(self) -> None:
        """The ledger knows it, and its tasks run here."""
        self.hear()
        self.commit()
        there = PeerUp(PeerInfo(Q, 1, "q", "", 0, 0, "", "", KNOWN_LEVEL))
        self.commit_from_elsewhere(there, RaiseLevel(KNOWN_LEVEL))

    def hear(self) -> None:
        self.do(CoordinatorChanged(self.now_ms, Q, is_self=False))
        self.wait(100)

    def lose(self, duration_ms: int) -> None:
        """No majority for so long."""
        self.do(CoordinatorChanged(self.now_ms, None, is_self=False))
        for _ in range(duration_ms // 100):
            self.wait(100)

    def wait_heard(self, duration_ms: int) -> None:
        for _ in range(duration_ms // 100):
            self.wait(100)

    def work_on(self, tasks: TaskSet = FOUR, **options: int) -> int:
        given = msgspec.structs.replace(spec(tasks), **options)
        self.commit_from_elsewhere(SubmitJob(JOB, given))
        return self.grant(tasks)

    def finish(self, number: int) -> None:
        """Of the batches that were started, one that is a single task."""
        batch = self.batches()[number]
        (index,) = batch.tasks
        self.do(
            Executed(self.now_ms, Progress(batch.id, (ended(index, index + 1, busy_us=1_000_000),)))
        )
        self.do(Executed(self.now_ms, Ended(batch.id, EMPTY)))
        self.round()

    def missed(self) -> None:
        """It was declared down, and learns of that."""
        self.commit_from_elsewhere(PeerDown(P, 1, "silent"))

    def live_on(self) -> None:
        assert self.of(RenewIncarnation)
        self.do(Renewed(self.now_ms, 2))
        self.round()
        self.commit()

    @property
    def reports(self) -> list[Reconciliation]:
        return [effect.report for effect in self.done if isinstance(effect, Reported)]

    @property
    def kept(self) -> list[KeptResult]:
        found: list[KeptResult] = []
        for effect in self.done:
            if isinstance(effect, KeepResults):
                found = [*([] if effect.anew else found), *effect.results]
        return found

    @property
    def noted(self) -> tuple[OwnedPart, ...]:
        return [effect for effect in self.done if isinstance(effect, KeepOwned)][-1].owned


@pytest.fixture
def peer() -> Cut:
    made = Cut()
    made.begin()
    made.join()
    return made


# --- how long -------------------------------------------------------------------------------------


def test_an_election_cuts_nobody_off(peer: Cut) -> None:
    peer.lose(NOTICE_MS - 200)
    assert not peer.scheduler.separation.is_cut
    peer.lose(400)
    assert peer.scheduler.separation.is_cut


def test_a_peer_that_is_cut_off_goes_on_with_what_it_has(peer: Cut) -> None:
    peer.work_on()
    peer.lose(NOTICE_MS + 1_000)
    peer.finish(0)
    assert [list(batch.tasks) for batch in peer.batches()] == [[0], [1], [2]]


def test_what_runs_ends_after_max_disconnect_and_nothing_more_starts(peer: Cut) -> None:
    peer.work_on()
    peer.lose(MAX_MS - 200)
    assert not peer.of(StopBatch)
    peer.lose(400)
    stopped = [effect.batch for effect in peer.done if isinstance(effect, StopBatch)]
    assert stopped == [batch.id for batch in peer.batches()]
    for number in stopped:
        peer.do(Executed(peer.now_ms, Ended(number, EMPTY)))
    peer.lose(1_000)
    assert len(peer.batches()) == 2
    assert peer.scheduler.separation.overdue == (JOB,)


def test_a_job_may_say_how_long(peer: Cut) -> None:
    peer.work_on(max_disconnect_ms=5_000)
    peer.lose(5_200)
    assert len(peer.of(StopBatch)) == 2


def test_what_was_ended_goes_on_once_the_majority_says_whose_it_is(peer: Cut) -> None:
    peer.work_on(max_disconnect_ms=3_000)
    peer.lose(4_000)
    for batch in peer.batches():
        peer.do(Executed(peer.now_ms, Ended(batch.id, EMPTY)))
    peer.hear()
    peer.done = [effect for effect in peer.done if not isinstance(effect, StartBatch)]
    peer.wait_heard(SETTLE_MS + 200)
    begun = sorted((list(batch.tasks), batch.attempt) for batch in peer.batches())
    assert begun == [([0], 2), ([1], 2)]
    assert peer.scheduler.separation.overdue == ()


def test_nothing_is_given_away_without_a_majority(peer: Cut) -> None:
    peer.work_on(TaskSet.of(0, 100))
    peer.lose(NOTICE_MS + 200)
    steal = Steal(1, 1, slots=4)
    peer.scheduler.stealing.on_message(peer.now_ms, Q, steal)
    peer.round()
    (said,) = [effect for effect in peer.done if isinstance(effect, Say)]
    assert isinstance(said.message, Gives)
    assert said.message.count == 0


# --- back -----------------------------------------------------------------------------------------


def test_a_result_of_a_current_grant_is_committed_and_told(peer: Cut) -> None:
    grant = peer.work_on()
    peer.lose(NOTICE_MS + 500)
    peer.finish(0)
    assert [(kept.job, kept.grant) for kept in peer.kept] == [(JOB, grant)]
    peer.hear()
    peer.commit()
    peer.wait_heard(SETTLE_MS + 200)
    (report,) = peer.reports
    assert report.committed == (Judged(JOB, grant, TaskSet.of(0, 1), grant),)
    assert (report.tasks_committed, report.tasks_discarded, report.tasks_ended) == (1, 0, 0)
    told = [envelope.command for envelope in peer.proposed]
    assert next(c for c in told if isinstance(c, Reconciled)).committed == 1


@pytest.mark.parametrize("proposed_first", [True, False])
def test_a_superseded_result_is_discarded_whatever_comes_first(
    peer: Cut, *, proposed_first: bool
) -> None:
    grant = peer.work_on()
    peer.lose(NOTICE_MS + 500)
    peer.finish(0)
    mine, peer.proposed = tuple(peer.proposed), []
    peer.hear()
    peer.missed()
    peer.commit_from_elsewhere(Place(JOB, FOUR, Q, 1))
    newer = peer.scheduler.machine.command_index
    if proposed_first:
        peer.commit(*mine)
        peer.live_on()
    else:
        peer.live_on()
        peer.commit(*mine)
    peer.wait_heard(SETTLE_MS + 200)
    (report,) = peer.reports
    assert report.discarded == (Judged(JOB, grant, TaskSet.of(0, 1), newer),)
    assert report.ended == (Judged(JOB, grant, TaskSet.of(1, 4), newer),)
    assert peer.scheduler.machine.jobs[JOB].succeeded == EMPTY


def test_a_report_waits_for_the_last_word_on_a_result(peer: Cut) -> None:
    peer.work_on()
    peer.lose(NOTICE_MS + 500)
    peer.finish(0)
    peer.hear()
    peer.wait_heard(SETTLE_MS + 3_000)
    assert peer.reports == []
    peer.commit()
    peer.wait(100)
    assert len(peer.reports) == 1


# --- over a restart -------------------------------------------------------------------------------


def test_long_tasks_are_noted_and_short_ones_are_not(peer: Cut) -> None:
    grant = peer.work_on()
    peer.wait(1_000)
    assert not peer.of(KeepOwned)
    peer.finish(0)
    peer.wait(1_000)
    noted = {(part.grant, index) for part in peer.noted for index in part.tasks}
    assert noted == {(grant, 1), (grant, 3)} | ({(grant, 2)} & noted)


@pytest.mark.parametrize("fields", [{"hold": Hold("cam", 1)}, {"start": Start.ONCE}], ids=str)
def test_what_only_the_ledger_restarts_is_not_noted(peer: Cut, fields: dict[str, object]) -> None:
    held = msgspec.structs.replace(spec(FOUR), **fields)
    peer.commit_from_elsewhere(SubmitJob(JOB, held))
    peer.grant(FOUR)
    peer.wait(1_000)
    peer.wait(1_000)
    assert not peer.of(KeepOwned)


def left(**fields: object) -> Recollection:
    """Of a process 1 that was cut off for five seconds and ran the first two tasks of four."""
    found = Recollection(
        away_ms=5_000,
        incarnation=1,
        since=1,
        owned=(OwnedPart(JOB, 7, 1, FOUR),),
        specs={JOB: spec(FOUR)},
    )
    return msgspec.structs.replace(found, **fields)


def test_a_restarted_peer_begins_again_only_once_nobody_answers() -> None:
    peer = Cut(incarnation=2)
    peer.begin(left())
    peer.lose(RECALL_MS - 200)
    assert peer.batches() == []
    peer.lose(400)
    assert [(list(b.tasks), b.grant, b.attempt) for b in peer.batches()] == [
        ([0], 7, 1 + ATTEMPTS_APART),
        ([1], 7, 1 + ATTEMPTS_APART),
    ]
    assert peer.proposed == []


def test_the_time_before_the_restart_counts() -> None:
    peer = Cut(incarnation=2)
    peer.begin(left(away_ms=MAX_MS))
    peer.lose(RECALL_MS + 1_000)
    assert peer.batches() == []
    assert peer.scheduler.separation.overdue == (JOB,)


def test_who_was_started_too_often_without_a_majority_begins_nothing() -> None:
    peer = Cut(incarnation=2 + RESTARTS_MAX)
    peer.begin(left())
    peer.lose(RECALL_MS + 1_000)
    assert peer.batches() == []


def test_it_claims_what_it_went_on_with_once_it_is_heard() -> None:
    peer = Cut(incarnation=2)
    peer.begin(left())
    peer.lose(RECALL_MS + 500)
    peer.finish(0)
    peer.hear()
    up = [e.command for e in peer.proposed if isinstance(e.command, PeerUp)]
    kept = {(kept.job, kept.grant, index) for kept in up[0].kept for index in kept.tasks}
    assert kept == {(JOB, 7, index) for index in FOUR}
    assert all(isinstance(kept, KeptGrant) for kept in up[0].kept)


def test_with_a_majority_at_hand_only_results_are_claimed() -> None:
    done = KeptResult(JOB, 7, ended(3, 4))
    peer = Cut(incarnation=2)
    peer.begin(left(results=(done,)))
    peer.hear()
    up = [e.command for e in peer.proposed if isinstance(e.command, PeerUp)]
    assert up[0].kept == (KeptGrant(JOB, 7, TaskSet.of(3, 4)),)
    peer.wait_heard(RECALL_MS + 1_000)
    assert peer.batches() == []


def test_a_task_with_a_result_is_not_begun_again() -> None:
    peer = Cut(incarnation=2)
    peer.begin(left(results=(KeptResult(JOB, 7, ended(0, 1)),)))
    peer.lose(RECALL_MS + 500)
    assert [list(batch.tasks) for batch in peer.batches()] == [[1], [2]]


# --- the spool ------------------------------------------------------------------------------------


def night(number: int) -> tuple[JobId, JobSpec]:
    return JobId(f"{number:032x}"), msgspec.structs.replace(spec(), name=f"night-{number}")


def test_spooled_jobs_are_submitted_in_order_once_a_majority_is_heard(peer: Cut) -> None:
    peer.lose(NOTICE_MS + 200)
    for number in range(20):
        peer.do(Spooled(peer.now_ms, *night(number)))
    peer.round()
    assert not [e for e in peer.proposed if isinstance(e.command, SubmitJob)]
    peer.hear()
    for _ in range(3):
        peer.commit()
        peer.wait(100)
    assert list(peer.scheduler.machine.jobs) == [night(number)[0] for number in range(20)]
    decided = [e.outcome for e in peer.done if isinstance(e, SpoolDecided)]
    assert decided == [SpoolOutcome(night(n)[0], f"night-{n}", "accepted") for n in range(20)]


def test_a_job_that_was_accepted_before_the_crash_is_known_and_not_new(peer: Cut) -> None:
    job, given = night(1)
    peer.commit_from_elsewhere(SubmitJob(job, given))
    peer.do(Spooled(peer.now_ms, job, given))
    peer.wait(100)
    peer.commit()
    peer.round()
    (decided,) = [e.outcome for e in peer.done if isinstance(e, SpoolDecided)]
    assert decided.outcome == "known"
    assert len(peer.scheduler.machine.jobs) == 1


def test_a_removed_job_is_never_submitted(peer: Cut) -> None:
    peer.lose(NOTICE_MS + 200)
    job, given = night(1)
    peer.do(Spooled(peer.now_ms, job, given))
    assert peer.scheduler.separation.spooling.remove(job)
    peer.hear()
    peer.wait(200)
    assert not [e for e in peer.proposed if isinstance(e.command, SubmitJob)]
    assert not peer.scheduler.separation.spooling.remove(NIGHT)
