"""A few real peers on loopback for tests, driven by the commands that people type.

Every cluster has a runtime folder of its own, so tests neither see nor touch each other's peers, or
the user's. `close` leaves no process behind, whatever happened.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, TypeVar

from p2psched.client.client import Client
from p2psched.store.records import list_records
from tests.warm import WarmProcess, warm

T = TypeVar("T")

COMMAND: Final = (sys.executable, "-m", "p2psched")
START_S: Final = 20.0
COMMAND_S: Final = 30.0
STOP_S: Final = 10.0
POLL_S: Final = 0.02


@dataclass(slots=True)
class LivePeer:
    """One peer over all of its processes. `address` is kept over restarts."""

    name: str
    data: Path
    options: tuple[str, ...]
    process: subprocess.Popen[str] | WarmProcess
    id: str = ""
    address: str = ""

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> str:
        """All that it wrote to stderr."""
        return self.data.with_suffix(".err").read_text()


class LiveCluster:
    """Peers in `folder`, which exists. Use as a context manager."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runtime_dir = folder / "runtime"
        self.peers: dict[str, LivePeer] = {}
        self.before: dict[str, tuple[str, ...]] = {}  # words before the command of a peer
        self.env = {
            **{key: value for key, value in os.environ.items() if not key.startswith("P2PSCHED_")},
            "P2PSCHED_RUNTIME_DIR": str(self.runtime_dir),
            "COLUMNS": "80",
        }

    def __enter__(self) -> LiveCluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- peers ------------------------------------------------------------------------------------

    def start(
        self,
        name: str,
        *,
        slots: int = 2,
        join: bool = True,
        listen: str = "127.0.0.1:0",
        options: Sequence[str] = (),
    ) -> LivePeer:
        """Start a peer and wait until it is ready; it joins one that runs, if there is one."""
        running = [peer for peer in self.peers.values() if peer.process.poll() is None]
        given = ["--slots", str(slots), *options]
        joining = ["--join", running[0].address] if join and running else []
        peer = self._spawn(name, listen, [*given, *joining])
        peer.options = tuple(given)
        return self.wait_ready(peer)

    def restart(self, name: str) -> LivePeer:
        """The same folder and address, and nobody to join: see `restart_nowait`."""
        return self.wait_ready(self.restart_nowait(name))

    def restart_nowait(self, name: str) -> LivePeer:
        """Without a majority a peer is not ready: start them all first, then `wait_ready`."""
        known = self.peers[name]
        assert known.process.poll() is not None, f"{name} runs"
        return self._spawn(name, known.address, known.options)

    def move_nowait(self, name: str, listen: str, *options: str) -> LivePeer:
        """Start a dead peer again at another address."""
        return self._spawn(name, listen, options)

    def wait_ready(self, peer: LivePeer) -> LivePeer:
        """Read what the peer says once it is ready."""
        assert peer.process.stdout is not None
        line = peer.process.stdout.readline()  # ends when the process does, at the latest
        assert line, f"{peer.name} ended with {peer.process.wait()}: {peer.log}"
        said = json.loads(line)["peer"]
        peer.id, peer.address = said["id"], said["address"]
        return peer

    def kill(self, name: str) -> None:
        """kill -9, of the peer alone: its workers notice by themselves."""
        peer = self.peers[name]
        peer.process.kill()
        peer.process.wait()

    def stop(self, name: str) -> int:
        """SIGTERM. Returns the exit code."""
        process = self.peers[name].process
        process.terminate()
        return process.wait(STOP_S)

    def close(self) -> None:
        for peer in self.peers.values():
            if peer.process.poll() is None:
                # The second asks not to wait: the last ones would, for a majority.
                for number in (signal.SIGCONT, signal.SIGTERM, signal.SIGINT):
                    peer.process.send_signal(number)
        for peer in self.peers.values():
            try:
                peer.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                peer.process.kill()
                peer.process.wait()
            assert peer.process.stdout is not None
            peer.process.stdout.close()
        self._kill_recorded()

    def _kill_recorded(self) -> None:
        """Peers that went to the background."""
        for record in list_records(self.runtime_dir):
            if record.alive:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(record.pid, signal.SIGKILL)

    def _spawn(self, name: str, listen: str, options: Sequence[str]) -> LivePeer:
        data = self.folder / name
        words = ["start", "-o", "json", "--name", name, "--data", str(data)]
        words += ["--listen", listen, *options]
        before = self.before.get(name, ())
        with data.with_suffix(".err").open("a") as log:
            process = self._spawn_behind(before, words, log) if before else self._warm(words, log)
        known = self.peers.get(name)
        if known is None:
            known = self.peers[name] = LivePeer(name, data, tuple(options), process)
        else:
            assert known.process.stdout is not None
            known.process.stdout.close()
            known.process = process
        return known

    def _warm(self, words: Sequence[str], log: IO[str]) -> WarmProcess:
        read_end, write_end = os.pipe()
        process = warm().start(words, env=self.env, stdout=write_end, stderr=log.fileno())
        os.close(write_end)
        process.stdout = os.fdopen(read_end)
        return process

    def _spawn_behind(
        self, before: Sequence[str], words: Sequence[str], log: IO[str]
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*before, *COMMAND, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            env=self.env,
            text=True,
            start_new_session=True,
        )

    # --- talking to it ----------------------------------------------------------------------------

    def popen(self, *words: str) -> subprocess.Popen[str]:
        """A command line that goes on meanwhile; its stdout is to be read and closed."""
        return subprocess.Popen(
            [*COMMAND, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            env=self.env,
        )

    def run(
        self, *words: str, timeout_s: float = COMMAND_S, stdout: IO[str] | int = subprocess.PIPE
    ) -> subprocess.CompletedProcess[str]:
        """A command line, as a person or a script runs it."""
        return warm().run(words, env=self.env, timeout_s=timeout_s, stdout=stdout)

    def ok(self, *words: str) -> str:
        """The stdout of a command that must succeed."""
        done = self.run(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def client(self, name: str | None = None) -> Client:
        """A client of this peer, or of any."""
        address = None if name is None else self.peers[name].address
        return Client(address, runtime_dir=self.runtime_dir)

    def ask(self, work: Callable[[Client], Awaitable[T]], *, through: str | None = None) -> T:
        """The result of `work` with a connected client."""

        async def main() -> T:
            async with self.client(through) as client:
                return await work(client)

        return asyncio.run(main())


def wait_until(condition: Callable[[], bool], what: str, *, timeout_s: float = START_S) -> None:
    """Until `condition` holds; fails with `what` if it does not in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s:g} s for {what}"
        time.sleep(POLL_S)
