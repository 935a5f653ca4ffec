"""`docs/limits.md` holds against the code: each maximum with its value, each collection with what
bounds it. A new one that the page doesn't have fails here."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from tests.meta.trees import parsed

ROOT: Final = Path(__file__).resolve().parents[2]
PACKAGE: Final = ROOT / "p2psched"
PAGE: Final = ROOT / "docs/limits.md"
# What simulates peers and what shows them off holds nothing for anybody.
LEFT_OUT: Final = ("testing", "demo")
MAXIMUM: Final = re.compile(r"(?:^|_)MAX(?:_|$)")
ROW: Final = re.compile(r"^\| `([^`]+)` \| `([^`]+)` \| (.+?) \|$", re.MULTILINE)

# Kinds that are made to grow and shrink: looked for everywhere.
QUEUES: Final = {"deque": "maxlen", "Queue": "maxsize", "OrderedDict": "", "Counter": ""}
# Plain ones: looked for where others' bytes, calls and processes end up.
PLAIN: Final = frozenset({"{}", "[]", "set()", "dict()", "list()", "bytearray()"})
PLAIN_IN: Final = ("net", "peer", "run", "engines", "observe")
NOT_QUEUES_IN: Final = ("cli",)  # a command ends soon


@cache
def _sources() -> dict[str, str]:
    """Path inside the package -> text."""
    found = {str(path.relative_to(PACKAGE)): path for path in sorted(PACKAGE.rglob("*.py"))}
    return {
        name: path.read_text() for name, path in found.items() if name.split("/")[0] not in LEFT_OUT
    }


def maximums(source: str) -> dict[str, str]:
    """The constants of a module that are named as a maximum -> what they are set to."""
    found = {}
    for node in parsed(source).body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                pass
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                pass
            case _:
                continue
        if MAXIMUM.search(name):
            text = ast.get_source_segment(source, value)
            assert text is not None
            found[name] = re.sub(r"\s+", " ", text)
    return found


def _is_bounded(call: ast.Call, kind: str) -> bool:
    keyword = QUEUES[kind]
    at = {"deque": 1, "Queue": 0}.get(kind, 99)
    return len(call.args) > at or any(given.arg == keyword for given in call.keywords)


def _grows(value: ast.expr, *, plain: bool) -> bool:
    match value:
        case ast.Call(func=ast.Name(id=kind)) if kind in QUEUES:
            return not _is_bounded(value, kind)
        case ast.Call(func=ast.Attribute(value=ast.Name(id="asyncio"), attr=kind)) if (
            kind in QUEUES
        ):
            return not _is_bounded(value, kind)
        case ast.Call(func=ast.Subscript(value=func)):
            return _grows(ast.Call(func, value.args, value.keywords), plain=plain)
        case _:
            return plain and ast.unparse(value) in PLAIN


def _kept(target: ast.expr, owner: str) -> str:
    """How the page names it; empty for what ends with its function."""
    match target:
        case ast.Attribute(value=ast.Name(id="self"), attr=name):
            return f"{owner}.{name}"
        case ast.Subscript(value=value):
            inner = _kept(value, owner)
            return f"{inner}[]" if inner else ""
        case _:
            return ""


def _of_node(node: ast.AST, owner: str, *, plain: bool) -> Iterator[str]:
    match node:
        case ast.Assign(targets=targets, value=value) if _grows(value, plain=plain):
            yield from (_kept(target, owner) for target in targets)
        case ast.AnnAssign(target=target, value=ast.expr() as value) if _grows(value, plain=plain):
            yield _kept(target, owner)
        case ast.Call(func=ast.Attribute(value=value, attr="setdefault"), args=[_, made]) if _grows(
            made, plain=False
        ):
            yield f"{_kept(value, owner) or ast.unparse(value)}[]"
        case ast.FunctionDef(name=name, decorator_list=marks):
            yield from (name for mark in marks if _caches_all(ast.unparse(mark)))


def _caches_all(mark: str) -> bool:
    return bool(re.fullmatch(r"(functools\.)?(cache|lru_cache\((maxsize=)?None\))", mark))


def collections(source: str, *, plain: bool) -> set[str]:
    """What a module keeps that grows, and whose making sets no bound."""
    found: set[str] = set()

    def look(node: ast.AST, owner: str) -> None:
        owner = node.name if isinstance(node, ast.ClassDef) else owner
        found.update(name for name in _of_node(node, owner, plain=plain) if name)
        for child in ast.iter_child_nodes(node):
            look(child, owner)

    look(parsed(source), "")
    return found


def rows(page: str, heading: str) -> list[tuple[str, str, str]]:
    """Name, file and the rest of each row below a heading."""
    _, below = page.split(f"\n## {heading}\n", 1)
    return [(name, file, rest) for name, file, rest in ROW.findall(below.split("\n## ", 1)[0])]


def test_each_maximum_is_on_the_page_with_its_value_and_nothing_else() -> None:
    code = {
        (file, name): value
        for file, source in _sources().items()
        for name, value in maximums(source).items()
    }
    page = {}
    for name, file, rest in rows(PAGE.read_text(), "Named maxima"):
        value, _, text = rest.partition("` | ")
        page[file, name] = value.removeprefix("`")
        assert len(text.split()) >= 2, f"{file} {name}: what happens at it?"
    lacking = [
        f"| `{name}` | `{file}` | `{value}` | what happens at it, and who hears |"
        for (file, name), value in code.items()
        if page.get((file, name)) != value
    ]
    assert lacking == [], "rows that docs/limits.md lacks, or has with another value"
    assert set(page) - set(code) == set(), "rows of docs/limits.md without a constant"


def test_each_collection_that_grows_is_on_the_page_with_what_bounds_it() -> None:
    code = set()
    for file, source in _sources().items():
        package = file.split("/")[0]
        if package not in NOT_QUEUES_IN:
            found = collections(source, plain=package in PLAIN_IN)
            code |= {(file, name) for name in found}
    page = [(file, name) for name, file, _ in rows(PAGE.read_text(), "Collections")]
    assert len(page) == len(set(page))
    assert set(page) == code


def test_a_bound_that_the_page_names_exists() -> None:
    """In the table of collections: what looks like a constant is one."""
    known = {
        name
        for source in _sources().values()
        for name in re.findall(r"^(_?[A-Z][A-Z0-9_]+)\b.*=", source, re.MULTILINE)
    }
    named = {
        name
        for *_, rest in rows(PAGE.read_text(), "Collections")
        for name in re.findall(r"`(_?[A-Z][A-Z0-9_]{2,})`", rest)
    }
    assert named - known == set()
    assert len(named) > 20


# --- the rules above notice what they are for -----------------------------------------------------


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("A_MAX: Final = 3 * KIB", {"A_MAX": "3 * KIB"}),
        ("A_MAX_B = (\n    1\n    + 2)", {"A_MAX_B": "1 + 2"}),
        ("MAXIMAL = 3", {}),
        ("def f():\n    A_MAX = 3", {}),
    ],
)
def test_a_maximum_is_found(source: str, found: dict[str, str]) -> None:
    assert {name: text.strip("() ") for name, text in maximums(source).items()} == found


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("self.a: deque[int] = deque()", {"C.a"}),
        ("self.a = deque(maxlen=3)", set()),
        ("self.a = deque([1], 3)", set()),
        ("self.a = deque(others)", {"C.a"}),
        ("self.a = asyncio.Queue()", {"C.a"}),
        ("self.a = asyncio.Queue(3)", set()),
        ("self.a = OrderedDict()", {"C.a"}),
        ("self.a = b = Counter()", {"C.a"}),
        ("self.a[3] = deque()", {"C.a[]"}),
        ("row.b.setdefault(3, deque())", {"row.b[]"}),
        ("a = deque()", set()),
        ("self.a = {}", {"C.a"}),
        ("self.a = {1: 2}", set()),
    ],
)
def test_a_collection_that_grows_is_found(line: str, found: set[str]) -> None:
    source = f"class C:\n    def f(self):\n        {line}"
    assert collections(source, plain=True) == found


@pytest.mark.parametrize("mark", ["cache", "functools.cache", "functools.lru_cache(maxsize=None)"])
def test_a_cache_without_a_bound_is_found(mark: str) -> None:
    assert collections(f"@{mark}\ndef f(): ...", plain=False) == {"f"}
    assert collections("@functools.lru_cache(maxsize=8)\ndef f(): ...", plain=False) == set()
