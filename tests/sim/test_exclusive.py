"""Exclusive tasks in a simulated cluster: no two of one task run at any moment of true time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from p2psched.core.drain import is_draining
from p2psched.core.raft.timing import Timing
from p2psched.model.commands import Drain, DrainMode
from p2psched.model.ids import JobId
from p2psched.model.once import Start
from p2psched.model.taskset import TaskSet
from p2psched.testing.faults import Faults
from p2psched.testing.sim import SimCluster, SimulationError
from p2psched.testing.sim_jobs import sim_job
from p2psched.testing.sim_peer import SimPeer
from tests.sim import exclusive_mutants as mutants
from tests.sim.exclusive_mutants import Planted

AWAY_MS = 12_000


class Stage:
    """A task that never ends by itself at each of three peers, and a slot that is free."""

    def __init__(self, seed: int, *, lease_ms: int) -> None:
        self.cluster = SimCluster(seed=seed, peers=3, faults=Faults(drift_ppm=500), timing=Timing())
        self.cluster.run_until(self._knows_all, within_ms=20_000)
        spec = sim_job(TaskSet.of(0, 3), mean_us=1_000, hang_permille=1000)
        spec = replace(spec, start=Start.EXCLUSIVE, lease_ms=lease_ms)
        self.job: JobId = self.cluster.submit(spec)
        self.await_("exclusive tasks begun", 3, 20_000)
        self.owner = self._owner()

    def _knows_all(self) -> bool:
        return all(peer.alive and peer.state.level >= 6 for peer in self.cluster.peers)

    def await_(self, what: str, count: int, within_ms: int) -> None:
        happened = self.cluster.happened
        self.cluster.run_until(lambda: happened[what] >= count, within_ms=within_ms)

    def _owner(self) -> SimPeer:
        """One that does not lead: nobody has to be elected if it is away."""
        peers = self.cluster.peers
        return next(p for p in peers if p.scheduler.owner.batches and not p.engine.raft.is_leader)

    def end(self) -> None:
        """It is begun elsewhere while its owner is away, and that is back for a while."""
        self.await_("exclusive tasks begun", 4, AWAY_MS)
        self.cluster.run_for(2 * AWAY_MS)


def stands_still(stage: Stage) -> None:
    stage.cluster.pause(stage.owner.number, AWAY_MS)
    stage.end()


def sleeps(stage: Stage) -> None:
    stage.cluster.suspend(stage.owner.number, AWAY_MS)
    stage.end()


def stands_still_after_renewals(stage: Stage) -> None:
    stage.await_("leases renewed", 9, 30_000)
    stands_still(stage)


def is_killed(stage: Stage) -> None:
    stage.cluster.kill(stage.owner.number)
    stage.end()


def is_cut_off(stage: Stage) -> None:
    """Alone; the peer lives and sees in time that its lease will be over."""
    number = stage.owner.number
    stage.cluster.network.cut_between([number], [n for n in range(3) if n != number])
    stage.await_("exclusive tasks begun", 4, AWAY_MS)
    stage.cluster.network.mend()
    stage.cluster.run_for(AWAY_MS)


def hears_late(stage: Stage) -> None:
    """It stands still where it has asked for more, hears the answer, and stands still again."""
    owner, cluster = stage.owner, stage.cluster
    cluster.run_until(lambda: bool(owner.scheduler.owner.leasing._sent), within_ms=10_000)
    cluster.pause(owner.number, 1_700)
    cluster.run_until(lambda: not owner.scheduler.owner.leasing._sent, within_ms=10_000)
    stands_still(stage)


Story = Callable[[Stage], None]
STORIES = (
    stands_still,
    sleeps,
    stands_still_after_renewals,
    is_killed,
    is_cut_off,
    hears_late,
)


@pytest.mark.parametrize("story", STORIES)
def test_a_task_whose_owner_is_away_runs_at_one_place_at_a_time(story: Story) -> None:
    with mutants.late_watch():
        stage = Stage(1, lease_ms=6_000)
        story(stage)
        stage.cluster.cancel(stage.job)
        ended = "cancelled"
        stage.cluster.run_until(
            lambda: stage.cluster.state_of(stage.job) == ended, within_ms=30_000
        )


def stops(stage: Stage) -> None:
    """Drained, so that it is not granted what it has just let go of."""
    cluster, owner = stage.cluster, stage.owner
    cluster.ask(Drain(owner.id, DrainMode.ON))
    cluster.run_until(lambda: is_draining(owner.state, owner.id), within_ms=10_000)
    cluster.leave(owner.number)
    stage.await_("exclusive tasks begun", 4, 10_000)


def test_nobody_waits_for_the_lease_of_an_owner_that_stops() -> None:
    stage = Stage(2, lease_ms=600_000)
    stops(stage)
    assert stage.cluster.referees.shadow.counts["released early"] == 1


@pytest.mark.parametrize(
    ("plant", "story", "lease_ms"),
    [
        (mutants.counts_from_the_answer, hears_late, 6_000),
        (mutants.has_no_margin, stands_still, 3_000),
        (mutants.waits_for_no_lease, stands_still, 8_000),
        (mutants.forgets_renewals, stands_still_after_renewals, 8_000),
        (mutants.clock_stops_in_sleep, sleeps, 3_000),
        (mutants.stands_still_with_its_peer, stands_still, 3_000),
        (mutants.says_gone_too_early, stops, 600_000),
    ],
)
def test_a_planted_bug_makes_one_task_run_twice_at_a_time(
    plant: Callable[[], Planted], story: Story, lease_ms: int
) -> None:
    with plant(), pytest.raises(SimulationError, match=r"E9: task .* runs on"):
        story(Stage(1, lease_ms=lease_ms))
