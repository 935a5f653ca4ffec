"""The log in good days: what is written comes back, segments, space, refusals."""

from __future__ import annotations

import errno
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from p2psched.model.ids import PeerId
from p2psched.model.raft import Entry, EntryKind, HardState
from p2psched.ports.disk import Disk
from p2psched.store.disk import OsDisk
from p2psched.store.log import LogStore, Recovered
from p2psched.store.marker import MARKER
from p2psched.store.segments import HEADER_BYTES
from p2psched.testing.sim_disk import SimDisk

STATE = HardState(term=3, vote=PeerId("a" * 32))
SMALL = 512


def entry(index: int, *, term: int = 1, size: int = 10) -> Entry:
    return Entry(index, term, EntryKind.COMMANDS, index * 10, index * 1000, b"p" * size)


def entries(first: int, last: int, *, term: int = 1, size: int = 10) -> list[Entry]:
    return [entry(index, term=term, size=size) for index in range(first, last + 1)]


def append(log: LogStore, new: Sequence[Entry]) -> None:
    log.write(hard_state=None, truncate_from=None, entries=new)


def make() -> SimDisk:
    return SimDisk(random.Random(1))


def reopened(disk: Disk, log: LogStore) -> tuple[LogStore, Recovered]:
    log.close()
    return LogStore.open(disk, segment_bytes_max=SMALL)


def test_a_fresh_log_is_empty_and_one_segment() -> None:
    disk = make()
    log, found = LogStore.open(disk)
    assert found == Recovered(hard_state=HardState(), entries=[], torn_bytes=0, files=1)
    assert disk.names() == ["log-00000001.seg", MARKER]
    assert log.size_bytes == HEADER_BYTES


def test_an_empty_log_opens_again_without_growing() -> None:
    disk = make()
    log, _ = LogStore.open(disk)
    log, found = reopened(disk, log)
    assert (found.entries, found.files, log.size_bytes) == ([], 1, HEADER_BYTES)


@pytest.mark.parametrize("real", [True, False], ids=["os", "sim"])
def test_what_was_written_comes_back(tmp_path: Path, *, real: bool) -> None:
    disk: Disk = OsDisk(tmp_path) if real else make()
    log, _ = LogStore.open(disk, segment_bytes_max=SMALL)
    log.write(hard_state=STATE, truncate_from=None, entries=entries(1, 3))
    log.sync()
    for index in range(4, 40):
        append(log, [entry(index, size=index)])
        log.sync()
    log, found = reopened(disk, log)
    assert found.hard_state == STATE
    assert found.entries == entries(1, 3) + [entry(index, size=index) for index in range(4, 40)]
    segments = [name for name in disk.names() if name != MARKER]
    assert (found.torn_bytes, found.files) == (0, len(segments))
    assert found.files > 2
    assert log.size_bytes == sum(len(disk.read(name)) for name in segments)
    log.close()


def test_every_kind_and_extreme_values_come_back() -> None:
    disk = make()
    odd = [
        Entry(1, 2**63, EntryKind.NOOP, -1, 2**62, b""),
        Entry(2, 2**63, EntryKind.MEMBERSHIP, 2**63 - 1, -(2**63), bytes(range(256)) * 3),
    ]
    log, _ = LogStore.open(disk)
    log.write(hard_state=HardState(term=2**64 - 1), truncate_from=None, entries=odd)
    log, found = reopened(disk, log)
    assert (found.entries, found.hard_state) == (odd, HardState(term=2**64 - 1))


def test_the_last_hard_state_counts() -> None:
    disk = make()
    log, _ = LogStore.open(disk)
    for term in (1, 2, 7):
        log.write(hard_state=HardState(term=term), truncate_from=None, entries=())
    log, found = reopened(disk, log)
    assert found.hard_state == HardState(term=7)


def test_a_truncation_voids_the_suffix_and_new_entries_take_its_place() -> None:
    disk = make()
    log, _ = LogStore.open(disk)
    append(log, entries(1, 5))
    log.write(hard_state=STATE, truncate_from=3, entries=entries(3, 4, term=2))
    log.write(hard_state=None, truncate_from=5, entries=[entry(5, term=2)])  # voids nothing
    log, found = reopened(disk, log)
    assert found.entries == entries(1, 2) + entries(3, 5, term=2)


def test_a_truncation_reaches_into_earlier_segments() -> None:
    disk = make()
    log, _ = LogStore.open(disk, segment_bytes_max=SMALL)
    for new in entries(1, 30):
        append(log, [new])
    log.write(hard_state=None, truncate_from=1, entries=())
    append(log, [entry(1, term=9)])
    log, found = reopened(disk, log)
    assert found.entries == [entry(1, term=9)]


def test_a_gap_in_the_entries_is_our_own_mistake_and_writes_nothing() -> None:
    disk = make()
    log, _ = LogStore.open(disk)
    append(log, entries(1, 3))
    before = disk.read("log-00000001.seg")
    for truncate_from, new in ((None, [entry(5)]), (5, []), (0, []), (2, [entry(3)])):
        with pytest.raises(AssertionError):
            log.write(hard_state=None, truncate_from=truncate_from, entries=new)
    assert disk.read("log-00000001.seg") == before


def test_a_group_is_one_write_and_a_sync_is_one_sync() -> None:
    disk = make()
    log, _ = LogStore.open(disk)
    log.write(hard_state=STATE, truncate_from=None, entries=[])  # and its second copy
    log.sync()
    writes, syncs = disk.writes, disk.syncs
    log.write(hard_state=STATE, truncate_from=None, entries=entries(1, 100))
    assert (disk.writes - writes, disk.syncs - syncs) == (1, 0)
    log.sync()
    assert (disk.writes - writes, disk.syncs - syncs) == (1, 1)


def test_nothing_to_write_and_nothing_to_sync_cost_nothing() -> None:
    disk = make()
    log, _ = LogStore.open(disk)
    steps = disk.steps
    append(log, [])
    log.sync()
    assert disk.steps == steps


def test_a_segment_over_its_maximum_is_synced_before_the_next_is_made() -> None:
    disk = make()
    log, _ = LogStore.open(disk, segment_bytes_max=SMALL)
    append(log, [entry(1, size=SMALL)])  # not synced by us
    append(log, [entry(2)])
    assert disk.names() == ["log-00000001.seg", "log-00000002.seg", MARKER]
    disk.crash()
    _, found = LogStore.open(disk)
    assert found.entries[:1] == [entry(1, size=SMALL)]


def test_other_files_of_the_folder_are_left_alone() -> None:
    disk = make()
    for name in ("identity", "log-1.seg", "log-00000009.seg.old", "xlog-00000009.seg"):
        disk.replace(name, b"not ours")
    log, found = LogStore.open(disk)
    assert found.files == 1
    log.close()
    assert disk.read("log-1.seg") == b"not ours"


def test_a_full_disk_refuses_a_write_and_takes_it_again_when_there_is_space() -> None:
    disk = make()
    log, _ = LogStore.open(disk, segment_bytes_max=SMALL)
    append(log, entries(1, 2))
    disk.free_bytes = 100
    size = log.size_bytes
    with pytest.raises(OSError, match="no space") as raised:
        append(log, entries(3, 9))
    assert raised.value.errno == errno.ENOSPC
    assert log.size_bytes == size
    disk.free_bytes = 10_000
    append(log, entries(3, 9))
    log.sync()
    log, found = reopened(disk, log)
    assert (found.entries, found.torn_bytes) == (entries(1, 9), 0)


@pytest.mark.parametrize("room", [0, 10, HEADER_BYTES, HEADER_BYTES + 10])
def test_a_full_disk_at_a_new_segment_is_survived_too(room: int) -> None:
    disk = make()
    log, _ = LogStore.open(disk, segment_bytes_max=SMALL)
    append(log, entries(1, 8))
    disk.free_bytes = room
    for _ in range(2):
        with pytest.raises(OSError, match="no space"):
            append(log, [entry(9)])
    disk.free_bytes = None
    append(log, [entry(9)])
    log.sync()
    log, found = reopened(disk, log)
    assert (found.entries, found.torn_bytes, found.files) == (entries(1, 9), 0, 2)


@pytest.mark.parametrize("room", [0, 20])
@pytest.mark.parametrize("last", [1, 8], ids=["same-segment", "next-segment"])
def test_an_existing_log_opens_on_a_full_disk(last: int, room: int) -> None:
    disk = make()
    log, _ = LogStore.open(disk, segment_bytes_max=SMALL)
    append(log, entries(1, last))
    disk.free_bytes = room
    log, found = reopened(disk, log)
    assert found.entries == entries(1, last)
    disk.free_bytes = None
    append(log, [entry(last + 1)])
    log, found = reopened(disk, log)
    assert (found.entries, found.torn_bytes) == (entries(1, last + 1), 0)


def test_after_a_failed_sync_every_call_raises() -> None:
    disk = make()
    log, _ = LogStore.open(disk)
    append(log, [entry(1)])
    disk.fail_next_sync = True
    with pytest.raises(OSError, match="sync failed"):
        log.sync()
    syncs = disk.syncs
    with pytest.raises(OSError, match="stop the peer"):
        log.sync()
    with pytest.raises(OSError, match="stop the peer"):
        append(log, [entry(2)])
    assert disk.syncs == syncs  # never retried


def test_a_failed_sync_at_a_new_segment_poisons_too() -> None:
    for fails_at in (1, 2):  # of the old segment, of the new one's header
        disk = make()
        log, _ = LogStore.open(disk, segment_bytes_max=SMALL)
        append(log, entries(1, 8))
        if fails_at == 2:
            log.sync()
        disk.fail_next_sync = True
        with pytest.raises(OSError, match="sync failed"):
            append(log, [entry(9)])
        with pytest.raises(OSError, match="stop the peer"):
            log.sync()


def test_a_write_that_failed_for_another_reason_poisons() -> None:
    disk = make()
    log, _ = LogStore.open(disk)
    disk.short_write = 7
    with pytest.raises(OSError, match="short write"):
        append(log, [entry(1)])
    with pytest.raises(OSError, match="stop the peer"):
        append(log, [entry(1)])
    log, found = reopened(disk, log)
    assert (found.entries, found.torn_bytes) == ([], 7)


def test_a_closed_log_takes_nothing_more() -> None:
    log, _ = LogStore.open(make())
    log.close()
    log.close()
    with pytest.raises(OSError, match="closed"):
        append(log, [entry(1)])


def test_what_a_process_wrote_is_counted_headers_aside() -> None:
    disk = make()
    log, _ = LogStore.open(disk, segment_bytes_max=SMALL)
    append(log, entries(1, 30))
    append(log, entries(31, 60))
    log.sync()
    segments = [name for name in disk.names() if name.startswith("log-")]
    assert log.written_bytes == log.size_bytes - HEADER_BYTES * len(segments)
    log, _ = reopened(disk, log)
    assert 0 < log.written_bytes < 200  # the seal of a start
