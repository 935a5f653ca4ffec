"""Policies of installed packages are found, and nothing is loaded to see that there are none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from p2psched.peer.own_policies import GROUP, load_policies

POLICY = """
NAME = "mine"
SUMMARY = "the least loaded first"

def score(ask, peer):
    return peer.load_us
"""


def test_a_policy_of_an_installed_package_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "mine" not in load_policies(None)
    (tmp_path / "my_policy.py").write_text(POLICY)
    info = tmp_path / "mine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\nmine = my_policy\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "mine" in load_policies(None)


def test_what_finds_them_is_not_loaded_where_there_are_none() -> None:
    code = (
        "import sys; from p2psched.peer import own_policies; own_policies.load_policies(None); "
        "print('importlib.metadata' in sys.modules, 'runpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"
