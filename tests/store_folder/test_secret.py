"""The cluster's secret on disk: for its owner's eyes only, and never in a message."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2psched.model.errors import Refused
from p2psched.store.folder import DataFolder, read_secret_file

SECRET = bytes(range(32))


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[DataFolder]:
    with DataFolder.open(tmp_path / "data", create=True) as opened:
        yield opened


def secret_file(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_a_new_folder_has_no_secret(folder: DataFolder) -> None:
    assert folder.read_secret() is None


def test_a_secret_comes_back_and_only_its_owner_can_read_it(folder: DataFolder) -> None:
    old_mask = os.umask(0)
    try:
        folder.write_secret(SECRET)
    finally:
        os.umask(old_mask)
    assert folder.read_secret() == SECRET
    assert folder.secret_path.stat().st_mode & 0o777 == 0o600
    assert folder.secret_path.read_text() == SECRET.hex() + "\n"


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o620])
def test_a_secret_that_others_can_read_is_refused(folder: DataFolder, mode: int) -> None:
    folder.write_secret(SECRET)
    folder.secret_path.chmod(mode)
    with pytest.raises(Refused, match=f"run `chmod 600 {folder.secret_path}`"):
        folder.read_secret()


def test_a_secret_file_of_the_users_own_is_read(tmp_path: Path) -> None:
    path = secret_file(tmp_path / "s", b"  " + SECRET.hex().upper().encode() + b"\r\n\n", 0o400)
    assert read_secret_file(path) == SECRET


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"correct horse battery staple",
        b"ab" * 15,
        b"ab" * 65,
        b"ab" * 100_000,
        b"abc" * 11,
        b"\xff\xfe" * 16,
    ],
    ids=["empty", "words", "short", "long", "huge", "odd", "binary"],
)
def test_what_is_no_secret_is_refused_without_showing_it(tmp_path: Path, content: bytes) -> None:
    path = secret_file(tmp_path / "s", content)
    with pytest.raises(Refused, match="holds no secret") as refused:
        read_secret_file(path)
    assert content == b"" or repr(content[:8])[2:-1] not in str(refused.value)
    assert not isinstance(refused.value.__cause__, UnicodeDecodeError)


def test_a_missing_secret_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="No such file"):
        read_secret_file(tmp_path / "none")


def test_a_pipe_in_the_place_of_a_secret_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(Refused, match="not a plain file"):
        read_secret_file(tmp_path / "pipe")


def test_the_secret_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = secret_file(tmp_path / "s", SECRET.hex().encode())
    if os.getuid() == 0:
        os.chown(path, 12345, -1)
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    with pytest.raises(Refused, match="another user"):
        read_secret_file(path)
