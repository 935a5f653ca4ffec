"""S12: what other programs use of a peer's processors counts: new tasks go elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.cluster import LiveCluster, wait_until
from tests.warm import warm

pytestmark = [pytest.mark.process, pytest.mark.long]

TASKS = 30
HOGS = 4  # a single one shares its processor with the peer on it, and looks half as bad
BUSY = 0.6  # that others use: the hogs are seen
CALM = 0.3  # on the other processor; more, and the machine has something else to do
BURN = "while True: pass"


@contextmanager
def hogs(cpu: int) -> Iterator[None]:
    """Programs outside the scheduler that use all of one processor. The commands of this test run
    there, too: on the other one they would be taken for hogs."""
    words = ("taskset", "-c", str(cpu), sys.executable, "-c", BURN)
    everywhere = os.sched_getaffinity(0)
    burning = [subprocess.Popen(words) for _ in range(HOGS)]
    warm().pin({cpu})
    try:
        yield
    finally:
        warm().pin(everywhere)
        for process in burning:
            process.kill()
            process.wait()


def foreign(live: LiveCluster) -> dict[str, float]:
    """What others use of each peer's processors, as one of them hears it; -1: not yet."""
    found = json.loads(live.ok("peers", "-o", "json"))["peers"]
    return {peer["name"]: (peer["load"] or {}).get("foreign_cpu", -1) for peer in found}


def pinned(live: LiveCluster) -> int:
    """Two peers, one on each of two processors; which one the first has."""
    cpus = sorted(os.sched_getaffinity(0))[:2]
    if len(cpus) < 2:
        pytest.skip("it takes two processors")
    for name, cpu in zip("ab", cpus, strict=True):
        live.before[name] = ("taskset", "-c", str(cpu))
        live.start(name, slots=2)
    wait_until(lambda: min(foreign(live).values()) >= 0, "loads are heard")
    return cpus[0]


def await_contrast(live: LiveCluster) -> None:
    wait_until(lambda: foreign(live)["a"] >= BUSY, "the hogs are heard of")
    wait_until(lambda: foreign(live)["b"] <= CALM, "the other processor is free")


@pytest.mark.parametrize("policy", ["node-load", "adaptive"])
def test_what_comes_one_by_one_goes_where_nobody_else_computes(
    live: LiveCluster, policy: str
) -> None:
    done: Counter[str] = Counter()
    with hogs(pinned(live)):
        await_contrast(live)
        for _ in range(8):
            words = ("--policy", policy, "--wait", "-o", "quiet")
            job = live.ok("submit-job", *words, "--", "sleep", "0.1").split()[0]
            done.update(json.loads(live.ok("job", "show", job, "-o", "json"))["job"]["finished_by"])
    assert set(done) == {live.peers["b"].id}, done


@pytest.mark.parametrize("policy", ["node-load", "adaptive"])
def test_new_tasks_go_elsewhere_while_others_use_the_processor(
    live: LiveCluster, policy: str
) -> None:
    with hogs(pinned(live)):
        await_contrast(live)
        words = ("--array", f"0-{TASKS - 1}", "--policy", policy, "-o", "quiet")
        job = live.ok("submit-job", *words, "--", "sleep", "0.3").strip()
        live.run("job", "wait", job)
        shown = json.loads(live.ok("job", "show", job, "-o", "json"))["job"]
    done = Counter(shown["finished_by"])
    assert done[live.peers["b"].id] > 2 * done[live.peers["a"].id], done
