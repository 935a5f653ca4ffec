"""A spawner: runs programs, one after another, each in a process group and folder of its own.

One thread and `posix_spawn`; never a shell. A program is over when its process is: what it left in
its group is killed, what its pipes hold is read, and nothing waits for a stranger that still holds
them. Of one that is ended by us nothing is left, daemons included. Output on disk and in memory is
bounded, and a noisy program is never held up. The task's folder is gone, or empty, before its
result is reported. The next program of a batch gets the pipes and the empty folder of the one
before, but only if no process of that one is left (ADR 0014).
"""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import socket
import time
from typing import Final

from ...model import items  # noqa: TID252 - see shared.py
from . import checkpoint, folders, frames, large, outputs, tree, words
from .bounds import Bounds
from .child import Child
from .orders import Tickets, Walk
from .report import PROGRAMS_FLUSH_NS, Reporter
from .shared import Shared
from .streams import Streams

RECEIVE_BYTES: Final = 64 * 1024
NS_PER_MS: Final = 1_000_000
REAP_MS: Final = 1000  # how often an idle spawner looks whether a daemon of a program has ended
REAPS_MAX: Final = 64  # in one go
_EXIT_0: Final[items.Header] = {"exit": 0}
_ITEM_EXIT_0: Final = items.pack(_EXIT_0)


class NotStartable(Exception):
    """The program can't be started here; the text says why and what to do."""


class Order:
    """A batch as it came from the peer."""

    def __init__(self, body: bytes, means: dict[str, object]) -> None:
        """`means`: what this peer has to bound tasks with."""
        self.means = means
        self.folder = ""
        header, data = frames.open_json(body)
        self.batch = frames.number(header["batch"])
        self.leg = frames.number(header["leg"])
        self.job = str(header["job"])
        self.grant = frames.number(header["grant"])
        self.grace_ns = frames.number(header["grace_ms"]) * NS_PER_MS
        timeout_ms = header["timeout_ms"]
        self.timeout_ms = None if timeout_ms is None else frames.number(timeout_ms)
        self.cwd = None if header["cwd"] is None else str(header["cwd"])
        self.argv = [str(word) for word in _list(header["argv"])]
        self.ranges = [(frames.number(a), frames.number(b)) for a, b in _list(header["ranges"])]
        self.environment = {
            **os.environb,  # bytes: they are turned into an environment for each program
            **{os.fsencode(str(k)): os.fsencode(str(v)) for k, v in _list(header["env"])},
            b"P2P_JOB_ID": self.job.encode(),
            b"P2P_ATTEMPT": str(header["attempt"]).encode(),
            b"P2P_FENCE": str(header["fence"]).encode(),
        }
        self._files: list[tuple[str, int, bytes | large.Ref]] = []
        position = 0
        for name, mode, size, ref in _list(header["files"]):
            end = position + frames.number(size)
            content = frames.open_ref(ref) or data[position:end]
            self._files.append((str(name), frames.number(mode), content))
            position = end
        limits = header["isolation"]
        self.bounds = Bounds(limits) if isinstance(limits, dict) else None
        self.at_home = self._variables_at_home(_list(header["env"]))
        self.is_leased = bool(header["leased"])
        self.checkpoint = str(header["checkpoint"])
        self.outputs = [str(name) for (name,) in _list(header["outputs"])]
        pattern = str(header["progress"])
        self.progress = re.compile(pattern) if pattern else None
        self._found: str | None = None

    def be_for(self, index: int, folder: str) -> None:
        """Of this task, which has this folder."""
        self.environment[b"P2P_INDEX"] = b"%d" % index
        self.environment[b"P2P_TASK_ID"] = f"{self.job}/{index}".encode()
        self.environment[b"P2P_PROGRESS"] = os.fsencode(f"{folder}/{words.FILE}")
        self.folder, name = folder, folder.encode()
        for variable in self.at_home:
            self.environment[variable] = name

    def _variables_at_home(self, given: list[list[object]]) -> list[bytes]:
        """That name the task's folder, unless the job says otherwise."""
        names = ["TMPDIR"]
        if self.bounds is not None and (self.bounds.own_home or self.bounds.sandbox):
            names.append("HOME")
        said = {str(name) for name, _ in given}
        return [name.encode() for name in names if name not in said]

    def files(self, blobs: large.BlobFolder) -> list[folders.File]:
        """What is put into each task's folder. Raises Missing."""
        return [
            (name, mode, data if isinstance(data, bytes) else blobs.path(data))
            for name, mode, data in self._files
        ]

    def program(self) -> str:
        """The file to execute, seen from the working directory. Raises NotStartable."""
        if self._found is not None:
            return self._found
        name = self.argv[0]
        path = os.fsdecode(self.environment.get(b"PATH", os.defpath.encode()))
        found = shutil.which(name, path=path)
        if found is None:
            exists = "/" in name and os.path.exists(name)  # noqa: PTH110
            if exists:
                raise NotStartable(f"program {name!r} can't be executed: set its x permission")
            where = "" if "/" in name else f" in {path}"
            raise NotStartable(f"no program {name!r}{where}: install it on this peer")
        # A relative name depends on the folder, which is another one for each task.
        if found.startswith("/"):
            self._found = found
        return found


class Spawner:
    def __init__(
        self,
        *,
        peer: socket.socket,
        tickets: Tickets,
        shared: Shared,
        folder: str,
        blobs: large.BlobFolder,
        spill: large.Spill | None,
        means: dict[str, object],
    ) -> None:
        self._peer = peer
        self._means = means
        self._tickets = tickets
        self._blobs = blobs
        self._spill = spill
        self._shared = shared
        self._folder = folder
        self._report = Reporter(peer, shared, flush_ns=PROGRAMS_FLUSH_NS, hold_ns=PROGRAMS_FLUSH_NS)
        self._reader = frames.Reader()
        self._orders: list[bytes] = []
        self._batch = -1
        self._stopped_batch = -2  # the last one that the peer wanted to end
        self._ending: tuple[int, int, int, str] | None = None  # batch, task, cause, why
        self._poll = select.poll()
        self._poll.register(peer, select.POLLIN)
        self._output = Streams(self._poll)
        self._place = folders.Place()
        self._was_alone = True
        self._adopts = tree.adopt_orphans()

    def run(self) -> None:
        """Serve until the peer is gone."""
        while True:
            while not self._orders:
                if self._report.holds_batches:
                    self._report.send()
                if self._is_alone() or not self._adopts or self._poll.poll(REAP_MS):
                    self._receive()
            order = Order(self._orders.pop(0), self._means)
            if self._tickets.take(order.batch):
                self._run_batch(order)

    def _receive(self) -> None:
        data = self._peer.recv(RECEIVE_BYTES)
        if not data:
            raise ConnectionError("the peer is gone")
        for kind, body in self._reader.feed(data):
            if kind == frames.RUN:
                self._orders.append(body)
            elif kind == frames.STOP:
                (self._stopped_batch,) = frames.BATCH.unpack(body)
            elif kind == frames.END:
                why = body[frames.END_TASK.size :].decode()
                self._ending = (*frames.END_TASK.unpack_from(body), why)

    @property
    def _stop(self) -> bool:
        return self._stopped_batch == self._batch

    def _run_batch(self, order: Order) -> None:
        self._batch = order.batch
        self._report.open_batch(order.batch)
        ended = -1
        walk = Walk(self._tickets, order.batch, order.leg)
        for index in (index for start, stop in order.ranges for index in range(start, stop)):
            if self._stop or self._shared.is_lapsed() or not walk.may_begin():
                break
            name = folders.name_of(order.job, index, order.grant)
            if not self._run_task(order, index, f"{self._folder}/{name}"):
                ended = index
        os.chdir(self._folder)
        self._place.close()
        self._batch = -1
        self._report.close_batch(ended=ended, hold=bool(self._orders))

    def _run_task(self, order: Order, index: int, folder: str) -> bool:
        """One program from its folder to its result. False if it was stopped with its batch."""
        order.be_for(index, folder)
        self._report.begin(index)
        child = Child()
        child.leaves_nothing = order.is_leased
        if not self._was_alone:
            child.strangers = tree.descendants(os.getpid())
        is_alone = is_told = False
        try:
            cause, refusal = self._spawn(child, order, folder)
            if refusal:
                header: items.Header = {"message": refusal}
            else:
                self._follow(child, order, index, folder)
                code = child.reap()
                self._shared.note_group(0)
                is_alone = self._is_alone()
                cause, header = _outcome(code, child, order.timeout_ms)
                if cause == frames.OK and order.outputs:
                    cause, header = outputs.take(folder, order.outputs, self._spill, header)
            self._output.drain()
            is_told = not child.stopped
        finally:
            child.close()
            self._was_alone = is_alone
            self._output.leave(is_alone=is_alone, is_told=is_told)
            self._place.leave(is_alone=is_alone)
        if not child.stopped:
            self._report.finish(index, cause, self._item(header))
        return not child.stopped

    def _item(self, header: items.Header) -> bytes:
        if self._output.is_empty and header == _EXIT_0:
            return _ITEM_EXIT_0
        stdout, stderr = self._output.stdout.capture, self._output.stderr.capture
        header.update(stdout.header("stdout"))
        header.update(stderr.header("stderr"))
        return items.pack(header, b"", stdout.body(), stderr.body())

    def _spawn(self, child: Child, order: Order, folder: str) -> tuple[int, str]:
        """Start the program in its folder. Returns why not: a cause and a text, or no text."""
        try:
            is_new = self._place.enter(folder, order.files(self._blobs))
            if order.cwd is not None:
                os.chdir(order.cwd)
            elif is_new:
                os.chdir(folder)
            if order.checkpoint:
                checkpoint.offer(order.environment, order.checkpoint, folder)
            self._output.open(folder)
            child.spawn(order, self._shared, self._output)
        except (NotStartable, large.Missing, ValueError) as error:
            return frames.NOT_STARTABLE, str(error)
        except OSError as error:
            what = error.filename or order.argv[0]
            cause = frames.NO_SPACE if large.is_full(error) else frames.NOT_STARTABLE
            text = f"program {order.argv[0]!r} could not be started: {what}: {error.strerror}"
            return cause, text
        return frames.OK, ""

    def _is_alone(self) -> bool:
        """True if nothing lives that a program started here. Call it when none runs."""
        if not self._adopts:
            return False
        try:
            for _ in range(REAPS_MAX):
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    return False
        except ChildProcessError:
            return True
        return False

    def _follow(self, child: Child, order: Order, index: int, folder: str) -> None:
        """Serve the program's output, its time and the peer's orders until it has ended."""
        self._poll.register(child.pidfd, select.POLLIN)
        path = f"{folder}/{words.FILE}"
        listener = words.Listener(self._shared, self._output, path, order.progress)
        limit_ns = None
        if order.timeout_ms is not None:
            limit_ns = time.monotonic_ns() + order.timeout_ms * NS_PER_MS
        over = False
        while not over:
            wait_ms = self._wait_ms(child, limit_ns, listener.due_ns)
            for descriptor, _ in self._poll.poll(wait_ms):
                if descriptor == child.pidfd:
                    over = True
                elif not self._output.read(descriptor):
                    self._receive()
            now_ns = time.monotonic_ns()
            if now_ns >= listener.due_ns:
                listener.look(now_ns)
            if self._ending is not None:
                limit_ns = self._end_task(child, order, index, limit_ns)
            limit_ns = self._keep_time(child, order, limit_ns)
        self._poll.unregister(child.pidfd)

    def _end_task(self, child: Child, order: Order, index: int, limit_ns: int | None) -> int | None:
        """The peer wants one program to end: this one, unless it has come too late. Returns the
        timeout that still lies ahead."""
        assert self._ending is not None
        batch, wanted, cause, why = self._ending
        self._ending = None
        if (batch, wanted) != (self._batch, index) or child.ended_as >= 0 or child.stopped:
            return limit_ns
        child.end(cause, why, time.monotonic_ns(), order.grace_ns)
        return None

    def _wait_ms(self, child: Child, limit_ns: int | None, look_ns: int) -> float:
        """Until the next thing that time brings: a timeout, a kill, results that should leave, a
        look at how far it is."""
        times = [limit_ns, child.kill_ns, self._output.due_ns, self._report.flush_at_ns]
        times.append(None if child.guard is None else child.guard.due_ns)
        due = [at for at in times if at is not None]
        return max(0.0, (min((look_ns, *due)) - time.monotonic_ns()) / NS_PER_MS)

    def _keep_time(self, child: Child, order: Order, limit_ns: int | None) -> int | None:
        """Do what is due. Returns the timeout that still lies ahead."""
        now_ns = time.monotonic_ns()
        flush_ns = self._report.flush_at_ns
        if flush_ns is not None and now_ns >= flush_ns:
            self._report.flush()
        show_ns = self._output.due_ns
        if show_ns is not None and now_ns >= show_ns:
            self._output.show()
        if self._stop and not child.stopped:
            child.stopped = True
            limit_ns = None
            child.terminate(now_ns, order.grace_ns)
        if limit_ns is not None and now_ns >= limit_ns:
            limit_ns = None
            child.end(frames.TIMEOUT, "", now_ns, order.grace_ns)
        is_due = child.kill_ns is not None and now_ns >= child.kill_ns
        if is_due or (child.guard is not None and child.guard.look(now_ns)):
            child.kill_ns = None
            child.signal(signal.SIGKILL, whole=True)
        return limit_ns


def _outcome(code: int, child: Child, timeout_ms: int | None) -> tuple[int, items.Header]:
    header: items.Header = {"exit": code} if code >= 0 else {"signal": -code}
    if child.ended_as >= 0:
        header["message"] = child.why or f"ended after its limit of {timeout_ms} ms"
        return child.ended_as, header
    if child.guard is not None:
        cause, text = child.guard.verdict(code)
        if text:
            header["message"] = text
            return cause, header
    if code == 0:
        return frames.OK, header
    return (frames.EXIT if code > 0 else frames.SIGNAL), header


def _list(value: object) -> list[list[object]]:
    if not isinstance(value, list):
        raise ValueError(f"not a list: {value!r}")
    return value
