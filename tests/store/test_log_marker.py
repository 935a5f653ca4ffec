"""The marker of the synced end: what it makes damage, what stays torn, and damage of its own."""

from __future__ import annotations

import contextlib
import errno
import random
import struct
import zlib
from collections.abc import Callable

import pytest

from p2psched.model.errors import Damaged, Refused
from p2psched.model.ids import PeerId
from p2psched.model.raft import Entry, EntryKind, HardState, Member, Membership, Snapshot
from p2psched.store.log import LogStore, Recovered
from p2psched.store.marker import MARKER, Mark, Marked, MarkerState, decode_marked, encode_marked
from p2psched.store.segments import segment_name
from p2psched.store.snapshots import described
from p2psched.store.space import NoRoom
from p2psched.testing.sim_disk import SimDisk

SMALL = 700
LAST = 9
VOTE = HardState(term=7, vote=PeerId("ab" * 16))
MEMBERSHIP = Membership((Member(PeerId("a"), "name", "host:1"),))


def entry(index: int, size: int = 90) -> Entry:
    return Entry(index, 7, EntryKind.COMMANDS, index, 0, bytes([index % 256]) * size)


def append(log: LogStore, *indices: int) -> None:
    log.write(hard_state=None, truncate_from=None, entries=[entry(index) for index in indices])
    log.sync()


def made(disk: SimDisk) -> LogStore:
    """Several segments, all synced; the marker is where `open` left it."""
    log, _ = LogStore.open(disk, segment_bytes_max=SMALL)
    log.write(hard_state=VOTE, truncate_from=None, entries=[])
    for index in range(1, LAST + 1):
        append(log, index)
    return log


def marked() -> SimDisk:
    """A log whose marker tells its end."""
    disk = SimDisk(random.Random(0))
    log = made(disk)
    log.mark_end()
    assert log.is_marked
    log.close()
    return disk


def opened(disk: SimDisk) -> Recovered:
    log, found = LogStore.open(disk, segment_bytes_max=SMALL)
    log.close()
    return found


def newest(disk: SimDisk) -> str:
    return max(name for name in disk.names() if name.startswith("log-"))


def refused(disk: SimDisk) -> Damaged:
    before = {name: disk.read(name) for name in disk.names()}
    with pytest.raises(Damaged) as raised:
        LogStore.open(disk, segment_bytes_max=SMALL)
    assert {name: disk.read(name) for name in disk.names()} == before
    return raised.value


def test_a_log_cut_anywhere_before_its_marker_is_damage_with_file_and_offset() -> None:
    disk = marked()
    names = [name for name in disk.names() if name.startswith("log-")]
    assert len(names) > 2
    for name in names:
        data = disk.read(name)
        for size in range(len(data)):
            disk.replace(name, data[:size])
            damage = refused(disk)
            assert damage.offset is not None
            assert damage.offset <= size or damage.file != name
        disk.replace(name, data)
    assert opened(disk).entries == [entry(index) for index in range(1, LAST + 1)]


def test_every_flipped_bit_before_the_marker_is_damage_the_last_group_too() -> None:
    disk = marked()
    name = newest(disk)
    for bit in range(8 * len(disk.read(name))):
        disk.flip_bit(name, bit)
        assert refused(disk).file == name
        disk.flip_bit(name, bit)
    assert opened(disk).marker is MarkerState.SOUND


def test_a_lost_last_segment_is_damage_and_so_are_all_of_them() -> None:
    disk = marked()
    name = newest(disk)
    disk.remove(name)
    assert refused(disk).file == name
    for other in [name for name in disk.names() if name != MARKER]:
        disk.remove(other)
    assert "no log" in str(refused(disk))


def test_what_is_lost_behind_the_marker_is_a_torn_tail_and_is_told() -> None:
    disk = SimDisk(random.Random(0))
    log = made(disk)
    log.mark_end()
    name, size = newest(disk), len(disk.read(newest(disk)))
    append(log, LAST + 1)
    log.close()
    data = disk.read(name)
    assert len(data) > size
    for cut in range(size, len(data)):
        twin = disk.copy(random.Random(0))
        twin.replace(name, data[:cut])
        found = opened(twin)
        assert (found.last_index, found.marked_index) == (LAST, LAST)
        assert found.torn_bytes == cut - size
    for cut in range(size):
        disk.replace(name, data[:cut])
        refused(disk)


def test_an_open_vouches_for_what_it_returned() -> None:
    disk = SimDisk(random.Random(0))
    made(disk).close()
    found = opened(disk)
    assert found.marked_index == 0  # nobody moved it since the log was made
    name = newest(disk)
    disk.replace(name, disk.read(name)[:-8])
    refused(disk)


def test_a_log_of_another_history_at_the_same_place_is_damage() -> None:
    """A backup put back, or writes that never reached the disk: lengths fit, the chain does not."""
    ours, other = marked(), SimDisk(random.Random(0))
    log, _ = LogStore.open(other, segment_bytes_max=SMALL)
    log.write(hard_state=VOTE, truncate_from=None, entries=[])
    for index in range(1, LAST + 1):
        entries = [Entry(index, 7, EntryKind.COMMANDS, index, 0, bytes([99]) * 90)]
        log.write(hard_state=None, truncate_from=None, entries=entries)
        log.sync()
    for name in other.names():
        if name != MARKER:
            ours.replace(name, other.read(name))
    assert "it is not what was synced" in str(refused(ours))


# --- the marker itself ----------------------------------------------------------------------------


def test_a_log_of_an_older_version_is_accepted_once_and_gets_a_marker() -> None:
    disk = SimDisk(random.Random(0))
    log, _ = LogStore.open(disk)
    disk.remove(MARKER)  # as if there had never been one: no record says that there was
    append(log, 1, 2)
    log.close()
    found = opened(disk)
    assert (found.marker, found.last_index) == (MarkerState.NONE, 2)
    assert opened(disk).marker is MarkerState.SOUND
    disk.remove(MARKER)
    assert opened(disk).marker is MarkerState.MISSING


@pytest.mark.parametrize(
    ("spoil", "state"),
    [
        (lambda disk: disk.remove(MARKER), MarkerState.MISSING),
        (lambda disk: disk.replace(MARKER, b""), MarkerState.DAMAGED),
        (lambda disk: disk.replace(MARKER, bytes(40)), MarkerState.DAMAGED),
        (lambda disk: disk.replace(MARKER, disk.read(MARKER) + b"0"), MarkerState.DAMAGED),
    ],
)
def test_a_lost_marker_is_told_and_a_whole_log_still_opens(
    spoil: Callable[[SimDisk], None], state: MarkerState
) -> None:
    disk = marked()
    opened(disk)
    spoil(disk)
    found = opened(disk)
    assert (found.marker, found.last_index) == (state, LAST)
    assert opened(disk).marker is MarkerState.SOUND


def test_each_flipped_bit_of_the_marker_is_seen() -> None:
    disk = marked()
    for bit in range(8 * len(disk.read(MARKER))):
        twin = disk.copy(random.Random(0))
        twin.flip_bit(MARKER, bit)
        assert decode_marked(twin.read(MARKER)) is None
        assert opened(twin).marker is MarkerState.DAMAGED


def test_a_torn_end_without_its_marker_is_damage() -> None:
    """Either alone could be mended; together nobody can say how much is gone."""
    disk = marked()
    opened(disk)
    name = newest(disk)
    disk.replace(name, disk.read(name)[:-8])
    disk.flip_bit(MARKER, 200)
    assert "a torn end" in str(refused(disk))
    disk.remove(MARKER)
    assert "a torn end" in str(refused(disk))


def test_a_marker_of_a_newer_format_is_refused() -> None:
    newer = bytearray(encode_marked(Marked(Mark(1, 64, 0, 0), VOTE)))
    newer[8] = 2
    newer[-4:] = struct.pack("<I", zlib.crc32(newer[:-4]))
    with pytest.raises(Refused, match="format 2"):
        decode_marked(bytes(newer))


def test_a_mark_never_goes_back_and_is_not_written_twice() -> None:
    disk = SimDisk(random.Random(0))
    log = made(disk)
    log.mark_end()
    steps = disk.steps
    log.mark_end()
    assert disk.steps == steps
    log.write(hard_state=None, truncate_from=None, entries=[entry(LAST + 1)])
    log.mark_end()  # not synced: there is nothing more to vouch for
    assert disk.steps == steps + 1


def test_term_and_vote_are_in_the_marker_before_they_are_in_the_log() -> None:
    disk = SimDisk(random.Random(0))
    log = made(disk)
    voted = HardState(8, PeerId("c" * 32))
    for steps in range(8):
        twin = disk.copy(random.Random(steps))
        twin_log, _ = LogStore.open(twin, segment_bytes_max=SMALL)
        twin.steps_left = steps
        with contextlib.suppress(OSError):
            twin_log.write(hard_state=voted, truncate_from=None, entries=[])
            twin_log.sync()
        twin.crash()
        told = decode_marked(twin.read(MARKER))
        assert told is not None
        assert opened(twin).hard_state in (VOTE, told.hard_state)
    log.write(hard_state=voted, truncate_from=None, entries=[])
    told = decode_marked(disk.read(MARKER))
    assert told is not None
    assert told.hard_state == voted


def test_a_vote_of_before_the_first_marker_is_in_it() -> None:
    """A log of an older version, and no space for a marker at first; or that version ran again."""
    for had_marker in (False, True):
        disk = marked()
        if not had_marker:
            disk.remove(MARKER)
            disk.free_bytes = 0
        log, _ = LogStore.open(disk, segment_bytes_max=SMALL)
        disk.free_bytes = None
        voted = HardState(8, PeerId("c" * 32))
        if had_marker:
            old = disk.read(MARKER)
            log.write(hard_state=voted, truncate_from=None, entries=[])
            log.sync()
            disk.replace(MARKER, old)
            log.close()
            log, _ = LogStore.open(disk, segment_bytes_max=SMALL)
        else:
            log.write(hard_state=voted, truncate_from=None, entries=[])
            log.sync()
            log.mark_end()
        told = decode_marked(disk.read(MARKER))
        assert told is not None
        assert told.hard_state == voted


def test_a_vote_waits_where_the_marker_finds_no_space() -> None:
    disk = SimDisk(random.Random(0))
    log = made(disk)
    size = log.size_bytes
    disk.free_bytes = 8
    with pytest.raises(NoRoom):
        log.write(hard_state=HardState(8), truncate_from=None, entries=[])
    assert log.size_bytes == size
    disk.free_bytes = None
    log.write(hard_state=HardState(8), truncate_from=None, entries=[])
    log.sync()
    log.close()
    assert opened(disk).hard_state == HardState(8)


# --- crashes, compaction, full disks --------------------------------------------------------------


@pytest.mark.parametrize("steps", range(8))
def test_power_lost_while_the_marker_is_written_leaves_the_old_or_the_new_one(steps: int) -> None:
    for seed in range(8):
        disk = SimDisk(random.Random(seed))
        log = made(disk)
        disk.steps_left = steps
        with contextlib.suppress(OSError):
            log.mark_end()
        disk.crash()
        found = opened(disk)
        assert found.marker is MarkerState.SOUND
        assert found.marked_index in (0, LAST)
        assert found.last_index == LAST


@pytest.mark.parametrize("steps", range(40))
def test_power_lost_in_a_compaction_or_a_reset_loses_nothing_and_is_no_damage(steps: int) -> None:
    for resets in (False, True):
        disk = SimDisk(random.Random(steps))
        log = made(disk)
        disk.steps_left = steps
        try:
            for index in (4, 8):
                state = b"state" * index
                head = described(Snapshot(index, 7, index, MEMBERSHIP), state)
                log.snapshots.save(head, state)
            if resets:
                state = b"of the leader"
                head = described(Snapshot(LAST + 4, 7, 0, MEMBERSHIP), state)
                log.snapshots.save(head, state)
                log.reset(head)
                append(log, LAST + 5)
            else:
                log.compact()
        except OSError:
            assert disk.steps_left == 0
        disk.crash()
        assert opened(disk).last_index >= LAST


def test_after_a_compaction_and_a_reset_the_marker_stands_in_what_is_left() -> None:
    disk = SimDisk(random.Random(0))
    log = made(disk)
    for index in (4, 8):
        head = described(Snapshot(index, 7, index, MEMBERSHIP), b"state")
        log.snapshots.save(head, b"state")
    log.compact()
    assert segment_name(1) not in disk.names()
    first = disk.copy(random.Random(0))
    told = decode_marked(first.read(MARKER))
    assert told is not None
    assert (told.mark.index, told.hard_state) == (LAST, VOTE)
    assert opened(first).marker is MarkerState.SOUND
    head = described(Snapshot(LAST + 4, 7, 0, MEMBERSHIP), b"state")
    log.snapshots.save(head, b"state")
    log.reset(head)
    told = decode_marked(disk.read(MARKER))
    assert told is not None
    assert (told.mark.index, segment_name(told.mark.segment)) == (LAST + 4, newest(disk))
    name = newest(disk)
    disk.replace(name, disk.read(name)[:-8])
    refused(disk)


def test_a_full_disk_keeps_the_old_marker_and_the_log_opens() -> None:
    disk = SimDisk(random.Random(0))
    log = made(disk)
    disk.free_bytes = 8
    with pytest.raises(OSError, match="no space") as raised:
        log.mark_end()
    assert raised.value.errno == errno.ENOSPC
    assert not log.is_marked
    log.close()
    found = opened(disk)
    assert (found.marker, found.last_index, found.marked_index) == (MarkerState.SOUND, LAST, 0)
    disk.free_bytes = None
    log, _ = LogStore.open(disk, segment_bytes_max=SMALL)
    assert log.is_marked


def test_a_compaction_without_space_for_the_marker_keeps_the_segment_that_it_is_in() -> None:
    disk = SimDisk(random.Random(0))
    log = made(disk)
    for index in (4, 8):
        head = described(Snapshot(index, 7, index, MEMBERSHIP), b"state")
        log.snapshots.save(head, b"state")
    disk.free_bytes = 8
    log.compact()
    assert segment_name(1) in disk.names()
    disk.free_bytes = None
    log.compact()
    assert segment_name(1) not in disk.names()
    assert opened(disk).last_index == LAST
