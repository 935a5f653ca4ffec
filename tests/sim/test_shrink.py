"""A failure is made smaller, and what is left can be run by its line (with a bug planted)."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import replace

import pytest

from p2psched.cli.app import run
from p2psched.model.raft import AppendReply
from p2psched.testing.faults import CUTS, Faults, changes_of, parse_change, text_of
from p2psched.testing.run import Failure, run_seeds
from p2psched.testing.shrink import promise_of, shrink
from p2psched.testing.simulate import Options, replay_line
from tests.sim.mutants import sends_at_once

RUNS = 60
FAILS = 7  # the first of them, which need not be looked for each time


@pytest.fixture
def failure() -> Iterator[Failure]:
    """Of a peer that acknowledges entries before they are on its disk; the bug stays planted."""
    with sends_at_once(AppendReply)():
        results = run_seeds(range(FAILS, 300), Options(peers=3))
        yield next(result for result in results if isinstance(result, Failure))


def words_of(replay: str) -> list[str]:
    name, *words = shlex.split(replay)
    assert name == "p2psched"
    return words


@pytest.mark.long
def test_what_is_left_breaks_the_same_promise_under_fewer_faults(failure: Failure) -> None:
    seen: list[None] = []
    found = shrink(failure, Options(peers=3), runs_max=RUNS, on_run=lambda: seen.append(None))
    assert found.runs == len(seen) <= RUNS
    assert promise_of(found.failure.why) == promise_of(failure.why)
    assert set(changes_of(found.failure.faults)) < set(changes_of(failure.faults))
    assert found.options.events <= failure.events


def test_the_command_prints_a_line_that_fails_in_the_same_way(
    failure: Failure, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["sim", "shrink", str(failure.seed), "--peers", "3", "--runs", "10"]) == 1
    said = capsys.readouterr().out
    why, again = said.splitlines()[0], said.split("again: ")[1].splitlines()[0]
    assert run(words_of(again)) == 1
    assert why in capsys.readouterr().out


def test_a_failed_run_tells_what_is_needed_to_see_it_again(
    failure: Failure, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["sim", "run", "--seeds", "1", "--from", str(failure.seed), "--peers", "3"]
    assert run(words) == 1
    said = capsys.readouterr().out
    for part in (f"seed {failure.seed}", "Faults(", "of virtual time", f"again: {failure.replay}"):
        assert part in said
    assert run(words_of(failure.replay)) == 1
    assert failure.why in capsys.readouterr().out
    assert run([*words, "-o", "quiet"]) == 1
    assert capsys.readouterr().out.split() == [str(failure.seed)]


def test_the_line_of_a_run_says_all_that_was_chosen() -> None:
    faults = Faults(drop=0.25, in_order=False, cuts=("alone",), crashes_max=7)
    options = Options(peers=2, events=99, faults=faults, jobs_max=3, poison=False, keeping=False)
    options = replace(options, hanging=False, healing=False)
    assert replay_line(5, options) == (
        "p2psched sim replay 5 --peers 2 --events 99 --submits 3 --no-poison --no-hanging "
        "--no-healing --no-keeping --calm --fault drop=0.25 --fault in_order=False "
        "--fault cuts=alone --fault crashes_max=7"
    )
    for name, value in changes_of(faults).items():
        assert parse_change(f"{name}={text_of(value)}") == (name, value)
    assert replay_line(5, Options(changes=(("drop", 0.5),))) == (
        "p2psched sim replay 5 --fault drop=0.5"
    )


@pytest.mark.parametrize(
    "text",
    [
        *("drop", "nope=1", "drop=much", "drop=2", "drop=-0.1", "drop=nan", "crashes_max=0"),
        *("in_order=yes", "cuts=", f"cuts={CUTS[0]},nope", "delay_us=1.5", "pause_every_ms=1e9"),
    ],
)
def test_what_is_no_fault_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=text.partition("=")[0]):
        parse_change(text)
