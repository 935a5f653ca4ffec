"""What the tests let workers do. Imported by the workers: standard library only."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

from p2psched import checkpoint

MANY_BYTES = 100 * 1024 * 1024


def square(number: int) -> int:
    return number * number


def block(number: int) -> bytes:
    """Almost as large as a result may be, different for each task."""
    return bytes([number % 256]) * 60_000


def misbehave(kind: str) -> object:
    """End in the way that `kind` names; any other kind comes back unchanged."""
    match kind:
        case "exit":
            os._exit(3)
        case "segfault":
            ctypes.string_at(0)
        case "raise":
            raise LookupError("nothing here")
        case "unserialisable":
            return threading.Lock()
        case "large":
            return bytes(1024 * 1024)
        case "prints-much":
            piece = b"x" * (1024 * 1024)
            for _ in range(MANY_BYTES // len(piece)):
                sys.stdout.buffer.write(piece)
    return kind


def kill_peer(index: int, bad: int) -> int:
    """One of the tasks kills the peer that it runs on: the parent of the starter that made us."""
    if index == bad:
        stat = Path(f"/proc/{os.getppid()}/stat").read_text()
        peer = int(stat.rpartition(")")[2].split()[1])
        assert b"p2psched" in Path(f"/proc/{peer}/cmdline").read_bytes(), "no peer: spare it"
        os.kill(peer, signal.SIGKILL)
        signal.pause()
    return index


def noise(seed: int, size: int) -> bytes:
    """As large as it is asked for, the same each time."""
    return random.Random(seed).randbytes(size)


def noise_told(path: str, seed: int, size: int) -> bytes:
    """As `noise`; a line in the side file tells that it is made and not handed over yet."""
    made = noise(seed, size)
    with Path(path).open("a") as side:
        side.write(f"{seed} {os.getppid()}\n")
    return made


def witness(path: str, number: int) -> str:
    """Says into a file that it began and that it ended, in one line each; a while lies between.
    The value is the fence that it had."""
    fence = os.environ["P2P_FENCE"]
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, f"+ {number} {fence}\n".encode())
        for _ in range(3):
            os.fsync(file)
        os.write(file, f"- {number} {fence}\n".encode())
    finally:
        os.close(file)
    return fence


def train(steps: int, every: int, log: str, stop_at: int) -> tuple[int, int]:
    """Adds numbers up, and saves how far it is. Its first attempt stands still one save before
    `stop_at` until there is a file `log`.on, and there until it is killed. Returns where this
    attempt began, and the sum."""
    step, total = checkpoint.load(default=(0, 0))
    first = step
    while step < steps:
        step += 1
        total += step
        if step % every == 0:
            checkpoint.save((step, total))
        with Path(log).open("a") as file:
            file.write(f"{os.environ['P2P_PEER']} {first} {step}\n")
        before = step == stop_at - every and not Path(f"{log}.on").exists()
        while not first and (before or step == stop_at):
            time.sleep(0.05)
            before = before and not Path(f"{log}.on").exists()
    return first, total


def counted(path: str, pause_s: float) -> str:
    """Says into a file which start it is: index, fence, peer, attempt. The value is the fence."""
    words = [os.environ[f"P2P_{name}"] for name in ("INDEX", "FENCE", "PEER", "ATTEMPT")]
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, (" ".join(words) + "\n").encode())
    finally:
        os.close(file)
    time.sleep(pause_s)
    return words[1]
