"""The starter's loop: forks hosts, ends them, and tells the peer how they ended.

One thread, so that forking is safe. It runs no user's code and holds no result. When the peer is
gone (its socket ends, however that happened) every process group is killed and the starter exits;
when the starter dies the kernel ends the hosts (PR_SET_PDEATHSIG) and the peer does the rest.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import os
import selectors
import shutil
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Final, NoReturn

from ...model import items  # noqa: TID252 - see shared.py
from . import capture, frames, groups, large, tree
from .bounds import Bounds
from .forked import LOOK_S, Host
from .orders import Tickets
from .shared import Shared
from .spawner import Spawner
from .worker import MODULES_SUFFIX, Worker

THREADS_VARIABLES: Final = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
# What workers would import sooner or later, each for itself: that takes milliseconds, and copies
# one to two MiB of what they share with the starter, since it counts references all over them.
PRELOADED: Final = ("msgpack", "random", "subprocess")
# Likewise, once there is a worker whose function comes by value. It takes 1.5 MiB.
PRELOADED_BY_VALUE: Final = ("cloudpickle",)
PIPE_BYTES: Final = 256 * 1024
F_SETPIPE_SZ: Final = 1031
PR_SET_PDEATHSIG: Final = 1


class Starter:
    def __init__(self, control: socket.socket, folder: str) -> None:
        self._control = control
        self._folder = folder
        self._reader = frames.Reader()
        self._descriptors: deque[int] = deque()
        self._hosts: dict[int, Host] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ, self._on_control)
        self._quitting = False
        self._blobs = ""  # the folder of the peer's blobs; empty if it keeps none
        self._means: dict[str, object] = {}  # what the peer has to bound tasks with
        self._pid = os.getpid()
        self._set_death_signal = _death_signal()
        self._adopts = tree.adopt_orphans()

    def run(self) -> None:
        """Serve until the peer is gone or says QUIT."""
        hello = {"python": f"{sys.version_info.major}.{sys.version_info.minor}", "pid": os.getpid()}
        self._control.sendall(frames.frame_json(frames.HELLO, hello))
        while not self._quitting or self._hosts:
            for key, _ in self._selector.select(self._wait_s()):
                # An earlier handler of this round may have closed it.
                if self._selector.get_map().get(key.fd) is key:
                    handler: Callable[[], object] = key.data
                    handler()
            self._kill_due()
            self._look_due()

    def kill_all(self) -> None:
        """The end: nothing that was started here survives."""
        for host in self._hosts.values():
            host.signal(signal.SIGKILL)
        if self._adopts:  # daemons, whatever they call themselves
            tree.end_children(self._pid, spared=())

    def _wait_s(self) -> float | None:
        hosts = self._hosts.values()
        due = [at for host in hosts for at in (host.kill_at_s, host.look_at_s) if at is not None]
        wait_s = max(0.0, min(due) - time.monotonic()) if due else None
        if any(host.is_leased for host in hosts):  # a lease goes on while the machine sleeps
            return LOOK_S if wait_s is None else min(wait_s, LOOK_S)
        return wait_s

    def _look_due(self) -> None:
        """End workers whose task has too much of something, and what has no lease any more."""
        now_s = time.monotonic()
        for host in self._hosts.values():
            if host.is_leased:
                host.end_lapsed()
            if host.look_at_s is not None and host.look_at_s <= now_s and host.has_too_much(now_s):
                host.signal(signal.SIGKILL)

    def _kill_due(self) -> None:
        now_s = time.monotonic()
        for host in self._hosts.values():
            if host.kill_at_s is not None and host.kill_at_s <= now_s:
                host.signal(signal.SIGKILL)
                host.kill_at_s = None

    def _on_control(self) -> None:
        data, descriptors, _, _ = socket.recv_fds(self._control, 64 * 1024, 16)
        if not data:
            raise ConnectionError("the peer is gone")
        self._descriptors += descriptors
        for kind, body in self._reader.feed(data):
            if kind == frames.FORK:
                self._fork(frames.open_json(body)[0])
            elif kind == frames.WATCH:
                self._watch(body)
            elif kind == frames.KILL:
                self._kill(*frames.HOST_NUMBER.unpack(body))
            elif kind == frames.QUIT:
                self._quitting = True
                for number in self._hosts:
                    self._kill(number, *frames.NUMBER.unpack(body))

    def _kill(self, number: int, grace_s: float) -> None:
        host = self._hosts.get(number)
        if host is not None:
            host.signal(signal.SIGTERM)
            host.kill_at_s = time.monotonic() + grace_s

    # --- hosts

    def _fork(self, order: dict[str, object]) -> None:
        number, cpus, limits = order["host"], order["cpus"], order["isolation"]
        assert isinstance(number, int)
        peer_descriptor = self._descriptors.popleft()
        shared_descriptor = self._descriptors.popleft()
        tickets = self._descriptors.popleft()
        shared = Shared(shared_descriptor)
        os.close(shared_descriptor)
        scratch = f"{self._folder}/host-{number}"
        self._blobs = str(order["blobs"])
        means = order["means"]
        self._means = means if isinstance(means, dict) else {}
        if order.get("by_value"):
            _preload(PRELOADED_BY_VALUE)
        inputs = (peer_descriptor, tickets)
        if order["functions"]:
            bounds = Bounds(limits) if isinstance(limits, dict) else None
            host = self._fork_worker(number, inputs, shared, scratch, str(cpus), bounds=bounds)
        else:
            host = self._fork_spawner(number, inputs, shared, scratch, str(cpus))
        host.is_leased = bool(order["leased"])
        self._hosts[number] = host
        os.close(peer_descriptor)
        os.close(tickets)
        self._selector.register(
            host.pidfd, selectors.EVENT_READ, functools.partial(self._on_exit, host)
        )

    def _fork_worker(
        self,
        number: int,
        inputs: tuple[int, int],
        shared: Shared,
        scratch: str,
        cpus: str,
        *,
        bounds: Bounds | None,
    ) -> Host:
        os.makedirs(scratch, exist_ok=True)  # noqa: PTH103 - strings all along
        ours, theirs = socket.socketpair()
        out_read, out_write = _pipe()
        err_read, err_write = _pipe()
        name = f"worker-{number}"
        group = None if bounds is None else groups.of(self._means, name, bounds)
        pid = os.fork()
        if pid == 0:
            kept = (*inputs, theirs.fileno(), out_read, err_read)
            self._become_host(cpus, kept, out_write, err_write)
            tree.adopt_orphans()
            os.environ["TMPDIR"] = scratch
            if bounds is not None:
                bounds.bind_worker(scratch)
            if group is not None:
                group.join()
            peer, tickets = inputs
            worker = Worker(
                peer=socket.socket(fileno=peer),
                tickets=Tickets(tickets),
                starter=theirs,
                shared=shared,
                pipes=(out_read, err_read),
                scratch=scratch,
                blobs=large.BlobFolder(self._blobs),
                spill=self._spill(number),
                bounds=bounds,
            )
            _run_and_exit(worker.run)
        theirs.close()
        os.close(out_write)
        os.close(err_write)
        host = Host(number=number, pid=pid, shared=shared, scratch=scratch, folder=self._folder)
        host.pipes = (out_read, err_read)
        host.socket = ours
        host.bind(bounds, group)
        collect = functools.partial(self._on_collect, host)
        self._selector.register(ours, selectors.EVENT_READ, collect)
        return host

    def _fork_spawner(
        self, number: int, inputs: tuple[int, int], shared: Shared, scratch: str, cpus: str
    ) -> Host:
        pid = os.fork()
        if pid == 0:
            self._become_host(cpus, inputs, 2, 2)
            peer, tickets = inputs
            spawner = Spawner(
                peer=socket.socket(fileno=peer),
                tickets=Tickets(tickets),
                shared=shared,
                folder=self._folder,
                blobs=large.BlobFolder(self._blobs),
                spill=self._spill(number),
                means=self._means,
            )
            _run_and_exit(spawner.run)
        return Host(number=number, pid=pid, shared=shared, scratch=scratch, folder=self._folder)

    def _spill(self, number: int) -> large.Spill | None:
        return large.Spill(self._folder, f"host-{number}") if self._blobs else None

    def _become_host(self, cpus: str, kept: tuple[int, ...], stdout: int, stderr: int) -> None:
        """In the child: leave the starter's group, and hold nothing of it but `kept`."""
        os.setsid()
        if self._set_death_signal is not None:
            self._set_death_signal()
            if os.getppid() != self._pid:
                os._exit(1)  # it died before the kernel knew
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        low = 3
        for descriptor in sorted(kept):
            os.closerange(low, descriptor)
            low = descriptor + 1
        os.closerange(low, os.sysconf("SC_OPEN_MAX"))
        for name in THREADS_VARIABLES:
            os.environ[name] = cpus  # before anybody can have imported numpy

    # --- output of workers

    def _watch(self, body: bytes) -> None:
        """From now on, and until the worker asks, empty its pipes for it."""
        host = self._hosts.get(frames.WATCHED.unpack_from(body)[0])
        if host is None or not host.pipes or host.shared.is_watched():
            return
        host.shared.set_watched(1)
        host.watched.begin(body)
        for stream, descriptor in enumerate(host.pipes):
            handler = functools.partial(host.watched.read, stream, descriptor)
            self._selector.register(descriptor, selectors.EVENT_READ, handler)

    def _unwatch(self, host: Host) -> None:
        if host.pipes and host.shared.is_watched():
            for descriptor in host.pipes:
                self._selector.unregister(descriptor)
            host.shared.set_watched(0)

    def _on_collect(self, host: Host) -> None:
        """The worker's task is over and it asks for what was drained."""
        assert host.socket is not None
        try:
            asked = host.socket.recv(1)
        except OSError:
            asked = b""
        if not asked:
            self._selector.unregister(host.socket)
            return
        output = host.watched.take(host.pipes, is_told=True, is_whole=asked == b"?")
        self._unwatch(host)
        with contextlib.suppress(OSError):  # it died meanwhile: `_on_exit` follows
            capture.send_output(host.socket, output)

    # --- ends

    def _on_exit(self, host: Host) -> None:
        """A host is dead: end what it left, and report how it ended."""
        # Not reaped yet, so its number still names its own group.
        host.signal(signal.SIGKILL)
        _, status = os.waitpid(host.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        output = host.watched.take(host.pipes, is_told=False, is_whole=True)
        self._forget(host)
        if self._adopts:  # daemons of its task, which are ours now
            self._end_orphans()
        header: items.Header = {"exit": code} if code >= 0 else {"signal": -code}
        header.update(host.verdict(code))
        header.update(output.header())
        item = items.pack(header, b"", output.stdout.body(), output.stderr.body())
        self._control.sendall(
            frames.frame(frames.EXITED, frames.HOST_STATUS.pack(host.number, code), item)
        )

    def _end_orphans(self) -> None:
        """Whatever a host that lives has started descends from it, so that nobody else's child is
        hit, however new it is."""
        tree.end_children(self._pid, spared={host.pid for host in self._hosts.values()})

    def _forget(self, host: Host) -> None:
        self._unwatch(host)
        self._selector.unregister(host.pidfd)
        if host.socket is not None and host.socket.fileno() in self._selector.get_map():
            self._selector.unregister(host.socket)
        host.close()
        del self._hosts[host.number]
        for folder in (host.scratch, f"{host.scratch}{MODULES_SUFFIX}"):
            shutil.rmtree(folder, ignore_errors=True)
        if self._blobs:
            large.forget(self._folder, f"host-{host.number}")


def _pipe() -> tuple[int, int]:
    """A pipe with room for what quick tasks print; reading never blocks."""
    read, write = os.pipe()
    os.set_blocking(read, False)
    with contextlib.suppress(ImportError, OSError):  # a limit of the user: then it stays small
        importlib.import_module("fcntl").fcntl(write, F_SETPIPE_SZ, PIPE_BYTES)
    return read, write


def _death_signal() -> Callable[[], None] | None:
    """A call that ties this process's life to its parent's, where the system has one."""
    try:
        library = importlib.import_module("ctypes").CDLL(None)
        return functools.partial(library.prctl, PR_SET_PDEATHSIG, int(signal.SIGKILL))
    except (ImportError, OSError, AttributeError):
        return None


def _run_and_exit(run: Callable[[], None]) -> NoReturn:
    """A host ends here and never returns into the starter's frames."""
    try:
        run()
    except BaseException:  # noqa: BLE001 - reported below, and as this host's end
        with contextlib.suppress(BaseException):
            importlib.import_module("traceback").print_exc()
        os._exit(70)
    os._exit(0)


def _preload(names: tuple[str, ...]) -> None:
    """Costs next to nothing the second time. A broken one is found, and told, when it is needed."""
    if all(name in sys.modules for name in names):
        return
    for name in names:
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    # What is there now is shared by all hosts for ever: keep the collector from touching it.
    gc.collect()
    gc.freeze()


def main(descriptor: int, folder: str) -> None:
    """Runs in the starter's process until its peer is gone."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.makedirs(folder, exist_ok=True)  # noqa: PTH103 - pathlib would be a MiB in each host
    _preload(PRELOADED)
    os.set_inheritable(descriptor, False)
    starter = Starter(socket.socket(fileno=descriptor), folder)
    try:
        starter.run()
    except OSError:
        pass  # the peer is gone
    finally:
        starter.kill_all()
