"""Which modules of the caller travel, as which bytes, and which are refused."""

from __future__ import annotations

import io
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import cloudpickle
import numpy as np
import pytest

from p2psched.client import modules
from p2psched.client.modules import (
    CHECK_S,
    CHECKED_MAX,
    FRESH_S,
    KEPT_MAX,
    Archives,
    importable_as,
    is_local,
    named_in,
)
from p2psched.model.errors import UsageError
from p2psched.model.job import JobSpec


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    package = tmp_path / "boxed_p2p"
    package.mkdir()
    (package / "__init__.py").write_text("import json, other_p2p as other\n")
    (package / "data.csv").write_text("1,2\n")
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "x.pyc").write_bytes(b"")
    (package / ".git").mkdir()
    (package / ".git" / "config").write_text("")
    (tmp_path / "other_p2p.py").write_text("    from numpy import array\nimport boxed_p2p.sub\n")
    sys.path.insert(0, str(tmp_path))
    yield tmp_path
    sys.path.remove(str(tmp_path))


def names_in(archive: bytes) -> list[str]:
    return zipfile.ZipFile(io.BytesIO(archive)).namelist()


def test_the_whole_package_travels_with_local_modules_that_it_imports(project: Path) -> None:
    archive = Archives().of(["boxed_p2p"])
    assert names_in(archive) == ["boxed_p2p/__init__.py", "boxed_p2p/data.csv", "other_p2p.py"]


def test_equal_files_are_equal_bytes_and_an_edit_is_noticed(project: Path) -> None:
    now_s = 100.0
    archives = Archives(lambda: now_s)
    first = archives.of(["other_p2p"])
    assert Archives().of(["boxed_p2p.sub"]) == first
    now_s += FRESH_S
    assert archives.of(["other_p2p"]) is first
    (project / "other_p2p.py").write_text("import boxed_p2p\nx = 1\n")
    edited = archives.of(["other_p2p"])
    assert edited != first
    (project / "boxed_p2p" / "new.py").write_text("y = 2\n")
    assert archives.of(["other_p2p"]) is edited
    now_s += FRESH_S
    assert archives.of(["other_p2p"]) != edited


def test_of_many_files_the_state_is_asked_for_now_and_then(project: Path) -> None:
    now_s = 100.0
    archives = Archives(lambda: now_s)
    for number in range(CHECKED_MAX + 1):
        (project / "boxed_p2p" / f"part_{number}.py").write_text("")
    first = archives.of(["boxed_p2p"])
    (project / "boxed_p2p" / "part_7.py").write_text("x = 1\n")
    assert archives.of(["boxed_p2p"]) is first
    now_s += 2 * CHECK_S
    assert archives.of(["boxed_p2p"]) != first


def test_the_least_recent_archives_go_first(project: Path) -> None:
    archives = Archives()
    first = archives.of(["other_p2p"])
    for number in range(KEPT_MAX):
        (project / f"one_{number}_p2p.py").write_text(f"x = {number}\n")
        archives.of([f"one_{number}_p2p"])
    again = archives.of(["other_p2p"])
    assert again == first
    assert again is not first


def test_only_modules_of_the_callers_own_are_local(project: Path) -> None:
    assert is_local("boxed_p2p.anything")
    for name in ("json", "sys", "numpy.linalg", "p2psched.client", "__main__", "no_such", ""):
        assert not is_local(name), name


def test_what_cannot_travel_says_what_to_do(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modules, "FILES_MAX", 2)
    with pytest.raises(UsageError, match="install them on the peers and pass modules='none'"):
        Archives().of(["boxed_p2p"])
    monkeypatch.setattr(modules, "FILES_MAX", 100)
    (project / "boxed_p2p" / "fast.abi3.so").write_bytes(b"")
    with pytest.raises(UsageError, match="compiled parts"):
        Archives().of(["boxed_p2p"])
    with pytest.raises(UsageError, match="no module 'no_such_p2p'"):
        Archives().of(["no_such_p2p"])


def test_a_function_is_importable_only_as_exactly_itself() -> None:
    def inner() -> None:
        pass

    assert importable_as(names_in) == f"{__name__}:names_in"
    assert importable_as(JobSpec) == "p2psched.model.job:JobSpec"
    assert importable_as(inner) == ""
    assert importable_as(lambda: None) == ""


def test_a_pickle_tells_the_modules_that_it_imports() -> None:
    def uses() -> object:
        return np.zeros(1), JobSpec, json_module

    import json as json_module  # noqa: PLC0415 - a module in a closure

    found = named_in(cloudpickle.dumps(uses))
    assert {"json", "p2psched.model.job"} <= found
    assert "numpy" in found
    assert __name__ not in found
    assert named_in(b"junk") == set()
