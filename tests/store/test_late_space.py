"""Filesystems that tell only at the sync that there is no space."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path

import pytest

from p2psched.core.raft.effects import Persist, StorePiece
from p2psched.model.raft import HardState
from p2psched.store.disk import OsDisk
from p2psched.store.log import LogStore
from p2psched.store.persist import perform
from p2psched.store.snapshots import SnapshotFiles
from p2psched.store.space import NoRoom
from p2psched.testing.sim_disk import SimDisk, _Inode
from tests.store.test_snapshots import VOTE, append, entries, opened, snapshot_at, state_at


class LateDisk(SimDisk):
    """Takes every write. While it is `full`, a sync of new bytes finds no space for them, and
    forgets them as the kernel does."""

    full = False

    def sync_inode(self, inode: _Inode, name: str) -> None:
        if self.full and inode.durable_len < len(inode.data):
            self.syncs += 1
            inode.sync_failed()
            raise OSError(errno.ENOSPC, "no space, told late", name)
        super().sync_inode(inode, name)


def put(log: LogStore, first: int, last: int) -> None:
    log.write(hard_state=None, truncate_from=None, entries=entries(first, last))


def test_what_a_sync_found_no_space_for_is_taken_back_and_may_be_written_again() -> None:
    disk = LateDisk(random.Random(1))
    log, _ = opened(disk)
    append(log, entries(1, 4), VOTE)
    writes = log.writes
    log.write(hard_state=HardState(8, None), truncate_from=4, entries=entries(4, 5))
    put(log, 6, 6)
    disk.full = True
    with pytest.raises(NoRoom):
        log.sync()
    assert log.writes == writes
    disk.full = False
    put(log, 5, 6)  # as if nothing of it had been there
    log.sync()
    log.close()
    disk.crash()
    _, found = opened(disk)
    assert (found.entries, found.hard_state) == (entries(1, 6), VOTE)


@pytest.mark.parametrize("seed", range(60))
def test_what_was_synced_is_there_and_nothing_else_whenever_space_is_short(seed: int) -> None:
    """Through many segments; each time it is full, power may go."""
    rng = random.Random(seed)
    disk = LateDisk(random.Random(seed))
    log, _ = opened(disk)
    append(log, entries(1, 1), VOTE)
    synced, written = 1, 1
    held: list[int] = []  # the last entry of each write since the sync before
    marks: list[int] = []
    for _ in range(60):
        disk.full = rng.random() < 0.3
        last = written + rng.randint(1, 3)
        try:
            put(log, written + 1, last)
            held.append(last)
            marks.append(log.writes)
            written = last
            if rng.random() < 0.5:
                log.sync()
                synced = written
        except NoRoom:
            kept = [end for end, mark in zip(held, marks, strict=True) if mark <= log.writes]
            written = synced = kept[-1] if kept else synced
            if rng.random() < 0.2:
                log.close()
                disk.crash()
                disk.full = False
                log, found = opened(disk)
                assert found.entries == entries(1, synced)
        if synced == written:
            held, marks = [], []
    disk.full = False
    log.sync()
    log.close()
    disk.crash()
    assert opened(disk)[1].entries == entries(1, written)


@pytest.mark.parametrize("full_for", range(1, 6))
@pytest.mark.parametrize("full_from", [1, 2])
def test_a_snapshot_takes_the_place_of_the_log_when_there_is_space(
    full_from: int, full_for: int
) -> None:
    """So many syncs of new bytes find none; each piece and each step is repeated until it goes."""
    disk = LateDisk(random.Random(full_for))
    log, _ = opened(disk)
    append(log, entries(1, 30), VOTE)
    snapshot, state = snapshot_at(90), state_at(90)
    half = len(state) // 2
    persists = [
        Persist(1, HardState(9, None), None, (), StorePiece(snapshot, 0, state[:half])),
        Persist(2, None, None, (), StorePiece(snapshot, half, state[half:]), snapshot),
    ]
    tries = 0
    while persists:
        tries += persists[0].token >= full_from
        disk.full = 0 < tries <= full_for
        try:
            perform(log, persists[0])
            log.sync()
            persists.pop(0)
        except NoRoom:
            continue
    assert tries > full_for
    append(log, entries(91, 92))
    log.close()
    disk.crash()
    _, found = opened(disk)
    assert (found.snapshot, found.state) == (snapshot, state)
    assert (found.entries, found.hard_state) == (entries(91, 92), HardState(9, None))


def test_one_of_our_own_that_is_half_made_is_not_touched_by_one_that_is_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On real files: the simulated disk has a new file only when it is whole."""
    disk = OsDisk(tmp_path)
    files = SnapshotFiles(disk)
    own = files.begin(snapshot_at(20))
    own.write(state_at(20)[:5])
    files.take_piece(snapshot_at(90), 0, state_at(90))
    sync = os.fdatasync

    def late(descriptor: int) -> None:
        monkeypatch.setattr(os, "fdatasync", sync)
        raise OSError(errno.ENOSPC, "no space, told late")

    monkeypatch.setattr(os, "fdatasync", late)
    files.install(snapshot_at(90))
    assert os.fdatasync is sync
    own.write(state_at(20)[5:])
    own.finish()
    assert [files.read(index)[1] for index in (20, 90)] == [state_at(20), state_at(90)]
    files.drop_unfinished()
    assert len(disk.names()) == 2


def test_another_error_of_a_sync_is_the_end() -> None:
    disk = LateDisk(random.Random(1))
    log, _ = opened(disk)
    append(log, entries(1, 3), VOTE)
    put(log, 4, 4)
    disk.fail_next_sync = True
    with pytest.raises(OSError, match="asked for") as told:
        log.sync()
    assert not isinstance(told.value, NoRoom)
    with pytest.raises(OSError, match="stop the peer"):
        put(log, 5, 5)
