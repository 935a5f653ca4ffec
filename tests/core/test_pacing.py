"""What an owner does about tasks that are too slow or silent, and what the ledger makes of it."""

from __future__ import annotations

import msgspec
import pytest

from p2psched.core.jobs import Job
from p2psched.core.owner import Owner, StartBatch
from p2psched.core.pacing import EndTask
from p2psched.model import chunks, items
from p2psched.model.commands import Grant, Recorded, Retried
from p2psched.model.execution import Ended, Progress, Reports, TaskReport
from p2psched.model.ids import PeerId
from p2psched.model.job import Cause, JobSpec, Segment
from p2psched.model.pace_commands import Warn
from p2psched.model.pace_rules import OnStall, PaceRules
from p2psched.model.retry import RetryRule, usual_rule
from p2psched.model.retry_events import Alerted
from p2psched.model.taskset import TaskSet
from tests.core.retry_rig import PEERS, Ledger, P, Q, spec

MINUTE, HOUR = 60_000, 3_600_000
ELSEWHERE = PaceRules(on_stall=OnStall.ELSEWHERE)


def paced(
    rules: PaceRules | None, *retry: RetryRule, count: int = 1, timeout_ms: int | None = HOUR
) -> JobSpec:
    return msgspec.structs.replace(spec(count, *retry), pace=rules, timeout_ms=timeout_ms)


class Running:
    """A peer that runs tasks of a job: how far they are is for the test to say."""

    def __init__(
        self, ledger: Ledger, job: Job, peer: PeerId, tasks: TaskSet | None = None
    ) -> None:
        self.ledger, self.job, self.peer = ledger, job, peer
        self.owner = Owner(ledger.machine, slots=4)
        placed = ledger.place(job, peer, tasks)
        self.grant: Grant = placed.grant
        self.owner.on_granted(job, placed.grant, placed.tasks)
        self.batches = {
            effect.batch.id: effect.batch
            for effect in self.owner.start_batches()
            if isinstance(effect, StartBatch)
        }

    def report(self, ran_ms: int, done: float | None, *, quiet_ms: int = 0) -> list[EndTask]:
        """Of the first task of each batch."""
        found = [
            TaskReport(number, batch.tasks.ranges[0][0], ran_ms, quiet_ms)
            if done is None
            else TaskReport(
                number, batch.tasks.ranges[0][0], ran_ms, quiet_ms, quiet_ms, done, 100.0
            )
            for number, batch in self.batches.items()
        ]
        effects = self.owner.on_executed(Reports(tuple(found)))
        assert all(isinstance(effect, EndTask) for effect in effects)
        return [effect for effect in effects if isinstance(effect, EndTask)]

    def run(self, percent_per_min: float, *, until_ms: int) -> tuple[int, list[EndTask]]:
        """Until it does something about it."""
        for ran_ms in range(MINUTE // 4, until_ms, MINUTE // 4):
            if effects := self.report(ran_ms, ran_ms / MINUTE * percent_per_min):
                return ran_ms, effects
        return until_ms, []

    def perform(self, effect: EndTask) -> None:
        """As the executor does it."""
        item = items.pack({"message": effect.why})
        segment = Segment(effect.index, effect.index + 1, effect.cause, chunks.pack([item]))
        self.owner.on_executed(Progress(effect.batch, (segment,)))
        self.owner.on_executed(Ended(effect.batch, TaskSet()))
        self.propose()

    def propose(self) -> None:
        for request, command in enumerate(self.owner.next_round()):
            self.owner.proposed(request, command)
            outcome = self.ledger.do(command)
            assert self.owner.on_outcome(request, outcome)


def alerts(ledger: Ledger) -> list[Alerted]:
    return [event for event in ledger.events if isinstance(event, Alerted)]


def test_a_task_too_slow_for_its_limit_moves_long_before_it_and_ends_elsewhere() -> None:
    ledger = Ledger()
    job = ledger.submit(paced(ELSEWHERE, usual_rule(Cause.STALLED, 1)))
    at_ms, (effect,) = Running(ledger, job, P).run(1.0, until_ms=HOUR)
    assert at_ms <= HOUR // 10
    assert (effect.index, effect.cause) == (0, Cause.STALLED)

    ledger = Ledger()
    job = ledger.submit(paced(ELSEWHERE, usual_rule(Cause.STALLED, 1)))
    slow = Running(ledger, job, P)
    slow.perform(slow.run(1.0, until_ms=HOUR)[1][0])
    assert [e.segment.cause for e in ledger.events if isinstance(e, Retried)] == [Cause.STALLED]
    assert job.avoids[P] == TaskSet.of(0, 1)
    assert job.waiting == TaskSet.of(0, 1)
    assert Running(ledger, job, Q).run(4.0, until_ms=25 * MINUTE)[1] == []
    assert not alerts(ledger)


def test_a_task_too_slow_on_two_peers_fails_with_that_reason() -> None:
    ledger = Ledger()
    job = ledger.submit(paced(ELSEWHERE, usual_rule(Cause.STALLED, 1)))
    for peer in (P, Q):
        slow = Running(ledger, job, peer)
        slow.perform(slow.run(1.0, until_ms=HOUR)[1][0])
    assert job.failed == TaskSet.of(0, 1)
    (recorded,) = [event for event in ledger.events if isinstance(event, Recorded)]
    header, *_ = items.unpack(chunks.unpack(recorded.segment.data)[0])
    assert str(header["message"]).startswith("too slow everywhere: it stalled on p, q (at its pace")
    assert [(e.cause, e.severity) for e in alerts(ledger)] == [(Cause.STALLED, "error")]


def test_the_only_peer_keeps_a_slow_task_and_says_so_but_ends_a_silent_one() -> None:
    ledger = Ledger()
    rules = PaceRules(heartbeat_ms=MINUTE, on_stall=OnStall.ELSEWHERE)
    job = ledger.submit(paced(rules, usual_rule(Cause.STALLED, 1)))
    for peer in PEERS[1:]:
        ledger.machine.peers[peer].live = False
    alone = Running(ledger, job, P)
    assert alone.run(1.0, until_ms=30 * MINUTE) == (30 * MINUTE, [])
    alone.propose()
    assert [(e.cause, e.severity) for e in alerts(ledger)] == [(Cause.STALLED, "warn")]
    (effect,) = alone.report(32 * MINUTE, 30.0, quiet_ms=2 * MINUTE)
    assert effect.why.startswith("silent for")


@pytest.mark.parametrize("rules", [None, PaceRules(heartbeat_ms=MINUTE)])
def test_a_warning_is_one_alert_a_job_and_nothing_is_ended(rules: PaceRules | None) -> None:
    ledger = Ledger()
    job = ledger.submit(paced(rules, count=4))
    peers = [Running(ledger, job, P, TaskSet.of(0, 2)), Running(ledger, job, Q, TaskSet.of(2, 4))]
    for peer in peers:
        assert peer.run(1.0, until_ms=10 * MINUTE)[1] == []
        peer.propose()
        peer.propose()
    (alert,) = alerts(ledger)
    assert (alert.peer, alert.cause, alert.severity) == (P, Cause.STALLED, "warn")
    assert "its limit is 60 min" in alert.why
    assert not job.bad_ends


def test_a_job_that_runs_again_may_be_warned_of_again() -> None:
    ledger = Ledger()
    job = ledger.submit(paced(None))
    slow = Running(ledger, job, P)
    slow.run(1.0, until_ms=10 * MINUTE)
    slow.propose()
    assert job.warned
    assert ledger.do(Warn(job.id, slow.grant + 9, 0, "nobody's")) is not None
    assert len(alerts(ledger)) == 1


def test_who_is_on_a_cluster_of_older_peers_warns_nobody() -> None:
    ledger = Ledger(level=4)
    job = ledger.submit(msgspec.structs.replace(spec(1), timeout_ms=HOUR))
    slow = Running(ledger, job, P)
    slow.run(1.0, until_ms=10 * MINUTE)
    assert slow.owner.pacing.take_warnings() == []
    assert slow.owner.pacing.rows()[0].finding


def test_what_others_are_shown_changes_its_version_only_with_news() -> None:
    ledger = Ledger()
    shown = Running(ledger, ledger.submit(paced(None)), P)
    pacing = shown.owner.pacing
    shown.report(1_000, 1.0)
    version = pacing.version
    shown.report(2_000, 1.0, quiet_ms=1_000)
    assert pacing.version == version
    shown.report(3_000, 2.0)
    assert pacing.version > version
    (row,) = pacing.rows()
    assert (row.index, row.done, row.total, row.ran_ms) == (0, 2.0, 100.0, 3_000)
    version = pacing.version
    shown.owner.on_executed(Reports(()))
    assert (pacing.rows(), pacing.version > version) == ([], True)
