"""Variables that change with each task: seen by all, and no memory is lost with them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Final

import pytest

from p2psched.run.host.variables import VALUE_BYTES_MAX, Variable

NAME: Final = "P2P_TEST_VARIABLE"
# Below a third of what `setenv` alone would keep of so many values.
COUNT: Final = 200_000
GROWN_KIB_MAX: Final = 8 * 1024
_GROW: Final = f"""
from p2psched.run.host.variables import Variable

def resident_kib():
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))

variable = Variable("{NAME}")
for number in range({COUNT}):
    if number == 1000:
        before = resident_kib()
    variable.set(f"0123456789abcdef0123456789abcdef/{{number}}")
print(resident_kib() - before)
"""


@pytest.fixture
def variable() -> Iterator[Variable]:
    yield Variable(NAME)
    os.environ.pop(NAME, None)


def seen_by_a_child() -> str:
    """Of the environment as the C library has it: none is passed."""
    script = f'echo "${{{NAME}-unset}}"'
    return subprocess.check_output(["sh", "-c", script], text=True)[:-1]


def test_a_value_is_seen_here_and_by_children(variable: Variable) -> None:
    for value in ("first", "second, and longer", "3"):
        variable.set(value)
        assert (os.environ[NAME], seen_by_a_child()) == (value, value)


def test_the_next_value_is_seen_after_a_task_changed_or_removed_the_last(
    variable: Variable,
) -> None:
    variable.set("ours")
    os.environ[NAME] = "theirs"
    assert seen_by_a_child() == "theirs"
    variable.set("ours again")
    assert (os.environ[NAME], seen_by_a_child()) == ("ours again", "ours again")
    del os.environ[NAME]
    assert seen_by_a_child() == "unset"
    variable.set("back")
    assert (os.environ[NAME], seen_by_a_child()) == ("back", "back")


def test_a_value_of_any_length_is_set(variable: Variable) -> None:
    for size in (VALUE_BYTES_MAX, VALUE_BYTES_MAX + 1, 10_000, 1):
        variable.set("v" * size)
        assert (os.environ[NAME], seen_by_a_child()) == ("v" * size, "v" * size)


def test_memory_does_not_grow_with_the_number_of_values() -> None:
    done = subprocess.run([sys.executable, "-c", _GROW], capture_output=True, text=True, check=True)
    assert int(done.stdout) < GROWN_KIB_MAX
