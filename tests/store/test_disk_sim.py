"""How the simulated disk fails: what a crash may do, and what it may not."""

from __future__ import annotations

import errno
import random

import pytest

from p2psched.testing.sim_disk import SECTOR_BYTES, SimDisk

SEEDS = range(200)


def make(seed: int = 1) -> SimDisk:
    return SimDisk(random.Random(seed))


def crash_images(disk: SimDisk, name: str) -> set[bytes | None]:
    """What is left of a file after the same moment of crash, over many seeds."""
    images: set[bytes | None] = set()
    for seed in SEEDS:
        twin = disk.copy(random.Random(seed))
        twin.crash()
        images.add(twin.read(name) if name in twin.names() else None)
    return images


def test_what_was_synced_survives_every_crash() -> None:
    disk = make()
    file = disk.open_append("log")
    file.write(b"synced")
    file.sync()
    assert crash_images(disk, "log") == {b"synced"}


def test_unsynced_bytes_are_lost_kept_torn_zeroed_or_end_in_garbage() -> None:
    disk = make()
    file = disk.open_append("log")
    file.write(b"s" * 100)
    file.sync()
    file.write(b"u" * 2000)
    images = {image for image in crash_images(disk, "log") if image is not None}
    assert all(image.startswith(b"s" * 100) and len(image) <= 2100 for image in images)
    tails = {image[100:] for image in images}
    assert b"" in tails
    assert b"u" * 2000 in tails
    assert any(0 < len(tail) < 2000 and set(tail) == set(b"u") for tail in tails)
    assert any(tail and not any(tail) for tail in tails)
    assert any(set(tail) - set(b"u\0") for tail in tails)
    holes = [tail for tail in tails if b"\0u" in tail]
    assert holes
    first = (holes[0].index(b"\0u") + 101) % SECTOR_BYTES
    assert first == 0  # what comes back behind a hole starts on a sector


def test_handles_of_before_the_crash_are_dead() -> None:
    disk = make()
    file = disk.open_append("log")
    disk.crash()
    with pytest.raises(OSError, match="before the crash"):
        file.write(b"x")
    with pytest.raises(OSError, match="before the crash"):
        file.sync()


def test_a_killed_process_loses_its_handles_but_no_bytes() -> None:
    disk = make()
    file = disk.open_append("log")
    file.write(b"unsynced")
    disk.kill()
    assert disk.read("log") == b"unsynced"
    with pytest.raises(OSError, match="before the crash"):
        file.write(b"x")
    assert b"" in crash_images(disk, "log")


def test_the_same_seed_gives_the_same_crash() -> None:
    def run() -> bytes:
        disk = make(5)
        disk.open_append("log").write(bytes(range(256)) * 16)
        disk.crash()
        return disk.read("log")

    assert run() == run()


@pytest.mark.parametrize("steps", range(5))
def test_a_replace_cut_short_by_power_leaves_the_old_or_the_new_file(steps: int) -> None:
    disk = make()
    disk.replace("vote", b"old")
    disk.steps_left = steps
    if steps < 4:
        with pytest.raises(OSError, match="power"):
            disk.replace("vote", b"new")
    else:
        disk.replace("vote", b"new")
    expected = {3: {b"old", b"new"}, 4: {b"new"}}.get(steps, {b"old"})
    assert crash_images(disk, "vote") == expected


def test_a_new_name_that_was_not_synced_may_be_gone() -> None:
    disk = make()
    disk.steps_left = 1
    with pytest.raises(OSError, match="power"):
        disk.open_append("log")
    assert crash_images(disk, "log") == {b"", None}


def test_a_cut_that_was_not_synced_may_not_have_happened() -> None:
    disk = make()
    disk.replace("log", b"front, back")
    disk.steps_left = 1
    with pytest.raises(OSError, match="power"):
        disk.truncate("log", 5)
    assert crash_images(disk, "log") == {b"front", b"front, back"}


def test_a_removal_that_was_not_synced_may_not_have_happened() -> None:
    disk = make()
    disk.replace("log", b"x")
    disk.steps_left = 1
    with pytest.raises(OSError, match="power"):
        disk.remove("log")
    assert crash_images(disk, "log") == {b"x", None}


def test_without_power_every_call_fails_until_the_crash() -> None:
    disk = make()
    file = disk.open_append("log")
    disk.steps_left = 0
    for call in (disk.names, lambda: disk.read("log"), lambda: file.write(b"x"), file.sync):
        with pytest.raises(OSError, match=r"power|closed"):
            call()
    disk.crash()
    assert disk.names() == ["log"]


def test_a_failed_sync_kills_the_handle_and_a_later_sync_does_not_save_the_bytes() -> None:
    disk = make()
    file = disk.open_append("log")
    file.write(b"synced+")
    file.sync()
    file.write(b"doubtful")
    disk.fail_next_sync = True
    with pytest.raises(OSError, match="sync failed"):
        file.sync()
    with pytest.raises(OSError, match="open it again"):
        file.sync()
    again = disk.open_append("log")
    again.write(b"+synced")
    again.sync()
    images = {image for image in crash_images(disk, "log") if image is not None}
    assert b"synced+" + bytes(8) + b"+synced" in images
    assert b"synced+doubtful+synced" in images
    assert all(len(image) == 22 for image in images)
    assert all(image.startswith(b"synced+") and image.endswith(b"+synced") for image in images)


def test_a_full_disk_stores_what_fits_and_takes_more_when_there_is_room() -> None:
    disk = make()
    disk.free_bytes = 4
    file = disk.open_append("log")
    with pytest.raises(OSError, match="no space") as raised:
        file.write(b"sixsix")
    assert raised.value.errno == errno.ENOSPC
    assert disk.read("log") == b"sixs"
    disk.truncate("log", 1)
    assert disk.free_bytes == 3
    file.write(b"abc")
    assert disk.read("log") == b"sabc"
    disk.remove("log")
    assert disk.free_bytes == 4


def test_a_replace_that_finds_no_space_keeps_the_old_file_and_gives_the_room_back() -> None:
    disk = make()
    disk.replace("vote", b"old")
    disk.free_bytes = 2
    with pytest.raises(OSError, match="no space"):
        disk.replace("vote", b"new")
    assert (disk.read("vote"), disk.free_bytes) == (b"old", 2)


def test_a_short_write_stores_its_part_and_fails_once() -> None:
    disk = make()
    file = disk.open_append("log")
    disk.short_write = 2
    with pytest.raises(OSError, match="short write, 2 of 4"):
        file.write(b"abcd")
    file.write(b"!")
    assert disk.read("log") == b"ab!"


def test_flip_bit_flips_one_bit_and_twice_is_nothing() -> None:
    disk = make()
    disk.replace("log", b"\0\0")
    disk.flip_bit("log", 9)
    assert disk.read("log") == b"\0\2"
    disk.flip_bit("log", 9)
    assert disk.read("log") == b"\0\0"


def test_counters_count_writes_and_syncs_of_files() -> None:
    disk = make()
    file = disk.open_append("log")
    file.write(b"a")
    file.write(b"b")
    file.sync()
    disk.replace("vote", b"c")
    assert (disk.writes, disk.syncs) == (3, 2)
