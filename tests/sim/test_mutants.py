"""The simulator is only worth something if it notices the bugs that matter."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from p2psched.testing.sim import SimulationError
from p2psched.testing.simulate import simulate
from tests.sim.act_mutants import ACT_MUTANTS
from tests.sim.backup_mutants import BACKUP_MUTANTS
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
from tests.sim.poison_mutants import POISON_MUTANTS
from tests.sim.queue_mutants import QUEUE_MUTANTS
from tests.sim.raft_mutants import RAFT_MUTANTS
from tests.sim.retry_mutants import RETRY_MUTANTS
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
)
SEEDS_MAX = 600  # of a mutant's own weather; it takes a few of them
# Seeds that catch what many don't are tried first; the others follow if they no longer do.
FIRST = {
    "a holder does not count its lease": 21,
    "vote is sent before it is on disk": 9,
    "results are taken from whoever was granted the job": 51,
    "a proposal that is committed twice acts twice": 43,
    "a vote that arrives twice counts twice": 13,
    "a leader answers reads without asking a majority": 76,
    "a leader that removes itself never campaigns again": 71,
    "voters are not spread over zones": 41,
    "what people say of a member is not heard": 32,
    "the log is cut at damage as at a torn tail": 190,
    "an item is acked under an old receipt": 234,
    "a report on one large result is taken for another's": 23,
    "suspects run beside others": 10,
    "who was cut off counts as dead for ever": 24,
    "a lock is kept for a lost peer's task": 32,
    "what is on its way is not held": 34,
    "what could not move is forgotten": 24,
    "a peer owns more than its GPUs are enough for": 7,
    "a job that stays apart is joined by the other": 16,
    "nobody is apart from anybody": 6,
    "a lost owner is not heard any more": 40,
    "job retry takes unknown tasks": 12,
    "vote is not stored": 101,
    "a leader answers reads before it has committed in its term": 16,
    "a voter that is there is demoted for one that is gone": 17,
    "of many delayed retries only the first wake": 11,
    "what is unknown runs again": 23,
    "a restarted peer's tasks count as not begun": 23,
    "a decision leaves the grant": 29,
    "a job ends with unknown tasks": 29,
    "down peers leave nothing unknown": 29,
    "followers hear of owners only": 25,
}

WEATHERS = {mutant.options(): mutant for mutant in ALL}.values()  # many grow in the same


PAGE = (Path(__file__).resolve().parents[2] / "docs/simulation.md").read_text()
TWENTY = re.findall(
    r"^\| ([^|]+) \| ([^|]+) \|$", PAGE.partition("| planted as |")[2], re.MULTILINE
)


def test_the_page_tells_of_every_planted_bug() -> None:
    assert [mutant.name for mutant in ALL if f"{mutant.name} | " not in PAGE] == []


def test_the_twenty_bugs_are_planted() -> None:
    planted = [names for _, names in TWENTY]
    assert len(planted) == 20
    known = {name for mutant in ALL for name in (mutant.name, f"a {mutant.name}")}
    assert {name for names in planted for name in names.split("; ")} <= known


def what_referees_say(mutant: Mutant) -> str:
    """Of the first seed that catches it."""
    options = mutant.options()
    with mutant.plant():
        for seed in (FIRST.get(mutant.name, 0), *range(SEEDS_MAX)):
            try:
                simulate(seed, options)
            except SimulationError as exc:
                if mutant.broken in exc.why:  # else it shows in another way, too
                    return exc.why
    return "nothing"


@pytest.mark.parametrize("mutant", ALL, ids=lambda mutant: mutant.name)
def test_the_simulator_notices_a_planted_bug(mutant: Mutant) -> None:
    assert mutant.broken in what_referees_say(mutant)


@pytest.mark.parametrize("mutant", WEATHERS, ids=lambda mutant: mutant.name)
def test_the_same_weather_breaks_nothing_without_the_bug(mutant: Mutant) -> None:
    options = mutant.options()
    for seed in range(3):
        simulate(seed, options)
