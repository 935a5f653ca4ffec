"""The peer's side of the starter process: launching it, speaking to it, and seeing it end."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from p2psched.model.errors import UsageError
from p2psched.run.channel import Channel, OnFrame
from p2psched.run.environment import environment
from p2psched.run.host import frames

LOG_BYTES_MAX: Final = 4096
SCRIPT: Final = Path(__file__).parent / "host" / "starter.py"


class StarterLink:
    """One starter. Launched by the standard library: uvloop's subprocesses are five times slower,
    and the peer itself never forks (`Popen` uses vfork and exec)."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        python: str,
        folder: Path,
        peer_name: str,
        on_frame: OnFrame,
        on_closed: Callable[[], None],
        pass_env: Sequence[str] = (),
    ) -> None:
        """Raises UsageError if `python` can't be executed."""
        self.python = python
        self._log = folder / "starter.log"
        ours, theirs = socket.socketpair()
        try:
            with theirs, self._log.open("wb") as log:
                self.process = subprocess.Popen(
                    [python, str(SCRIPT), str(theirs.fileno()), str(folder)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=environment(
                        os.environ, folder=str(folder), peer_name=peer_name, passed=pass_env
                    ),
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
        except OSError as error:
            ours.close()
            raise UsageError(
                f"{python} can't be started ({error.strerror}): "
                f"name a Python 3.11 or newer that may be executed"
            ) from error
        self.channel = Channel(loop, ours, on_frame=on_frame, on_closed=on_closed)

    def quit(self, grace_s: float) -> None:
        """Ask it to end everything, then itself."""
        self.channel.send(frames.frame(frames.QUIT, frames.NUMBER.pack(grace_s)))

    def wait(self, timeout_s: float) -> None:
        """Blocks until it is dead; kills it after `timeout_s`."""
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def failure(self) -> UsageError:
        """Why it did not come up. It must be dead."""
        text = self._log.read_bytes()[-LOG_BYTES_MAX:].decode(errors="replace").strip()
        return UsageError(
            f"{self.python} could not start workers (exit {self.process.returncode}): "
            f"{text or 'it said nothing'}"
        )
