"""The language of scripts: what is read is what is written, and one script gives one output."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from p2psched.testing.script.errors import ScriptError
from p2psched.testing.script.language import difference, parse, play, play_on, render

HERE: Final = Path(__file__).parent
SHORT: Final = (
    "# One voter.\n\ncluster a\nelect a\n----\na: leader, term 2, vote a, committed 2 of 2\n"
)
ALL_OUTPUT: Final = """
import hashlib, pathlib, sys
from p2psched.testing.script.language import play
texts = [play(path.read_text()) for path in sorted(pathlib.Path(sys.argv[1]).glob("*.txt"))]
print(hashlib.sha256("".join(texts).encode()).hexdigest())
"""


def test_a_script_is_written_as_it_was_read() -> None:
    for path in HERE.glob("*.txt"):
        assert render(parse(path.read_text())) == path.read_text()


def test_a_script_gets_the_output_that_it_has_now() -> None:
    assert play(SHORT.replace("term 2", "term 7")) == SHORT


def test_commands_without_dashes_are_refused_with_their_line() -> None:
    with pytest.raises(ScriptError, match="line 3"):
        play("# One voter.\n\ncluster a\n")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("fly a", "no such command"),
        ("kill b", "no peer 'b'"),
        ("start a", "runs already"),
        ("deliver a->a", "nothing of the kind is under way"),
        ("cut a-z", "no such peer: z"),
        ("stage ledger", "the stage comes first"),
        ("skip soon", "soon"),
        ("show everything", "topics are"),
    ],
)
def test_what_cannot_be_performed_ends_the_script_and_says_why(command: str, said: str) -> None:
    source = f"{SHORT}\n{command}\n----\n\nstatus\n----\n"
    with pytest.raises(ScriptError, match=said):
        play(source)
    text, _ = play_on(source)
    assert text.startswith(SHORT)
    assert text.splitlines()[-1].startswith(f"error: {command}: ")


def test_a_difference_shows_the_lines_and_the_commands_around_them() -> None:
    shown = difference(SHORT, SHORT.replace("term 2", "term 3"), "x")
    assert "-a: leader, term 2, vote a, committed 2 of 2" in shown
    assert "+a: leader, term 3, vote a, committed 2 of 2" in shown
    assert " elect a" in shown
    assert difference(SHORT, SHORT, "x") == ""


def test_scripts_give_the_same_output_whatever_the_hash_seed() -> None:
    """What was compared with the files ran in this process, with some seed."""
    texts = [path.read_text() for path in sorted(HERE.glob("*.txt"))]
    here = hashlib.sha256("".join(texts).encode()).hexdigest()
    for seed in ("1", "2"):
        argv = [sys.executable, "-c", ALL_OUTPUT, str(HERE)]
        there = subprocess.check_output(argv, env=os.environ | {"PYTHONHASHSEED": seed}, text=True)
        assert there.strip() == here
