"""Imports point down, and the pure layers stay pure. Read from the syntax tree, nothing is loaded.

The layers, lowest first:

    0 model   1 core   2 ports   3 net store run engines observe   4 peer
    5 client testing demo   6 cli embed   7 the fronts: `p2psched/__init__.py` and
    `p2psched/__main__.py`

A module may import its own package and packages of lower layers; siblings don't see each other.
`core` imports `model` only, which follows from its place.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.meta.trees import parsed

ROOT: Final = Path(__file__).resolve().parents[2]
PACKAGE: Final = "p2psched"
LAYER_OF: Final = {
    "model": 0,
    "core": 1,
    "ports": 2,
    "net": 3,
    "store": 3,
    "run": 3,
    "engines": 3,
    "observe": 3,
    "peer": 4,
    "client": 5,
    "testing": 5,
    "demo": 5,
    "cli": 6,
    "embed": 6,
    "__main__": 7,
    "": 7,
}
PURE: Final = ("model", "core")
# What a pure module may take from the standard library: words and values, no clock, disk or socket.
# Of `random` only the name `Random`, for generators that the caller passes.
PURE_STDLIB: Final = frozenset(
    {
        "__future__",
        "_sha2",
        "_sha256",
        "array",
        "bisect",
        "collections",
        "contextlib",
        "dataclasses",
        "enum",
        "functools",
        "hashlib",
        "heapq",
        "hmac",
        "itertools",
        "json",
        "math",
        "operator",
        "random",
        "re",
        "shlex",
        "struct",
        "types",
        "typing",
        "zlib",
    }
)
# Its modules in versions other than that of this interpreter.
OTHER_STDLIB: Final = frozenset({"_sha2", "_sha256"})
PURE_PACKAGES: Final = frozenset({"msgspec"})
# Bytes are opened as Python objects only by workers, by callers, and by what stands for them.
NO_PICKLE: Final = ("model", "core", "ports", "net", "store", "observe", "peer")
PICKLES: Final = frozenset({"pickle", "cPickle", "cloudpickle", "dill", "marshal", "shelve"})
# The interpreter that runs users' functions loads these under a private name, so they see each
# other by relative imports only, and it may have nothing else installed.
STANDALONE: Final = re.compile(
    r"run/host/\w+\.py|model/(__init__|checkpoints|chunks|digests|items|limits|values)\.py"
)


def modules_in(root: Path) -> Iterator[tuple[str, ast.Module]]:
    """Path below the package, and tree, of every file."""
    folder = root / PACKAGE
    for path in sorted(folder.rglob("*.py")):
        yield path.relative_to(folder).as_posix(), parsed(path.read_text())


def part_of(path: str) -> str:
    """The part of the package that a file belongs to: `net/frames.py` -> `net`."""
    head, slash, _ = path.partition("/")
    return head if slash else head.removesuffix(".py").replace("__init__", "")


def imports_of(path: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and full dotted name of everything imported, wherever it stands in the file."""
    here = (PACKAGE, *Path(path).parent.parts)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = list(here[: len(here) + 1 - node.level]) if node.level else []
            base += node.module.split(".") if node.module else []
            for alias in node.names:
                yield node.lineno, ".".join((*base, alias.name))


def upward_imports(root: Path) -> list[str]:
    """Every import that doesn't point down, as `file:line part may not import part`."""
    found = []
    for path, tree in modules_in(root):
        part = part_of(path)
        if part not in LAYER_OF:
            found.append(f"{path}:1 {part!r} is in no layer: give it one in this test")
            continue
        for line, name in imports_of(path, tree):
            outer, _, rest = name.partition(".")
            if outer != PACKAGE:
                continue
            target = rest.partition(".")[0]
            if target not in LAYER_OF:
                target = ""  # a name that the front defines
            if target != part and LAYER_OF[target] >= LAYER_OF[part]:
                found.append(f"{path}:{line} {part} may not import {target or 'the front'}")
    return found


def foreign_imports(path: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and top-level name of what is imported from outside the package."""
    for line, name in imports_of(path, tree):
        outer = name.partition(".")[0]
        if outer != PACKAGE:
            yield line, outer


def impure_lines(path: str, tree: ast.Module) -> list[str]:
    """What a pure file takes from the world."""
    found = [
        f"{path}:{line} imports {name}"
        for line, name in foreign_imports(path, tree)
        if name not in PURE_STDLIB | PURE_PACKAGES
    ]
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="random"), attr=name) if name != "Random":
                found.append(f"{path}:{node.lineno} uses random.{name}")
            case ast.ImportFrom(module="random"):
                found.append(f"{path}:{node.lineno} imports from random")
            case ast.Call(func=ast.Name(id="open" | "print" | "input" | "hash" as name)):
                found.append(f"{path}:{node.lineno} calls {name}()")
            case ast.AsyncFunctionDef():
                found.append(f"{path}:{node.lineno} awaits")
    return found


def unloadable_lines(path: str, tree: ast.Module) -> list[str]:
    """Imports that a foreign interpreter could not follow."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        relative = isinstance(node, ast.ImportFrom) and node.level > 0
        for line, name in imports_of(path, ast.Module(body=[node], type_ignores=[])):
            _, *inner = name.split(".")
            target = "/".join(inner[: 3 if inner[:1] == ["run"] else 2]) + ".py"
            known = STANDALONE.fullmatch(target) if relative else _is_stdlib(name)
            if not known:
                found.append(f"{path}:{line} imports {name}")
    return found


def _is_stdlib(name: str) -> bool:
    return name.partition(".")[0] in {*sys.stdlib_module_names, *OTHER_STDLIB}


def test_imports_point_down() -> None:
    assert upward_imports(ROOT) == []


def test_model_and_core_touch_no_clock_disk_socket_or_chance() -> None:
    found = [
        line
        for path, tree in modules_in(ROOT)
        if part_of(path) in PURE
        for line in impure_lines(path, tree)
    ]
    assert found == []


def test_no_pickle_is_opened_where_the_peer_runs() -> None:
    found = [
        f"{path}:{line} imports {name}"
        for path, tree in modules_in(ROOT)
        if part_of(path) in NO_PICKLE
        for line, name in foreign_imports(path, tree)
        if name in PICKLES
    ]
    assert found == []


def test_files_that_workers_load_need_the_standard_library_and_each_other_only() -> None:
    files = [(path, tree) for path, tree in modules_in(ROOT) if STANDALONE.fullmatch(path)]
    assert [line for path, tree in files for line in unloadable_lines(path, tree)] == []
    assert {"model/chunks.py", "model/items.py"} <= {path for path, _ in files}


def test_every_folder_of_the_package_has_a_layer() -> None:
    folders = {path.parent.name for path in (ROOT / PACKAGE).glob("*/*.py")}
    assert folders <= LAYER_OF.keys()
    assert {"model", "core", "ports", "net", "store", "run", "peer", "cli"} <= folders


# --- the rules above notice what they are for -----------------------------------------------------


def _write(root: Path, path: str, source: str) -> None:
    target = root / PACKAGE / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(source)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("model/a.py", "from p2psched.core import raft"),
        ("core/a.py", "import p2psched.ports.clock"),
        ("core/raft/a.py", "from ...ports import clock"),
        ("net/a.py", "from p2psched.store import wal"),
        ("net/a.py", "from p2psched import store"),
        ("net/a.py", "from .. import store"),
        ("store/a.py", "def late():\n    from p2psched.peer import node"),
        ("peer/a.py", "if TYPE_CHECKING:\n    from p2psched.client import api"),
        ("client/a.py", "from p2psched.testing import sim"),
        ("ports/a.py", "from p2psched import submit"),
        ("attic/a.py", ""),
    ],
)
def test_an_import_that_points_up_or_aside_is_found(tmp_path: Path, path: str, source: str) -> None:
    _write(tmp_path, path, source)
    assert len(upward_imports(tmp_path)) == 1


def test_an_import_that_points_down_or_stays_inside_is_fine(tmp_path: Path) -> None:
    _write(tmp_path, "model/a.py", "import json, msgspec\nfrom p2psched.model import ids")
    _write(tmp_path, "core/raft/a.py", "from . import b\nfrom ...model import ids")
    _write(tmp_path, "cli/a.py", "from p2psched import client, demo")
    _write(tmp_path, "__init__.py", "from p2psched.client import submit")
    _write(tmp_path, "__main__.py", "from p2psched.model import ids")
    assert upward_imports(tmp_path) == []


@pytest.mark.parametrize(
    "source",
    [
        "import time",
        "import asyncio",
        "from os import path",
        "import logging",
        "import random\nrandom.shuffle([])",
        "from random import choice",
        "open('x')",
        "hash('x')",
        "async def f(): ...",
    ],
)
def test_an_impure_line_is_found(source: str) -> None:
    assert len(impure_lines("core/a.py", ast.parse(source))) == 1


@pytest.mark.parametrize(
    "source",
    [
        "import msgspec",
        "from p2psched.model import chunks",
        "from ...model import job",
        "from ...model.errors import P2PSchedError",
        "from .. import pool",
    ],
)
def test_an_import_that_a_foreign_interpreter_lacks_is_found(source: str) -> None:
    assert len(unloadable_lines("run/host/worker.py", ast.parse(source))) == 1


def test_a_worker_may_import_the_files_that_travel_with_it() -> None:
    source = (
        "import os\nfrom . import frames\nfrom .shared import Shared\n"
        "from ...model import items, limits\nfrom ...model.chunks import pack"
    )
    assert unloadable_lines("run/host/worker.py", ast.parse(source)) == []


def test_a_passed_generator_is_pure() -> None:
    source = "import random\ndef f(rng: random.Random) -> int: return rng.randrange(3)"
    assert impure_lines("core/a.py", ast.parse(source)) == []
