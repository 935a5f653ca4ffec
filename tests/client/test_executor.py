"""Our Executor where CPython's own tests can't look: processes, scripts, and the end of it all."""

from __future__ import annotations

import concurrent.futures
import gc
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from p2psched.client.executor import ClusterUnreachable, Executor
from p2psched.client.results import RemoteTraceback
from p2psched.model.errors import TaskFailed, UsageError
from tests.client import work
from tests.cluster import LiveCluster, wait_until

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[2]
SCRIPT_S = 60.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveCluster]:
    with LiveCluster(tmp_path_factory.mktemp("executor")) as cluster:
        cluster.env["PYTHONPATH"] = str(ROOT)
        cluster.start("a", slots=4)
        yield cluster


@pytest.fixture
def executor(cluster: LiveCluster) -> Iterator[Executor]:
    with Executor(runtime_dir=cluster.runtime_dir) as executor:
        yield executor


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if "p2psched" in thread.name]


def tasks_named(cluster: LiveCluster, name: str) -> int:
    """Of all jobs of this name."""
    views = cluster.ask(lambda client: client.jobs(limit=1000))
    return sum(view.tasks for view in views if view.name == name)


@pytest.mark.smoke
def test_a_lambda_and_an_import_path_run_as_well_as_a_function(executor: Executor) -> None:
    named = executor.submit(work.square, 7)
    nameless = executor.submit(lambda number: number * number, 7)
    by_path = executor.submit("tests.client.work:square", 7)
    assert (named.result(), nameless.result(), by_path.result()) == (49, 49, 49)


@pytest.mark.smoke
def test_a_future_raises_what_its_call_raised_with_the_traceback_from_there(
    executor: Executor,
) -> None:
    error = executor.submit(work.fail, 3).exception()
    assert isinstance(error, LookupError)
    assert error.args == (3,)
    assert isinstance(error.__cause__, RemoteTraceback)
    assert "a comment that the traceback shows" in "".join(traceback.format_exception(error))


def test_a_call_that_ends_its_worker_fails_alone(executor: Executor) -> None:
    calls = [executor.submit(work.square, number) for number in range(20)]
    with pytest.raises(TaskFailed, match="exit code 7"):
        executor.submit(work.die).result()
    assert [call.result() for call in calls] == [number * number for number in range(20)]


def test_what_cannot_travel_is_the_exception_of_its_future_alone(executor: Executor) -> None:
    lock = threading.Lock()
    good = executor.submit(work.square, 2)
    with pytest.raises(UsageError, match="an argument can't be serialised"):
        executor.submit(work.square, cast("int", lock)).result()
    with pytest.raises(UsageError, match="the function can't be serialised"):
        executor.submit(lambda: lock).result()
    with pytest.raises(ValueError, match="invalid literal"):
        executor.submit(work.opens_nowhere).result()
    assert good.result() == 4


@pytest.mark.smoke
def test_map_takes_all_at_once_and_gives_results_as_they_come(
    executor: Executor, tmp_path: Path
) -> None:
    gates = [str(tmp_path / name) for name in "ab"]
    taken: list[str] = []

    def paths() -> Iterator[str]:
        for gate in gates:
            taken.append(gate)
            yield gate

    results = executor.map(work.wait_for, paths())
    assert taken == gates
    wait_until(lambda: Path(f"{gates[1]}.began").exists(), "the second call")
    Path(gates[0]).touch()
    assert next(results) == gates[0]
    Path(gates[1]).touch()
    assert list(results) == [gates[1]]


def test_map_in_chunks_is_as_many_tasks_as_chunks(cluster: LiveCluster) -> None:
    with Executor(runtime_dir=cluster.runtime_dir, chunksize=10, name="chunked") as executor:
        assert list(executor.map(pow, range(95), [2] * 95)) == [n**2 for n in range(95)]
        with pytest.raises(LookupError):
            list(executor.map(work.fail, range(3)))
        with pytest.raises(ValueError, match="chunksize"):
            executor.map(work.square, range(3), chunksize=0)
    assert tasks_named(cluster, "chunked") == 10 + 1


def test_map_stops_waiting_at_its_timeout(executor: Executor, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with pytest.raises(TimeoutError):
        list(executor.map(work.wait_for, [str(gate)], timeout=0))
    gate.touch()


@pytest.mark.smoke
def test_what_many_threads_submit_travels_together(cluster: LiveCluster) -> None:
    found: dict[int, list[int]] = {}
    with Executor(runtime_dir=cluster.runtime_dir, name="many-threads") as executor:

        def submit(thread: int) -> None:
            calls = [executor.submit(work.square, number) for number in range(100)]
            found[thread] = [call.result() for call in calls]

        workers = [threading.Thread(target=submit, args=(number,)) for number in range(16)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert found == {thread: [n * n for n in range(100)] for thread in range(16)}
    views = cluster.ask(lambda client: client.jobs(limit=1000))
    jobs = [view for view in views if view.name == "many-threads"]
    assert sum(view.tasks for view in jobs) == 1600
    assert len(jobs) < 200


def test_a_future_is_pending_then_running_then_done(cluster: LiveCluster, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with Executor(runtime_dir=cluster.runtime_dir, max_workers=1) as executor:
        first = executor.submit(work.wait_for, str(gate))
        second = executor.submit(work.square, 2)
        third = executor.submit(work.square, 3)
        wait_until(first.running, "the first call to leave")
        assert not first.cancel()
        assert not second.running()
        assert second.cancel()
        gate.touch()
        assert third.result() == 9
        assert (first.done(), second.cancelled()) == (True, True)
        everything: list[concurrent.futures.Future[Any]] = [first, second, third]
        assert concurrent.futures.wait(everything).not_done == set()


def test_callbacks_may_submit_more_and_shut_down(cluster: LiveCluster) -> None:
    executor = Executor(runtime_dir=cluster.runtime_dir)
    later: concurrent.futures.Future[int] = concurrent.futures.Future()

    def on_done(done: concurrent.futures.Future[int]) -> None:
        executor.submit(work.square, done.result()).add_done_callback(on_last)

    def on_last(done: concurrent.futures.Future[int]) -> None:
        executor.shutdown(wait=True)
        later.set_result(done.result())

    executor.submit(work.square, 3).add_done_callback(on_done)
    assert later.result(60) == 81
    executor.shutdown()
    assert threads() == []


def test_options_are_those_of_the_executor_unless_the_function_brings_its_own(
    cluster: LiveCluster,
) -> None:
    @dataclass
    class Own:
        retries: int = 0
        timeout_s: float | None = None
        cpus: int = 1
        name: str | None = "of-the-function"

    @dataclass
    class Wrapped:
        function: Callable[[int], int]
        settings: Own

    own = Wrapped(work.square, Own())
    as_function = cast("Callable[[int], int]", own)
    with Executor(runtime_dir=cluster.runtime_dir, name="of-the-executor") as executor:
        assert executor.submit(work.square, 2).result() == 4
        assert executor.submit(own, 2).result() == 4
        assert list(executor.map(as_function, range(4), chunksize=2)) == [0, 1, 4, 9]
        with pytest.raises(UsageError, match="chunks"):
            executor.map(cast("Callable[[int], int]", "math:sqrt"), [4], chunksize=2)
    assert tasks_named(cluster, "of-the-executor") == 1
    assert tasks_named(cluster, "of-the-function") == 1 + 2


# --- its end --------------------------------------------------------------------------------------


def test_an_executor_that_nobody_holds_ends_once_its_calls_are_done(cluster: LiveCluster) -> None:
    executor = Executor(runtime_dir=cluster.runtime_dir)
    results = executor.map(work.square, range(10))
    del executor
    gc.collect()
    assert list(results) == [number * number for number in range(10)]
    wait_until(lambda: threads() == [], "its thread to end")


def test_shutdown_without_waiting_lets_the_calls_end(cluster: LiveCluster, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    executor = Executor(runtime_dir=cluster.runtime_dir)
    call = executor.submit(work.wait_for, str(gate))
    executor.shutdown(wait=False)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(work.square, 1)
    assert not call.done()
    gate.touch()
    assert call.result(60) == str(gate)
    executor.shutdown()
    assert threads() == []


def test_shutdown_may_cancel_what_has_not_left(cluster: LiveCluster) -> None:
    executor = Executor(runtime_dir=cluster.runtime_dir)
    calls = [executor.submit(work.square, number) for number in range(200)]
    executor.shutdown(cancel_futures=True)
    assert all(call.done() for call in calls)
    assert {number: call.result() for number, call in enumerate(calls) if not call.cancelled()} == {
        number: number * number for number, call in enumerate(calls) if not call.cancelled()
    }
    assert calls[-1].cancelled()  # nobody can have connected by then


def test_nothing_is_left_open_by_an_executor_that_was_shut_down(cluster: LiveCluster) -> None:
    with Executor(runtime_dir=cluster.runtime_dir) as executor:  # what is loaded once
        executor.submit(work.square, 1).result()
    gc.collect()
    before = set(Path("/proc/self/fd").iterdir())
    for _ in range(3):
        with Executor(runtime_dir=cluster.runtime_dir) as executor:
            executor.submit(work.square, 1).result()
    assert threads() == []
    assert len(set(Path("/proc/self/fd").iterdir())) <= len(before)


def test_a_cluster_that_is_not_there_breaks_the_executor(tmp_path: Path) -> None:
    with Executor(runtime_dir=tmp_path) as executor:
        call = executor.submit(work.square, 1)
        with pytest.raises(ClusterUnreachable, match="p2psched start"):
            call.result()
        with pytest.raises(concurrent.futures.BrokenExecutor):
            executor.submit(work.square, 1)
    assert threads() == []


def test_a_cluster_that_goes_away_for_good_breaks_the_executor(tmp_path: Path) -> None:
    with LiveCluster(tmp_path) as cluster:
        cluster.env["PYTHONPATH"] = str(ROOT)
        cluster.start("a", slots=1)
        gate = tmp_path / "gate"
        with Executor(runtime_dir=cluster.runtime_dir, max_workers=1, patience_s=1) as executor:
            first = executor.submit(work.wait_for, str(gate))
            second = executor.submit(work.square, 2)
            wait_until(Path(f"{gate}.began").exists, "the first call to begin")
            cluster.kill("a")
            for call in (first, second):
                with pytest.raises(ClusterUnreachable):
                    call.result(60)
            with pytest.raises(ClusterUnreachable):
                executor.submit(work.square, 1)
        gate.touch()
    assert threads() == []


# --- scripts --------------------------------------------------------------------------------------


def script(cluster: LiveCluster, text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", text],
        env=cluster.env,
        capture_output=True,
        text=True,
        timeout=SCRIPT_S,
        check=False,
        cwd=cluster.folder,
    )


def test_the_interpreter_waits_for_what_was_submitted(cluster: LiveCluster) -> None:
    for ending in ("", "executor.shutdown(wait=False)"):
        done = script(
            cluster,
            "from p2psched import Executor\n"
            "from tests.client.work import square\n"
            "executor = Executor()\n"
            "call = executor.submit(square, 7)\n"
            "call.add_done_callback(lambda done: print(done.result()))\n" + ending,
        )
        assert (done.stdout, done.stderr, done.returncode) == ("49\n", "", 0)


def test_after_the_interpreters_end_nothing_can_be_submitted(cluster: LiveCluster) -> None:
    done = script(
        cluster,
        "import atexit\n"
        "from p2psched import Executor\n"
        "executor = Executor()\n"
        "@atexit.register\n"
        "def last():\n"
        "    try:\n"
        "        executor.submit(id, None)\n"
        "    except RuntimeError as error:\n"
        "        print(error)\n"
        "executor.submit(id, 42).result()\n",
    )
    assert done.stdout == "cannot schedule new futures after interpreter shutdown\n"
    assert (done.stderr, done.returncode) == ("", 0)


def test_a_forked_child_is_told_to_make_its_own(cluster: LiveCluster) -> None:
    done = script(
        cluster,
        "import os, sys\n"
        "from p2psched import Executor\n"
        "from tests.client.work import square\n"
        "with Executor() as executor:\n"
        "    assert executor.submit(square, 2).result() == 4\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        try:\n"
        "            executor.submit(square, 3)\n"
        "        except Exception as error:\n"
        "            print(type(error).__name__, error, flush=True)\n"
        "        executor.shutdown(wait=False)\n"
        "        with Executor() as own:\n"
        "            print(own.submit(square, 4).result(), flush=True)\n"
        "        sys.exit(5)\n"
        "    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
        "    print(executor.submit(square, 5).result())\n",
    )
    lines = done.stdout.splitlines()
    assert lines[0].startswith("UsageError this Executor belongs to process")
    assert lines[1:] == ["16", "5", "25"]
    assert (done.stderr, done.returncode) == ("", 0)
