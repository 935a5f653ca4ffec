"""What the port `Disk` promises, asked of the real adapter and of its simulated twin."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from p2psched.ports.disk import Disk
from p2psched.store.disk import OsDisk
from p2psched.testing.sim_disk import SimDisk

MakeDisk = Callable[[Path], Disk]


@pytest.fixture(params=[OsDisk, lambda _: SimDisk(random.Random(1))], ids=["os", "sim"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Disk:
    make: MakeDisk = request.param
    return make(tmp_path / "data")


def test_a_new_folder_has_no_names(disk: Disk) -> None:
    assert disk.names() == []


def test_opening_a_missing_file_makes_an_empty_one(disk: Disk) -> None:
    file = disk.open_append("log")
    assert (file.size, disk.names(), disk.read("log")) == (0, ["log"], b"")
    file.close()


def test_names_are_sorted(disk: Disk) -> None:
    for name in ("b", "c", "a"):
        disk.replace(name, b"")
    assert disk.names() == ["a", "b", "c"]


def test_written_bytes_are_readable_before_and_after_sync(disk: Disk) -> None:
    file = disk.open_append("log")
    file.write(b"one")
    file.write(b"")
    assert disk.read("log") == b"one"
    file.write(b"two")
    file.sync()
    assert (disk.read("log"), file.size) == (b"onetwo", 6)
    file.close()


def test_reopening_appends_at_the_end(disk: Disk) -> None:
    for part in (b"one", b"two"):
        file = disk.open_append("log")
        file.write(part)
        file.close()
    assert disk.read("log") == b"onetwo"


def test_a_closed_file_takes_neither_write_nor_sync_and_may_be_closed_again(disk: Disk) -> None:
    file = disk.open_append("log")
    file.close()
    file.close()
    with pytest.raises(OSError, match="log"):
        file.write(b"x")
    with pytest.raises(OSError, match="log"):
        file.sync()


def test_reading_a_missing_file_says_that_it_is_missing(disk: Disk) -> None:
    with pytest.raises(FileNotFoundError, match="gone"):
        disk.read("gone")


def test_cutting_a_missing_file_says_that_it_is_missing(disk: Disk) -> None:
    with pytest.raises(FileNotFoundError, match="gone"):
        disk.truncate("gone", 0)


def test_replace_makes_a_file_and_then_changes_all_of_it(disk: Disk) -> None:
    disk.replace("vote", b"a long first text")
    disk.replace("vote", b"short")
    assert (disk.read("vote"), disk.names()) == (b"short", ["vote"])


def test_truncate_keeps_the_front_and_appending_goes_on_there(disk: Disk) -> None:
    disk.replace("log", b"kept, cut")
    disk.truncate("log", 4)
    file = disk.open_append("log")
    assert file.size == 4
    file.write(b"!")
    file.close()
    assert disk.read("log") == b"kept!"


def test_remove_removes_and_does_not_mind_a_missing_file(disk: Disk) -> None:
    disk.replace("log", b"x")
    disk.remove("log")
    disk.remove("log")
    assert disk.names() == []


@pytest.mark.parametrize("name", ["", "a/b", "../a", ".hidden"])
def test_a_name_that_is_no_plain_file_of_the_folder_is_our_own_mistake(
    disk: Disk, name: str
) -> None:
    with pytest.raises(AssertionError):
        disk.open_append(name)


def test_parts_of_a_file_can_be_read(disk: Disk) -> None:
    disk.replace("whole", b"0123456789")
    assert disk.read_part("whole", 0, 4) == b"0123"
    assert disk.read_part("whole", 8, 4) == b"89"
    assert disk.read_part("whole", 10, 4) == b""
    with pytest.raises(FileNotFoundError):
        disk.read_part("other", 0, 1)


def test_a_renamed_file_takes_the_place_of_another(disk: Disk) -> None:
    disk.replace("old", b"old")
    file = disk.open_append("new")
    file.write(b"new")
    file.sync()
    file.close()
    disk.rename("new", "old")
    assert (disk.names(), disk.read("old")) == (["old"], b"new")


def test_a_file_that_comes_in_pieces_has_its_start_last(disk: Disk) -> None:
    disk.replace("state", b"an older one")
    file = disk.make("new", 4)
    file.write(b"one")
    file.write(b"two")
    file.finish(b"HEAD")
    disk.rename("new", "state")
    assert (disk.names(), disk.read("state")) == (["state"], b"HEADonetwo")


def test_a_half_made_file_can_be_removed_and_begun_again(disk: Disk) -> None:
    file = disk.make("new", 2)
    file.write(b"much more than the next")
    file.close()
    disk.remove("new")
    assert disk.names() == []
    file = disk.make("new", 2)
    file.finish(b"ok")
    assert disk.read("new") == b"ok"


def test_a_mapped_file_outlives_its_name(disk: Disk) -> None:
    disk.replace("state", b"bytes of a state")
    disk.replace("empty", b"")
    view = disk.map("state")
    disk.remove("state")
    assert (bytes(view[6:8]), bytes(disk.map("empty"))) == (b"of", b"")
    with pytest.raises(FileNotFoundError):
        disk.map("state")
