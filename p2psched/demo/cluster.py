"""A few real peers on loopback, as processes of their own, in one folder that can be thrown away.

Started with the same command that people type, found by the records in a runtime folder of its own
(so the user's own peers are neither seen nor touched), killed by pid. It refuses to guess: a peer
that does not come up is an error with the last lines of its log.

Invariant: after `close` none of the processes that it started runs any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from p2psched.model.errors import Unavailable
from p2psched.store.records import Record, list_records

START: Final = (sys.executable, "-m", "p2psched", "start")
RUNTIME_VARIABLE: Final = "P2PSCHED_RUNTIME_DIR"
START_PATIENCE_S: Final = 20.0
STOP_PATIENCE_S: Final = 5.0  # after SIGTERM; then SIGKILL
POLL_S: Final = 0.02
LOG_LINES_SHOWN: Final = 5


class LocalPeer:
    """One peer of the cluster, over all of its processes."""

    def __init__(self, name: str, folder: Path, *, slots: int) -> None:
        self.name = name
        self.data = folder / name
        self.log = folder / f"{name}.log"
        self.slots = slots
        self.address = ""  # host:port once it listens; kept over restarts
        self.process: subprocess.Popen[bytes] | None = None
        self.pids: list[int] = []  # of every start, oldest first

    @property
    def pid(self) -> int:
        """Of its latest process."""
        return self.pids[-1]

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """To the peer alone, not to its workers: they notice by themselves."""
        assert self.process is not None
        self.process.send_signal(number)

    def last_lines(self) -> str:
        """The end of its log, for an error."""
        try:
            lines = self.log.read_text(errors="replace").strip().splitlines()
        except OSError:
            return ""
        return "\n".join(lines[-LOG_LINES_SHOWN:])


class LocalCluster:
    """Use as a context manager: whatever happens inside, no process is left."""

    def __init__(
        self, folder: Path, *, command: Sequence[str] = START, environ: Mapping[str, str]
    ) -> None:
        """`folder` exists and is the caller's to remove; `environ` is what peers inherit."""
        self.folder = folder
        self.runtime_dir = folder / "runtime"
        self.peers: dict[str, LocalPeer] = {}
        self._command = tuple(command)
        self._environ = {
            key: value for key, value in environ.items() if not key.startswith("P2PSCHED_")
        } | {RUNTIME_VARIABLE: str(self.runtime_dir)}

    def __enter__(self) -> LocalCluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def secret_path(self) -> Path:
        """All peers of the cluster have the same."""
        return next(iter(self.peers.values())).data / "secret"

    def start(self, name: str, *, slots: int, options: Sequence[str] = ()) -> LocalPeer:
        """Start a peer: the first founds the cluster, the others join one that runs."""
        assert name not in self.peers, f"{name} was started before: restart it"
        join = [peer.address for peer in self.peers.values() if peer.runs and peer.address]
        assert join or not self.peers, "wait for the first peer before others join it"
        peer = self.peers[name] = LocalPeer(name, self.folder, slots=slots)
        self._spawn(peer, [*(["--join", join[0]] if join else []), *options])
        return peer

    def restart(self, name: str) -> LocalPeer:
        """Start a peer that ended again, on its folder and its address, without being told whom
        to join."""
        peer = self.peers[name]
        assert not peer.runs, f"{name} runs"
        self._spawn(peer, [])
        return peer

    def kill(self, name: str) -> int:
        """kill -9; returns the pid."""
        peer = self.peers[name]
        assert peer.process is not None
        os.kill(peer.pid, signal.SIGKILL)
        peer.process.wait()
        return peer.pid

    async def wait_listening(self, *names: str) -> None:
        """Until these peers (default: all that run) have written their records. Raises
        Unavailable if one ends instead, or takes too long."""
        waiting = set(names or (name for name, peer in self.peers.items() if peer.runs))
        try:
            async with asyncio.timeout(START_PATIENCE_S):
                # Other processes set no event: their records are looked for.
                while waiting := {n for n in waiting if not self._is_listening(n)}:  # noqa: ASYNC110
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            name = min(waiting)
            raise Unavailable(
                f"peer {name} did not come up within {START_PATIENCE_S:.0f} s:\n"
                f"{self.peers[name].last_lines()}"
            ) from None

    def close(self) -> None:
        """End all processes, politely at first. Safe to repeat."""
        running = [peer for peer in self.peers.values() if peer.runs]
        for peer in running:
            peer.signal(signal.SIGCONT)  # a stopped process would not hear the next one
            peer.signal(signal.SIGTERM)
            peer.signal(signal.SIGINT)  # not to wait: the last ones would, for a majority
        for peer in running:
            assert peer.process is not None
            with contextlib.suppress(subprocess.TimeoutExpired):
                peer.process.wait(STOP_PATIENCE_S)
        for peer in running:
            if peer.runs:
                self.kill(peer.name)

    def _spawn(self, peer: LocalPeer, more: Sequence[str]) -> None:
        argv = [*self._command, "--name", peer.name, "--data", str(peer.data)]
        argv += ["--listen", peer.address or "127.0.0.1:0", "--slots", str(peer.slots)]
        with peer.log.open("ab") as log:
            peer.process = subprocess.Popen(
                [*argv, *more],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environ,
                start_new_session=True,  # Ctrl-C in the terminal is for us to handle
            )
        peer.pids.append(peer.process.pid)

    def _is_listening(self, name: str) -> bool:
        peer = self.peers[name]
        assert peer.process is not None
        if peer.process.poll() is not None:
            raise Unavailable(
                f"peer {name} ended with exit code {peer.process.returncode}:\n{peer.last_lines()}"
            )
        record = self._record_of(peer.pid)
        if record is None:
            return False
        peer.address = record.address
        return True

    def _record_of(self, pid: int) -> Record | None:
        records = list_records(self.runtime_dir)
        return next((record for record in records if record.alive and record.pid == pid), None)
