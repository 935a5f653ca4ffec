"""Function tasks on real workers: results, failures, output, stopping, time."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import cloudpickle
import msgspec
import pytest
import uvloop

from p2psched.model import limits
from p2psched.model.job import Cause
from p2psched.model.taskset import EMPTY, TaskSet
from tests.run.rig import Rig, alive, functions, pids_in, with_pool

pytestmark = pytest.mark.process


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_ten_thousand_functions_give_their_results_in_few_messages(
    tmp_path: Path, loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def scenario(rig: Rig) -> None:
        spec = functions("double", [(number,) for number in range(10_000)])
        batches = [
            rig.start(spec, TaskSet.of(start, min(start + 500, 10_000)))
            for start in range(0, 10_000, 500)
        ]
        results: dict[int, object] = {}
        messages = 0
        for batch in batches:
            outcome = await rig.ended(batch)
            assert outcome.unstarted == EMPTY
            messages += outcome.messages
            results |= {index: end.open() for index, end in outcome.tasks.items()}
        assert results == {index: 2 * index for index in range(10_000)}
        assert messages < 2_000
        assert rig.pool.statistics()["workers"] <= 2

    with_pool(tmp_path, scenario, loop_factory=loop_factory)


@pytest.mark.smoke
def test_tasks_with_gaps_across_chunks_get_their_own_arguments(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        spec = functions("double", [(number,) for number in range(1_000)])
        tasks = TaskSet(((3, 5), (250, 260), (999, 1000)))
        outcome = await rig.ended(rig.start(spec, tasks))
        assert {i: end.open() for i, end in outcome.tasks.items()} == {i: 2 * i for i in tasks}

    with_pool(tmp_path, scenario)


@pytest.mark.smoke
def test_an_exception_travels_with_type_message_and_the_users_frames(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        end = (await rig.run(functions("fail", [("too bad",)]))).tasks[0]
        assert end.cause is Cause.EXCEPTION
        assert (end.header["type"], end.header["message"]) == ("ValueError", "too bad")
        text = str(end.header["traceback"])
        assert "samples.py" in text
        assert "run/host" not in text
        error = end.open()
        assert isinstance(error, ValueError)
        assert error.args == ("too bad",)

    with_pool(tmp_path, scenario)


def test_system_exit_in_a_function_is_an_exception_of_that_task(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        outcome = await rig.run(functions("raise_system_exit", [(), ()]))
        assert [outcome.tasks[index].cause for index in (0, 1)] == [Cause.EXCEPTION] * 2
        assert outcome.tasks[0].header["type"] == "SystemExit"
        assert rig.pool.statistics()["hosts_lost"] == 0

    with_pool(tmp_path, scenario)


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("how", "cause", "header"),
    [
        ("exit", Cause.EXIT, ("exit", 7)),
        ("segfault", Cause.SIGNAL, ("signal", signal.SIGSEGV)),
        ("kill", Cause.SIGNAL, ("signal", signal.SIGKILL)),
    ],
)
def test_a_crash_blames_the_task_that_ran_and_no_other(
    tmp_path: Path, how: str, cause: Cause, header: tuple[str, int]
) -> None:
    async def scenario(rig: Rig) -> None:
        spec = functions("crash_at", [(number, 60, how) for number in range(100)])
        beside = rig.start(functions("double", [(number,) for number in range(100)]))
        outcome = await rig.ended(rig.start(spec))
        assert {outcome.tasks[index].cause for index in range(60)} == {Cause.OK}
        assert outcome.tasks[60].cause is cause
        assert outcome.tasks[60].header[header[0]] == header[1]
        assert outcome.tasks[60].stdout == b"last words\n"
        assert outcome.unstarted == TaskSet.of(61, 100)
        assert len((await rig.ended(beside)).tasks) == 100
        again = await rig.ended(rig.start(spec, outcome.unstarted))
        assert {end.cause for end in again.tasks.values()} == {Cause.OK}

    with_pool(tmp_path, scenario)


def test_values_that_cannot_travel_say_why(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        end = (await rig.run(functions("unpicklable"))).tasks[0]
        assert end.cause is Cause.NOT_SERIALISABLE
        assert "generator" in str(end.header["message"])
        end = (await rig.run(functions("large"))).tasks[0]
        assert end.cause is Cause.TOO_LARGE
        assert end.header["message"] == (
            "the result is too large: it may take 64 KiB here and takes 1.2 MiB: "
            "write it to a file and return its path"
        )

    with_pool(tmp_path, scenario)


def test_functions_that_cannot_be_opened_fail_all_tasks_with_a_reason(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        for spec, words in (
            (functions("no_such_module_here:f", [(), (), ()]), ("no_such_module_here", "install")),
            (functions("tests.run.samples:no.such", [(), (), ()]), ("no.such",)),
            (functions(code=b"junk", arguments=[(), (), ()]), ("can't be opened",)),
            (functions(code=b"x", python="2.7", arguments=[(), (), ()]), ("2.7", "same minor")),
        ):
            outcome = await rig.run(spec)
            assert [outcome.tasks[index].cause for index in range(3)] == [Cause.NOT_STARTABLE] * 3
            message = str(outcome.tasks[1].header["message"])
            assert sys.executable in message or "no.such" in message
            assert all(word in message for word in words), message

    with_pool(tmp_path, scenario)


@pytest.mark.parametrize("damage", [b"junk", b"\1\0\0\0\5\0\0\0\0\0\0\0"])
def test_damaged_arguments_fail_their_tasks_and_harm_nobody(tmp_path: Path, damage: bytes) -> None:
    async def scenario(rig: Rig) -> None:
        spec = functions("double", [(1,)])
        work = msgspec.structs.replace(spec.work, chunks=(damage,))
        end = (await rig.run(msgspec.structs.replace(spec, work=work))).tasks[0]
        assert end.cause is Cause.NOT_STARTABLE
        assert "arguments" in str(end.header["message"])
        assert rig.pool.statistics()["hosts_lost"] == 0

    with_pool(tmp_path, scenario)


def test_a_lambda_travels_by_value_and_so_does_what_it_makes(tmp_path: Path) -> None:
    class Point:
        def __init__(self, x: int) -> None:
            self.x = x

    async def scenario(rig: Rig) -> None:
        code = cloudpickle.dumps(lambda number: Point(number + 1))
        outcome = await rig.run(functions(code=code, arguments=[(1,), (2,)]))
        values = [outcome.tasks[index].open() for index in (0, 1)]
        assert [getattr(value, "x", None) for value in values] == [2, 3]

    with_pool(tmp_path, scenario)


def test_what_opens_functions_by_value_is_loaded_once_there_is_one_and_then_for_all(
    tmp_path: Path,
) -> None:
    async def scenario(rig: Rig) -> None:
        async def has_it(cpus: int) -> object:  # another number of them is another worker
            spec = functions("sys:modules.__contains__", [("cloudpickle",)], cpus=cpus)
            return (await rig.run(spec)).tasks[0].open()

        assert await has_it(1) is False
        code = cloudpickle.dumps(lambda: 7)
        assert (await rig.run(functions(code=code, cpus=2))).tasks[0].open() == 7
        assert await has_it(3) is True

    with_pool(tmp_path, scenario, slots=3)


def test_output_goes_with_the_task_that_wrote_it(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        outcome = await rig.run(functions("say", [(str(number),) for number in range(50)]))
        for index in range(50):
            end = outcome.tasks[index]
            assert end.stdout == f"{index}\n".encode()
            assert end.stderr == f"err {index}\n".encode()
            assert end.header["stdout_total"] == len(end.stdout)
            assert end.open() == str(index)
        silent = (await rig.run(functions("double", [(2,)]))).tasks[0]
        assert (silent.header, silent.stdout) == ({}, b"")

    with_pool(tmp_path, scenario)


def test_output_stays_with_its_task_whenever_the_starter_takes_over(tmp_path: Path) -> None:
    """The starter may begin to empty a pipe at the very moment when the worker does."""

    async def scenario(rig: Rig) -> None:
        batch = rig.start(functions("say", [(str(number),) for number in range(3_000)]))
        outcome = rig.outcomes[batch]
        while outcome.unstarted is None:
            rig.watch()
            await asyncio.sleep(0)
        wrong = {
            index: (end.stdout, end.stderr)
            for index, end in outcome.tasks.items()
            if end.stdout != f"{index}\n".encode() or end.stderr != f"err {index}\n".encode()
        }
        assert (len(outcome.tasks), wrong) == (3_000, {})

    with_pool(tmp_path, scenario)


def test_a_hundred_megabytes_of_output_leave_only_their_ends(tmp_path: Path) -> None:
    total = 100 * limits.MIB

    async def scenario(rig: Rig) -> None:
        spec = functions("shout_c", [(total,), (total,)])
        outcome = await rig.run(spec)
        for index in (0, 1):
            end = outcome.tasks[index]
            assert end.cause is Cause.OK
            assert end.open() == total
            assert end.header["stdout_total"] == total + len("<first><last>\n")
            assert len(end.stdout) == limits.OUTPUT_BYTES_MAX
            assert end.stdout.startswith(b"<first>x")
            assert end.stdout.endswith(b"x<last>\n")
            assert end.header["stdout_head"] == limits.OUTPUT_BYTES_MAX // 2
        after = (await rig.run(functions("say", [("quiet",)]))).tasks[0]
        assert after.stdout == b"quiet\n"

    with_pool(tmp_path, scenario)


def test_results_before_a_long_task_are_told_while_it_runs(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        spec = functions("quick_then_stay", [(0, str(tmp_path)), (1, str(tmp_path))])
        batch = rig.start(spec)
        await rig.until(lambda: 0 in rig.outcomes[batch].tasks)
        await rig.until((tmp_path / "begun").exists)
        rig.pool.stop(batch, Cause.CANCELLED)
        outcome = await rig.ended(batch)
        assert set(outcome.tasks) == {0}
        assert outcome.unstarted == EMPTY

    with_pool(tmp_path, scenario)


def test_no_result_is_kept_back_by_a_long_task_however_long_the_one_before_took(
    tmp_path: Path,
) -> None:
    """What a worker keeps for a while, and when its peer looks at it, must leave no gap."""

    async def told(rig: Rig, ms: float) -> None:
        batch = rig.start(functions("after_then_stay", [(ms,), (-1.0,)]))
        await rig.until(lambda: 0 in rig.outcomes[batch].tasks)
        rig.pool.stop(batch, Cause.CANCELLED)
        await rig.ended(batch)

    async def scenario(rig: Rig) -> None:
        for ms in range(0, 60, 4):
            await told(rig, float(ms))

    with_pool(tmp_path, scenario)


def test_stopping_a_function_ends_its_children_too(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        batch = rig.start(functions("stay", [(str(tmp_path),)] * 5))
        await rig.until(lambda: len(pids_in(tmp_path / "pids")) == 2)
        rig.pool.stop(batch, Cause.CANCELLED)
        outcome = await rig.ended(batch)
        assert outcome.tasks == {}
        assert outcome.unstarted == TaskSet.of(1, 5)
        await rig.until(lambda: not any(map(alive, pids_in(tmp_path / "pids"))))
        assert (await rig.run(functions("double", [(4,)]))).tasks[0].open() == 8

    with_pool(tmp_path, scenario)


@pytest.mark.smoke
def test_a_function_over_its_time_is_ended_alone(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        # Loading counts as time of the first task, and a busy machine may take long over it.
        await rig.run(functions("quick_then_stay", [(0, str(tmp_path))]))
        arguments = [(0, str(tmp_path))] * 3 + [(1, str(tmp_path))] + [(0, str(tmp_path))] * 3
        outcome = await rig.run(functions("quick_then_stay", arguments, timeout_ms=500))
        assert [outcome.tasks[index].cause for index in range(4)] == [Cause.OK] * 3 + [
            Cause.TIMEOUT
        ]
        assert "500 ms" in str(outcome.tasks[3].header["message"])
        assert outcome.tasks[3].busy_us >= 500_000
        assert outcome.unstarted == TaskSet.of(4, 7)

    with_pool(tmp_path, scenario)


def test_a_function_knows_its_task_and_its_share_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("P2PSCHED_SECRET", "hidden")

    async def scenario(rig: Rig) -> None:
        for cpus in (2, 1):
            spec = functions("environment", [(), ()], cpus=cpus)
            end = (await rig.ended(rig.start(spec, attempt=3))).tasks[1]
            seen = end.open()
            assert isinstance(seen, dict)
            assert seen["P2P_TASK_ID"] == f"{seen['P2P_JOB_ID']}/1"
            wanted = {
                "P2P_INDEX": "1",
                "P2P_PEER": "peer-1",
                "P2P_ATTEMPT": "3",
                "P2P_FENCE": "1.9.3",
                "OMP_NUM_THREADS": str(cpus),
                "OPENBLAS_NUM_THREADS": str(cpus),
            }
            assert {key: seen[key] for key in wanted} == wanted
            assert "P2PSCHED_SECRET" not in seen

    with_pool(tmp_path, scenario)


def test_the_scratch_folder_is_emptied_after_each_batch(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        for _ in range(2):
            assert (await rig.run(functions("scratch"))).tasks[0].open() == []

    with_pool(tmp_path, scenario, slots=1)
