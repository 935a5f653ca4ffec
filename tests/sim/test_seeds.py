"""Seeds: everything drawn, every promise watched. A failure prints how to see it again."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import fields
from typing import Final, TypeGuard

import pytest

from p2psched.testing.faults import CUTS, Faults
from p2psched.testing.promises import demand
from p2psched.testing.run import Failure, run_seeds
from p2psched.testing.sim import SimCluster
from p2psched.testing.sim_report import Report
from p2psched.testing.sim_rot import KINDS
from p2psched.testing.sim_stalls import KINDS as STALLS
from p2psched.testing.simulate import Options, simulate


def failed(result: Report | Failure) -> TypeGuard[Failure]:
    return isinstance(result, Failure)


@pytest.mark.parametrize("peers", [3, 5])
@pytest.mark.parametrize(
    "first", [0, *(pytest.param(n, marks=pytest.mark.wide) for n in (5, 10, 15, 20, 25))]
)
def test_no_promise_breaks_whatever_goes_wrong(peers: int, first: int) -> None:
    for seed in range(first, first + 5):
        simulate(seed, Options(peers=peers))


@pytest.mark.long
@pytest.mark.timeout(900)
def test_no_promise_breaks_in_a_thousand_seeds() -> None:
    failures = [r.text for r in run_seeds(range(1_000, 2_000), Options(), jobs=2) if failed(r)]
    assert not failures, failures[0]


# What of `Report.happened` shows that a fault was there. All rates that a seed may draw are here.
SHOWN_BY: Final[dict[str, tuple[str, ...]]] = {
    "drop": ("dropped",),
    "duplicate": ("duplicated",),
    "in_order": ("reordered",),
    "delay_us": ("reordered",),  # messages of one link differ
    "tail": ("late",),
    "cut_every_ms": ("cut off",),
    "cut_ms_max": ("cut off",),
    "cuts": tuple(f"cut: {kind}" for kind in CUTS),
    "crash_every_ms": ("killed", "power lost"),
    "crash_all": ("crash of all",),
    "crash_at_disk": ("crashed at the disk",),
    "crash_starting": ("crashed while starting",),
    "crashes_max": ("killed", "power lost"),
    "power_loss": ("power lost",),
    "restart_ms_max": ("tasks of lost owners granted anew",),
    "sync_us_max": ("slow sync",),
    "sync_fails": ("sync failed", "stopped by its disk"),
    "pause_every_ms": ("paused",),
    "pause_ms_max": ("paused", "results refused"),
    "leave_every_ms": ("left",),
    "damage_every_ms": ("blobs damaged",),
    "stale": ("stale",),
    "clog_every_ms": ("clogged",),
    "suspend_every_ms": ("suspended", "lost in sleep"),
    "wipe_every_ms": ("disk wiped",),
    "rot_every_ms": (*KINDS, "damage found"),
    "replace_every_ms": ("members replaced", "leaders removed"),
    "regroup_every_ms": ("asked of the group",),
    "drain_every_ms": ("drain on", "drain once", "drain off", "tasks given back"),
    "doubt_every_ms": ("doubts",),
    "stall_every_ms": (*(f"stall planted: {kind}" for kind in STALLS), "stall found: executor"),
    "misplace_every_ms": ("badly placed", "steals asked", "tasks moved"),
    "hurt": ("logs damaged", "logs regained"),
    "full_every_ms": ("disks full", "writes without space"),
    "full_ms_max": ("tasks spaceless",),
    "write_fails": ("write cut short",),
    "read_fails": ("read failed",),
    "wall_step_every_ms": ("wall clock stepped",),
    "drift_ppm": ("clocks drifted",),
    "turn_us": ("late turns",),
}


# What else is to be seen in some seed.
SEEN: Final = (
    *("snapshot made", "snapshot taken", "restored"),
    *("jobs cancelled", "reads", "submit: Submitted", "terms led", "jobs forgotten"),
    *("forget: Acknowledged", "retry: Acknowledged", "tasks reopened", "tasks lost"),
    *("hand-over asked", "vote asked by hand-over", "slow disk", "upgraded"),
    *("tasks large", "blobs copied", "killed by a task", "tasks blamed"),
    *("voters made", "voters demoted"),
    *("job that saves checkpoints", "checkpoints copied", "attempts resumed"),
    *("job with a priority", "job that makes way"),
    *("job whose tasks fall silent", "tasks stalled"),
    *("job after others", "jobs released", "jobs aborted"),
    *("job with backups", "tasks backed up", "tasks promoted", "tasks overtaken"),
    *(f"{count} peers" for count in (1, 2, 3, 4, 5, 7)),
)
# Seeds that show all of it together; a change that moves them costs some more of those behind 80.
SHOWING: Final = (30, 38, 42, 50, 55, 63, 67, 70, 73)


def test_the_seeds_inject_every_fault_that_there_is() -> None:
    assert set(SHOWN_BY) == {field.name for field in fields(Faults)}
    wanted = {word for words in (*SHOWN_BY.values(), SEEN) for word in words}
    for seed in (*SHOWING, *range(80, 120)):
        report = simulate(seed)
        assert report.events >= 5_000
        wanted -= {what for what, count in report.happened.items() if count}
        wanted.discard(f"{report.peers} peers")
        if report.regrant_ms:
            wanted.discard("tasks of lost owners granted anew")
        if not wanted:
            break
    assert wanted == set()


# One of fifty seeds of those above: they begin at 0, those of the long test at 1000.
@pytest.mark.parametrize("first", [0, pytest.param(1_000, marks=pytest.mark.long)])
def test_a_seed_is_the_same_run_in_every_process(first: int) -> None:
    seeds = range(first, first + max(60, first), 50)
    here = [f"{simulate(seed).trace:08x}" for seed in seeds]
    for hash_seed in ("0", "4242"):
        assert _traces(seeds, hash_seed=hash_seed) == here


def _traces(seeds: range, *, hash_seed: str) -> list[str]:
    script = (
        "from p2psched.testing.simulate import simulate\n"
        f"for seed in {seeds!r}: print(f'{{simulate(seed).trace:08x}}')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    return done.stdout.split()


def test_what_breaks_while_all_heals_is_a_failure_of_its_seed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And no end of the other seeds."""

    def breaks(_cluster: SimCluster) -> None:
        demand(False, "E3", "it starts as it wakes")

    monkeypatch.setattr(SimCluster, "heal_peers", breaks)
    (result,) = run_seeds([3], Options(events=500))
    assert failed(result)
    assert "E3: it starts as it wakes" in result.why


def test_another_seed_is_another_run() -> None:
    assert simulate(3, Options(events=500)).trace != simulate(4, Options(events=500)).trace
