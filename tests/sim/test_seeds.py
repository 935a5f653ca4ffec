"""Seeds: everything drawn, every promise watched. A failure prints how to see it again."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import fields
from typing import Final

import pytest

from p2psched.testing import run
from p2psched.testing.faults import CUTS, Faults
from p2psched.testing.simulate import Options, simulate


@pytest.mark.parametrize("peers", [3, 5])
@pytest.mark.parametrize("first", [0, 5, 10, 15, 20, 25])
def test_no_promise_breaks_whatever_goes_wrong(peers: int, first: int) -> None:
    for seed in range(first, first + 5):
        simulate(seed, Options(peers=peers))


@pytest.mark.long
@pytest.mark.timeout(900)
def test_no_promise_breaks_in_a_thousand_seeds() -> None:
    assert run.main(["--seeds", "1000", "--from", "1000", "--jobs", "2"]) == 0


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
    "sync_fails": ("stopped by its disk",),
    "pause_every_ms": ("paused",),
    "pause_ms_max": ("paused", "results refused"),
    "leave_every_ms": ("left",),
    "damage_every_ms": ("blobs damaged",),
    "full_every_ms": ("disks full", "writes without space"),
    "full_ms_max": ("tasks spaceless",),
    "drift_ppm": ("clocks drifted",),
    "turn_us": ("late turns",),
}


def test_the_seeds_inject_every_fault_that_there_is() -> None:
    assert set(SHOWN_BY) == {field.name for field in fields(Faults)}
    summary = run.Summary()
    for seed in range(45, 70):
        summary.add(simulate(seed, Options(events=2_000)))
    happened = summary.happened
    happened["tasks of lost owners granted anew"] = len(summary.regrant_ms)
    missing = {name: [w for w in what if not happened[w]] for name, what in SHOWN_BY.items()}
    assert {name: what for name, what in missing.items() if what} == {}
    for what in (
        *("snapshot made", "snapshot taken", "restored"),
        *("jobs cancelled", "reads", "submit: Submitted", "terms led", "jobs forgotten"),
        *("forget: Acknowledged", "retry: Acknowledged", "tasks reopened", "tasks lost"),
        *("hand-over asked", "vote asked by hand-over", "slow disk", "upgraded"),
        *("tasks large", "blobs copied", "killed by a task", "tasks blamed"),
    ):
        assert happened[what], what


def test_a_seed_is_the_same_run_in_every_process() -> None:
    traces = {_trace(seed=3, hash_seed=hash_seed) for hash_seed in ("0", "1", "4242")}
    assert len(traces) == 1
    assert traces == {f"{simulate(3).trace:08x}"}


def _trace(*, seed: int, hash_seed: str) -> str:
    script = (
        f"from p2psched.testing.simulate import simulate\nprint(f'{{simulate({seed}).trace:08x}}')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.strip()


def test_another_seed_is_another_run() -> None:
    assert simulate(3, Options(events=500)).trace != simulate(4, Options(events=500)).trace


def test_the_command_says_what_happened(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--seeds", "2", "--peers", "3", "--events", "500", "--verbose"]) == 0
    said = capsys.readouterr().out
    assert "2 seeds, 0 failed" in said
    assert "seed 1: 3 peers" in said
    assert "owner lost to next grant" in said
