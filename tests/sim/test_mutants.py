"""The simulator is only worth something if it notices the bugs that matter."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from p2psched.testing.sim import SimulationError
from p2psched.testing.simulate import simulate
from tests.sim.act_mutants import ACT_MUTANTS
from tests.sim.backup_mutants import BACKUP_MUTANTS
from tests.sim.checkpoint_mutants import CHECKPOINT_MUTANTS
from tests.sim.cutoff_mutants import CUTOFF_MUTANTS
from tests.sim.disk_mutants import DISK_MUTANTS
from tests.sim.drain_mutants import DRAIN_MUTANTS
from tests.sim.gossip_mutants import GOSSIP_MUTANTS
from tests.sim.hang_mutants import HANG_MUTANTS
from tests.sim.hold_mutants import HOLD_MUTANTS
from tests.sim.hurt_mutants import HURT_MUTANTS
from tests.sim.keep_mutants import KEEP_MUTANTS
from tests.sim.lock_mutants import LOCK_MUTANTS
from tests.sim.member_mutants import MEMBER_MUTANTS
from tests.sim.mutants import MUTANTS, Mutant
from tests.sim.needs_mutants import NEEDS_MUTANTS
from tests.sim.once_mutants import ONCE_MUTANTS
from tests.sim.order_mutants import ORDER_MUTANTS
from tests.sim.poison_mutants import POISON_MUTANTS
from tests.sim.preemption_mutants import PREEMPTION_MUTANTS
from tests.sim.queue_mutants import QUEUE_MUTANTS
from tests.sim.raft_mutants import RAFT_MUTANTS
from tests.sim.retry_mutants import RETRY_MUTANTS
from tests.sim.silence_mutants import SILENCE_MUTANTS
from tests.sim.stall_mutants import STALL_MUTANTS
from tests.sim.steal_mutants import STEAL_MUTANTS

ALL = (
    *(*MUTANTS, *RAFT_MUTANTS, *MEMBER_MUTANTS, *DISK_MUTANTS, *KEEP_MUTANTS),
    *(*POISON_MUTANTS, *HURT_MUTANTS, *HANG_MUTANTS, *DRAIN_MUTANTS),
    *ACT_MUTANTS,
    *LOCK_MUTANTS,
    *HOLD_MUTANTS,
    *NEEDS_MUTANTS,
    *QUEUE_MUTANTS,
    *STEAL_MUTANTS,
    *GOSSIP_MUTANTS,
    *RETRY_MUTANTS,
    *STALL_MUTANTS,
    *ONCE_MUTANTS,
    *CUTOFF_MUTANTS,
    *BACKUP_MUTANTS,
    *CHECKPOINT_MUTANTS,
    *SILENCE_MUTANTS,
    *PREEMPTION_MUTANTS,
    *ORDER_MUTANTS,
)
SEEDS_MAX = 600  # of a mutant's own weather; it takes a few of them

PAGE = (Path(__file__).resolve().parents[2] / "docs/simulation.md").read_text()
TWENTY = re.findall(
    r"^\| ([^|]+) \| ([^|]+) \|$", PAGE.partition("| planted as |")[2], re.MULTILINE
)
# How many seeds each takes from 0 on: the last of these catches it, and is tried first here. The
# others follow if it no longer does.
TAKEN = {
    name: int(seeds)
    for name, seeds in reversed(
        re.findall(r"^\| ([^|]+) \| (\d+) \| [\d.]+ \| ", PAGE, re.MULTILINE)
    )
}


def first_of(mutant: Mutant) -> int:
    """The seed that is known to catch it."""
    return TAKEN.get(mutant.name, TAKEN.get(f"a {mutant.name}", 1)) - 1


WEATHERS = {(mutant.options(), first_of(mutant)): mutant for mutant in ALL}.values()


def test_the_page_tells_of_every_planted_bug() -> None:
    named = {*TAKEN, *(name.removeprefix("a ") for name in TAKEN)}
    assert [mutant.name for mutant in ALL if mutant.name not in named] == []


def test_the_twenty_bugs_are_planted() -> None:
    planted = [names for _, names in TWENTY]
    assert len(planted) == 20
    known = {name for mutant in ALL for name in (mutant.name, f"a {mutant.name}")}
    assert {name for names in planted for name in names.split("; ")} <= known


def test_each_of_the_twenty_took_a_minute_of_cpu_at_most() -> None:
    took_s = dict(re.findall(r"^\| ([^|]+) \| \d+ \| ([\d.]+) \| ", PAGE, re.MULTILINE))
    names = [name for _, planted in TWENTY for name in planted.split("; ")]
    assert {name: took_s[name] for name in names if float(took_s[name]) > 60} == {}


def what_referees_say(mutant: Mutant) -> str:
    """Of the first seed that catches it."""
    options = mutant.options()
    with mutant.plant():
        for seed in (first_of(mutant), *range(SEEDS_MAX)):
            try:
                simulate(seed, options)
            except SimulationError as exc:
                if mutant.broken in exc.why:  # else it shows in another way, too
                    return exc.why
    return "nothing"


@pytest.mark.parametrize("mutant", ALL, ids=lambda mutant: mutant.name)
def test_the_simulator_notices_a_planted_bug(mutant: Mutant) -> None:
    assert mutant.broken in what_referees_say(mutant)


@pytest.mark.wide
@pytest.mark.parametrize("mutant", WEATHERS, ids=lambda mutant: mutant.name)
def test_the_same_weather_breaks_nothing_without_the_bug(mutant: Mutant) -> None:
    simulate(first_of(mutant), mutant.options())
