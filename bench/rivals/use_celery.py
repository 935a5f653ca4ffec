"""Celery with Redis for broker and results: two worker programs of one process each, `acks_late`.

All else is as it comes, but for the pickled arguments. Needs the program `redis-server`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import psutil

WORKERS: Final = 2
READY_TIMEOUT_S: Final = 60.0
CLOSE_TIMEOUT_S: Final = 5.0
RESULT_TIMEOUT_S: Final = 100.0


class Celery:
    def __init__(self) -> None:
        program = shutil.which("redis-server")
        if program is None:
            raise FileNotFoundError("no program `redis-server` here: apt-get install redis-server")
        self._folder = Path(tempfile.mkdtemp(prefix="p2psched-bench-celery-"))
        port = _free_port()
        # Before the application is imported, here and in the workers.
        os.environ["P2PSCHED_BENCH_REDIS"] = f"redis://127.0.0.1:{port}/0"
        os.environ["C_FORCE_ROOT"] = "1"  # else it refuses pickle where root measures
        options = {"bind": "127.0.0.1", "port": str(port), "dir": str(self._folder)}
        options |= {"save": "", "appendonly": "no"}
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        self._redis = self._spawn("redis", [program, *words])
        _await_port(port)
        import celery  # noqa: PLC0415 (needs the address)

        from bench.rivals.celery_app import app, call  # noqa: PLC0415

        self.version = str(celery.__version__)
        self._app: Any = app
        self._call: Any = call
        self._begun: list[Any] = []
        self._done = 0
        self._workers = [self._start_worker(number) for number in range(WORKERS)]
        deadline_s = time.monotonic() + READY_TIMEOUT_S
        while len(self._app.control.ping(timeout=0.5) or ()) < WORKERS:
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"no {WORKERS} workers within {READY_TIMEOUT_S:g} s")

    def _start_worker(self, number: int) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-m", "celery", "-A", "bench.rivals.celery_app", "worker"]
        words += ["-P", "prefork", "-c", "1", "-n", f"bench{number}@%h", "-l", "WARNING"]
        return self._spawn(f"worker{number}", words)

    def _spawn(self, name: str, words: Sequence[str]) -> subprocess.Popen[bytes]:
        with (self._folder / f"{name}.log").open("wb") as log:
            return subprocess.Popen(words, stdout=log, stderr=log)

    def many(self, function: Callable[[int], object], count: int) -> list[object]:
        results = [self._call.delay(function, (number,)) for number in range(count)]
        return [result.get(timeout=RESULT_TIMEOUT_S) for result in results]

    def many_on_one(self, function: Callable[[int], object], count: int) -> list[object]:
        raise NotImplementedError("workers take tasks from the broker: none can be preferred")

    def one(self, function: Callable[[int], object], argument: int) -> object:
        found: object = self._call.delay(function, (argument,)).get(timeout=RESULT_TIMEOUT_S)
        return found

    # --- parts that die: see `bench.rivals.recovery` ---

    def begin(self, function: Callable[[int, str], int], count: int, path: str) -> None:
        self._begun = [self._call.delay(function, (number, path)) for number in range(count)]

    def done(self) -> int:
        """As far as was seen before the broker died."""
        backend = self._app.backend
        keys = [backend.get_key_for_task(result.id) for result in self._begun]
        with contextlib.suppress(*backend.connection_errors):
            self._done = sum(value is not None for value in backend.client.mget(keys))
        return self._done

    def worker_pids(self) -> list[int]:
        return [self._workers[0].pid]

    def centre_pids(self) -> list[int]:
        return [self._redis.pid]

    def close(self) -> None:
        for process in (*self._workers, self._redis):
            process.terminate()
            try:
                process.wait(CLOSE_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                _kill_family(process)
        shutil.rmtree(self._folder, ignore_errors=True)


def _kill_family(process: subprocess.Popen[bytes]) -> None:
    for one in psutil.Process(process.pid).children(recursive=True):
        one.kill()
    process.kill()
    process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _await_port(port: int) -> None:
    deadline_s = time.monotonic() + READY_TIMEOUT_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.02)
        else:
            return


def start() -> Celery:
    return Celery()
