"""The time of a peer's own tasks is told from the time of everybody else's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from p2psched.observe.processors import PROCESSES_MAX, Processors
from p2psched.observe.readings import Roots
from tests.observe.tree import Tree


def on(tree: Tree, *cpus: int) -> Processors:
    return Processors(tree.roots, 7, allowed=lambda: cpus)


def test_what_this_peer_does_not_use_is_used_by_others(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.stat((1_000, 500), (0, 0))
    tree.process(7, 100)
    processors = on(tree, 0, 1)
    processors.look()
    assert (processors.busy, processors.foreign) == (0, 0)  # of no time nothing is known
    tree.stat((1_080, 520), (40, 60))
    tree.process(7, 130)
    processors.look()
    assert (processors.busy, processors.foreign) == (600, 450)


def test_processors_that_it_may_not_use_do_not_count(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.process(7, 0)
    tree.stat((0, 0), (0, 0))
    first, second = on(tree, 0), on(tree, 1)
    for processors in (first, second):
        processors.look()
    tree.stat((100, 0), (0, 100))
    for processors in (first, second):
        processors.look()
    assert [first.foreign, second.foreign] == [1000, 0]
    assert first.machine != second.machine
    assert first.machine == on_the_same(tree).machine


def on_the_same(tree: Tree) -> Processors:
    other = Processors(tree.roots, 8, allowed=lambda: [0])
    other.look()
    return other


def test_tasks_count_as_its_own_while_they_run_and_when_they_have_ended(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.stat((0, 0))
    tree.process(7, 0, children="8 ")
    tree.process(8, 0, children="9 10 ")
    tree.process(9, 0)
    processors = on(tree, 0)
    processors.look()
    tree.stat((90, 10))
    tree.process(9, 30)
    tree.process(10, 20)
    processors.look()
    assert processors.foreign == 400
    # Process 9 has ended, and 8, which waited for it, keeps its time.
    tree.stat((180, 20))
    tree.process(8, 0, waited=60, children="10 ")
    tree.process(10, 50)
    processors.look()
    assert processors.foreign == 300


def test_after_a_move_to_other_processors_figures_begin_anew(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.process(7, 0)
    tree.stat((0, 0), (9_000, 0))
    cpus = [0]
    processors = Processors(tree.roots, 7, allowed=lambda: cpus)
    processors.look()
    tree.stat((0, 100), (9_000, 100))
    processors.look()
    cpus[:] = [0, 1]
    processors.look()
    assert (processors.busy, processors.cores) == (0, 2)
    tree.stat((50, 150), (9_050, 150))
    processors.look()
    assert processors.busy == 500


@pytest.mark.parametrize(("quota", "cores"), [(None, 4), (1.5, 2), (0.2, 1), (9.0, 4)])
def test_a_quota_limits_what_may_be_used_at_once(
    tmp_path: Path, quota: float | None, cores: int
) -> None:
    tree = Tree(tmp_path)
    tree.stat((0, 0), (0, 0), (0, 0), (0, 0))
    processors = Processors(tree.roots, 7, allowed=lambda: range(4), quota=quota)
    processors.look()
    assert processors.cores == cores


def test_of_very_many_processes_some_are_looked_at(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    count = PROCESSES_MAX + 100
    tree.process(7, 0, children=" ".join(map(str, range(100, 100 + count))))
    for pid in range(100, 100 + count):
        tree.write(f"/proc/{pid}/task/{pid}/children")
    tree.stat((0, 0))
    processors = on(tree, 0)
    processors.look()
    for pid in range(100, 100 + count):
        tree.process(pid, 1)
    tree.stat((count, 0))
    processors.look()
    assert processors.foreign == 1000 - (PROCESSES_MAX - 1) * 1000 // count


def test_without_anything_to_read_nothing_is_known(tmp_path: Path) -> None:
    processors = Processors(Roots(tmp_path, tmp_path, tmp_path), 7, allowed=lambda: [0])
    processors.look()
    processors.look()
    assert (processors.busy, processors.foreign, processors.cores) == (0, 0, 0)


@pytest.mark.smoke
@pytest.mark.process
def test_on_this_machine_a_child_that_works_is_no_foreigner() -> None:
    """However busy others keep it: its share is what the child has."""
    processors = Processors(Roots(), os.getpid())
    processors.look()
    code = "import time\nwhile time.process_time() < 30: pass"
    with subprocess.Popen([sys.executable, "-c", code]) as child:
        try:
            while processors.busy - processors.foreign < 100:
                processors.look()
        finally:
            child.kill()
    assert processors.cores == len(os.sched_getaffinity(0))
