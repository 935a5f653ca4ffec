"""CPython's own tests of executors, run against ours.

The interpreter's `test` package has them, as one module up to 3.11 and as a package later; Debian
and images built small leave it out, and `libpython3.*-testsuite` brings it.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
import unittest
from pathlib import Path
from types import ModuleType
from typing import Final

NAME: Final = "test.test_concurrent_futures"
PYTHON: Final = f"python{sys.version_info.major}.{sys.version_info.minor}"
DEBIAN: Final = Path(f"/usr/lib/{PYTHON}/test")
PACKAGE: Final = f"lib{PYTHON}-testsuite"


def find() -> list[ModuleType]:
    """All modules of the tests; none if they are not installed."""
    package = importlib.import_module("test")
    if DEBIAN.is_dir() and str(DEBIAN) not in package.__path__:
        package.__path__.append(str(DEBIAN))
    try:
        first = importlib.import_module(NAME)
    except ModuleNotFoundError:
        return []
    parts = [part.name for part in pkgutil.iter_modules(getattr(first, "__path__", ()))]
    return [first, *(importlib.import_module(f"{NAME}.{part}") for part in parts)]


def shim(folder: Path, modules: list[ModuleType]) -> Path:
    """A folder for PYTHONPATH, so that workers find the `test` package that has them too."""
    where = Path(str(modules[0].__file__))
    package = where.parent if where.parent.name == "test" else where.parent.parent
    folder.mkdir()
    (folder / "test").symlink_to(package)
    return folder


def classes(modules: list[ModuleType]) -> dict[str, type]:
    """By name, those that define tests and are defined there; what is made of them for one kind of
    pool (`ThreadPoolAsCompletedTest`) defines none of its own."""
    return {
        name: found
        for module in modules
        for name, found in vars(module).items()
        if inspect.isclass(found)
        and (found.__module__ == module.__name__ or module is modules[0])
        and tests_of(found)
    }


def tests_of(kind: type) -> list[str]:
    """The tests that this class itself defines."""
    return sorted(name for name in vars(kind) if name.startswith("test"))


def run(modules: list[ModuleType], kind: type, name: str, executor_type: type) -> list[str]:
    """What went wrong, or kept the test from running."""
    found = {key: value for module in modules for key, value in vars(module).items()}
    bases = (kind, found["ExecutorMixin"], found["BaseTestCase"])
    case = type(f"Cluster{kind.__name__}", bases, {"executor_type": executor_type})
    result = unittest.TestResult()
    case(name).run(result)
    assert result.testsRun == 1
    wrong = [*result.errors, *result.failures, *result.skipped]
    return [text for _, text in wrong]
