"""The folders of program tasks: whatever a name says, nothing is written outside of them."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from p2psched.run.host import folders


@pytest.mark.parametrize("name", ["../up", ".hidden", "", "a/b", "a\n", "x" * 129, "..", "a\0"])
def test_a_sent_file_with_a_bad_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="a name has 1 to 128"):
        folders.make(str(tmp_path / "task"), [(name, 0o644, b"data")])
    assert list(tmp_path.rglob("*")) == [tmp_path / "task"]


def test_a_folder_left_by_an_earlier_attempt_is_made_anew(tmp_path: Path) -> None:
    task = tmp_path / "task"
    outside = tmp_path / "outside"
    outside.write_text("untouched")
    folders.make(str(task), [])
    (task / "data").symlink_to(outside)
    folders.make(str(task), [("data", 0o4750, b"fresh")])
    assert (task / "data").read_text() == "fresh"
    assert stat.S_IMODE((task / "data").stat().st_mode) == 0o750
    assert outside.read_text() == "untouched"


def test_a_name_that_comes_twice_is_refused_and_never_followed(tmp_path: Path) -> None:
    with pytest.raises(FileExistsError):
        folders.make(str(tmp_path / "task"), [("a", 0o644, b"1"), ("a", 0o644, b"2")])


def test_a_stream_writes_no_further_than_its_bound_and_through_no_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("untouched")
    (tmp_path / "stderr").symlink_to(outside)
    stream = folders.Stream(str(tmp_path), "stderr")
    writer = stream.open()
    with open(writer, "wb", closefd=False) as file:
        file.write(b"hello")
    stream.close_writer()
    assert stream.read()
    assert not stream.read()
    stream.close()
    assert stream.capture.body() == b"hello"
    assert outside.read_text() == "untouched"


def test_folders_of_two_tasks_share_no_folder_that_one_could_take_from_the_other() -> None:
    names = [folders.name_of("ab" * 16, index, grant) for index in (0, 1) for grant in (3, 30)]
    assert len(set(names)) == 4
    assert not any("/" in name for name in names)
