"""`p2psched start --duty`, on a real peer."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from p2psched.model.load_messages import GetLoads, LoadTable
from tests.cluster import LiveCluster, wait_until

pytestmark = pytest.mark.process

TASKS = 20
TASK_S = 0.05
PERCENT = 25
SAVED_S = 0.5 * PERCENT / 100  # what it may work at once after a rest


def test_slots_are_in_use_for_the_share_that_was_told_and_others_hear_of_it(
    tmp_path: Path,
) -> None:
    with LiveCluster(tmp_path) as cluster:
        cluster.start("a", slots=0)
        cluster.start("b", slots=1, options=["--duty", str(PERCENT)])

        def told() -> set[int]:
            found = cluster.ask(
                lambda client: client.session.call(GetLoads(), LoadTable), through="a"
            )
            return {row.load.duty for row in found.rows if row.load is not None and row.load.slots}

        wait_until(lambda: told() == {PERCENT * 10}, "a to hear of it", timeout_s=80)
        began_s = time.monotonic()
        cluster.ok("submit-job", "--wait", "--array", f"1-{TASKS}", "--", "sleep", str(TASK_S))
        # Never less, however quick the machine is: more was not earned by then.
        least_s = (TASKS * TASK_S - SAVED_S) / PERCENT * 100 - TASK_S * 2
        assert time.monotonic() - began_s > least_s
