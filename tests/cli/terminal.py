"""A command in a terminal of its own, where Ctrl-C is a key."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.cluster import COMMAND, LiveCluster

PATIENCE_S = 20.0


class Terminal:
    def __init__(self, process: subprocess.Popen[bytes], keyboard: int) -> None:
        self._process = process
        self._keyboard = keyboard
        self.screen = ""

    def wait_for(self, text: str) -> None:
        """Until `text` was on the screen."""
        deadline = time.monotonic() + PATIENCE_S
        while text not in self.screen:
            assert self._read(deadline), f"the command ended without {text!r}: {self.screen}"

    def press_ctrl_c(self) -> None:
        os.write(self._keyboard, b"\x03")

    def wait_end(self) -> int:
        """The exit code."""
        deadline = time.monotonic() + PATIENCE_S
        while self._read(deadline):
            pass
        return self._process.wait(PATIENCE_S)

    def _read(self, deadline: float) -> bool:
        """False at the end of all output."""
        ready, _, _ = select.select([self._keyboard], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"nothing comes any more: {self.screen}"
        try:
            data = os.read(self._keyboard, 65536)
        except OSError:  # Linux says so when the last process has closed the terminal
            return False
        self.screen += data.decode(errors="replace")
        return bool(data)


@contextlib.contextmanager
def terminal(cluster: LiveCluster, words: Sequence[str]) -> Iterator[Terminal]:
    keyboard, screen = pty.openpty()
    name = os.ttyname(screen)
    # `setsid --ctty` would need a program of its own: the child opens its terminal by itself.
    process = subprocess.Popen(
        [COMMAND[0], "-c", _IN_TERMINAL, name, *COMMAND, *words],
        stdin=screen,
        stdout=screen,
        stderr=screen,
        env={**cluster.env, "TERM": "xterm"},
        start_new_session=True,
        cwd=Path("/"),
    )
    os.close(screen)
    try:
        yield Terminal(process, keyboard)
    finally:
        process.kill()
        process.wait()
        os.close(keyboard)


# A leader of a session gets the first terminal that it opens as its own.
_IN_TERMINAL = (
    "import os, sys; os.open(sys.argv[1], os.O_RDWR); os.execv(sys.argv[2], sys.argv[2:])"
)
