"""A task that is ended leaves nothing behind; and each end has its cause."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from p2psched.model.job import Cause, JobSpec
from tests.run.rig import Rig, alive, functions, pids_in, program, with_pool
from tests.run.test_programs import shell

SAMPLES = "tests.run.tree_samples"
# A child that ignores SIGTERM in the group, and a daemon: a session of its own, and no parent.
SHELL = """
trap '' TERM
sh -c 'trap "" TERM; echo $$ > {0}/child.new; mv {0}/child.new {0}/child; sleep 600; sleep 600' &
(setsid sh -c 'trap "" TERM; echo $$ > {0}/daemon.new; mv {0}/daemon.new {0}/daemon; sleep 600' &)
while :; do sleep 1; done
"""


def of_a_program(folder: Path, timeout_ms: int | None) -> JobSpec:
    return program("sh", "-c", SHELL.format(folder), timeout_ms=timeout_ms)


def of_a_function(folder: Path, timeout_ms: int | None) -> JobSpec:
    return functions(f"{SAMPLES}:leave_all", [(str(folder),)], timeout_ms=timeout_ms)


KINDS = pytest.mark.parametrize("make", [of_a_program, of_a_function])


def left(folder: Path) -> list[int]:
    return [pid for name in ("child", "daemon") for pid in pids_in(folder / name)]


@KINDS
def test_nothing_of_a_task_outlives_its_limit(
    tmp_path: Path, make: Callable[[Path, int | None], JobSpec]
) -> None:
    async def scenario(rig: Rig) -> None:
        outcome = await rig.run(make(tmp_path, 3_000))
        assert outcome.tasks[0].cause is Cause.TIMEOUT
        pids = left(tmp_path)
        assert len(pids) == 2
        await rig.until(lambda: not any(map(alive, pids)))

    with_pool(tmp_path, scenario)


@KINDS
def test_nothing_of_a_task_outlives_its_cancel(
    tmp_path: Path, make: Callable[[Path, int | None], JobSpec]
) -> None:
    async def scenario(rig: Rig) -> None:
        batch = rig.start(make(tmp_path, None))
        await rig.until(lambda: (tmp_path / "child").exists() and (tmp_path / "daemon").exists())
        pids = left(tmp_path)
        rig.pool.stop(batch, Cause.CANCELLED)
        await rig.until(lambda: not any(map(alive, pids)))

    with_pool(tmp_path, scenario)


def test_a_daemon_of_an_earlier_program_is_spared_when_another_meets_its_limit(
    tmp_path: Path,
) -> None:
    pid = tmp_path / "daemon"
    script = (
        f"if [ $P2P_INDEX = 0 ]; then setsid sh -c 'echo $$ > {pid}; exec sleep 600' & "
        f"until [ -s {pid} ]; do sleep 0.01; done; else exec sleep 600; fi"
    )

    async def scenario(rig: Rig) -> None:
        outcome = await rig.run(shell(script, tasks=2, timeout_ms=1_500))
        assert [outcome.tasks[i].cause for i in (0, 1)] == [Cause.OK, Cause.TIMEOUT]
        (daemon,) = pids_in(pid)
        assert alive(daemon)

    with_pool(tmp_path, scenario)


@pytest.mark.parametrize(
    ("how", "cause"),
    [
        ("exit", Cause.EXIT),
        ("kill", Cause.SIGNAL),
        ("segfault", Cause.SIGNAL),
        ("raise", Cause.EXCEPTION),
        ("hang", Cause.TIMEOUT),
    ],
)
def test_each_end_of_a_function_has_its_cause(tmp_path: Path, how: str, cause: Cause) -> None:
    async def scenario(rig: Rig) -> None:
        limit_ms = 1_000 if how == "hang" else None
        spec = functions(f"{SAMPLES}:end_so", [(how,)], timeout_ms=limit_ms)
        assert (await rig.run(spec)).tasks[0].cause is cause

    with_pool(tmp_path, scenario)


@pytest.mark.parametrize(
    ("script", "cause"),
    [
        ("exit 7", Cause.EXIT),
        ("kill -9 $$", Cause.SIGNAL),
        ("kill -SEGV $$", Cause.SIGNAL),
        ("exec sleep 600", Cause.TIMEOUT),
        ("exit 0", Cause.OK),
    ],
)
def test_each_end_of_a_program_has_its_cause(tmp_path: Path, script: str, cause: Cause) -> None:
    async def scenario(rig: Rig) -> None:
        limit_ms = 1_000 if "sleep" in script else None
        assert (await rig.run(shell(script, timeout_ms=limit_ms))).tasks[0].cause is cause

    with_pool(tmp_path, scenario)
