"""Seeds: everything drawn, every promise watched. A failure prints how to see it again."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from p2psched.testing import run
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


def test_a_run_tests_the_faults_that_it_claims_to() -> None:
    summary = run.Summary()
    for seed in range(25):
        summary.add(simulate(seed, Options(events=2_000)))
    for what in (
        "crashed at the disk",
        "crashed while starting",
        "cut: bridge",
        "cut: one-way",
        "dropped",
        "duplicated",
        "jobs cancelled",
        "killed",
        "paused",
        "power lost",
        "reads",
        "results refused",
        "stopped by its disk",
    ):
        assert summary.happened[what], what
    assert summary.regrant_ms


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
