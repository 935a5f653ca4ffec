"""Command lines in processes of their own that need not import everything first.

Half of what a test with real peers costs is Python, importing the same modules for each command
line. So one process has them, and forks for each: the command has its own arguments, environment
and files, and ends by itself. A peer is `start`, which executes a new interpreter all the same.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import json
import os
import pkgutil
import select
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Final

HEAD_BYTES: Final = 8
STATUS_BYTES: Final = 8
BACKLOG: Final = 64
START_S: Final = 60.0


# --- the side of the test -------------------------------------------------------------------------


class WarmProcess:
    """What tests need of `subprocess.Popen`. From one thread at a time."""

    def __init__(self, words: Sequence[str], link: socket.socket, pid: int) -> None:
        self.args = tuple(words)
        self.pid = pid
        self.returncode: int | None = None
        self.stdout: IO[str] | None = None
        self._link = link

    def poll(self) -> int | None:
        return self._look(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """The exit code. Raises subprocess.TimeoutExpired."""
        code = self._look(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it ends just now
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def _look(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._link], [], [], timeout)[0]:
            said = _exactly(self._link, STATUS_BYTES)
            self.returncode = int.from_bytes(said, "big", signed=True)
            self._link.close()
        return self.returncode


class Warm:
    """The process that forks. It ends with the one that made it."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="p2psched-warm-")) / "socket"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(self.path))
            listener.listen(BACKLOG)
            # Its stdin ends when this process does.
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(listener.fileno())],
                stdin=subprocess.PIPE,
                pass_fds=[listener.fileno()],
                cwd=Path(__file__).parent.parent,
            )

    def pin(self, processors: set[int]) -> None:
        """What is started from now on runs there."""
        os.sched_setaffinity(self._process.pid, processors)

    def start(
        self, words: Sequence[str], *, env: Mapping[str, str], stdout: int, stderr: int
    ) -> WarmProcess:
        """`p2psched WORDS` in a session of its own, with nothing on stdin."""
        link = socket.socket(socket.AF_UNIX)
        link.settimeout(START_S)
        link.connect(str(self.path))
        order = json.dumps([list(words), dict(env), str(Path.cwd())]).encode()
        socket.send_fds(link, [len(order).to_bytes(HEAD_BYTES, "big")], [stdout, stderr])
        link.sendall(order)
        pid = int.from_bytes(_exactly(link, HEAD_BYTES), "big")
        return WarmProcess(words, link, pid)

    def run(
        self,
        words: Sequence[str],
        *,
        env: Mapping[str, str],
        timeout_s: float,
        stdout: IO[str] | int = subprocess.PIPE,
    ) -> subprocess.CompletedProcess[str]:
        """As `subprocess.run` has it. Raises TimeoutExpired."""
        deadline = time.monotonic() + timeout_s
        with contextlib.ExitStack() as stack:
            pipes: dict[int, bytearray] = {}
            ends = [_pipe(stack, pipes)]
            if stdout == subprocess.PIPE:
                ends.append(_pipe(stack, pipes))
            else:
                ends.append(os.dup(stdout if isinstance(stdout, int) else stdout.fileno()))
            process = self.start(words, env=env, stdout=ends[1], stderr=ends[0])
            for end in ends:
                os.close(end)
            said = _read_all(pipes, deadline)
            try:
                if said is None:
                    raise subprocess.TimeoutExpired(process.args, timeout_s)
                code = process.wait(max(0.01, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        err, *rest = (text.decode() for text in said)
        return subprocess.CompletedProcess(list(words), code, rest[0] if rest else None, err)


@functools.cache
def warm() -> Warm:
    return Warm()


def _pipe(stack: contextlib.ExitStack, pipes: dict[int, bytearray]) -> int:
    """The end to write to; the other is in `pipes` from now on."""
    read_end, write_end = os.pipe()
    stack.callback(os.close, read_end)
    pipes[read_end] = bytearray()
    return write_end


def _read_all(pipes: dict[int, bytearray], deadline: float) -> list[bytes] | None:
    """What came out of each, until nobody can write any more; None: it takes too long."""
    with selectors.DefaultSelector() as selector:
        for read_end in pipes:
            selector.register(read_end, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(max(0.0, deadline - time.monotonic()))
            if not ready:
                return None
            for key, _ in ready:
                data = os.read(key.fd, 1 << 16)
                pipes[key.fd] += data
                if not data:
                    selector.unregister(key.fd)
    return [bytes(data) for data in pipes.values()]


def _exactly(link: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = link.recv(size - len(data))
        if not more:
            raise EOFError("the process that forks commands has ended")
        data += more
    return data


# --- the other side -------------------------------------------------------------------------------


def serve(listener: socket.socket) -> None:
    """Fork for each connection, until stdin ends."""
    _load()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who wait
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            return
        link, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            _look_after(link)
        link.close()


def _load() -> None:
    from p2psched import cli, client, store  # noqa: PLC0415

    for package in (cli, client, store):
        for found in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
            if found.name != "p2psched.cli.demo":
                __import__(found.name)
    gc.collect()
    gc.freeze()


def _look_after(link: socket.socket) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    head, ends, _, _ = socket.recv_fds(link, HEAD_BYTES, 2)
    words, env, folder = json.loads(_exactly(link, int.from_bytes(head, "big")))
    pid = os.fork()
    if pid == 0:
        link.close()
        os.setsid()
        _become(words, env, folder, ends)
    for end in ends:
        os.close(end)
    link.sendall(pid.to_bytes(HEAD_BYTES, "big"))
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(BrokenPipeError):  # nobody waits for it any more
        code = os.waitstatus_to_exitcode(status)
        link.sendall(code.to_bytes(STATUS_BYTES, "big", signed=True))
    os._exit(0)


def _become(words: list[str], env: dict[str, str], folder: str, ends: list[int]) -> None:
    """The command, as `python -m p2psched` has it: never returns."""
    from p2psched.cli import app  # noqa: PLC0415

    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, fd in enumerate((nothing, *ends)):
        os.dup2(fd, number)
        os.close(fd)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    # What the inherited ones know of their files is true no more.
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.argv = ["p2psched", *words]
    sys.orig_argv = [sys.executable, "-m", "p2psched", *words]  # `start` executes it again
    code = 70
    try:
        code = app.run(words)
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
