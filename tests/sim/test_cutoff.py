"""Peers that are cut off, in whole seeds: what the referee made of them once and shouldn't have."""

from __future__ import annotations

from typing import Final
from unittest.mock import patch

import msgspec
import pytest

from p2psched.core.cutoff import CutOff
from p2psched.core.levels import KNOWN_LEVEL
from p2psched.model.commands import Place
from p2psched.model.taskset import TaskSet
from p2psched.testing.sim import SimCluster, SimulationError
from p2psched.testing.sim_jobs import sim_job
from p2psched.testing.sim_peer import SimPeer
from p2psched.testing.simulate import simulate

TASKS: Final = 200
TASK_US: Final = 1_000_000
LIMIT_MS: Final = 8_000


# Without a majority for seconds, then a word of it and a grant of long ago, before the next look at
# the time: in the log, in a snapshot.
@pytest.mark.parametrize("seed", [7_300_116, 7_200_009])
def test_a_word_of_a_majority_counts_from_when_it_comes(seed: int) -> None:
    simulate(seed)


def cut_off_with_work(limit_ms: int) -> tuple[SimCluster, SimPeer]:
    """A peer that owns minutes of work, each task a second, is cut off a moment ago."""
    cluster = SimCluster(seed=3, peers=3, slots=(1,))
    cluster.run_until(lambda: cluster.referees.shadow.level == KNOWN_LEVEL, within_ms=10_000)
    spec = sim_job(TaskSet.of(0, TASKS), mean_us=TASK_US)
    job = cluster.submit(msgspec.structs.replace(spec, max_disconnect_ms=limit_ms))
    cluster.run_until(lambda: cluster.state_of(job) == "running", within_ms=5_000)
    victim = cluster.peers[2]
    place = Place(job, TaskSet.of(0, TASKS), victim.id, victim.scheduler.info.incarnation)
    cluster.ask(place)
    cluster.run_for(2_000)
    cluster.network.cut_between([victim.number], [0, 1])
    return cluster, victim


def test_who_is_cut_off_goes_on_up_to_its_limit_and_no_longer() -> None:
    cluster, alone = cut_off_with_work(LIMIT_MS)
    queued = [alone.scheduler.owner.queued_count]
    for _ in range(4):
        cluster.run_for(LIMIT_MS)
        queued.append(alone.scheduler.owner.queued_count)
    assert queued[0] > queued[1] >= queued[2] == queued[3] == queued[4] > 0


def test_one_that_goes_on_for_ever_is_noticed() -> None:
    with patch.object(CutOff, "end_overdue", lambda _: []):
        cluster, _ = cut_off_with_work(LIMIT_MS)
        with pytest.raises(SimulationError, match=r"E3: peer .* without a majority"):
            cluster.run_for(4 * LIMIT_MS)
