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

from ...model import chunks, digests, items, values  # noqa: TID252 - see shared.py
from . import capture, frames, functions, large, pickling, stand_in
from .exchange import Exchange
from .modules import ModuleSets
from .report import Reporter
from .shared import Shared
from .variables import Variable

RECEIVE_BYTES: Final = 256 * 1024
MODULES_SUFFIX: Final = ".modules"  # of the folder beside the scratch folder


class _Job:
    """What a worker knows of a job: a JOB frame."""

    def __init__(self, body: bytes) -> None:
        header, data = frames.open_json(body)
        self.id = str(header["job"])
        self.path = str(header["path"])
        self.python = str(header["python"])
        size = frames.number(header["code"])
        self.code, self.modules = data[:size], data[size:]
        self.code_ref = frames.open_ref(header["code_blob"])
        self.modules_ref = frames.open_ref(header["modules_blob"])
        self.modules_digest: bytes | None = None
        if self.modules_ref is not None:
            self.modules_digest = self.modules_ref[0]
        elif self.modules:
            self.modules_digest = digests.digest_of(self.modules)
        self.function: functions.Function | None = None


class Worker:
    def __init__(
        self,
        *,
        peer: socket.socket,
        starter: socket.socket,
        shared: Shared,
        pipes: tuple[int, int],
        scratch: str,
        blobs: large.BlobFolder,
        spill: large.Spill | None,
    ) -> None:
        self._peer = peer
        self._starter = starter
        self._shared = shared
        self._pipes = pipes
        self._scratch = scratch
        self._report = Reporter(peer, shared)
        self._jobs: dict[str, _Job] = {}  # the peer bounds it: see DROP
        self._blobs = blobs
        self._exchange = Exchange(blobs=blobs, spill=spill, scratch=scratch)
        self._modules = ModuleSets(f"{scratch}{MODULES_SUFFIX}")
        self._poll = select.poll()
        for descriptor in pipes:
            self._poll.register(descriptor, select.POLLIN)
        self._streams = _open_streams()
        self._job_id, self._attempt = Variable("P2P_JOB_ID"), Variable("P2P_ATTEMPT")
        self._fence, self._index = Variable("P2P_FENCE"), Variable("P2P_INDEX")
        self._task_id = Variable("P2P_TASK_ID")

    def run(self) -> None:
        """Serve until the peer is gone."""
        stand_in.install()
        reader = frames.Reader()
        while data := self._peer.recv(RECEIVE_BYTES):
            for kind, body in reader.feed(data):
                if kind == frames.RUN:
                    try:
                        self._run_batch(body)
                    except large.Damaged:  # the peer brings what these tasks need once more
                        self._report.give_back()
                        return
                elif kind == frames.JOB:
                    job = _Job(body)
                    self._jobs[job.id] = job
                elif kind == frames.DROP:
                    self._drop(str(frames.open_json(body)[0]["job"]))

    def _drop(self, name: str) -> None:
        job = self._jobs.pop(name, None)
        digest = None if job is None else job.modules_digest
        if digest and all(other.modules_digest != digest for other in self._jobs.values()):
            self._modules.drop(digest)

    def _run_batch(self, body: bytes) -> None:
        header, data = frames.open_json(body)
        batch, job, runs = header["batch"], self._jobs[str(header["job"])], header["runs"]
        assert isinstance(batch, int)
        assert isinstance(runs, list)
        self._enter(job.id, header)
        self._report.open_batch(batch)
        # Loading runs the user's code: if it crashes, the first task is what crashed.
        self._report.begin(runs[0][0])
        refusal, cause = b"", frames.NOT_STARTABLE
        try:
            function = self._function(job)
        except functions.NotStartable as error:
            cause = error.cause
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
                self._refuse(start, stop, cause, refusal)
            else:
                assert len(arguments) == stop - start, "the peer has counted them"
                self._run_range(function, job, start, arguments)
        if header["last"]:
            self._report.close_batch()
        else:
            self._report.flush()
        self._leave()

    def _enter(self, job: str, header: dict[str, object]) -> None:
        os.chdir(self._scratch)
        self._job_id.set(job)
        self._attempt.set(str(header["attempt"]))
        self._fence.set(str(header["fence"]))

    def _leave(self) -> None:
        """Take away what the tasks left in the scratch folder."""
        with contextlib.suppress(OSError), os.scandir(self._scratch) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    os.unlink(entry.path)  # noqa: PTH108 - a path object each is slower

    def _function(self, job: _Job) -> functions.Function:
        """Its modules are those that imports see now. Raises NotStartable."""
        try:
            self._modules.use(job.modules_digest, lambda: self._data(job.modules, job.modules_ref))
            if job.function is None:
                if job.path:
                    job.function = functions.load_path(job.path)
                else:
                    code = self._data(job.code, job.code_ref)
                    job.function = functions.load_code(code, job.python)
        except large.Damaged:
            raise
        except (large.Missing, ValueError, OSError) as error:
            full = isinstance(error, OSError) and large.is_full(error)
            kind = functions.NoSpace if full else functions.NotStartable
            raise kind(f"the function's code can't be read: {error}") from error
        return job.function

    def _data(self, inline: bytes, ref: values.Ref | None) -> bytes:
        return inline if ref is None else self._blobs.read(ref)

    def _refuse(self, start: int, stop: int, cause: int, item: bytes) -> None:
        for index in range(start, stop):
            self._report.begin(index)
            self._report.finish(index, cause, item)

    def _run_range(
        self, function: functions.Function, job: _Job, start: int, arguments: list[bytes]
    ) -> None:
        report, call, exchange = self._report, functions.call, self._exchange
        set_index, set_task = self._index.set, self._task_id.set
        foreign = job.python != pickling.PYTHON
        for index, argument in enumerate(arguments, start):
            text = str(index)
            set_index(text)
            set_task(f"{job.id}/{text}")
            report.begin(index)
            cause, header, value = call(function, argument, exchange)
            if foreign:
                header = _foreign(job.python, cause, header, value)
            output = self._collect()
            if output is None:
                bare = cause == frames.OK and not header
                item = items.pack_value(value) if bare else items.pack(header, value)
            else:
                header = {**header, **output.header()}
                item = items.pack(header, value, output.stdout.body(), output.stderr.body())
            if cause == frames.OK and value[0] == values.MARK and values.names_blobs(value):
                cause = frames.OK_WITH_BLOBS
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


def _foreign(python: str, cause: int, header: items.Header, value: bytes) -> items.Header:
    """Callers of another minor version are told so where a pickle may not open."""
    if cause == frames.NOT_STARTABLE:
        text = (
            f"{header['message']}; the caller runs Python {python} and {sys.executable} is "
            f"{pickling.PYTHON}: use the same minor version on both, or pass plain data"
        )
        return {**header, "message": text}
    if value and (pickling.is_pickle(value) or cause == frames.EXCEPTION):
        return {**header, "python": pickling.PYTHON}
    return header


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
