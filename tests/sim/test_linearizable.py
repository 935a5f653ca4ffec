"""Place, complete, cancel, submit and read are single steps, whatever goes wrong meanwhile.

Each is one command, or one read, that happens at once at some moment between its call and its
answer: histories of concurrent clients are judged by a checker that knows nothing of the ledger.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final
from unittest.mock import patch

import pytest

from p2psched.core.raft import reads
from p2psched.core.raft.effects import ReadReady
from p2psched.core.raft.state import RaftState, WaitingRead
from p2psched.core.raft.timing import Timing
from p2psched.core.scheduler import Answered, Asked, Scheduler
from p2psched.core.scheduler_events import SchedulerEffect, SchedulerEvent
from p2psched.model.commands import (
    Acknowledged,
    Cancel,
    Command,
    Complete,
    PeerUp,
    Place,
    SubmitJob,
)
from p2psched.model.ids import PeerId
from p2psched.testing.faults import Faults
from p2psched.testing.linearizable import Result
from p2psched.testing.referees import Referees
from p2psched.testing.sim import SimCluster
from p2psched.testing.sim_storm import Storm
from p2psched.testing.simulate import PEACE_MS
from tests.linearizable.second import second_opinion
from tests.sim.history import Recorder, start_clients
from tests.sim.sequential import JobModel

STORM_MS: Final = 8_000
LEADERSHIP_MS: Final = 1_200  # mean time until a leader is killed, cut off or paused
CLIENTS: Final = 4
SEEDS_MAX: Final = 600  # until a planted bug is noticed
TIMING: Final = Timing(heartbeat_ms=50, election_ms_min=150, election_ms_max=300)


def run(seed: int) -> Recorder:
    """Clients and faults, then peace; leaders are what fails most."""
    rng = random.Random(seed)
    drawn = Faults.draw(rng) if rng.random() < 0.5 else Faults(delay_us=rng.choice((500, 20_000)))
    faults = replace(drawn, crashes_max=12, sync_us_max=rng.choice((300, 5_000, 50_000)))
    cluster = SimCluster(
        seed=seed,
        peers=rng.choice((3, 3, 5)),
        faults=faults,
        timing=TIMING,
        replay=f"pytest 'tests/sim/test_linearizable.py' with seed {seed}",
    )
    recorder = Recorder()
    with recorder.watching_peers():
        stop = start_clients(cluster, recorder, CLIENTS, rng)
        Storm(cluster, rng)
        _harass_leaders(cluster, faults, rng)
        cluster.run_for(STORM_MS)
        stop()
        cluster.heal()
        cluster.run_until(
            lambda: cluster.referees.has_ended(cluster.peers), within_ms=PEACE_MS, every=25
        )
        cluster.run_for(2_500)  # what was given up may still commit
    return recorder


def _harass_leaders(cluster: SimCluster, faults: Faults, rng: random.Random) -> None:
    def harass() -> None:
        if cluster.faults is not faults:  # healed
            return
        for peer in cluster.peers:
            if peer.alive and peer.engine.raft.is_leader:
                others = [other.number for other in cluster.peers if other is not peer]
                match rng.randrange(3):
                    case 0 if cluster.crashes_here(1.0):
                        cluster.crash(peer.number)
                    case 1:
                        cluster.pause(peer.number, rng.randrange(100, 2_000))
                    case _:
                        cluster.network.heal()
                        cluster.network.cut_between([peer.number], others)
                        cluster.after(rng.randrange(300, 2_000), cluster.network.heal)
        cluster.after(rng.expovariate(1 / LEADERSHIP_MS), harass)

    cluster.after(rng.expovariate(1 / LEADERSHIP_MS), harass)


def judge(seed: int) -> Result:
    return run(seed).check()


@pytest.mark.parametrize(
    "first", [0, *(pytest.param(n, marks=pytest.mark.wide) for n in (10, 20, 30))]
)
def test_every_history_has_an_order_that_explains_it(first: int) -> None:
    for seed in range(first, first + 10):
        result = judge(seed)
        assert result.ok, f"seed {seed}: {result.explain()}"


@pytest.mark.long
@pytest.mark.timeout(900)
def test_every_history_of_a_thousand_has_an_order_that_explains_it() -> None:
    for seed in range(1_000, 2_000):
        result = judge(seed)
        assert result.ok, f"seed {seed}: {result.explain()}"


def test_the_histories_hold_every_kind_of_operation_and_some_without_an_answer() -> None:
    recorders = [run(seed) for seed in range(5)]
    kinds: tuple[type[Command] | None, ...] = (SubmitJob, Cancel, Place, Complete, PeerUp, None)
    for kind in kinds:
        assert sum(recorder.count(kind) for recorder in recorders) >= 5, kind
    for recorder in recorders:
        assert recorder.check().ok
    assert sum(recorder.unanswered for recorder in recorders) >= 5


def test_another_checker_says_the_same() -> None:
    for seed in range(5):
        recorder = run(seed)
        assert recorder.check().ok
        assert second_opinion(
            recorder.history.operations, JobModel(recorder.grants, recorder.killers)
        )


# --- it can see -----------------------------------------------------------------------------------


@contextmanager
def _reads_know_nothing_of_others() -> Iterator[None]:
    """A peer answers a read with what it knows itself."""

    def on_read(state: RaftState, read: int) -> None:
        state.emit(ReadReady(read, state.commit))

    with patch.object(reads, "on_read", on_read):
        yield


@contextmanager
def _leaders_ask_nobody() -> Iterator[None]:
    """A leader answers a read without asking a majority whether it still leads."""

    def start(state: RaftState, read: int, asker: PeerId | None) -> None:
        state.answer_read(WaitingRead(read, asker, 0, 0), state.commit)

    with patch.object(reads, "_start", start):
        yield


@contextmanager
def _cancels_are_answered_at_once() -> Iterator[None]:
    step = Scheduler.step

    def hasty(scheduler: Scheduler, event: SchedulerEvent) -> list[SchedulerEffect]:
        effects = step(scheduler, event)
        command = event.command if isinstance(event, Asked) else None
        if isinstance(command, Cancel) and command.job in scheduler.machine.jobs:
            assert isinstance(event, Asked)
            effects.append(Answered(event.tag, Acknowledged()))
        return effects

    with patch.object(Scheduler, "step", hasty):
        yield


@pytest.mark.parametrize(
    ("plant", "first"),  # a seed that is known to notice it is tried before the others
    [
        (_reads_know_nothing_of_others, 0),
        (_leaders_ask_nobody, 245),
        (_cancels_are_answered_at_once, 11),
    ],
)
@pytest.mark.timeout(300)
def test_the_checker_notices_a_planted_bug_that_no_referee_looks_for(
    plant: type[object], first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Referees, "on_read", lambda self, index, floor: None)
    monkeypatch.setattr(Referees, "on_answered", lambda self, command, outcome: None)
    with plant():  # type: ignore[attr-defined]
        assert any(not judge(seed).ok for seed in (first, *range(SEEDS_MAX)))
