"""What each starter, and so each worker and spawner, holds in memory."""

from __future__ import annotations

import subprocess
import sys

from p2psched.run.starter_link import SCRIPT

# The second is 0.8 MiB, and comes with the first.
HEAVY = ("dataclasses", "inspect", "asyncio", "logging", "subprocess")
LOOK = f"""
import sys, types
package = types.ModuleType("_p2psched_host")
package.__path__ = [{str(SCRIPT.parents[2])!r}]
sys.modules["_p2psched_host"] = package
import _p2psched_host.run.host.forker
print(sorted(set({HEAVY!r}) & sys.modules.keys()), "p2psched" in sys.modules)
"""


def test_a_starter_loads_little_and_nothing_of_the_peer() -> None:
    argv = [sys.executable, "-c", LOOK]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout == "[] False\n"
