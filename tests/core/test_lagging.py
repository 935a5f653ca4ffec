"""What an owner says of tasks that run for long, and what it makes of those that are overtaken."""

from __future__ import annotations

import msgspec

from p2psched.core.feed import Say
from p2psched.core.jobs import Job
from p2psched.core.owner import StopBatch
from p2psched.model.backing import LAGGING_MAX, Backing, Lagging, LaggingTask
from p2psched.model.ids import PeerId
from p2psched.model.job import Cause, JobSpec
from p2psched.model.pace_rules import OnStall, PaceRules
from tests.core.retry_rig import Ledger, P, spec
from tests.core.test_pacing import Running

LEADER = PeerId("leader")


def speculating(pace: PaceRules | None = None, *, count: int = 1) -> JobSpec:
    wanted = msgspec.structs.replace(spec(count), pace=pace, timeout_ms=60_000)
    return msgspec.structs.replace(wanted, backing=Backing(speculate=True) if not pace else None)


def running(wanted: JobSpec) -> tuple[Running, Job]:
    ledger = Ledger()
    job = ledger.submit(wanted)
    return Running(ledger, job, P), job


def test_what_runs_for_a_second_is_said_once_a_look() -> None:
    owner, job = running(speculating())
    owner.report(900, None)
    assert owner.owner.pacing.say_lagging(LEADER) == []
    owner.report(1_900, None)
    said = Lagging((LaggingTask(job.id, owner.grant, 0, 1_900),))
    assert owner.owner.pacing.say_lagging(LEADER) == [Say(LEADER, said)]
    assert owner.owner.pacing.say_lagging(LEADER) == []


def test_while_nobody_coordinates_it_waits() -> None:
    owner, _ = running(speculating())
    owner.report(1_900, None)
    assert owner.owner.pacing.say_lagging(None) == []
    assert len(owner.owner.pacing.say_lagging(LEADER)) == 1


def test_of_other_jobs_nothing_is_said() -> None:
    owner, _ = running(msgspec.structs.replace(spec(1), timeout_ms=60_000))
    owner.report(30_000, None)
    assert owner.owner.pacing.take_lagging() is None


def test_who_says_how_far_it_is_says_how_long_it_will_take() -> None:
    owner, _ = running(speculating())
    for second in (1, 2, 3, 4):
        owner.report(second * 1_000, second * 10)
    lagging = owner.owner.pacing.take_lagging()
    assert lagging is not None
    assert lagging.tasks[0].left_ms == 6_000


def test_what_stalls_by_the_rules_of_its_job_says_so() -> None:
    rules = PaceRules(heartbeat_ms=5_000, on_stall=OnStall.SPECULATE)
    owner, _ = running(speculating(rules))
    assert owner.report(4_000, None, quiet_ms=4_000) == []
    assert owner.owner.pacing.take_lagging() is not None
    assert owner.report(6_000, None, quiet_ms=6_000) == []
    lagging = owner.owner.pacing.take_lagging()
    assert lagging is not None
    assert lagging.tasks[0].stalls


def test_only_the_longest_are_named() -> None:
    assert LAGGING_MAX == 64
    owner, _ = running(speculating(count=4))
    owner.report(2_000, None)
    lagging = owner.owner.pacing.take_lagging()
    assert lagging is not None
    assert len(lagging.tasks) == len(owner.batches)


def test_who_is_overtaken_counts_as_having_taken_so_long_at_least() -> None:
    owner, job = running(speculating())
    owner.report(9_000, None)
    (effect,) = owner.owner.on_revoked(job.id, owner.grant, job.spec.tasks, Cause.OVERTAKEN)
    assert isinstance(effect, StopBatch)
    (speed,) = owner.owner.load().speeds
    assert speed.mean_us == 9_000_000


def test_who_is_cancelled_counts_for_nothing() -> None:
    owner, job = running(speculating())
    owner.report(9_000, None)
    owner.owner.on_revoked(job.id, owner.grant, job.spec.tasks, Cause.CANCELLED)
    assert owner.owner.load().speeds == ()
