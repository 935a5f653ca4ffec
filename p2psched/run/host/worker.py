"""A warm worker: calls users' functions, one task at a time, in a process of its own.

It is ended with its whole process group when a task must stop, and a crash of it is the cause of
the task that ran, nothing more. Output of tasks: descriptors 1 and 2 are pipes that the worker
empties after each task; when a task goes on for long the starter empties them for it, so that a
noisy task never waits for itself. A task that prints nothing costs one `poll` of the two.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import os
import select
import shutil
import socket
import sys
from typing import Final

from ...model import chunks, items  # noqa: TID252 - see shared.py
from . import capture, frames, functions
from .report import Reporter
from .shared import Shared

RECEIVE_BYTES: Final = 256 * 1024


class Worker:
    def __init__(
        self,
        *,
        peer: socket.socket,
        starter: socket.socket,
        shared: Shared,
        pipes: tuple[int, int],
        scratch: str,
    ) -> None:
        self._peer = peer
        self._starter = starter
        self._shared = shared
        self._pipes = pipes
        self._scratch = scratch
        self._report = Reporter(peer, shared)
        self._jobs: dict[str, dict[str, object]] = {}  # the peer bounds it: see DROP
        self._codes: dict[str, bytes] = {}
        self._functions: dict[str, functions.Function] = {}
        self._poll = select.poll()
        for descriptor in pipes:
            self._poll.register(descriptor, select.POLLIN)
        self._streams = _open_streams()

    def run(self) -> None:
        """Serve until the peer is gone."""
        reader = frames.Reader()
        while data := self._peer.recv(RECEIVE_BYTES):
            for kind, body in reader.feed(data):
                if kind == frames.RUN:
                    self._run_batch(body)
                elif kind == frames.JOB:
                    header, code = frames.open_json(body)
                    self._jobs[str(header["job"])] = header
                    self._codes[str(header["job"])] = code
                elif kind == frames.DROP:
                    job = str(frames.open_json(body)[0]["job"])
                    for known in (self._jobs, self._codes, self._functions):
                        known.pop(job, None)

    def _run_batch(self, body: bytes) -> None:
        header, data = frames.open_json(body)
        batch, job, runs = header["batch"], str(header["job"]), header["runs"]
        assert isinstance(batch, int)
        assert isinstance(runs, list)
        self._enter(job, header)
        self._report.open_batch(batch)
        # Loading runs the user's code: if it crashes, the first task is what crashed.
        self._report.begin(runs[0][0])
        refusal = b""
        try:
            function = self._function(job)
        except functions.NotStartable as error:
            refusal = items.pack({"message": str(error)[: functions.MESSAGE_LEN_MAX]})
        position = 0
        for start, stop, size in runs:
            piece = data[position : position + size]
            position += size
            arguments: list[bytes] = []
            try:
                arguments = chunks.unpack(piece)
            except ValueError as error:
                refusal = refusal or items.pack({"message": f"damaged arguments: {error}"})
            if refusal:
                self._refuse(start, stop, refusal)
            else:
                assert len(arguments) == stop - start, "the peer has counted them"
                self._run_range(function, job, start, arguments)
        self._report.close_batch()
        self._leave()

    def _enter(self, job: str, header: dict[str, object]) -> None:
        os.chdir(self._scratch)
        os.environ["P2P_JOB_ID"] = job
        os.environ["P2P_ATTEMPT"] = str(header["attempt"])
        os.environ["P2P_FENCE"] = str(header["fence"])

    def _leave(self) -> None:
        """Take away what the tasks left in the scratch folder."""
        with contextlib.suppress(OSError), os.scandir(self._scratch) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    os.unlink(entry.path)  # noqa: PTH108 - a path object each is slower

    def _function(self, job: str) -> functions.Function:
        function = self._functions.get(job)
        if function is None:
            header = self._jobs[job]
            path = str(header["path"])
            if path:
                function = functions.load_path(path)
            else:
                function = functions.load_code(self._codes[job], str(header["python"]))
            self._functions[job] = function
        return function

    def _refuse(self, start: int, stop: int, item: bytes) -> None:
        for index in range(start, stop):
            self._report.begin(index)
            self._report.finish(index, frames.NOT_STARTABLE, item)

    def _run_range(
        self, function: functions.Function, job: str, start: int, arguments: list[bytes]
    ) -> None:
        report, environ, call = self._report, os.environ, functions.call
        for index, argument in enumerate(arguments, start):
            environ["P2P_INDEX"] = text = str(index)
            environ["P2P_TASK_ID"] = f"{job}/{text}"
            report.begin(index)
            cause, header, value = call(function, argument)
            output = self._collect()
            if output is None:
                bare = cause == frames.OK
                item = items.pack_value(value) if bare else items.pack(header, value)
            else:
                header = {**header, **output.header()}
                item = items.pack(header, value, output.stdout.body(), output.stderr.body())
            report.finish(index, cause, item)

    def _collect(self) -> capture.Output | None:
        """What the task wrote, or None if it wrote nothing."""
        stdout, stderr = self._streams
        try:  # no `suppress`: it takes longer than all the rest here
            stdout.flush()
            stderr.flush()
        except (ValueError, OSError):
            pass  # the task has closed one, so it is flushed
        if self._shared.watched:
            self._starter.sendall(b"?")
            output = capture.receive_output(self._starter)
            return output or None
        if not self._poll.poll(0):
            return None
        output = capture.Output()
        capture.drain(self._pipes[0], output.stdout)
        capture.drain(self._pipes[1], output.stderr)
        return output or None


def _open_streams() -> tuple[io.TextIOWrapper, io.TextIOWrapper]:
    """Lines leave at once, so that what a task printed before a crash is known."""
    stdout = open(  # noqa: SIM115 - they live as long as the process
        1, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False
    )
    stderr = open(  # noqa: SIM115
        2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False
    )
    sys.stdout = sys.__stdout__ = stdout  # type: ignore[misc]  # the starter's must not be used
    sys.stderr = sys.__stderr__ = stderr  # type: ignore[misc]  # as above
    faulthandler.enable(stderr)
    return stdout, stderr
