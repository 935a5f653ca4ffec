"""Checkpoints on real peers: that the commands of docs/checkpoints.md run, and the example does."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.cluster import LiveCluster

pytestmark = pytest.mark.process

ROOT: Final = Path(__file__).resolve().parents[2]
DOC: Final = ROOT / "docs" / "checkpoints.md"
BLOCK: Final = re.findall(r"^```sh\n(.*?)^```$", DOC.read_text(), re.MULTILINE | re.DOTALL)
COMMANDS: Final = BLOCK[0].splitlines()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_runs(live: LiveCluster, command: str) -> None:
    program, *words = shlex.split(command)
    assert program == "p2psched"
    done = live.run(words[0], "--wait", *words[1:])
    assert done.returncode == 0, done.stderr


def test_a_task_that_fails_goes_on_from_its_last_checkpoint(live: LiveCluster) -> None:
    script = (
        'i=0; test -f s/n && i=$(cat s/n); echo "from $i"; i=$((i+1)); echo $i > s/.n; mv s/.n s/n;'
        " echo half > s/created; test $i = 3"
    )
    words = ("submit-job", "--checkpoint", "s", "--retries", "5", "--wait", "--", "sh", "-c")
    done = live.run(*words, script)
    assert done.returncode == 0, done.stderr
    assert "from 2" in done.stdout.splitlines()  # it may show earlier attempts, too


def test_what_makes_no_sense_is_refused_with_advice(live: LiveCluster) -> None:
    for words, said in (
        (("--checkpoint", "../x", "--", "true"), "1 to 128 of letters"),
        (("--checkpoint", "x", "--cwd", "/tmp", "--", "true"), "P2PSCHED_CHECKPOINT_DIR"),
        (("--checkpoint", "x", "--collect", "x", "--", "true"), "name of a file"),
        (("--checkpoint", "x", "--inputs", "/dev/null", "--", "true"), "no --checkpoint"),
    ):
        done = live.run("submit-job", *words)
        assert done.returncode == 2, words
        assert said in " ".join(done.stderr.split()), words


def test_the_example_trains(live: LiveCluster) -> None:
    done = subprocess.run(
        [sys.executable, "examples/training.py", "--steps", "30", "--pause", "0"],
        cwd=ROOT,
        env=live.env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"began at step 0, ended at 30, loss 0\.\d+\n", done.stdout), done.stdout
