"""`--start once` and `job resolve` as people type them: the commands of docs/never-twice.md run."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
from pathlib import Path
from typing import Final

import pytest

from tests.cluster import LiveCluster, wait_until

pytestmark = pytest.mark.process

PAGE: Final = (Path(__file__).resolve().parents[2] / "docs/never-twice.md").read_text()
BLOCKS: Final = re.findall(r"^```(sh|text)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
SUBMITS: Final = [line for kind, text in BLOCKS if kind == "sh" for line in text.splitlines()]
DECISIONS: Final = [line for kind, text in BLOCKS if kind == "text" for line in text.splitlines()]


def job_of(live: LiveCluster, job: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(live.ok("job", "show", job, "-o", "json"))["job"]
    return found


def make_unknown(live: LiveCluster, folder: Path) -> None:
    """A job `transfer` whose first attempt nobody saw end; a second one ends well."""
    began = folder / "began"
    script = f"echo $PPID >> {began}.new && mv {began}.new {began}; test $P2P_ATTEMPT -gt 1 || "
    words = ("--start", "once", "--name", "transfer", "--", "sh", "-c", script + "sleep 600")
    live.ok("submit-job", *words)
    wait_until(began.exists, "it has begun")
    os.kill(int(began.read_text()), signal.SIGKILL)
    wait_until(lambda: job_of(live, "transfer")["unknown"] == 1, "it is unknown")


@pytest.mark.parametrize("command", SUBMITS)
def test_a_submit_of_the_page_runs(live: LiveCluster, command: str) -> None:
    done = live.run(*shlex.split(command)[1:])
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("command", "state"),
    list(zip(DECISIONS, ("succeeded", "failed", "succeeded"), strict=True)),
)
def test_a_decision_of_the_page_ends_the_job(
    live: LiveCluster, tmp_path: Path, command: str, state: str
) -> None:
    make_unknown(live, tmp_path)
    assert "job resolve" in live.ok("job", "show", "transfer")
    assert "running, 1 unknown" in " ".join(live.ok("jobs").split())
    assert "unknown" in live.ok("explain", "transfer/0")
    waiting = live.run("job", "wait", "transfer", "--timeout", "1s")
    assert waiting.returncode == 4
    assert "job resolve" in waiting.stderr
    live.ok(*shlex.split(command)[1:])
    done = live.run("job", "wait", "transfer")
    assert (done.returncode == 0, job_of(live, "transfer")["state"]) == (state != "failed", state)
    history = " ".join(live.ok("job", "history", "transfer").split())
    assert "unknown" in history
    assert "decided" in history


def test_an_exclusive_task_says_what_it_waits_for_and_nobody_decides(
    live: LiveCluster, tmp_path: Path
) -> None:
    began = tmp_path / "began"
    script = f"echo $PPID >> {began}.new && mv {began}.new {began}; test $P2P_ATTEMPT -gt 1 || "
    words = ("--start", "exclusive", "--lease", "8s", "--name", "export", "--", "sh", "-c")
    live.ok("submit-job", *words, script + "sleep 600")
    wait_until(began.exists, "it has begun")
    os.kill(int(began.read_text()), signal.SIGKILL)
    wait_until(lambda: job_of(live, "export")["unknown"] == 1, "its end was not seen")
    sheet = " ".join(live.ok("job", "show", "export").split())
    assert "lease is over in" in sheet
    assert "at one peer at a time, with a lease of 8" in sheet
    assert "it is exclusive, and may still run" in live.ok("explain", "export/0")
    refused = live.run("job", "resolve", "export", "0", "--run-again")
    assert (refused.returncode, "time decides" in refused.stderr) == (5, True)
    done = live.run("job", "wait", "export", "--timeout", "60s")
    assert done.returncode == 0, done.stderr
    job = job_of(live, "export")
    assert (job["state"], job["lease_s"]) == ("succeeded", 8.0)
    assert job["ended_badly_by"] == {"lease-lost": job["attempts_lost"]}
    history = " ".join(live.ok("job", "history", "export").split())
    assert "lease-lost" in history


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--start", "exclusive", "--lease", "2s"), "a lease is 3 s to 24 h"),
        (("--start", "once", "--lease", "5s"), "--lease is for --start exclusive"),
        (("--retry", "lease-lost=2"), "start exclusive"),
        (("--start", "exclusive", "--lock", "db"), "take the lock in the task"),
        (("--start", "twice"), "'exclusive'"),
    ],
)
def test_what_makes_no_sense_is_refused(
    live: LiveCluster, words: tuple[str, ...], says: str
) -> None:
    done = live.run("submit-job", *words, "--", "true")
    assert (done.returncode, says in done.stderr) == (2, True), done.stderr


@pytest.mark.smoke
def test_a_result_is_given_by_hand(live: LiveCluster, tmp_path: Path) -> None:
    make_unknown(live, tmp_path)
    result = tmp_path / "result"
    result.write_text("12.50 to ann")
    live.ok("job", "resolve", "transfer", "0", "--succeeded", "--result", str(result))
    assert live.ok("job", "logs", "transfer") == "12.50 to ann"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ((), 2, "say one of"),
        (("--succeeded", "--run-again"), 2, "say one of"),
        (("--run-again", "--result", "x"), 2, "goes with --succeeded"),
        (("--run-again",), 5, "no unknown tasks"),
    ],
)
def test_what_is_no_decision_is_refused(
    live: LiveCluster, words: tuple[str, ...], code: int, says: str
) -> None:
    live.ok("submit-job", "--name", "done", "--wait", "--", "true")
    done = live.run("job", "resolve", "done", "0", *words)
    assert done.returncode == code
    assert says in " ".join(done.stderr.split())


def test_what_may_not_start_twice_holds_no_lock(live: LiveCluster) -> None:
    done = live.run("submit-job", "--start", "once", "--lock", "db", "--", "true")
    assert done.returncode == 2
    assert "holds no lock" in " ".join(done.stderr.split())


def test_another_word_for_start_is_refused(live: LiveCluster) -> None:
    done = live.run("submit-job", "--start", "twice", "--", "true")
    assert done.returncode == 2
    assert "'once'" in done.stderr
