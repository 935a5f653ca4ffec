"""The folders of program tasks: whatever a name says, nothing is written outside of them."""

from __future__ import annotations

import os
import select
import stat
from pathlib import Path

import pytest

from p2psched.run.host import folders, streams


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
    (tmp_path / "task.stderr").symlink_to(outside)
    stream = streams.Stream("stderr")
    assert stream.open(str(tmp_path / "task"))
    os.write(stream.writer, b"hello")
    stream.read(show=True)
    stream.read(show=True)
    stream.close()
    assert stream.capture.body() == b"hello"
    assert outside.read_text() == "untouched"


def test_what_a_program_writes_is_in_no_file_until_it_is_shown(tmp_path: Path) -> None:
    output = streams.Streams(select.poll())
    output.open(str(tmp_path / "task"))
    due = [output.due_ns]
    stream = output.stderr
    os.write(stream.writer, b"soon")
    stream.read(show=False)
    due.append(output.due_ns)
    assert list(tmp_path.iterdir()) == []
    output.show()
    os.write(stream.writer, b", now")
    stream.read(show=True)
    assert (tmp_path / "task.stderr").read_bytes() == b"soon, now"
    assert stream.capture.body() == b"soon, now"
    due.append(output.due_ns)
    assert [at is None for at in due] == [True, False, True]
    output.close()


def test_folders_of_two_tasks_share_no_folder_that_one_could_take_from_the_other() -> None:
    names = [folders.name_of("ab" * 16, index, grant) for index in (0, 1) for grant in (3, 30)]
    assert len(set(names)) == 4
    assert not any("/" in name for name in names)


def test_the_next_task_takes_an_untouched_folder_over_and_no_other(tmp_path: Path) -> None:
    place = folders.Place()
    assert place.enter(str(tmp_path / "a"), [])
    inode = (tmp_path / "a").stat().st_ino
    place.leave(is_alone=True)
    assert not place.enter(str(tmp_path / "b"), [("data", 0o600, b"sent")])
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    assert (tmp_path / "b").stat().st_ino == inode
    assert (tmp_path / "b" / "data").read_bytes() == b"sent"
    place.leave(is_alone=True)  # what was sent to one is not there for the next
    assert list(tmp_path.iterdir()) == []
    for is_alone, mode in ((False, 0o700), (True, 0o500)):
        assert place.enter(str(tmp_path / "c"), [])
        (tmp_path / "c").chmod(mode)
        place.leave(is_alone=is_alone)
        assert list(tmp_path.iterdir()) == []


def test_a_link_or_another_folder_in_its_place_is_not_taken_over(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    for swap in ("link", "folder", "nothing"):
        place, task, moved = folders.Place(), tmp_path / "task", tmp_path / "moved"
        place.enter(str(task), [])
        task.rename(moved)
        if swap == "link":
            task.symlink_to(elsewhere)
        elif swap == "folder":
            task.mkdir(mode=0o700)
        place.leave(is_alone=True)
        assert not os.path.lexists(task)
        assert place.enter(str(tmp_path / "next"), []), swap
        place.close()
        moved.rmdir()
    assert elsewhere.is_dir()


def test_a_folder_that_an_attempt_left_gives_way_to_the_one_that_is_taken_over(
    tmp_path: Path,
) -> None:
    place = folders.Place()
    place.enter(str(tmp_path / "a"), [])
    place.leave(is_alone=True)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "old").touch()
    assert not place.enter(str(tmp_path / "b"), [])
    assert list((tmp_path / "b").iterdir()) == []
    place.close()
    place.close()
    assert list(tmp_path.iterdir()) == []


def test_pipes_are_kept_only_if_they_are_empty_and_nobody_else_can_hold_them(
    tmp_path: Path,
) -> None:
    output = streams.Streams(select.poll())
    output.open(str(tmp_path / "task"))
    kept = os.fstat(output.stdout.writer).st_ino
    os.write(output.stdout.writer, b"one")
    output.drain()
    assert output.stdout.capture.body() == b"one"
    output.leave(is_alone=True, is_told=True)
    output.open(str(tmp_path / "task"))
    assert (os.fstat(output.stdout.writer).st_ino, output.is_empty) == (kept, True)
    for is_alone, data in ((False, b""), (True, b"left")):
        before = os.fstat(output.stdout.writer).st_ino
        os.write(output.stdout.writer, data)
        output.leave(is_alone=is_alone, is_told=True)
        output.open(str(tmp_path / "task"))
        output.drain()
        assert (os.fstat(output.stdout.writer).st_ino != before, output.is_empty) == (True, True)
    output.close()
