"""When a burst is over, and what goes back to the system then."""

from __future__ import annotations

import subprocess
import sys

from p2psched.observe.allocator import BUSY_SHARE, Bursts

# Blocks too large for Python's own allocator, each second one freed: nothing of it is on top.
SCRIPT = """
import re
from pathlib import Path
from p2psched.observe.allocator import trimmer

def rss():
    return int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text()).group(1))

blocks = [bytearray(20_000) for _ in range(2_000)]
full = rss()
del blocks[::2]
trimmer()()
print(full - rss())
"""


def test_a_burst_is_over_once_when_the_process_has_become_quiet() -> None:
    bursts = Bursts(10.0, 1.0)
    assert not bursts.is_over(12.0, 2.0)  # it starts
    assert bursts.is_over(14.0, 2.0 + BUSY_SHARE)
    assert not bursts.is_over(16.0, 2.1)
    assert not bursts.is_over(18.0, 2.2 + 2 * BUSY_SHARE)
    assert bursts.is_over(20.0, 2.2 + 2 * BUSY_SHARE)
    assert not bursts.is_over(22.0, 2.2 + 2 * BUSY_SHARE)


def test_what_is_free_between_what_is_used_goes_back() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=60
    )
    assert int(done.stdout) > 10_000, "KiB, of 20,000 that were freed"
