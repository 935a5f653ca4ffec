"""What no linter holds for us: sizes, a purpose on top of every file, nothing left half done."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Final

import pytest

from tests.meta.trees import parsed

ROOT: Final = Path(__file__).resolve().parents[2]
FOLDERS: Final = ("p2psched", "tests", "bench", "examples")
FILE_LINES_MAX: Final = 400
FUNCTION_LINES_MAX: Final = 70
LEFT_OVER: Final = re.compile(r"#.*\b(?:TODO|FIXME|XXX|HACK)\b")


def _files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def long_functions(source: str) -> list[str]:
    """Names of the functions that don't fit the limit."""
    return [
        node.name
        for node in ast.walk(parsed(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or node.lineno) - node.lineno + 1 > FUNCTION_LINES_MAX
    ]


def opens_a_shell(source: str) -> bool:
    """True if a call passes `shell=` anything but False, or goes through os.system or os.popen."""
    for node in ast.walk(parsed(source)):
        match node:
            case ast.keyword(arg="shell", value=ast.Constant(value=False)):
                pass
            case ast.keyword(arg="shell"):
                return True
            case ast.Attribute(value=ast.Name(id="os"), attr="system" | "popen"):
                return True
    return False


def test_files_are_short_enough_to_read() -> None:
    sizes = {
        path.relative_to(ROOT): len(path.read_text().splitlines()) for path in _files(*FOLDERS)
    }
    assert {path: size for path, size in sizes.items() if size > FILE_LINES_MAX} == {}


def test_functions_are_short_enough_to_read() -> None:
    found = {path.relative_to(ROOT): long_functions(path.read_text()) for path in _files(*FOLDERS)}
    assert {path: names for path, names in found.items() if names} == {}


def test_every_file_says_what_it_is_for() -> None:
    silent = [
        path.relative_to(ROOT)
        for path in _files(*FOLDERS)
        if path.read_text().strip() and not ast.get_docstring(parsed(path.read_text()))
    ]
    assert silent == []


def test_nothing_is_left_half_done() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in _files(*FOLDERS)
        if path != Path(__file__).resolve()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if LEFT_OVER.search(line)
    ]
    assert found == []


def test_no_command_passes_through_a_shell() -> None:
    found = [path.relative_to(ROOT) for path in _files(*FOLDERS) if opens_a_shell(path.read_text())]
    assert found == []


# --- the rules above notice what they are for -----------------------------------------------------


@pytest.mark.parametrize(("lines", "found"), [(FUNCTION_LINES_MAX, []), (71, ["f"])])
def test_a_function_is_measured_from_its_name_to_its_last_line(
    lines: int, found: list[str]
) -> None:
    assert long_functions("async def f():\n" + "    x = 1\n" * (lines - 1)) == found


@pytest.mark.parametrize(
    "source", ["run('ls', shell=True)", "run('ls', shell=x)", "os.system('ls')", "os.popen('ls')"]
)
def test_a_shell_is_found(source: str) -> None:
    assert opens_a_shell(source)


def test_a_command_without_a_shell_is_fine() -> None:
    assert not opens_a_shell("run(['ls'], shell=False)")


def test_a_reminder_in_a_comment_is_found_and_a_word_in_code_is_not() -> None:
    assert LEFT_OVER.search("x = 1  # TODO: later")
    assert not LEFT_OVER.search("TODO = 1")
