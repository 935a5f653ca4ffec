"""Which tasks the coordinator backs up, and where."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from p2psched.core import backing
from p2psched.core.backup_plan import LOOK_MS, BackupPlan
from p2psched.core.jobs import Job
from p2psched.core.kinds import kind_of
from p2psched.core.stragglers import ENDED_MIN, Durations
from p2psched.model import chunks
from p2psched.model.backing import Backing, BackUp, Lagging, LaggingTask
from p2psched.model.commands import Complete, GiveBack, PeerDown, Revoked
from p2psched.model.ids import PeerId
from p2psched.model.job import Cause, Segment
from p2psched.model.load import Liveness, LoadReport, Seen, TypeSpeed
from p2psched.model.needs import NOTHING, Offers
from p2psched.model.taskset import EMPTY, TaskSet
from tests.core.choosy_rig import A, B, C, Cluster, spec
from tests.core.retry_rig import R
from tests.core.test_backing import SPECULATES, Case, backed_spec

D = PeerId("d" * 32)
WEST, EAST = Offers((("zone", "west"),)), Offers((("zone", "east"),))


class Plan:
    """A cluster, and what its coordinator backs up."""

    def __init__(self, offers: Mapping[PeerId, Offers], *, slots: int = 4) -> None:
        self.cluster = Cluster(offers, slots=slots)
        self.plan = BackupPlan(self.cluster.machine, self.cluster.coordinator.takers)
        self.now_ms = 0
        self._told = 0

    def submit(self, count: int, *, replicas: int = 1, speculate: bool = False) -> Job:
        wanted = msgspec.structs.replace(spec(count), backing=Backing(replicas, speculate))
        self.cluster.submit(1, wanted)
        return self.cluster.job(1)

    def round(self) -> list[BackUp]:
        self.now_ms += LOOK_MS
        self.plan.on_events(self.cluster.stamped[self._told :])
        self._told = len(self.cluster.stamped)
        return self.plan.round(self.now_ms)

    def settle(self) -> list[BackUp]:
        """All that it wants."""
        done: list[BackUp] = []
        while commands := self.round():
            done += commands
            for command in commands:
                self.cluster.do(command)
        return done

    def end(self, job: Job, tasks: TaskSet, *, ms: int) -> None:
        """They end where they are, and took so long each."""
        for held in list(job.grants.values()):
            for index in held.tasks & tasks:
                part = Segment(index, index + 1, Cause.OK, chunks.pack([b""]), ms * 1000)
                self.cluster.do(Complete(job.id, held.grant, (part,)))

    def lag(self, job: Job, index: int, *, ran_ms: int, left_ms: int | None = None) -> None:
        held = next(h for h in (*job.grants.values(), *job.backups.values()) if index in h.tasks)
        told = LaggingTask(job.id, held.grant, index, ran_ms, left_ms)
        self.plan.stragglers.on_lagging(self.now_ms, held.peer, Lagging((told,)))


# --- replicas -------------------------------------------------------------------------------------


def test_each_task_gets_as_many_peers_as_its_job_wants() -> None:
    plan = Plan({A: NOTHING, B: NOTHING, C: NOTHING})
    job = plan.submit(6, replicas=3)
    plan.cluster.place()
    plan.settle()
    assert backing.enough(job) == job.spec.tasks
    assert plan.round() == []


def test_a_replica_is_in_another_zone_if_there_is_one() -> None:
    plan = Plan({A: WEST, B: WEST, C: EAST})
    job = plan.submit(1, replicas=2)
    plan.cluster.place()
    (owner,) = job.grants.values()
    (command,) = plan.settle()
    assert command.peer == (C if owner.peer in {A, B} else A)


def test_without_another_zone_another_peer_is_enough() -> None:
    plan = Plan({A: WEST, B: WEST})
    job = plan.submit(2, replicas=2)
    plan.cluster.place()
    plan.settle()
    assert job.backed == job.spec.tasks


def test_with_too_few_peers_it_runs_on_what_there_is() -> None:
    plan = Plan({A: NOTHING})
    plan.submit(2, replicas=2)
    plan.cluster.place()
    assert plan.round() == []


def test_a_lost_backup_is_replaced() -> None:
    plan = Plan({A: NOTHING, B: NOTHING, C: NOTHING})
    job = plan.submit(1, replicas=2)
    plan.cluster.place()
    (first,) = plan.settle()
    plan.cluster.lose(first.peer)
    (second,) = plan.settle()
    assert second.peer not in {first.peer, next(iter(job.grants.values())).peer}


def test_no_more_is_backed_up_than_there_is_room_for() -> None:
    plan = Plan({A: NOTHING, B: NOTHING}, slots=1)
    plan.submit(50, replicas=2)
    plan.cluster.place()
    plan.settle()
    rows = plan.cluster.machine.peers.values()
    assert all(row.owned <= 4 for row in rows)


# --- late tasks -----------------------------------------------------------------------------------


def late_case() -> tuple[Plan, Job]:
    """A job of which all but one task have ended after a second each."""
    plan = Plan({A: NOTHING, B: NOTHING, C: NOTHING})
    job = plan.submit(12, speculate=True)
    plan.cluster.place()
    plan.end(job, TaskSet.of(1, 12), ms=1_000)
    assert len(job.succeeded) >= ENDED_MIN
    return plan, job


def test_a_task_that_takes_far_longer_than_its_like_is_begun_elsewhere() -> None:
    plan, job = late_case()
    plan.lag(job, 0, ran_ms=1_900)
    assert plan.round() == []
    plan.lag(job, 0, ran_ms=2_100)
    (command,) = plan.settle()
    (owner,) = job.grants.values()
    assert (command.speculates, command.tasks) == (True, TaskSet.of(0, 1))
    assert command.peer != owner.peer
    (why,) = plan.plan.remembered(job.id, 0, A, lambda at_ms: at_ms)
    assert why.note == "it had run for 2.1 s: others of its job take 1 s"


def test_one_that_says_how_long_it_will_take_is_late_before_it_is() -> None:
    plan, job = late_case()
    plan.lag(job, 0, ran_ms=1_000, left_ms=20_000)
    assert len(plan.settle()) == 1


def test_one_that_is_nearly_done_is_left_alone() -> None:
    plan, job = late_case()
    plan.lag(job, 0, ran_ms=9_000, left_ms=500)
    assert plan.round() == []


def test_before_enough_have_ended_nothing_is_late() -> None:
    plan = Plan({A: NOTHING, B: NOTHING})
    job = plan.submit(6, speculate=True)
    plan.cluster.place()
    plan.end(job, TaskSet.of(1, 4), ms=1_000)
    plan.lag(job, 0, ran_ms=60_000)
    assert plan.round() == []


def test_while_tasks_wait_no_other_is_begun_twice() -> None:
    plan, job = late_case()
    plan.cluster.submit(2, spec(1))
    other = plan.cluster.job(2)
    plan.lag(job, 0, ran_ms=9_000)
    assert plan.round() == []
    plan.cluster.place()
    plan.end(other, other.spec.tasks, ms=1_000)
    assert len(plan.round()) == 1


def test_what_an_owner_said_long_ago_counts_no_more() -> None:
    plan, job = late_case()
    plan.lag(job, 0, ran_ms=9_000)
    plan.now_ms += 4_000
    assert plan.round() == []


def test_the_quickest_idle_peer_is_chosen_and_none_that_is_slower() -> None:
    plan, job = late_case()
    (owner,) = job.grants.values()
    others = [peer for peer in (A, B, C) if peer != owner.peer]
    assert job.full is not None
    kind = kind_of(job.full.work)

    def seen(speeds: Mapping[PeerId, int]) -> dict[PeerId, Seen]:
        return {
            peer: Seen(
                peer,
                1,
                Liveness.ALIVE,
                0,
                LoadReport(number=1, slots=4, speeds=(TypeSpeed(kind, mean_us, 0, 9),)),
            )
            for peer, mean_us in speeds.items()
        }

    coordinator = plan.cluster.coordinator
    coordinator.on_seen(seen({owner.peer: 1_000_000, others[0]: 5_000_000, others[1]: 6_000_000}))
    plan.lag(job, 0, ran_ms=9_000)
    assert plan.round() == []
    coordinator.on_seen(seen({owner.peer: 9_000_000, others[0]: 5_000_000, others[1]: 6_000_000}))
    plan.lag(job, 0, ran_ms=9_000)
    (command,) = plan.round()
    assert command.peer == others[0]


def test_one_that_hangs_is_begun_on_a_slower_peer_if_there_is_no_other() -> None:
    """Else noise in what was measured would leave it alone for ever."""
    plan, job = late_case()
    (owner,) = job.grants.values()
    assert job.full is not None
    kind = kind_of(job.full.work)
    speeds = {peer: 1_000_000 + 2_000_000 * (peer != owner.peer) for peer in (A, B, C)}
    plan.cluster.coordinator.on_seen(
        {
            peer: Seen(
                *(peer, 1, Liveness.ALIVE, 0),
                LoadReport(number=1, slots=4, speeds=(TypeSpeed(kind, mean_us, 0, 9),)),
            )
            for peer, mean_us in speeds.items()
        }
    )
    plan.lag(job, 0, ran_ms=11_000)
    assert plan.round() == []
    plan.lag(job, 0, ran_ms=13_000)
    assert len(plan.round()) == 1


def test_what_is_late_on_its_second_peer_is_called_off() -> None:
    plan, job = late_case()
    plan.lag(job, 0, ran_ms=3_000)
    (begun,) = plan.settle()
    (backup,) = job.backups.values()
    told = LaggingTask(job.id, backup.grant, 0, 2_500)
    plan.plan.stragglers.on_lagging(plan.now_ms, begun.peer, Lagging((told,)))
    (command,) = plan.round()
    assert (command.ends, command.peer) == (True, begun.peer)
    plan.cluster.do(command)
    assert (job.backups, plan.round()) == ({}, [])


def test_an_outlier_hides_no_other() -> None:
    durations = Durations()
    durations.add(1_000, 95)
    durations.add(60_000, 5)
    assert (durations.median_ms, durations.late_ms) == (1_000, 2_000)


# --- late ones ------------------------------------------------------------------------------------


def test_few_late_tasks_are_begun_once_more_and_each_once() -> None:
    case = Case(backed_spec(100, replicas=1, speculate=True))
    assert case.back_up(TaskSet.of(0, 50), late=True)[1] == TaskSet.of(0, 5)
    assert case.back_up(TaskSet.of(0, 100), R, late=True)[1] == EMPTY


def test_what_has_won_makes_room_for_another() -> None:
    case = Case(backed_spec(100, replicas=1, speculate=True))
    backup, _ = case.back_up(TaskSet.of(0, 50), late=True)
    case.end(backup, TaskSet.of(0, 1))
    assert backing.speculations_left(case.job) == 1
    assert case.back_up(TaskSet.of(0, 50), late=True)[1] == TaskSet.of(5, 6)


def test_what_is_late_there_too_is_called_off() -> None:
    case = Case(backed_spec(100, replicas=1, speculate=True))
    late = TaskSet.of(0, 1)
    backup, _ = case.back_up(late, late=True)
    assert case.back_up(late, late=True, ends=True)[1] == late
    assert [(e.grant, e.cause) for e in case.said(Revoked)] == [(backup, Cause.CANCELLED)]
    assert case.job.backups == {}
    assert case.back_up(late, R, late=True)[1] == EMPTY, "once is enough"


def test_rules_of_pace_may_ask_for_it() -> None:
    case = Case(msgspec.structs.replace(spec(100), pace=SPECULATES))
    assert case.back_up(late=True)[1] == TaskSet.of(0, 4)


def test_what_was_given_back_or_lost_with_its_peer_may_be_begun_elsewhere() -> None:
    case = Case(backed_spec(100, replicas=1, speculate=True))
    backup, tasks = case.back_up(TaskSet.of(0, 1), late=True)
    case.ledger.do(GiveBack(case.job.id, backup, tasks))
    assert case.back_up(tasks, R, late=True)[1] == tasks
    case.ledger.do(PeerDown(R, 1, "gone"))
    assert case.back_up(tasks, late=True)[1] == tasks
