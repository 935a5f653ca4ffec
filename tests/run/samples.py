"""Functions that workers import by path. Standard library only, and what stands in for us."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import p2psched
from p2psched import File


def nothing() -> None:
    return None


def double(number: int) -> int:
    return 2 * number


def fail(text: str) -> None:
    raise ValueError(text)


def crash_at(number: int, bad: int, how: str) -> int:
    if number == bad:
        print("last words")
        if how == "exit":
            os._exit(7)
        if how == "segfault":
            ctypes.string_at(0)
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def raise_system_exit() -> None:
    sys.exit(3)


def unpicklable() -> object:
    return (number for number in range(3))


def large() -> bytes:
    return bytes(1_250_000)


def say(text: str) -> str:
    print(text)
    print("err", text, file=sys.stderr)
    return text


def shout_c(total: int) -> int:
    """Writes below Python, from the process and from a child of it."""
    block = b"x" * 65536
    os.write(1, b"<first>")
    for _ in range(total // len(block)):
        os.write(1, block)
    subprocess.run(["echo", "<last>"], check=True)
    return total


def stay(folder: str) -> None:
    """Says who it is, leaves a child in its group, and never ends by itself."""
    child = subprocess.Popen(["sleep", "600"])
    (Path(folder) / "pids").write_text(f"{os.getpid()} {child.pid}")
    while True:
        time.sleep(60)


def quick_then_stay(number: int, folder: str) -> int:
    if number:
        (Path(folder) / "begun").touch()
        while True:
            time.sleep(60)
    return number


def after_then_stay(ms: float) -> float:
    """Come back after so many milliseconds; below 0 never."""
    while ms < 0:
        time.sleep(60)
    time.sleep(ms / 1000)
    return ms


def environment() -> dict[str, str]:
    return dict(os.environ)


def scratch() -> list[str]:
    """What the task before left behind."""
    before = [path.name for path in Path.cwd().iterdir()]
    Path("left-over").touch()
    return before


def give(value: object) -> object:
    return value


def scale_in_place(array: Any, factor: float) -> Any:
    """Works on its argument; the caller's and other tasks' must not change."""
    array *= factor
    return array


def zeros(count: int) -> Any:
    import numpy as np  # noqa: PLC0415 - not in every interpreter

    return np.zeros(count)


def total_of(array: Any, plus: float) -> float:
    return float(array.sum()) + plus


def first_line(file: File) -> tuple[str, str, int]:
    with file.open() as opened:
        return file.name, opened.readline().decode(), file.path.stat().st_size


def make_file(name: str, text: str, times: int = 1) -> dict[str, object]:
    with Path(name).open("w") as file:
        file.writelines(text for _ in range(times))
    return {"file": File(name), "length": len(text) * times}


def peak_kib() -> int:
    """Of this process: the most memory that it ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def log(path: str, text: str) -> int:
    """A line in a file for each time that it runs. Returns how many there are."""
    with Path(path).open("a") as file:
        file.write(f"{text}\n")
    return len(Path(path).read_text().splitlines())


def wait_for(path: str, begun: str) -> str:
    """Until somebody makes a file."""
    Path(begun).touch()
    while not Path(path).exists():
        time.sleep(0.002)
    return path


def say_and_wait(number: int, gate: str) -> int:
    """Says how far it is, once, and waits for a file."""
    p2psched.progress(number, 10, "one é")
    while not Path(gate).exists():
        time.sleep(0.01)
    return number
