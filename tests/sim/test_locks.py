"""Locks in simulated clusters: sections never overlap, and deadlocks are told, whoever leads."""

from __future__ import annotations

from collections import Counter
from typing import Final

import pytest

from p2psched.model.actions import Act, Acted, Action
from p2psched.model.commands import Outcome, Rejected
from p2psched.model.lease_actions import EndLease, Enrol, Enrolled, TakeLease
from p2psched.model.lock_actions import AcquireLock, LockHeld, LockWaiting
from p2psched.testing.faults import Faults
from p2psched.testing.sim import SimCluster
from p2psched.testing.simulate import Options, simulate
from tests.sim.test_cluster import run_until_led

ROUGH: Final = Faults(
    crash_every_ms=2_500,
    restart_ms_max=300,
    cut_every_ms=1_500,
    cut_ms_max=2_000,
    pause_every_ms=3_000,
    pause_ms_max=3_000,
    wall_step_every_ms=500,
    drop=0.05,
    tail=0.05,
    drift_ppm=500,
)


def test_sections_of_callers_with_clocks_of_their_own_never_overlap() -> None:
    """But where a caller is frozen; and then what it writes is refused."""
    happened: Counter[str] = Counter()
    for seed in range(4, 11):
        options = Options(peers=3, faults=ROUGH, jobs_max=0, events=8_000, locks=8, followers=0)
        happened += simulate(seed, options).happened
    for what in (
        "locks held",
        "waited for a lock",
        "stopped waiting for a lock",
        "locks lost",
        "locks overtaken",
        "stale writes refused",
    ):
        assert happened[what], f"{what}: what is not seen is not shown"


class Caller:
    """Asks until it is answered, whoever leads."""

    def __init__(self, cluster: SimCluster) -> None:
        self._cluster = cluster
        self._number = 0
        self._name = 0
        enrolled = self.act(Enrol())
        assert isinstance(enrolled, Acted)
        assert isinstance(enrolled.answer, Enrolled)
        self._name = enrolled.answer.caller
        self.lease = f"{self._name:032x}"
        self.act(TakeLease(self.lease, 60_000))

    def act(self, action: Action) -> Outcome:
        heard: list[Outcome] = []
        self._cluster.ask(self._numbered(action), heard.append)
        self._cluster.run_until(lambda: bool(heard), within_ms=20_000)
        return heard[0]

    def take(self, name: str) -> Outcome:
        return self.act(self._wish(name))

    def take_at(self, number: int, name: str, heard: list[Outcome]) -> None:
        """Ask this peer and no other, once."""
        self._cluster.callers.call(number, self._numbered(self._wish(name)), heard.append)

    def _numbered(self, action: Action) -> Act:
        self._number += 1
        return Act(self._name, self._number, self._number, action)

    def _wish(self, name: str) -> AcquireLock:
        claim = f"{self._name:016x}{self._number:016x}"
        owner = f"owner-{self._name}"
        return AcquireLock(name, claim, self.lease, owner, label=owner)


@pytest.mark.parametrize("leads", [True, False], ids=["the leader", "a follower"])
def test_who_reaches_no_majority_grants_no_lock_and_the_others_do(leads: bool) -> None:
    cluster = SimCluster(seed=6, peers=3)
    run_until_led(cluster)
    ann, bob = Caller(cluster), Caller(cluster)
    leader = run_until_led(cluster)
    alone = next(peer for peer in cluster.peers if (peer is leader) == leads)
    cluster.network.cut_between([alone.number], [n for n in range(3) if n != alone.number])
    heard: list[Outcome] = []
    ann.take_at(alone.number, "page", heard)
    cluster.run_for(10_000)
    assert not [outcome for outcome in heard if not isinstance(outcome, Rejected)]
    assert not alone.state.lock_claims
    held = bob.take("page")
    assert isinstance(held, Acted)
    assert isinstance(held.answer, LockHeld)
    cluster.heal()
    waits = ann.take("page")
    assert isinstance(waits, Acted)
    assert isinstance(waits.answer, LockWaiting)


def test_a_deadlock_is_told_to_who_closes_it_also_after_a_change_of_leader() -> None:
    cluster = SimCluster(seed=5, peers=3)
    run_until_led(cluster)
    one, other, third = Caller(cluster), Caller(cluster), Caller(cluster)
    for caller, name in ((one, "left"), (other, "right"), (third, "last")):
        taken = caller.take(name)
        assert isinstance(taken, Acted)
        assert isinstance(taken.answer, LockHeld)
    assert one.take("right") == Acted(LockWaiting(1))
    assert third.take("left") == Acted(LockWaiting(1))
    cluster.crash(run_until_led(cluster).number, power_lost=True)
    told = other.take("last")
    assert isinstance(told, Rejected)
    assert told.code == "deadlock"
    assert "waits for last, which owner-" in told.message
    other.act(EndLease(other.lease))
    machine = run_until_led(cluster).scheduler.machine
    held = {claim.name: claim.lease for claim in machine.lock_claims.values() if claim.token}
    assert held == {"left": one.lease, "right": one.lease, "last": third.lease}
