"""A warm worker: calls users' functions, one task at a time, in a process of its own.

It is ended with its whole process group when a task must stop, and a crash of it is the cause of
the task that ran, nothing more. Output of tasks: descriptors 1 and 2 are pipes that the worker
empties after each task; when a task goes on for long the starter empties them for it, so that a
noisy task never waits for itself. A task that prints nothing costs one `poll` of the two.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import io
import os
import select
import shutil
import socket
import sys
from collections import deque
from typing import Final

from ...model import chunks, digests, items, values  # noqa: TID252 - see shared.py
from . import capture, frames, functions, large, orders, pickling, stand_in, words
from .bounds import Bounds
from .exchange import Exchange
from .modules import ModuleSets
from .report import Reporter
from .shared import Shared
from .variables import Variable

RECEIVE_BYTES: Final = 64 * 1024  # a buffer of 128 KiB or more is mapped anew each time: 18 us
MODULES_SUFFIX: Final = ".modules"  # of the folder beside the scratch folder


class _Known:
    """A function as a FUNCTION frame has it; jobs of the same function share it."""

    def __init__(self, body: bytes) -> None:
        header, data = frames.open_json(body)
        self.number = frames.number(header["function"])
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
        tickets: orders.Tickets,
        starter: socket.socket,
        shared: Shared,
        pipes: tuple[int, int],
        scratch: str,
        blobs: large.BlobFolder,
        spill: large.Spill | None,
        bounds: Bounds | None,
    ) -> None:
        self._peer = peer
        self._tickets = tickets
        self._reader = frames.Reader()
        self._frames: deque[tuple[int, bytes]] = deque()  # that have come and are not served yet
        self._starter = starter
        self._shared = shared
        self._pipes = pipes
        self._scratch = scratch
        self._report = Reporter(peer, shared)
        self._begin = self._report.begin
        if bounds is not None and bounds.cpu_s is not None:
            self._begin = functools.partial(self._begin_bound, bounds)
        self._known: dict[int, _Known] = {}  # the peer bounds it: see DROP
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
        words.teller.sink = self._shared.tell
        while self._receive():
            while self._frames:
                kind, body = self._frames.popleft()
                if kind == frames.RUN:
                    order = orders.unpack(body)
                    if order.first and not self._tickets.take(order.batch):
                        continue
                    if self._shared.is_lapsed():
                        return  # nothing of it has begun
                    try:
                        self._run_batch(order)
                    except large.Damaged:  # the peer brings what these tasks need once more
                        self._report.give_back()
                        return
                elif kind == frames.FUNCTION:
                    known = _Known(body)
                    self._known[known.number] = known
                elif kind == frames.DROP:
                    self._drop(*frames.FUNCTION_NUMBER.unpack(body))

    def _receive(self) -> bool:
        """Wait for frames, but not with results that could leave. False if the peer is gone."""
        data = b""
        if self._report.holds_batches:
            try:
                data = self._peer.recv(RECEIVE_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                self._report.send()
        data = data or self._peer.recv(RECEIVE_BYTES)
        self._frames.extend(self._reader.feed(data))
        return bool(data)

    def _drop(self, number: int) -> None:
        known = self._known.pop(number, None)
        digest = None if known is None else known.modules_digest
        if digest and all(other.modules_digest != digest for other in self._known.values()):
            self._modules.drop(digest)

    def _run_batch(self, order: orders.Order) -> None:
        known = self._known[order.function]
        self._enter(order)
        self._report.open_batch(order.batch)
        # Loading runs the user's code: if it crashes, the first task is what crashed.
        self._report.begin(order.pieces[0][0])
        refusal, cause = b"", frames.NOT_STARTABLE
        walk = orders.Walk(self._tickets, order.batch, order.leg)
        try:
            function = self._function(known)
        except functions.NotStartable as error:
            cause = error.cause
            refusal = items.pack({"message": str(error)[: functions.MESSAGE_LEN_MAX]})
        for start, stop, piece in order.pieces:
            arguments: list[bytes] = []
            try:
                arguments = chunks.unpack(piece)
            except ValueError as error:
                refusal = refusal or items.pack({"message": f"damaged arguments: {error}"})
            if refusal:
                self._refuse(walk, (start, stop), cause, refusal)
            else:
                assert len(arguments) == stop - start, "the peer has counted them"
                self._run_range(walk, function, (known.python, order.job), start, arguments)
        if order.last:
            self._report.close_batch(hold=True)
        else:
            self._report.flush()
        self._leave()

    def _enter(self, order: orders.Order) -> None:
        os.chdir(self._scratch)
        self._job_id.set(order.job)
        self._attempt.set(str(order.attempt))
        self._fence.set(order.fence)

    def _leave(self) -> None:
        """Take away what the tasks left in the scratch folder."""
        with contextlib.suppress(OSError), os.scandir(self._scratch) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    os.unlink(entry.path)  # noqa: PTH108 - a path object each is slower

    def _function(self, known: _Known) -> functions.Function:
        """Its modules are those that imports see now. Raises NotStartable."""
        try:
            self._modules.use(
                known.modules_digest, lambda: self._data(known.modules, known.modules_ref)
            )
            if known.function is None:
                if known.path:
                    known.function = functions.load_path(known.path)
                else:
                    code = self._data(known.code, known.code_ref)
                    known.function = functions.load_code(code, known.python)
        except large.Damaged:
            raise
        except (large.Missing, ValueError, OSError) as error:
            full = isinstance(error, OSError) and large.is_full(error)
            kind = functions.NoSpace if full else functions.NotStartable
            raise kind(f"the function's code can't be read: {error}") from error
        return known.function

    def _data(self, inline: bytes, ref: values.Ref | None) -> bytes:
        return inline if ref is None else self._blobs.read(ref)

    def _refuse(self, walk: orders.Walk, tasks: tuple[int, int], cause: int, item: bytes) -> None:
        for index in range(*tasks):
            if not walk.may_begin():
                return
            self._report.begin(index)
            self._report.finish(index, cause, item)

    def _run_range(
        self,
        walk: orders.Walk,
        function: functions.Function,
        names: tuple[str, str],
        start: int,
        arguments: list[bytes],
    ) -> None:
        report, call, exchange = self._report, functions.call, self._exchange
        set_index, set_task, begin = self._index.set, self._task_id.set, self._begin
        python, job = names
        foreign, may_begin = python != pickling.PYTHON, walk.may_begin
        for index, argument in enumerate(arguments, start):
            if not may_begin():
                return
            text = str(index)
            set_index(text)
            set_task(f"{job}/{text}")
            begin(index)
            cause, header, value = call(function, argument, exchange)
            if foreign:
                header = _foreign(python, cause, header, value)
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

    def _begin_bound(self, bounds: Bounds, index: int) -> None:
        bounds.renew_cpu()
        self._report.begin(index)

    def _collect(self) -> capture.Output | None:
        """What the task wrote, or None if it wrote nothing."""
        stdout, stderr = self._streams
        try:  # no `suppress`: it takes longer than all the rest here
            stdout.flush()
            stderr.flush()
        except (ValueError, OSError):
            pass  # the task has closed one, so it is flushed
        # The starter sets its flag before it reads, and may begin at any moment. So the flag is
        # looked at behind each look into the pipes: what is not in them is with the starter.
        written = self._poll.poll(0)
        if self._shared.is_watched():
            return self._ask(b"?") or None
        if not written:
            return None
        output = capture.Output()
        capture.drain(self._pipes[0], output.stdout)
        capture.drain(self._pipes[1], output.stderr)
        if self._shared.is_watched():
            rest, output = output, self._ask(b"+" if output else b"?")
            output.append(rest)
        return output or None

    def _ask(self, how: bytes) -> capture.Output:
        """What the starter has taken of this task; it takes no more. `how`: `+` if we have taken
        something, too, so that it has not seen all."""
        self._starter.sendall(how)
        return capture.receive_output(self._starter)


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
