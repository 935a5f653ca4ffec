"""What the tasks of the benchmark do. Loaded by the workers of every contender: standard library
only, so that a worker holds nothing that its scheduler would not have given it.
"""

from __future__ import annotations

import os
import random
import subprocess
import time
from functools import cache
from typing import Final

MEGABYTE: Final = 1_000_000
PROGRAM: Final = "/bin/true"


def work(number: int) -> int:
    """A small function with a result that is another one for each argument."""
    return number * number + 1


def is_work(values: list[object], count: int) -> bool:
    """True if these are the results of `work` for 0, 1, ... `count` - 1, each once."""
    return len(values) == count and all(v == work(n) for n, v in enumerate(values))


@cache
def _noise() -> bytes:
    return random.Random(7).randbytes(MEGABYTE - 8)


def megabyte(number: int) -> bytes:
    """A megabyte that no compression makes smaller, another one for each argument."""
    return number.to_bytes(8, "little") + _noise()


def large(number: int) -> bytes:
    """200 KB, too large to travel in the ledger, another one for each argument."""
    return number.to_bytes(8, "little") * 25_000


def busy(number: int) -> int:
    """A quarter of a second or so of one core."""
    value = number
    for _ in range(4_000_000):
        value = (value * 1_103_515_245 + 12_345) & 0x7FFFFFFF
    return value


def ten_ms(number: int) -> int:
    """Ten milliseconds that use no core."""
    time.sleep(0.01)
    return number


def uneven(number: int) -> int:
    """Every tenth takes half a second, the others ten milliseconds."""
    time.sleep(0.5 if number % 10 == 0 else 0.01)
    return number


def run_program(_: int) -> int:
    """A program, for schedulers that know functions only."""
    return subprocess.call([PROGRAM])


def spawn(count: int) -> int:
    """The limit for programs: start one, wait for it, nothing else. Returns how many succeeded."""
    good = 0
    for _ in range(count):
        pid = os.posix_spawn(PROGRAM, [PROGRAM], os.environ)
        good += os.waitpid(pid, 0)[1] == 0
    return good


def stamped(_number: int) -> tuple[int, int, int]:
    """As `ten_ms`: when it began and ended, in ns since the machine started, and which process."""
    began_ns = time.monotonic_ns()
    time.sleep(0.01)
    return began_ns, time.monotonic_ns(), os.getpid()
