"""The process that a peer lives in holds what a peer needs, and nothing of the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from p2psched.cli.serve import VARIABLE
from tests.cluster import LiveCluster

HEAVY = ("typer", "rich", "cloudpickle", "p2psched.client", "p2psched.demo", "p2psched.cli.jobs")
LOOK = (
    "import sys, p2psched.cli.app, p2psched.cli.serve\n"
    f"print(sorted(set({HEAVY!r}) & sys.modules.keys()))"
)


def test_a_peer_loads_no_parser_no_client_and_no_other_command() -> None:
    done = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("command", "strange"),
    [
        ("start", ("asyncio", "rich", "cloudpickle", "p2psched.client", "p2psched.peer")),
        ("job show", ("rich", "p2psched.peer", "p2psched.demo", "p2psched.cli.submit")),
        ("sim run", ("asyncio", "p2psched.core", "p2psched.client")),
    ],
)
def test_a_command_loads_nothing_that_only_others_need(command: str, strange: tuple[str]) -> None:
    script = (
        "import sys; from p2psched.cli.app import run\n"
        "code = run([*sys.argv[1].split(), '--help'])\n"
        f"sys.exit(code or repr(sorted(set({strange!r}) & sys.modules.keys())))"
    )
    argv = [sys.executable, "-c", script, command]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert f"p2psched {command}" in done.stdout
    assert done.stderr == "[]\n"


@pytest.mark.smoke
@pytest.mark.process
def test_a_started_peer_has_shed_its_command_line_and_keeps_its_name_in_the_list_of_processes(
    empty: LiveCluster,
) -> None:
    process = Path("/proc") / str(empty.start("a").pid)
    assert f"{VARIABLE}=".encode() in (process / "environ").read_bytes()
    assert b"\0start\0" in (process / "cmdline").read_bytes()
    # It is not handed on to tasks.
    seen = empty.ok("submit-job", "--wait", "--", "env")
    assert VARIABLE not in seen
    assert "MALLOC_ARENA_MAX" not in seen
