"""Snapshots that come piece by piece, and logs that let go of all that one stands for."""

from __future__ import annotations

import random

import pytest

from p2psched.store.log import LogStore
from p2psched.store.snapshots import MAKING, snapshot_name
from p2psched.store.space import NoRoom
from p2psched.testing.sim_disk import SimDisk
from tests.store.test_snapshots import (
    GOLDEN_MARKED,
    VOTE,
    append,
    entries,
    opened,
    save,
    snapshot_at,
    state_at,
    stored_golden,
)


def test_pieces_are_read_from_a_file_whose_head_is_of_an_older_version() -> None:
    disk = SimDisk(random.Random(0))
    for name, data in stored_golden(GOLDEN_MARKED).items():
        disk.replace(name, data)
    log, _ = opened(disk)
    assert log.snapshots.read_piece(snapshot_at(9, term=3), 10, 20) == state_at(9)[10:30]


def test_a_log_that_lets_go_of_all_keeps_one_snapshot_and_goes_on() -> None:
    disk = SimDisk(random.Random(0))
    log, _ = opened(disk)
    append(log, entries(1, 30), VOTE)
    save(log, 15)
    before = log.disk_bytes()
    assert log.begin_segment() == log.begin_segment() == 30
    save(log, 30)
    log.compact(kept=1)
    assert log.disk_bytes() < before // 2
    assert [name for name in disk.names() if name.startswith("snap")] == [snapshot_name(30)]
    append(log, entries(31, 33))
    log.close()
    _, found = opened(disk)
    assert (found.snapshot, found.entries) == (snapshot_at(30), entries(31, 33))
    assert found.hard_state == VOTE


def test_a_segment_that_finds_no_space_to_begin_changes_nothing() -> None:
    disk = SimDisk(random.Random(0))
    log, _ = opened(disk)
    append(log, entries(1, 3), VOTE)
    disk.free_bytes = 10
    with pytest.raises(NoRoom):
        log.begin_segment()
    disk.free_bytes = None
    append(log, entries(4, 5))
    log.close()
    assert opened(disk)[1].entries == entries(1, 5)


def test_of_a_snapshot_that_was_being_made_nothing_is_left() -> None:
    disk = SimDisk(random.Random(0))
    log, _ = LogStore.open(disk)
    append(log, entries(1, 9), VOTE)
    new = log.snapshots.begin(snapshot_at(9))
    new.write(b"a part")
    disk.fail_next_sync = True
    with pytest.raises(OSError, match="asked for"):
        new.finish()
    log.close()
    disk.replace(MAKING, b"of a process that was killed")
    _, found = opened(disk)
    assert found.snapshot is None
    assert MAKING not in disk.names()
