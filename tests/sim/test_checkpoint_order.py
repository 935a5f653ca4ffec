"""Which of two checkpoints is newer, where an owner was cut off and saved more than the next."""

from __future__ import annotations

from unittest.mock import patch

import pytest
from msgspec.structs import replace

from p2psched.core.resuming import Search, Take
from p2psched.model.checkpoints import Head
from p2psched.model.ids import JobId
from p2psched.model.taskset import TaskSet
from p2psched.testing.faults import Faults
from p2psched.testing.sim import SimCluster, SimulationError
from p2psched.testing.sim_jobs import Lengths, sim_job
from p2psched.testing.sim_peer import SimPeer

TASK_US = 20_000_000
PEERS = 5


class Stage:
    """A task whose owner is alone with what it saves, and ahead of the one that goes on with it."""

    def __init__(self, seed: int) -> None:
        self.cluster = SimCluster(seed=seed, peers=PEERS, faults=Faults())
        self.cluster.run_until(self._knows_all, within_ms=20_000)
        spec = sim_job(TaskSet.of(0, 1), mean_us=TASK_US, lengths=Lengths.EVEN)
        self.job: JobId = self.cluster.submit(replace(spec, checkpoint="state"))
        self._await(lambda: bool(self._runs()))
        (first,) = self._runs()
        self._await(lambda: len(self._saved(first)) == 2)
        others = [number for number in range(PEERS) if number != first.number]
        self.cluster.network.cut_between([first.number], others)
        self._await(lambda: len(self._runs()) == 2)
        (second,) = [peer for peer in self._runs() if peer is not first]
        self.first, self.second = first, second
        self._await(self._is_copied)

    def _knows_all(self) -> bool:
        return all(peer.alive and peer.state.level >= 5 for peer in self.cluster.peers)

    def _is_copied(self) -> bool:
        """What the second one has saved is somewhere else, too."""
        others = [peer for peer in self.cluster.peers if peer not in (self.first, self.second)]
        grant = self._newest(self.first)[0]
        return any(self._newest(peer)[0] > grant for peer in others)

    def _await(self, what: object) -> None:
        assert callable(what)
        self.cluster.run_until(what, within_ms=30_000)

    def _runs(self) -> list[SimPeer]:
        return [p for p in self.cluster.peers if p.alive and p.scheduler.owner.batches]

    def _saved(self, peer: SimPeer) -> tuple[Head, ...]:
        return self.cluster.saved.heads(peer.id, (self.job, 0))

    def _newest(self, peer: SimPeer) -> tuple[int, int]:
        return max((head.key for head in self._saved(peer)), default=(0, 0))

    def lose_the_second(self) -> None:
        """And the first is back, with more."""
        old_grant, old_number = self._newest(self.first)
        grant, number = self._newest(self.second)
        assert old_grant < grant
        assert old_number > number
        self.cluster.kill(self.second.number)
        self.cluster.network.mend()
        ended = "succeeded"
        self.cluster.run_until(
            lambda: self.cluster.state_of(self.job) == ended, within_ms=2 * TASK_US // 1000
        )


def test_the_next_attempt_goes_on_from_the_newer_grant() -> None:
    Stage(1).lose_the_second()


def test_a_planted_bug_that_takes_the_higher_number_of_an_older_grant_is_seen() -> None:
    def best(self: Search) -> Take | None:
        heads = [(head, peer) for peer, found in self._found.items() for head in found]
        heads = [(head, peer) for head, peer in heads if (peer, head.key) not in self._bad]
        if not heads:
            return None
        return Take(*max(heads, key=lambda found: (found[0].number, found[0].grant)))

    stage = Stage(1)
    with patch.object(Search, "_best", best), pytest.raises(SimulationError, match="E10"):
        stage.lose_the_second()
