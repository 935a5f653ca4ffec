"""Program tasks on real spawners: ends, folders, output, stopping, time."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from p2psched.model import limits
from p2psched.model.job import Cause, JobSpec, SentFile
from p2psched.model.taskset import EMPTY, TaskSet
from tests.run.rig import Rig, alive, functions, pids_in, program, with_pool

pytestmark = pytest.mark.process


def shell(script: str, *, tasks: int = 1, timeout_ms: int | None = None) -> JobSpec:
    return program("/bin/sh", "-c", script, tasks=tasks, timeout_ms=timeout_ms)


@pytest.mark.smoke
def test_programs_end_by_exit_code_or_signal_with_their_output(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        end = (await rig.run(shell("echo out; echo err >&2"))).tasks[0]
        assert (end.cause, end.header["exit"]) == (Cause.OK, 0)
        assert (end.stdout, end.stderr) == (b"out\n", b"err\n")
        end = (await rig.run(shell("exit 3"))).tasks[0]
        assert (end.cause, end.header) == (Cause.EXIT, {"exit": 3})
        end = (await rig.run(shell("kill -SEGV $$"))).tasks[0]
        assert (end.cause, end.header["signal"]) == (Cause.SIGNAL, signal.SIGSEGV)

    with_pool(tmp_path, scenario)


def test_arguments_never_meet_a_shell_and_stdin_is_empty(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        end = (await rig.run(program("echo", "$HOME; true", "*"))).tasks[0]
        assert end.stdout == b"$HOME; true *\n"
        assert (await rig.run(program("cat"))).tasks[0].cause is Cause.OK

    with_pool(tmp_path, scenario)


def test_hundreds_of_programs_run_in_batches_and_leave_nothing(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        spec = shell("echo $P2P_INDEX; touch rubbish; mkdir -p a/b", tasks=192)
        batches = [rig.start(spec, TaskSet.of(start, start + 64)) for start in range(0, 192, 64)]
        for batch in batches:
            outcome = await rig.ended(batch)
            assert outcome.unstarted == EMPTY
            for index, end in outcome.tasks.items():
                assert (end.cause, end.stdout) == (Cause.OK, f"{index}\n".encode())
        assert sum(len(outcome.tasks) for outcome in rig.outcomes.values()) == 192
        assert [path.name for path in rig.folder.iterdir()] == ["starter.log"]

    with_pool(tmp_path, scenario)


def test_what_cannot_start_says_why(tmp_path: Path) -> None:
    plain = tmp_path / "plain.txt"
    plain.write_text("no program")

    async def scenario(rig: Rig) -> None:
        for spec, word in (
            (program("no-such-program-here"), "install it"),
            (program(str(plain)), "x permission"),
            (program("true", cwd=str(tmp_path / "missing")), "No such file"),
        ):
            end = (await rig.run(spec)).tasks[0]
            assert end.cause is Cause.NOT_STARTABLE
            assert word in str(end.header["message"])

    with_pool(tmp_path, scenario)


@pytest.mark.smoke
def test_sent_files_lie_in_each_tasks_own_folder_with_their_modes(tmp_path: Path) -> None:
    files = (
        SentFile("run.sh", 0o755, b"#!/bin/sh\ncat data; pwd; echo more > data\n"),
        SentFile("data", 0o644, b"sent\n"),
    )

    async def scenario(rig: Rig) -> None:
        outcome = await rig.run(program("./run.sh", tasks=2, files=files))
        for index in (0, 1):
            folder = rig.folder / f"00000001.{index}.9"
            assert outcome.tasks[index].stdout.decode() == f"sent\n{folder}\n"

    with_pool(tmp_path, scenario)


def test_a_programs_environment_is_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("P2PSCHED_SECRET", "hidden")
    monkeypatch.setenv("LC_TIME", "C")

    async def scenario(rig: Rig) -> None:
        spec = program("env", env=(("MINE", "a b"),), cwd=str(tmp_path))
        lines = (await rig.run(spec)).tasks[0].stdout.decode().splitlines()
        seen = dict(line.split("=", 1) for line in lines)
        assert seen["MINE"] == "a b"
        assert seen["LC_TIME"] == "C"
        assert (seen["P2P_PEER"], seen["P2P_INDEX"]) == ("peer-1", "0")
        assert (seen["P2P_FENCE"], seen["OMP_NUM_THREADS"]) == ("1.9.1", "1")
        assert "P2PSCHED_SECRET" not in seen

    with_pool(tmp_path, scenario)


def _size_of(file: Path) -> int:
    return sum(path.stat().st_size for path in file.parent.glob(f"{file.name}*"))


def test_a_hundred_megabytes_of_output_stay_bounded_on_disk(tmp_path: Path) -> None:
    script = "echo first; head -c 100000000 /dev/zero; touch written; echo last; sleep 600"

    async def scenario(rig: Rig) -> None:
        batch = rig.start(shell(script))
        folder = rig.pool.task_folder(rig.job(batch), 0, 9)
        await rig.until((folder / "written").exists)
        size = await asyncio.to_thread(_size_of, folder.with_name(f"{folder.name}.stdout"))
        assert limits.OUTPUT_FILE_BYTES_MAX <= size < limits.OUTPUT_FILE_BYTES_MAX + 100
        rig.pool.stop(batch, Cause.CANCELLED)
        await rig.ended(batch)
        assert not folder.exists()
        end = (await rig.run(shell(script.replace("sleep 600", "exit 0")))).tasks[0]
        assert end.header["stdout_total"] == 100_000_011
        assert len(end.stdout) == limits.OUTPUT_BYTES_MAX
        assert end.stdout.startswith(b"first\n\0")
        assert end.stdout.endswith(b"\0last\n")

    with_pool(tmp_path, scenario)


def test_the_output_of_a_running_program_can_be_followed(tmp_path: Path) -> None:
    go = tmp_path / "go"
    script = f"echo one; until [ -e {go} ]; do sleep 0.01; done; echo two >&2; sleep 600"

    async def scenario(rig: Rig) -> None:
        batch = rig.start(shell(script))
        job = rig.job(batch)
        seen = b""
        while not seen:
            piece = await rig.pool.output.tail(job, 0, False, 0)
            seen = piece[1] if piece else b""
        assert piece == (4, b"one\n")
        assert await rig.pool.output.tail(job, 0, False, 4) == (4, b"")
        go.touch()
        while (await rig.pool.output.tail(job, 0, True, 0)) != (4, b"two\n"):
            assert rig.outcomes[batch].unstarted is None
        rig.pool.stop(batch, Cause.CANCELLED)
        await rig.ended(batch)
        assert await rig.pool.output.tail(job, 0, False, 0) is None

    with_pool(tmp_path, scenario)


@pytest.mark.smoke
def test_a_program_over_its_time_is_ended_although_it_ignores_sigterm(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        spec = shell("trap '' TERM; echo here; while :; do sleep 1; done", timeout_ms=100, tasks=2)
        outcome = await rig.run(spec)
        assert outcome.unstarted == EMPTY
        for index in (0, 1):
            end = outcome.tasks[index]
            assert (end.cause, end.header["signal"]) == (Cause.TIMEOUT, signal.SIGKILL)
            assert "100 ms" in str(end.header["message"])
            assert end.stdout == b"here\n"

    with_pool(tmp_path, scenario)


def test_stopping_ends_a_program_whose_child_ignores_sigterm(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = (
        f"sh -c 'trap \"\" TERM; while :; do sleep 1; done' & echo $$ $! > {pids}.new; "
        f"mv {pids}.new {pids}; wait"
    )

    async def scenario(rig: Rig) -> None:
        batch = rig.start(shell(script, tasks=10))
        await rig.until(lambda: len(pids_in(pids)) == 2)
        rig.pool.stop(batch, Cause.CANCELLED)
        rig.pool.stop(batch, Cause.CANCELLED)
        outcome = await rig.ended(batch)
        assert outcome.tasks == {}
        assert outcome.unstarted == TaskSet.of(1, 10)
        await rig.until(lambda: not any(map(alive, pids_in(pids))))
        assert rig.pool.statistics()["hosts_lost"] == 0

    with_pool(tmp_path, scenario)


def test_a_background_grandchild_neither_holds_its_task_up_nor_survives_it(
    tmp_path: Path,
) -> None:
    pids = tmp_path / "pids"

    async def scenario(rig: Rig) -> None:
        end = (await rig.run(shell(f"sleep 600 & echo $! > {pids}; echo done"))).tasks[0]
        assert (end.cause, end.stdout) == (Cause.OK, b"done\n")
        await rig.until(lambda: not any(map(alive, pids_in(pids))))

    with_pool(tmp_path, scenario)


def test_a_daemon_of_one_program_meets_nothing_of_the_next(tmp_path: Path) -> None:
    pids, go = tmp_path / "pids", tmp_path / "go"
    daemon = f"echo $$ > {pids}; until [ -e {go} ]; do sleep 0.01; done; (echo stray); touch stray"
    script = (
        f"if [ $P2P_INDEX = 0 ]; then setsid sh -c '{daemon}; touch {go}.done; sleep 600' & "
        f"until [ -s {pids} ]; do sleep 0.01; done; "
        f"else touch {go}; until [ -e {go}.done ]; do sleep 0.01; done; ls; fi"
    )

    async def scenario(rig: Rig) -> None:
        outcome = await rig.run(shell(script, tasks=2))
        assert [outcome.tasks[index].cause for index in (0, 1)] == [Cause.OK, Cause.OK]
        assert outcome.tasks[1].stdout == b""
        (daemon_pid,) = pids_in(pids)
        assert alive(daemon_pid)  # it asked for a life of its own, until the peer ends
        os.kill(daemon_pid, signal.SIGKILL)
        await rig.until(lambda: not alive(daemon_pid))

    with_pool(tmp_path, scenario)


def test_programs_of_one_batch_find_clean_folders_whatever_the_one_before_left(
    tmp_path: Path,
) -> None:
    script = "ls -A; stat -c %a .; [ $((P2P_INDEX % 3)) = 0 ] || touch .left; chmod 755 ."

    async def scenario(rig: Rig) -> None:
        outcome = await rig.run(shell(script, tasks=8))
        assert {end.stdout for end in outcome.tasks.values()} == {b"700\n"}
        spec = program("pwd", tasks=8)
        outcome = await rig.run(spec)
        found = [outcome.tasks[index].stdout.decode() for index in range(8)]
        assert found == [f"{rig.folder}/00000002.{index}.9\n" for index in range(8)]

    with_pool(tmp_path, scenario)


def test_results_before_a_long_program_are_told_while_it_runs(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        batch = rig.start(shell("[ $P2P_INDEX = 0 ] || sleep 600", tasks=3))
        await rig.until(lambda: 0 in rig.outcomes[batch].tasks)
        rig.pool.stop(batch, Cause.CANCELLED)
        assert (await rig.ended(batch)).unstarted in {TaskSet.of(1, 3), TaskSet.of(2, 3)}

    with_pool(tmp_path, scenario)


def test_a_batch_that_waits_for_a_slot_can_be_stopped_unstarted(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        long = rig.start(shell("sleep 600"))
        waiting = rig.start(functions("double", [(1,)]))
        assert rig.pool.statistics()["batches_queued"] == 1
        rig.pool.stop(waiting, Cause.CANCELLED)
        assert rig.outcomes[waiting].unstarted == TaskSet.of(0, 1)
        last = rig.start(functions("double", [(3,)]))
        rig.pool.stop(long, Cause.CANCELLED)
        rig.pool.stop(12345, Cause.CANCELLED)
        assert (await rig.ended(last)).tasks[0].open() == 6

    with_pool(tmp_path, scenario, slots=1)


@pytest.mark.smoke
def test_a_killed_spawner_costs_only_the_program_that_ran(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"[ $P2P_INDEX = 0 ] || (echo $$ $PPID > {pids}.new; mv {pids}.new {pids}; sleep 600)"

    async def scenario(rig: Rig) -> None:
        batch = rig.start(shell(script, tasks=4))
        await rig.until(lambda: len(pids_in(pids)) == 2)
        program_pid, spawner = pids_in(pids)
        os.kill(spawner, signal.SIGKILL)
        outcome = await rig.ended(batch)
        assert outcome.tasks[0].cause is Cause.OK
        assert outcome.tasks[1].cause is Cause.SIGNAL
        assert outcome.unstarted == TaskSet.of(2, 4)
        await rig.until(lambda: not alive(program_pid))

    with_pool(tmp_path, scenario)
