"""Plain values of a command line are what the parser would make of them, and cost nothing of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import typer.main

from p2psched.cli.commands import app_for
from p2psched.cli.plain import Plain, make_plain

HEAVY = (
    *("pydantic", "rich", "cloudpickle", "zipfile", "sqlite3", "csv", "typer.testing"),
    *("p2psched.core", "p2psched.peer", "p2psched.run.pool", "p2psched.engines"),
    *("p2psched.client.functions", "p2psched.client.modules", "p2psched.client.export"),
    *("p2psched.client.executor", "p2psched.client.batches"),
)
LOOK = (
    "import sys\n"
    "from p2psched.cli.app import run\n"
    "code = run(sys.argv[1:])\n"
    f"sys.exit(repr((code, sorted(set({HEAVY!r}) & sys.modules.keys()))))"
)
TEXTS = (
    *("", "0", "1", "-1", "007", "12", "1000", "99999999999999999999", "1e3", "0x10"),
    *(
        "\u00b2",
        "\uff11",
        " 5",
        "table",
        "json",
        "TABLE",
        "a b",
        "é",
        "true",
        "no",
        "1.5",
        "10s",
        "/",
        ".",
        "-",
    ),
    *("/etc/hostname", "/nowhere/at/all", "a=b", "last"),
)


def modules_of(*arguments: str, folder: Path, **more: str) -> str:
    environment = {**os.environ, "P2PSCHED_RUNTIME_DIR": str(folder), **more}
    argv = [sys.executable, "-c", LOOK, *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment)
    return done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "command",
    ["jobs", "jobs --limit 3 -o json", "status", "peers -o quiet", "job show last", "kv get a"],
)
def test_a_plain_command_loads_only_what_it_needs(command: str, tmp_path: Path) -> None:
    assert modules_of(*command.split(), folder=tmp_path) == "(3, [])"  # nobody to talk to


@pytest.mark.parametrize(
    ("words", "at", "offered"),
    [("p2psched job", "1", {"job", "jobs"}), ("p2psched job s", "2", {"show"})],
)
def test_a_word_that_may_still_become_another_is_completed_to_all_that_it_may_be(
    words: str, at: str, offered: set[str], tmp_path: Path
) -> None:
    asks = {"_P2PSCHED_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": at}
    said = subprocess.run(
        [sys.executable, "-m", "p2psched"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "P2PSCHED_RUNTIME_DIR": str(tmp_path), **asks},
    )
    assert set(said.stdout.split()) == offered


def test_what_tab_offers_loads_no_more(tmp_path: Path) -> None:
    asks = {"_P2PSCHED_COMPLETE": "complete_bash", "COMP_CWORD": "3"}
    said = modules_of(folder=tmp_path, COMP_WORDS="p2psched job show ", **asks)
    assert said.endswith("[])"), said


class Wrong(str):
    """What the parser says of a value."""

    __slots__ = ()


def parameters() -> Iterator[tuple[str, Any]]:
    """All that commands have."""

    def of(command: Any, path: str) -> Iterator[tuple[str, Any]]:
        for parameter in command.params:
            yield f"{path} {parameter.name}", parameter
        for name, inner in getattr(command, "commands", {}).items():
            yield from of(inner, f"{path} {name}")

    return of(typer.main.get_command(app_for(())), "p2psched")


def made(way: Any, value: object, parameter: Any, context: object) -> object:
    try:
        return way.coerce(value, param=parameter, ctx=context)
    except typer.BadParameter as error:
        return Wrong(error.message)


def test_whatever_is_plain_is_what_the_parser_makes_of_it() -> None:
    context = typer.main.get_command(app_for(())).make_context("p2psched", ["jobs"])
    plain = wrong = 0
    for path, parameter in parameters():
        if not hasattr(parameter, "get_runtime_param"):
            pytest.skip("this version of the parser has no machinery to do without")
        usual, values = parameter.get_runtime_param(), Plain(parameter)
        is_many = parameter.multiple or parameter.nargs == -1
        default = parameter.get_default(context)
        for value in [None, default, *([text, "x"] if is_many else text for text in TEXTS)]:
            expected = made(usual, value, parameter, context)
            found = made(values, value, parameter, context)
            assert (type(found), found) == (type(expected), expected), (path, value)
            wrong += isinstance(found, Wrong)
            plain += value is not None and values._plain(value, is_many=is_many) is not None
    assert plain > 1_000
    assert wrong > 100


def test_a_parser_without_that_machinery_is_left_as_it_is() -> None:
    class Old:
        multiple, nargs = False, 1

    class Command:
        params = (Old(),)

    command = Command()
    make_plain(command)
    assert not hasattr(command.params[0], "get_runtime_param")


def test_made_plain_twice_is_made_plain_once() -> None:
    command: Any = typer.main.get_command(app_for(("jobs",)))
    make_plain(command)
    before = [parameter.get_runtime_param for parameter in command.params]
    assert all(isinstance(each, Plain) for each in before)
    make_plain(command)
    assert [parameter.get_runtime_param for parameter in command.params] == before
