"""What CPython asks of its own executors, ours does too, on a real cluster.

Each test of the interpreter's `test_concurrent_futures` is run, or stands in LEFT_OUT with the
reason. Where a reason says that it is tested here, `test_executor.py` has the same in our words.
"""

from __future__ import annotations

import ast
import inspect
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from p2psched.client.executor import Executor
from tests.client import cpython
from tests.cluster import LiveCluster

MODULES: Final = cpython.find()
CLASSES: Final = cpython.classes(MODULES)

_INSIDE: Final = "looks at the threads or processes inside the standard library's pool"
_SCRIPT: Final = "a script that imports the executor from concurrent.futures; tested here"
_MAKES: Final = "makes a pool of the standard library itself; tested here"
_CONTEXT: Final = "asks for multiprocessing's start methods"
_MEMORY: Final = "its tasks share memory with the caller"
_INITIALIZER: Final = "workers are shared by all who submit, so there is no initializer"
_WINDOWS: Final = "a limit of Windows"
_FUTURES: Final = "tests the standard library's Future, which is what we give out"
_CRASH: Final = "asks that a crash breaks the pool: ours fails that task alone; tested here"

EVERY: Final = "*"
LEFT_OUT: Final = {
    ("ExecutorShutdownTest", "test_interpreter_shutdown"): _SCRIPT,
    ("ExecutorShutdownTest", "test_submit_after_interpreter_shutdown"): _SCRIPT,
    ("ExecutorShutdownTest", "test_hang_gh83386"): _SCRIPT,
    ("ExecutorShutdownTest", "test_hang_gh94440"): _CONTEXT,
    ("ThreadPoolExecutorTest", "test_map_submits_without_iteration"): _MEMORY,
    ("ThreadPoolExecutorTest", "test_default_workers"): _INSIDE,
    ("ThreadPoolExecutorTest", "test_saturation"): _INSIDE,
    ("ThreadPoolExecutorTest", "test_idle_thread_reuse"): _INSIDE,
    ("ThreadPoolExecutorTest", "test_hang_global_shutdown_lock"): _MAKES,
    ("ThreadPoolExecutorTest", "test_process_fork_from_a_threadpool"): _MAKES,
    ("ThreadPoolExecutorTest", "test_executor_map_current_future_cancel"): _MEMORY,
    ("ThreadPoolShutdownTest", EVERY): _MAKES,
    ("ThreadPoolWaitTests", "test_pending_calls_race"): _MEMORY,
    ("ProcessPoolExecutorTest", "test_max_workers_too_large"): _WINDOWS,
    ("ProcessPoolExecutorTest", "test_killed_child"): _CRASH,
    ("ProcessPoolExecutorTest", "test_traceback"): "asks for the class of its own traceback; "
    "tested here",
    ("ProcessPoolExecutorTest", "test_ressources_gced_in_workers"): _CONTEXT,
    ("ProcessPoolExecutorTest", "test_saturation"): _INSIDE,
    ("ProcessPoolExecutorTest", "test_idle_process_reuse_one"): _INSIDE,
    ("ProcessPoolExecutorTest", "test_idle_process_reuse_multiple"): _INSIDE,
    ("ProcessPoolExecutorTest", "test_max_tasks_per_child"): _CONTEXT,
    ("ProcessPoolExecutorTest", "test_max_tasks_per_child_defaults_to_spawn_context"): _CONTEXT,
    ("ProcessPoolExecutorTest", "test_max_tasks_early_shutdown"): _CONTEXT,
    ("ProcessPoolExecutorTest", "test_python_finalization_error"): _CONTEXT,
    ("ProcessPoolShutdownTest", EVERY): _CONTEXT,
    ("InitializerMixin", EVERY): _INITIALIZER,
    ("FailingInitializerMixin", EVERY): _INITIALIZER,
    ("ExecutorDeadlockTest", EVERY): _CRASH,
    ("FutureTests", EVERY): _FUTURES,
}


def is_left_out(kind: str, name: str) -> bool:
    return (kind, name) in LEFT_OUT or (kind, EVERY) in LEFT_OUT


RUN: Final = [
    (kind, name)
    for kind, found in CLASSES.items()
    for name in cpython.tests_of(found)
    if not is_left_out(kind, name)
]


@pytest.fixture(scope="module")
def runtime_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("cpython")
    with LiveCluster(folder) as cluster:
        cluster.env["PYTHONPATH"] = str(cpython.shim(folder / "shim", MODULES))
        cluster.start("a", slots=6)
        yield cluster.runtime_dir


def test_cpythons_tests_are_here_where_they_must_be() -> None:
    if not MODULES:
        assert "CI" not in os.environ, f"apt-get install {cpython.PACKAGE}"
        pytest.skip(f"{cpython.NAME} is not installed: Debian's {cpython.PACKAGE} has it")
    assert {"ExecutorTest", "WaitTests", "AsCompletedTests", "ExecutorShutdownTest"} <= set(CLASSES)
    assert len(RUN) >= 20


@pytest.mark.skipif(not MODULES, reason="see above")
def test_whole_classes_left_out_exist() -> None:
    assert {kind for kind, name in LEFT_OUT if name == EVERY} <= set(CLASSES)


@pytest.mark.skipif(not MODULES, reason="see above")
def test_every_test_in_their_source_is_run_or_left_out_with_its_reason() -> None:
    written = {
        (kind.name, node.name)
        for module in MODULES
        for kind in ast.parse(inspect.getsource(module)).body
        if isinstance(kind, ast.ClassDef)
        for node in kind.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test")
    }
    assert written
    assert written - set(RUN) == {pair for pair in written if is_left_out(*pair)}
    assert set(RUN) <= written


@pytest.mark.process
@pytest.mark.filterwarnings("default")  # theirs
@pytest.mark.parametrize(("kind", "name"), RUN, ids=[".".join(pair) for pair in RUN])
def test_cpythons_own(
    kind: str, name: str, runtime_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("P2PSCHED_RUNTIME_DIR", str(runtime_dir))
    assert cpython.run(MODULES, CLASSES[kind], name, Executor) == []
