"""What a peer loads for which life."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from p2psched.model import version
from p2psched.peer.lives import version_in

# A follower never needs them, and each brings others along: 3.5 MiB in all.
FOR_HOLDERS = (
    "p2psched.core.machine",
    "p2psched.core.policies",
    "p2psched.core.raft.core",
    "p2psched.core.scheduler",
    "p2psched.core.snapshot",
    "p2psched.peer.api",
    "p2psched.peer.node",
    "p2psched.peer.raft_loop",
    "p2psched.peer.scheduler_loop",
    "p2psched.peer.submissions",
    "p2psched.peer.wishes",
    "p2psched.store.log",
    "p2psched.store.results",
    "sqlite3",
)


def loaded_by(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint(*sys.modules)"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())


def test_a_follower_loads_nothing_that_only_holders_of_the_ledger_need() -> None:
    of_follower = loaded_by("import p2psched.peer.process")
    assert "p2psched.peer.following" in of_follower
    assert of_follower.isdisjoint(FOR_HOLDERS)
    of_holder = loaded_by("import p2psched.peer.process, p2psched.peer.node")
    assert of_holder.issuperset(FOR_HOLDERS)


def test_the_version_on_disk_is_read_anew(tmp_path: Path) -> None:
    assert version.__file__ is not None
    assert version_in(Path(version.__file__)) == version.VERSION
    file = tmp_path / "version.py"
    file.write_text('VERSION = "9.1"\n')
    assert version_in(file) == "9.1"


@pytest.mark.parametrize("text", [None, "VERSION = ", "OTHER = 1\n"])
def test_a_version_that_cannot_be_read_is_none(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "version.py"
    if text is not None:
        file.write_text(text)
    assert version_in(file) == ""
