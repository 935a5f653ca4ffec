"""Batches of inputs: one bad input fails alone, whatever the program does with its output."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import pytest

from p2psched.client.batch_driver import Outcome, Ran, run, solve
from p2psched.run.host import words

INPUTS: Final = [str(number).encode() for number in range(200)]
# Doubles each line. `die` ends it at some; FLUSH says whether its lines leave at once.
FILTER: Final = """
import sys
for line in sys.stdin:
    if line.strip() in sys.argv[2].split(","):
        print("bad", line.strip(), file=sys.stderr)
        sys.exit(3)
    print(2 * int(line), flush=sys.argv[1] == "flush")
"""


class Process:
    """A filter in memory that dies at some inputs; counts what it was started for."""

    def __init__(self, *bad: int, flushes: bool = True, each_prints: int = 1) -> None:
        self.bad = {str(number).encode() for number in bad}
        self.flushes = flushes
        self.each_prints = each_prints
        self.ran: list[Sequence[bytes]] = []

    def __call__(self, inputs: Sequence[bytes]) -> Ran:
        self.ran.append(inputs)
        lines: list[bytes] = []
        for one in inputs:
            if one in self.bad:
                return lines if self.flushes else [], "exit code 3", True
            lines.append(b"out " + one)
        return lines, "", False


def failed(outcomes: Sequence[Outcome]) -> list[int]:
    return [number for number, outcome in enumerate(outcomes) if not outcome["ok"]]


@pytest.mark.parametrize("flushes", [True, False])
@pytest.mark.parametrize("bad", [(), (0,), (199,), (77,), (3, 4), (0, 100, 101, 199)])
def test_only_the_bad_inputs_fail_and_all_others_have_their_line(
    bad: tuple[int, ...], flushes: bool
) -> None:
    outcomes = solve(Process(*bad, flushes=flushes), INPUTS, 0)
    assert failed(outcomes) == list(bad)
    for number, outcome in enumerate(outcomes):
        assert outcome["out"] == ("" if number in bad else f"out {number}")
        assert outcome["error"] == ("exit code 3" if number in bad else "")


def test_a_filter_that_flushes_costs_three_processes_for_a_bad_input() -> None:
    process = Process(77)
    solve(process, INPUTS, 0)
    assert len(process.ran) == 1 + 3


def test_a_filter_that_buffers_is_halved_after_one_wrong_guess() -> None:
    process = Process(77, flushes=False)
    solve(process, INPUTS, 0)
    assert len(process.ran) <= 3 + 2 * 8


def test_if_all_are_bad_each_is_run_alone_and_the_whole_stays_linear() -> None:
    process = Process(*range(200))
    assert failed(solve(process, INPUTS, 0)) == list(range(200))
    assert len(process.ran) <= 2 * 200


def test_a_single_input_gets_its_retries() -> None:
    tries = 0

    def flaky(inputs: Sequence[bytes]) -> Ran:
        nonlocal tries
        if b"7" in inputs:
            tries += 1
            if tries < 4:
                return [], "exit code 1", True
        return list(inputs), "", False

    assert failed(solve(flaky, INPUTS[:10], 3)) == []


# --- real processes -------------------------------------------------------------------------------

Batch = Callable[..., list[Outcome]]


@pytest.fixture
def batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Batch:
    """`run` in a folder of its own, as a worker has it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "filter.py").write_text(FILTER)

    def call(inputs: Sequence[bytes], *argv: str, **options: object) -> list[Outcome]:
        given: dict[str, object] = {
            "env": {},
            "cwd": None,
            "files": [],
            "as_arguments": False,
            "single": False,
            "retries": 0,
            **options,
        }
        return run(inputs, argv=argv, **given)  # type: ignore[arg-type]  # as the test means them

    return call


@pytest.mark.parametrize("mode", ["flush", "buffer"])
def test_a_real_filter_dies_at_one_line_and_the_others_are_done(
    mode: str, batch: Batch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = batch(INPUTS, sys.executable, "-S", str(tmp_path / "filter.py"), mode, "77")
    assert failed(found) == [77]
    assert found[77]["error"] == "exit code 3: bad 77"
    assert [one["out"] for one in found[78:81]] == ["156", "158", "160"]
    assert capsys.readouterr().err == "bad 77\n"
    assert [path.name for path in tmp_path.iterdir()] == ["filter.py"], "nothing is left behind"


def test_too_few_lines_blame_the_inputs_that_print_none(batch: Batch) -> None:
    found = batch([b"a", b"b", b"ab"], "grep", "a")
    assert failed(found) == [1]
    found = batch([b"1", b"2"], "tr", "-d", "2\n")
    assert [one["error"] for one in found] == ["", "0 lines came out for 1 inputs"]


def test_arguments_the_file_of_inputs_variables_and_sent_files(
    batch: Batch, tmp_path: Path
) -> None:
    assert [
        one["out"] for one in batch([b"a b", b"$HOME"], "printf", "%s\\n", as_arguments=True)
    ] == [
        "a b",
        "$HOME",
    ]
    assert [one["out"] for one in batch([b"x", b"y"], "sh", "-c", "cat $P2P_INPUTS")] == ["x", "y"]

    class Sent:
        name = "say.sh"
        path = tmp_path / "original"

    Sent.path.write_text("#!/bin/sh\nsed s/^/$NAME/\n")
    found = batch([b"1", b"2"], "./say.sh", files=[(Sent, 0o755)], env={"NAME": "n"})
    assert [one["out"] for one in found] == ["n1", "n2"]


def test_a_single_input_may_print_what_it_likes(batch: Batch) -> None:
    assert batch([b"x"], "true", single=True)[0] == {"ok": True, "out": "", "error": ""}
    assert batch([b"x"], "printf", "a\\nb\\n\\377", single=True)[0]["out"] == b"a\nb\n\xff"
    assert batch([b"x"], "sh", "-c", "kill -9 $$", single=True)[0]["error"] == "signal 9"


def test_more_arguments_than_the_system_takes_are_cut(batch: Batch) -> None:
    inputs = [b"x" * 100_000] * 40
    found = batch(inputs, "sh", "-c", "for one; do echo ${#one}; done", "sh", as_arguments=True)
    assert [one["out"] for one in found] == ["100000"] * 40


def test_a_program_that_is_not_there_fails_the_task(batch: Batch) -> None:
    with pytest.raises(FileNotFoundError):
        batch([b"x"], "/no/such/program")


def test_how_many_are_done_is_told_also_where_some_fail(
    batch: Batch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(words, "progress", lambda done, total: told.append((done, total)))
    batch(INPUTS, sys.executable, "-S", str(tmp_path / "filter.py"), "flush", "77")
    assert told[0] == (0, len(INPUTS))
    assert told[-1] == (len(INPUTS), len(INPUTS))
    assert told == sorted(told)
    before = len(told)
    batch(INPUTS[:1], "echo", "any", single=True)
    assert len(told) == before
