"""Tasks that behave badly, on three real peers: each end has its cause, nothing of them is left,
and nobody else notices. And the commands of docs/isolation.md run."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import sys
from pathlib import Path
from typing import Final

import psutil
import pytest

from p2psched.cli.complete import complete_limits
from p2psched.client.isolation import LIMITS
from tests.cluster import LiveCluster, wait_until
from tests.run.rig import alive, pids_in

pytestmark = pytest.mark.process

DOC: Final = Path(__file__).resolve().parents[2] / "docs" / "isolation.md"
BLOCK: Final = re.findall(r"^```sh\n(.*?)^```$", DOC.read_text(), re.MULTILINE | re.DOTALL)
COMMANDS: Final = BLOCK[0].splitlines()
BOXED: Final = BLOCK[1].splitlines()
HAS_BWRAP: Final = shutil.which("bwrap") is not None
FILL: Final = "held = [b'x' * 2**20 for _ in range(200)]; import time; time.sleep(600)"
SLEEPERS: Final = "i=0; while [ $i -lt 20 ]; do sleep 600 & i=$((i+1)); done; wait"
STUBBORN: Final = (
    "trap '' TERM; sh -c \"trap '' TERM; echo \\$\\$ > {}; sleep 600; sleep 600\" & wait"
)
# What it does, with which options, and how that ends.
BAD: Final = {
    "fails": ("exit 3", (), "exit"),
    "dies": ("kill -SEGV $$", (), "signal"),
    "fills its memory": (f'{sys.executable} -c "{FILL}"', ("--limit", "mem=64M"), "oom"),
    "forks": (SLEEPERS, ("--limit", "procs=8"), "signal"),
    "fills the disk": ("head -c 2000000 /dev/zero > f", ("--limit", "fsize=1M"), "exit"),
    "never ends": (STUBBORN, ("--timeout", "1500ms"), "timeout"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_runs(live: LiveCluster, command: str) -> None:
    program, *words = shlex.split(command)
    assert program == "p2psched"
    done = live.run(*words)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", BOXED)
def test_a_sandbox_is_made_or_the_job_is_refused(live: LiveCluster, command: str) -> None:
    done = live.run(*shlex.split(command)[1:])
    told = json.loads(live.ok("status", "-o", "json"))["status"]["limits"]
    (sandbox,) = [row for row in told if row["limit"] == "sandbox"]
    if HAS_BWRAP:
        assert (done.returncode, bool(sandbox["by"])) == (0, True), done.stderr
    else:
        assert done.returncode != 0
        assert "install bubblewrap" in done.stderr
        assert (sandbox["by"], "install" in sandbox["lack"]) == ("", True)


def test_status_says_which_limits_are_enforced(live: LiveCluster) -> None:
    sheet = " ".join(live.ok("status").split())
    assert "files, cpu, fsize, core: the kernel" in sheet
    assert "mem, procs: looks, each 50 ms" in sheet


def test_bad_tasks_end_with_their_cause_and_harm_nobody(live: LiveCluster, tmp_path: Path) -> None:
    child = tmp_path / "child"
    before = {peer["name"]: peer["pid"] for peer in peers(live)}
    for what, (script, options, _) in BAD.items():
        words = ("--name", what, *options, "--", "sh", "-c", script.replace("{}", str(child)))
        live.ok("submit-job", *words)
    done = live.run("submit-job", "--array", "0-49", "--wait", "--", "sh", "-c", "echo well")
    assert (done.returncode, done.stdout.count("well")) == (0, 50)
    for what, (_, options, cause) in BAD.items():
        live.run("job", "wait", what)
        job = json.loads(live.ok("job", "show", what, "-o", "json"))["job"]
        assert job["ended_badly_by"] == {cause: 1}, what
        named = [option for option in options if "=" in option]
        told = job["limits"] or {}
        assert sum(told.get(limit) is not None for limit in LIMITS) == len(named), what
    assert "limits mem 64.0 MiB" in " ".join(live.ok("job", "show", "fills its memory").split())
    (pid,) = pids_in(child)
    wait_until(lambda: not alive(pid), "the stubborn child is gone")
    assert {peer["name"]: peer["pid"] for peer in peers(live)} == before
    assert all(alive(int(str(pid))) for pid in before.values())


def peers(live: LiveCluster) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(live.ok("peers", "-o", "json"))["peers"]
    return found


@pytest.mark.long
def test_what_a_killed_peer_has_left_is_ended(empty: LiveCluster, tmp_path: Path) -> None:
    bare, marked = tmp_path / "bare", tmp_path / "marked"
    peer = empty.start("a")
    leave = "setsid {} sh -c 'trap \"\" TERM HUP; echo $$ > {}; sleep 600; sleep 600' &"
    script = f"[ -e {bare} ] || {leave.format('env -i', bare)} {leave.format('', marked)} wait"

    def daemons() -> list[int]:
        return [*pids_in(bare), *pids_in(marked)]

    # Alone, it is followed by the process that has started all else.
    empty.ok("submit-job", "--name", "leaves", "--", "sh", "-c", script)
    wait_until(lambda: len(daemons()) == 2, "both daemons are there")
    left = daemons()
    empty.kill("a")
    wait_until(lambda: not any(map(alive, left)), "nothing is left")
    # Both at once: nobody is there to end anything.
    marked.unlink()
    peer = empty.restart("a")
    wait_until(lambda: len(pids_in(marked)) == 1, "the task runs again")
    (starter,) = psutil.Process(peer.pid).children()
    os.kill(peer.pid, signal.SIGSTOP)
    starter.kill()
    empty.kill("a")
    (daemon,) = pids_in(marked)
    assert alive(daemon)
    marked.unlink()
    empty.restart("a")
    wait_until(lambda: not alive(daemon), "it is ended at the start")
    empty.ok("job", "cancel", "leaves")


def test_why_a_task_was_ended_is_told(live: LiveCluster) -> None:
    command = (
        "--limit",
        "cpu=1",
        "--name",
        "spins",
        "--wait",
        "--",
        "sh",
        "-c",
        "while :; do :; done",
    )
    done = live.run("submit-job", *command)
    assert (done.returncode, "its limit of 1 s of processor time" in done.stderr) == (1, True)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--limit", "mem"), "is no limit"),
        (("--limit", "disk=1G"), "is no limit"),
        (("--limit", "mem=much"), "is no size"),
        (("--limit", "mem=1K"), "a limit of bytes of memory"),
        (("--limit", "mem=need"), "--mem"),
        (("--limit", "files=3"), "a limit of open files"),
        (("--limit", "procs=-1"), "is no number"),
        (("--limit", "cpu=soon"), "is no duration"),
        (("--limit", "core=0", "--limit", "core=1"), "twice"),
        (("--sandbox", "docker"), "--sandbox is bwrap"),
        (("--no-network",), "add --sandbox bwrap"),
        (("--home", "mine"), "home is the task or the peer's"),
        (("--pass-env", "NO_SUCH_VARIABLE"), "no such variable"),
    ],
)
def test_what_is_no_limit_is_told(live: LiveCluster, words: tuple[str, ...], says: str) -> None:
    done = live.run("submit-job", *words, "--", "true")
    assert (done.returncode, says in done.stderr) == (2, True), done.stderr


def test_limits_complete() -> None:
    assert {text.partition("=")[0] for text in complete_limits("")} == set(LIMITS)
    assert list(complete_limits("mem=n")) == ["mem=need"]
