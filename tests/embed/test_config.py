"""What a program has to say about its peer, and what is filled in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from p2psched import Config
from p2psched.model.errors import UsageError


def test_a_name_and_a_folder_are_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("P2PSCHED_RUNTIME_DIR", str(tmp_path / "run"))
    whole = Config(name="a", data=tmp_path / "a").complete()
    assert whole.listen == "127.0.0.1:0"
    assert whole.slots == len(os.sched_getaffinity(0))
    assert whole.python == sys.executable
    assert whole.runtime_dir == str(tmp_path / "run")
    assert whole.join == ()
    assert whole.embedded
    assert whole.votes is None


def test_a_relative_folder_is_that_of_the_program_as_it_is_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    whole = Config(name="a", data="peer").complete()
    assert whole.data == str(tmp_path / "peer")


def test_no_slots_are_a_choice_and_not_a_default(tmp_path: Path) -> None:
    assert Config(name="a", data=tmp_path, slots=0).complete().slots == 0


def test_a_lone_address_is_refused_where_a_list_belongs(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"join=\['127.0.0.1:7420'\]"):
        Config(name="a", data=tmp_path, join="127.0.0.1:7420")


def test_slots_that_no_peer_can_have_are_a_mistake_of_the_caller(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="slots are 0 to"):
        Config(name="a", data=tmp_path, slots=-1).complete()


def test_a_program_that_is_no_interpreter_must_name_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(UsageError, match="pass python="):
        Config(name="a", data=tmp_path).complete()


def test_importing_the_package_loads_no_peer_and_no_client() -> None:
    script = (
        "import sys, p2psched; "
        "print([m for m in sys.modules if m.startswith('p2psched.') and 'model' not in m])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stdout.strip() == b"[]"
