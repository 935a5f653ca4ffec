"""What only the real disk can show: modes, short writes, failing system calls."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from p2psched.store.disk import OsDisk


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "data"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The order of the calls that make things durable, folders told from files."""
    seen: list[str] = []

    def record(name: str, real: Callable[[int], None]) -> None:
        def call(fd: int) -> None:
            folder = stat.S_ISDIR(os.fstat(fd).st_mode)
            seen.append("fsync folder" if folder else name)
            real(fd)

        monkeypatch.setattr(os, name, call)

    record("fsync", os.fsync)
    record("fdatasync", os.fdatasync)
    return seen


def fail(*_: object) -> None:
    raise OSError(errno.EIO, "the platter is gone")


def test_folder_and_files_are_for_their_owner_only(folder: Path) -> None:
    disk = OsDisk(folder)
    disk.open_append("log").close()
    disk.replace("vote", b"")
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (folder, folder / "log")]
    assert modes == [0o700, 0o600]
    assert stat.S_IMODE((folder / "vote").stat().st_mode) == 0o600


def test_each_change_of_a_name_syncs_the_folder(folder: Path, calls: list[str]) -> None:
    disk = OsDisk(folder)
    assert calls == ["fsync folder"] * 2  # both names that were missing, in their parents
    calls.clear()
    disk.open_append("log").close()
    assert calls == ["fsync folder"]
    calls.clear()
    disk.replace("log", b"x")
    assert calls == ["fdatasync", "fsync folder"]
    calls.clear()
    disk.remove("log")
    assert calls == ["fsync folder"]


def test_sync_and_truncate_sync_the_file(folder: Path, calls: list[str]) -> None:
    disk = OsDisk(folder)
    file = disk.open_append("log")
    calls.clear()
    file.write(b"four")
    assert calls == []
    file.sync()
    assert calls == ["fdatasync"]
    file.close()
    disk.truncate("log", 2)
    assert calls == ["fdatasync", "fsync"]


def test_short_writes_are_continued(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = OsDisk(folder)
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, bytes(data)[:2]))
    file = disk.open_append("log")
    file.write(b"seven b")
    disk.replace("vote", b"whole")
    assert (disk.read("log"), file.size, disk.read("vote")) == (b"seven b", 7, b"whole")
    file.close()


def test_a_failed_sync_poisons_the_file_for_good(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = OsDisk(folder)
    file = disk.open_append("log")
    file.write(b"x")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        with pytest.raises(OSError, match="platter"):
            file.sync()
    with pytest.raises(OSError, match="its sync failed"):
        file.sync()
    with pytest.raises(OSError, match="its sync failed"):
        file.write(b"y")
    file.close()
    assert disk.read("log") == b"x"


def test_a_replace_that_fails_leaves_the_old_file_and_nothing_else(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = OsDisk(folder)
    disk.replace("vote", b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        with pytest.raises(OSError, match="platter"):
            disk.replace("vote", b"new")
    assert disk.read("vote") == b"old"
    assert [path.name for path in folder.iterdir()] == ["vote"]


def test_a_half_made_file_of_a_killed_process_is_not_listed(folder: Path) -> None:
    disk = OsDisk(folder)
    (folder / ".vote.new").write_bytes(b"half")
    assert disk.names() == []
    disk.replace("vote", b"new")
    assert [path.name for path in folder.iterdir()] == ["vote"]


def test_descriptors_are_not_inherited(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = OsDisk(folder)
    opened: list[int] = []
    real = os.open

    def remember(path: Path, flags: int, mode: int = 0o777) -> int:
        fd = real(path, flags, mode)
        opened.append(fd)
        assert not os.get_inheritable(fd)
        return fd

    monkeypatch.setattr(os, "open", remember)
    disk.open_append("log").close()
    disk.replace("vote", b"")
    disk.truncate("vote", 0)
    assert len(opened) == 5  # the file and its folder, twice, and the file that was cut
