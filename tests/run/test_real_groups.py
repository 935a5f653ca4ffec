"""Real control groups of either version, where this machine lets us make some: what the kernel does
to a task that wants too much, and to what a killed peer has left.

A kernel has each controller in one version only: most machines have all in version 2. As root.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
import pytest

from p2psched.model.isolation import Isolation
from p2psched.model.job import Cause
from p2psched.run.host.groups import end_in
from p2psched.run.means import LOOKS, Setup, find
from tests.run.rig import Rig, alive, pids_in, with_pool
from tests.run.test_programs import shell

MOUNTS: Final = Path("/proc/self/mountinfo")
LIMIT: Final = 64 << 20
GREEDY: Final = "b = b'x' * (200 << 20)"
# Each within the limit, both together not.
GREEDY_TWINS: Final = """
import os, sys, time
for _ in range(2):
    if not os.fork():
        b = b'x' * (40 << 20)
        time.sleep(600)
os.wait()
sys.exit(9)
"""


def _hierarchies(controller: str) -> Iterator[Path]:
    for line in MOUNTS.read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        place = Path(before.split()[4])
        named = kind == "cgroup" and controller in options.split()[-1].split(",")
        if named or kind == "cgroup2":
            yield place


def _made(controller: str) -> Iterator[Path]:
    """A folder below which tasks may have groups that bound this."""
    for place in _hierarchies(controller):
        root = place / f"p2psched-test-{os.getpid()}"
        try:
            root.mkdir()
        except OSError:
            continue
        try:
            there = root / "cgroup.controllers"
            if not there.exists() or controller in there.read_text().split():
                yield root
                return
        finally:
            for folder, _, _ in os.walk(root, topdown=False):
                end_in(folder)
                Path(folder).rmdir()
    pytest.skip(f"no hierarchy that bounds {controller}, where groups may be made")


@pytest.fixture
def pids() -> Iterator[Path]:
    yield from _made("pids")


@pytest.fixture
def memory() -> Iterator[Path]:
    yield from _made("memory")


def test_the_kernel_keeps_a_task_to_its_processes(tmp_path: Path, pids: Path) -> None:
    script = "i=0; while [ $i -lt 30 ]; do sleep 600 & i=$((i+1)); done; echo all; kill 0"

    async def scenario(rig: Rig) -> None:
        bound = msgspec.structs.replace(shell(script), isolation=Isolation(processes=8))
        end = (await rig.run(bound)).tasks[0]
        assert (end.cause is not Cause.OK, b"all" in end.stdout) == (True, False)
        assert b"fork" in end.stderr
        assert b"all" in (await rig.run(shell(script))).tasks[0].stdout

    with_pool(tmp_path, scenario, slots=1, setup=Setup(cgroups=(str(pids),)))
    assert [entry for entry in pids.iterdir() if entry.is_dir()] == []


def test_the_kernel_keeps_all_processes_of_a_task_to_its_memory(
    tmp_path: Path, memory: Path
) -> None:
    is_whole = (memory / "cgroup.controllers").exists()  # version 1 ends one process

    async def scenario(rig: Rig) -> None:
        for program in (GREEDY, GREEDY_TWINS):
            script = f'python3 -c "{program}" || {{ echo went on; exit 9; }}'
            bound = msgspec.structs.replace(shell(script), isolation=Isolation(memory=LIMIT))
            end = (await rig.run(bound)).tasks[0]
            assert end.cause is Cause.OOM
            assert (b"went on" in end.stdout) != is_whole
        assert (await rig.run(shell("echo fine"))).tasks[0].stdout == b"fine\n"

    setup = Setup(cgroups=(str(memory),))
    by = {row.limit: row.by for row in find(setup, tmp_path / "looked", {}).kept()}
    assert by["mem"] != LOOKS
    with_pool(tmp_path, scenario, slots=1, setup=setup)


def test_what_a_killed_peer_has_left_in_its_groups_is_ended(tmp_path: Path, pids: Path) -> None:
    pool = tmp_path / "pool"
    first = find(Setup(cgroups=(str(pids),)), pool, {})
    note = tmp_path / "daemon"
    # Without a mark in its environment, and a child of nobody that we know.
    script = f"setsid env -i sh -c 'echo $$ > {note}.new; mv {note}.new {note}; exec sleep 600' &"
    starter = subprocess.Popen(["sh", "-c", f"read go; {script} wait"], stdin=subprocess.PIPE)
    first.groups.admit(starter.pid)
    assert starter.stdin is not None
    starter.stdin.write(b"\n")
    starter.stdin.flush()
    while not (daemon := pids_in(note)):
        assert starter.poll() is None
    starter.send_signal(signal.SIGKILL)
    starter.wait()
    starter.stdin.close()
    assert alive(daemon[0])
    find(Setup(cgroups=(str(pids),)), pool, {})
    assert not alive(daemon[0])
