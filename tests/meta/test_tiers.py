"""Which tests `make test` runs: of each room with processes some, and never one that is marked as
long. What stands in one file is one room."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

TESTS: Final = Path(__file__).resolve().parents[1]
# In these only what is long starts processes.
LONG_ONLY: Final = frozenset({"network", "upgrade"})
MARK: Final = re.compile(r"\bpytest\.mark\.(\w+)")


def _marks(folder: Path) -> set[str]:
    return {mark for path in folder.rglob("test_*.py") for mark in MARK.findall(path.read_text())}


FOLDERS: Final = sorted(
    folder.name
    for folder in TESTS.iterdir()
    if folder.is_dir() and folder.name not in {"meta", *LONG_ONLY} and "process" in _marks(folder)
)


@pytest.mark.parametrize("folder", FOLDERS)
def test_of_each_folder_with_processes_the_default_run_has_a_test(folder: str) -> None:
    assert "smoke" in _marks(TESTS / folder)


@pytest.mark.parametrize("folder", sorted(LONG_ONLY))
def test_what_is_left_out_is_long(folder: str) -> None:
    for path in (TESTS / folder).rglob("test_*.py"):
        marks = set(MARK.findall(path.read_text()))
        assert "process" not in marks or "long" in marks, path
