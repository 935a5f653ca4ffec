"""Starters and peers come and go; nothing that they started outlives them."""

from __future__ import annotations

import ast
import asyncio
import os
import signal
import subprocess
import sys
import venv
from pathlib import Path

import cloudpickle
import psutil
import pytest

from p2psched.model.errors import UsageError
from p2psched.model.job import Cause
from p2psched.model.taskset import TaskSet
from p2psched.run import hosts, starter_link
from p2psched.run import pool as pool_module
from p2psched.run.host.forked import Host
from p2psched.run.host.shared import BYTES, STARTING, Shared
from p2psched.run.pool import WorkerPool
from tests.run.rig import ROOT, Rig, alive, functions, parent_of, pids_in, program, with_pool

HOST = starter_link.SCRIPT.parent
MODEL = HOST.parents[1] / "model"

# Two tasks: a function with a child of its own, and a program.
PEER = """
import asyncio, sys
from pathlib import Path
from tests.run.rig import Rig, functions, program

async def main(folder):
    rig = Rig(folder / "pool", slots=2, python=sys.executable, grace_s=0.2)
    async with asyncio.TaskGroup() as group:
        group.create_task(rig.pool.run())
        await rig.pool.wait_ready()
        rig.start(functions("stay", [(str(folder),)]))
        rig.start(program("sh", "-c", "echo $$ > %s/program; exec sleep 600" % folder))

asyncio.run(main(Path(sys.argv[1])))
"""


def test_host_files_import_the_standard_library_only() -> None:
    files = [*HOST.glob("*.py"), MODEL / "chunks.py", MODEL / "items.py", MODEL / "limits.py"]
    assert len(files) > 8
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            else:
                continue
            for name in names:
                assert name.partition(".")[0] in sys.stdlib_module_names, f"{path}: {name}"


@pytest.mark.smoke
@pytest.mark.process
def test_a_killed_peer_takes_all_its_tasks_along(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    peer = subprocess.Popen([sys.executable, "-c", PEER, str(tmp_path)], env=environment)
    try:
        pids: list[int] = []
        while len(pids) < 3:
            assert peer.poll() is None
            pids = pids_in(tmp_path / "pids") + pids_in(tmp_path / "program")
    finally:
        peer.kill()
        peer.wait()
    while any(map(alive, pids)):  # the test's own time limit is the bound
        pass


@pytest.mark.process
def test_a_program_that_is_being_started_ends_with_its_host() -> None:
    """Before its number is noted, in the moment when the host is killed."""
    code = (
        "import subprocess, time\n"
        "print(subprocess.Popen(['sleep', '600'], start_new_session=True).pid, flush=True)\n"
        "time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    memory = os.memfd_create("test")
    os.ftruncate(memory, BYTES)
    notes = Shared(memory)
    os.close(memory)
    host = Host(number=1, pid=process.pid, shared=notes, scratch="", folder="")
    try:
        pid = int(process.stdout.readline())
        notes.note_group(STARTING)
        host.signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        host.close()
    while alive(pid):  # the test's own time limit is the bound
        pass


@pytest.mark.smoke
@pytest.mark.process
def test_a_killed_starter_is_replaced_and_its_tasks_are_settled(tmp_path: Path) -> None:
    daemon = tmp_path / "daemon"
    script = f"setsid sleep 600 & echo $$ $! > {daemon}.new; mv {daemon}.new {daemon}; sleep 600"

    async def scenario(rig: Rig) -> None:
        stay = rig.start(functions("stay", [(str(tmp_path),)] * 3))
        shell = rig.start(program("sh", "-c", script, tasks=2))
        files = (tmp_path / "pids", daemon)
        await rig.until(lambda: all(len(pids_in(file)) == 2 for file in files))
        pids = [pid for file in files for pid in pids_in(file)]
        os.kill(parent_of(pids[0]), signal.SIGKILL)
        for batch, rest in ((stay, TaskSet.of(1, 3)), (shell, TaskSet.of(1, 2))):
            outcome = await rig.ended(batch)
            assert outcome.tasks[0].cause is Cause.SIGNAL
            assert outcome.unstarted == rest
        await rig.until(lambda: not any(map(alive, pids)))
        assert (await rig.run(functions("double", [(21,)]))).tasks[0].open() == 42
        assert rig.pool.statistics()["starter_restarts"] == 1

    with_pool(tmp_path, scenario)


@pytest.mark.process
def test_ending_the_pool_ends_everything_and_empties_its_folder(tmp_path: Path) -> None:
    daemon = tmp_path / "daemon"
    script = f"trap '' TERM; setsid sleep 600 & echo $$ $! > {daemon}; while :; do sleep 1; done"
    pids: list[int] = []

    async def scenario(rig: Rig) -> None:
        rig.start(functions("stay", [(str(tmp_path),)]))
        rig.start(program("sh", "-c", script))
        files = (tmp_path / "pids", daemon)
        await rig.until(lambda: all(len(pids_in(file)) == 2 for file in files))
        pids.extend(pid for file in files for pid in pids_in(file))

    with_pool(tmp_path, scenario)
    assert len(pids) == 4
    assert list((tmp_path / "pool").iterdir()) == []
    while any(map(alive, pids)):  # killed, and on their way out
        pass


@pytest.mark.process
def test_what_an_earlier_life_left_is_ended_and_removed_at_the_start(tmp_path: Path) -> None:
    folder = tmp_path / "pool"
    (folder / "0000" / "1.2").mkdir(parents=True)
    (folder / "0000" / "1.2" / "stdout").write_text("old")
    environment = {**os.environ, "P2P_POOL": str(folder)}
    other = {**os.environ, "P2P_POOL": f"{folder}-2"}
    sleep = ["sleep", "600"]
    with (
        subprocess.Popen(sleep, env=environment) as orphan,
        subprocess.Popen(sleep, env=other) as stranger,
    ):

        async def scenario(rig: Rig) -> None:
            assert [path.name for path in folder.iterdir()] == ["starter.log"]

        with_pool(tmp_path, scenario)
        assert orphan.wait() == -signal.SIGKILL
        assert stranger.poll() is None
        stranger.kill()


@pytest.mark.process
def test_an_interpreter_without_our_packages_runs_functions_and_programs(tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / "bin" / "python"

    async def scenario(rig: Rig) -> None:
        assert rig.pool.python_version == f"{sys.version_info.major}.{sys.version_info.minor}"
        assert (await rig.run(functions("double", [(21,)]))).tasks[0].open() == 42
        assert (await rig.run(functions("shutil:get_terminal_size"))).tasks[0].cause is Cause.OK
        assert (await rig.run(program("true"))).tasks[0].cause is Cause.OK
        code = cloudpickle.dumps(lambda: 1)
        end = (await rig.run(functions(code=code))).tasks[0]
        assert end.cause is Cause.NOT_STARTABLE
        assert f"{python} -m pip install cloudpickle" in str(end.header["message"])
        end = (await rig.run(functions("msgspec:json"))).tasks[0]
        assert end.cause is Cause.NOT_STARTABLE

    with_pool(tmp_path, scenario, python=str(python))


@pytest.mark.parametrize(
    ("script", "words"),
    [(None, "can't be started"), ("#!/bin/sh\necho too old >&2; exit 1\n", "too old")],
)
def test_an_interpreter_that_does_not_work_is_told_at_once(
    tmp_path: Path, script: str | None, words: str
) -> None:
    python = tmp_path / "python"
    if script is not None:
        python.write_text(script)
        python.chmod(0o755)

    async def main() -> None:
        pool = WorkerPool(
            slots=1,
            folder=tmp_path / "pool",
            on_event=lambda event: None,
            peer_name="p",
            python=str(python),
        )
        async with asyncio.timeout(10):
            with pytest.raises(UsageError, match=words):
                await pool.run()
            with pytest.raises(UsageError, match=words):
                await pool.wait_ready()

    asyncio.run(main())


@pytest.mark.process
def test_a_pool_without_slots_is_ready_without_a_process(tmp_path: Path) -> None:
    before = psutil.Process().children()  # of other tests in this process

    async def main() -> None:
        pool = WorkerPool(
            slots=0, folder=tmp_path, on_event=lambda _event: None, peer_name="a", python="/nowhere"
        )
        async with asyncio.TaskGroup() as group:
            running = group.create_task(pool.run())
            await pool.wait_ready()
            assert pool.statistics()["slots"] == 0
            assert psutil.Process().children() == before
            running.cancel()

    asyncio.run(main())


def test_hosts_that_have_nothing_to_do_end_and_come_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "RETIRE_S", 0.02)
    monkeypatch.setattr(hosts, "SPAWNER_IDLE_S", 0.1)

    async def story(rig: Rig) -> None:
        for _ in range(2):
            outcome = await rig.run(program("sh", "-c", "echo a; echo b >&2", tasks=3))
            assert [end.cause for end in outcome.tasks.values()] == [Cause.OK] * 3
            await rig.run(functions("double", [(2,)]))
            await rig.until(lambda: rig.pool.statistics()["spawners"] == 0)
            assert rig.pool.statistics()["workers"] == 1  # it keeps what tasks have loaded
        monkeypatch.setattr(hosts, "WORKER_IDLE_S", 0.1)
        await rig.until(lambda: rig.pool.statistics()["workers"] == 0)
        stays = rig.start(program("sleep", "1"))
        await rig.ended(stays)
        assert rig.pool.statistics()["hosts_lost"] == 0

    with_pool(tmp_path, story)


def test_a_light_worker_makes_room_for_programs_and_one_that_has_worked_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "RETIRE_S", 0.02)
    monkeypatch.setattr(hosts, "SPAWNER_IDLE_S", 0.0)
    monkeypatch.setattr(hosts, "LIGHT_IDLE_S", 0.0)

    async def scenario(rig: Rig) -> None:
        def count(kind: str) -> int:
            return rig.pool.statistics()[kind]

        await rig.run(functions("double", [(1,)]))
        assert count("workers") == 1
        await rig.run(program("true"))
        await rig.until(lambda: count("workers") == count("spawners") == 0)
        monkeypatch.setattr(hosts, "LIGHT_BUSY_S", 0.0)
        await rig.run(functions("double", [(1,)]))
        await rig.run(program("true"))
        await rig.until(lambda: count("spawners") == 0)
        assert count("workers") == 1
        assert count("hosts_lost") == 0

    with_pool(tmp_path, scenario, slots=1)
