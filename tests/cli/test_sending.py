"""What of this machine's files goes into a job, and how far it is."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from p2psched.cli import progress
from p2psched.cli.progress import Progress
from p2psched.cli.sending import INLINE_BYTES_MAX, modes_of, opened_inputs, sending_of
from p2psched.model.blob import BlobRef
from p2psched.model.errors import UsageError
from p2psched.model.limits import ARGUMENT_INLINE_BYTES_MAX, BLOB_BYTES_MAX


def a_file(folder: Path, name: str, size: int) -> Path:
    path = folder / name
    path.write_bytes(bytes(size))
    path.chmod(0o750)
    return path


def test_small_files_travel_inside_the_job_and_large_ones_as_blobs(tmp_path: Path) -> None:
    small = a_file(tmp_path, "small", ARGUMENT_INLINE_BYTES_MAX - 1)
    large = a_file(tmp_path, "large", ARGUMENT_INLINE_BYTES_MAX)
    sending = sending_of([small, large])
    assert [(file.name, file.mode) for file in sending.files] == [
        ("small", 0o750),
        ("large", 0o750),
    ]
    assert sending.files[0].data == bytes(ARGUMENT_INLINE_BYTES_MAX - 1)
    (upload,) = sending.uploads
    assert (sending.files[1].data, upload.source) == (upload.ref, large)


def test_small_files_that_are_much_together_become_blobs(tmp_path: Path) -> None:
    paths = []
    for number in range(20):
        path = a_file(tmp_path, f"part{number}", 60_000)
        path.write_bytes(number.to_bytes(1) * 60_000)
        paths.append(path)
    sending = sending_of(paths)
    inline = [file for file in sending.files if isinstance(file.data, bytes)]
    assert len(inline) == INLINE_BYTES_MAX // 60_000
    assert len(sending.uploads) == 20 - len(inline)
    assert [file.name for file in sending.files] == [path.name for path in paths]


def test_the_same_bytes_twice_are_one_upload(tmp_path: Path) -> None:
    sending = sending_of([a_file(tmp_path, name, 100_000) for name in "ab"])
    assert len(sending.uploads) == 1
    assert all(isinstance(file.data, BlobRef) for file in sending.files)


def test_what_is_larger_than_any_blob_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "huge"
    with path.open("wb") as file:
        file.truncate(BLOB_BYTES_MAX + 1)  # no block of it is on the disk
    for look in (sending_of, modes_of):
        with pytest.raises(UsageError, match=r"huge: it has 8.0 GiB, and a file may have 8 GiB"):
            look([path])


def test_a_name_that_no_folder_takes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--send .*a sent file's name"):
        sending_of([a_file(tmp_path, "a b", 3)])


def test_inputs_come_from_a_file_or_from_stdin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").write_bytes(b"1\n2\n")
    with opened_inputs(str(tmp_path / "in")) as stream:
        assert stream.read() == b"1\n2\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"3\n")))
    with opened_inputs("-") as stream:
        assert stream.read() == b"3\n"
    for wrong in (tmp_path, tmp_path / "gone"):
        with pytest.raises(UsageError, match="--inputs"), opened_inputs(str(wrong)):
            pass


class Screen(io.StringIO):
    terminal = True

    def isatty(self) -> bool:
        return self.terminal


def screen_of(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """In the test itself: pytest has its own stderr for each phase of one."""
    made = Screen()
    monkeypatch.setattr(sys, "stderr", made)
    monkeypatch.setattr(progress, "SHOWN_AFTER_S", 0.0)
    monkeypatch.setattr(progress, "PERIOD_S", 0.0)
    return made


def test_progress_is_one_line_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = screen_of(monkeypatch)
    shown = Progress("sent", 2048)
    shown(1024)
    shown(2048)  # sent again to another peer
    assert screen.getvalue() == (
        "\rsent 1.0 KiB of 2.0 KiB, 50 %\x1b[K\rsent 2.0 KiB of 2.0 KiB, 100 %\x1b[K"
    )
    shown.hide()
    assert screen.getvalue().endswith("\r\x1b[K")


def test_without_a_terminal_nothing_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = screen_of(monkeypatch)
    screen.terminal = False
    shown = Progress("sent", 2048)
    shown(1024)
    shown.hide()
    assert screen.getvalue() == ""
