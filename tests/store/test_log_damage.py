"""Damage and torn tails, told apart: what is refused, what is cut, and what can't be known.

Of a log without the marker of its synced end (that has tests of its own), or behind it. The
guarantee: a single flipped bit anywhere before the last group is Damaged. In the last group it
is Damaged or cut off there, and the bytes cut are reported. Nothing is ever changed by Damaged.
"""

from __future__ import annotations

import random
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from p2psched.model.errors import Damaged, P2PSchedError, Refused
from p2psched.model.ids import PeerId
from p2psched.model.raft import Entry, EntryKind, HardState
from p2psched.store.log import LogStore, Recovered
from p2psched.store.marker import MARKER
from p2psched.store.segments import HEADER_BYTES, encode_header, segment_name
from p2psched.testing.sim_disk import SimDisk

GOLDEN = Path(__file__).parent / "golden" / "log_v1.hex"
FIRST, SECOND = segment_name(1), segment_name(2)
SMALL = 600


def entry(index: int, term: int = 1) -> Entry:
    return Entry(index, term, EntryKind.COMMANDS, 7 * index, 9 * index, b"payload" * index)


def write_groups(log: LogStore) -> list[int]:
    """Four groups with all kinds of records. Returns where each starts, and the end."""
    starts = [log.size_bytes]
    log.write(
        hard_state=HardState(term=1, vote=PeerId("ab" * 16)),
        truncate_from=None,
        entries=[entry(1), entry(2)],
    )
    log.sync()
    starts.append(log.size_bytes)
    log.write(hard_state=None, truncate_from=None, entries=[entry(3)])
    log.write(hard_state=HardState(term=2), truncate_from=None, entries=[entry(4)])
    log.sync()
    starts.append(log.size_bytes)
    log.write(hard_state=None, truncate_from=4, entries=[])
    log.sync()
    starts.append(log.size_bytes)
    log.write(hard_state=None, truncate_from=3, entries=[entry(3, 2), entry(4, 2)])
    log.sync()
    starts.append(log.size_bytes)
    return starts


def one_segment() -> tuple[bytes, list[int], list[Entry]]:
    disk = SimDisk(random.Random(0))
    log, _ = LogStore.open(disk)
    starts = write_groups(log)
    return disk.read(FIRST), starts, [entry(1), entry(2), entry(3, 2), entry(4, 2)]


def two_segments() -> tuple[SimDisk, list[Entry]]:
    disk = SimDisk(random.Random(0))
    log, _ = LogStore.open(disk, segment_bytes_max=SMALL)
    write_groups(log)
    log.write(hard_state=None, truncate_from=None, entries=[entry(5, 2)])
    log.sync()
    log.write(hard_state=None, truncate_from=None, entries=[entry(6, 2)])
    log.sync()
    log.close()
    disk.remove(MARKER)
    assert disk.names() == [FIRST, SECOND]
    return disk, [entry(1), entry(2), *(entry(index, 2) for index in range(3, 7))]


def disk_of(**files: bytes) -> SimDisk:
    disk = SimDisk(random.Random(0))
    for name, data in files.items():
        disk.replace(name, data)
    return disk


def disk_with(first: bytes) -> SimDisk:
    return disk_of(**{FIRST: first})


def opened(disk: SimDisk) -> Recovered:
    log, found = LogStore.open(disk)
    log.close()
    return found


def refusal(disk: SimDisk, kind: type[P2PSchedError] = Damaged) -> str:
    """The message of the refusal, after a look that nothing on the disk has changed."""
    before = {name: disk.read(name) for name in disk.names()}
    steps = disk.steps
    with pytest.raises(kind) as raised:
        LogStore.open(disk)
    assert disk.steps == steps
    assert {name: disk.read(name) for name in disk.names()} == before
    return str(raised.value)


def test_every_flipped_bit_before_the_last_group_is_damage_and_changes_nothing() -> None:
    data, starts, _ = one_segment()
    disk = disk_with(data)
    for bit in range(8 * starts[-2]):
        disk.flip_bit(FIRST, bit)
        message = refusal(disk)
        offset = int(re.findall(r"at byte (\d+)", message)[0])
        assert FIRST in message
        assert offset <= bit // 8
        disk.flip_bit(FIRST, bit)
    assert opened(disk).torn_bytes == 0


def test_every_flipped_bit_in_the_last_group_is_cut_off_and_reported() -> None:
    data, starts, entries = one_segment()
    # After the first three groups, after the truncation, and after the entry that follows it.
    cut_short = ([entry(1), entry(2), entry(3)], entries[:2], entries[:3])
    for bit in range(8 * starts[-2], 8 * len(data)):
        disk = disk_with(data)
        disk.flip_bit(FIRST, bit)
        found = opened(disk)
        assert found.torn_bytes >= len(data) - bit // 8
        assert found.entries in cut_short
        assert found.hard_state == HardState(term=2)


def test_after_the_next_open_the_last_group_is_protected_too() -> None:
    data, starts, entries = one_segment()
    disk = disk_with(data)
    assert opened(disk).entries == entries
    for bit in range(8 * starts[-2], 8 * len(data)):
        disk.flip_bit(FIRST, bit)
        refusal(disk)
        disk.flip_bit(FIRST, bit)
    assert opened(disk).entries == entries


def test_every_flipped_bit_of_an_earlier_segment_or_of_a_header_is_damage() -> None:
    disk, entries = two_segments()
    for name, size in ((FIRST, len(disk.read(FIRST))), (SECOND, HEADER_BYTES)):
        for bit in range(8 * size):
            disk.flip_bit(name, bit)
            assert f"{name} is damaged at byte" in refusal(disk)
            disk.flip_bit(name, bit)
    assert opened(disk).entries == entries


def test_a_last_segment_cut_anywhere_gives_a_prefix_and_reports_what_was_torn() -> None:
    data, starts, _ = one_segment()
    history: list[list[Entry]] = []
    clean: list[int] = []
    for size in range(len(data)):
        found = opened(disk_with(data[:size]))
        if not history or history[-1] != found.entries:
            history.append(found.entries)
        if found.torn_bytes == 0:
            clean.append(size)
        assert found.torn_bytes == size - clean[-1] or size < HEADER_BYTES
    one, two, three = entry(1), entry(2), entry(3)
    assert history == [
        [],
        [one],
        [one, two],
        [one, two, three],
        [one, two, three, entry(4)],
        [one, two, three],
        [one, two],
        [one, two, entry(3, 2)],
    ]
    # Clean ends: empty, only a header, and behind each of the ten records but the last.
    assert (clean[:2], len(clean)) == ([0, HEADER_BYTES], 11)
    assert set(starts[:-1]) <= set(clean)


def test_an_earlier_segment_cut_anywhere_is_damage() -> None:
    disk, _ = two_segments()
    first, second = disk.read(FIRST), disk.read(SECOND)
    for size in range(len(first)):
        refusal(disk_of(**{FIRST: first[:size], SECOND: second}))


@pytest.mark.parametrize("zeros", [1, 8, 48, 4096, 100_003])
def test_a_tail_of_zeros_is_torn(zeros: int) -> None:
    data, _, entries = one_segment()
    disk = disk_with(data + bytes(zeros))
    found = opened(disk)
    assert (found.entries, found.torn_bytes) == (entries, zeros)
    assert disk.read(FIRST).startswith(data)
    assert opened(disk).torn_bytes == 0


def test_records_of_a_later_group_in_the_wrong_place_prove_nothing() -> None:
    """They may be the payload of the entry that was torn: someone stored a log as a value."""
    data, starts, _ = one_segment()
    found = opened(disk_with(data[: starts[1]] + b"torn" * 2 + data[starts[3] :]))
    assert found.entries == [entry(1), entry(2)]
    assert found.torn_bytes == 8 + len(data) - starts[3]


def test_a_valid_record_of_another_history_breaks_the_chain() -> None:
    """A write that never reached the disk, though its sync returned: the old bytes are there."""

    def three_groups(payload: bytes) -> bytes:
        disk = SimDisk(random.Random(0))
        log, _ = LogStore.open(disk)
        for index in (1, 2, 3):
            new = Entry(index, 1, EntryKind.COMMANDS, 0, 0, payload)
            log.write(hard_state=None, truncate_from=None, entries=[new])
            log.sync()
        return disk.read(FIRST)

    ours, old = three_groups(b"new bytes"), three_groups(b"old bytes")
    size = (len(ours) - HEADER_BYTES) // 3
    end = HEADER_BYTES + size
    mixed = ours[:HEADER_BYTES] + old[HEADER_BYTES:end] + ours[end:]
    assert f"{FIRST} is damaged at byte {end}" in refusal(disk_with(mixed))


def test_a_hole_in_the_last_group_is_torn_though_valid_records_follow() -> None:
    data, starts, _ = one_segment()
    start = starts[-2]
    for size in (8, 48):
        holed = data[:start] + bytes(size) + data[start + size :]
        found = opened(disk_with(holed))
        assert found.entries == [entry(1), entry(2), entry(3)]
        assert found.torn_bytes == len(data) - start


def test_a_hole_over_a_whole_synced_group_is_damage() -> None:
    data, starts, _ = one_segment()
    holed = data[: starts[1]] + bytes(starts[2] - starts[1]) + data[starts[2] :]
    assert f"{FIRST} is damaged at byte {starts[1]}" in refusal(disk_with(holed))


@pytest.mark.parametrize("size", [0, 1, HEADER_BYTES - 1])
def test_a_segment_that_was_being_made_is_removed_and_made_again(size: int) -> None:
    disk, entries = two_segments()
    torn = disk_of(**{FIRST: disk.read(FIRST), SECOND: disk.read(SECOND)[:size]})
    log, found = LogStore.open(torn, segment_bytes_max=SMALL)
    assert (found.entries, found.torn_bytes) == (entries[:4], size)
    log.write(hard_state=None, truncate_from=None, entries=[entry(5, 2)])
    log.close()
    assert opened(torn).entries == entries[:5]


def test_a_header_of_zeros_is_torn_alone_and_damage_with_bytes_behind_it() -> None:
    disk, entries = two_segments()
    first, second = disk.read(FIRST), disk.read(SECOND)
    torn = disk_of(**{FIRST: first, SECOND: bytes(HEADER_BYTES)})
    assert opened(torn).entries == entries[:4]
    damaged = disk_of(**{FIRST: first, SECOND: bytes(HEADER_BYTES) + second[HEADER_BYTES:]})
    assert f"{SECOND} is damaged at byte 0" in refusal(damaged)


def test_an_empty_only_segment_is_a_fresh_log() -> None:
    found = opened(disk_with(b""))
    assert (found.entries, found.torn_bytes, found.files) == ([], 0, 1)


def test_a_missing_segment_between_two_others_is_damage() -> None:
    disk, _ = two_segments()
    files = {FIRST: disk.read(FIRST), segment_name(3): encode_header(3, 0)}
    assert SECOND in refusal(disk_of(**files))


def test_a_missing_first_segment_that_no_snapshot_stands_for_is_damage() -> None:
    disk, _ = two_segments()
    message = refusal(disk_of(**{SECOND: disk.read(SECOND)}))
    assert "Without a snapshot" in message
    assert "entries 5 to 6" in message


def test_a_first_segment_that_does_not_say_where_the_log_starts_is_damage() -> None:
    disk, _ = two_segments()
    header = disk.read(SECOND)[:HEADER_BYTES]
    assert "where the log starts" in refusal(disk_of(**{SECOND: header}))


def test_segments_of_two_logs_do_not_mix() -> None:
    data, _, _ = one_segment()
    disk, _ = two_segments()
    other = disk_of(**{FIRST: data[:HEADER_BYTES], SECOND: disk.read(SECOND)})
    assert f"{SECOND} is damaged at byte 0: it does not continue" in refusal(other)


def test_a_segment_under_another_name_is_damage() -> None:
    disk, _ = two_segments()
    moved = disk_with(disk.read(SECOND))
    assert "its header says it is segment 2" in refusal(moved)


def with_header_field(data: bytes, change: Callable[[bytearray], None]) -> bytes:
    """The file with another header whose checksum holds."""
    head = bytearray(data[: HEADER_BYTES - 4])
    change(head)
    return bytes(head) + struct.pack("<I", zlib.crc32(head)) + data[HEADER_BYTES:]


def newer(head: bytearray) -> None:
    head[8:10] = struct.pack("<H", 3)


def test_a_newer_format_is_refused_before_anything_is_judged_or_changed() -> None:
    disk, _ = two_segments()
    second = with_header_field(disk.read(SECOND), newer)
    damaged_first = bytes(len(disk.read(FIRST)))
    message = refusal(disk_of(**{FIRST: damaged_first, SECOND: second}), Refused)
    assert message.startswith(f"{SECOND} is of a newer format than 2")
    first = with_header_field(disk.read(FIRST), newer)
    refusal(disk_of(**{FIRST: first, SECOND: disk.read(SECOND)}), Refused)


def test_another_magic_is_damage_even_with_a_good_checksum() -> None:
    def other_magic(head: bytearray) -> None:
        head[:8] = b"sqlite 3"

    data, _, _ = one_segment()
    assert f"{FIRST} is damaged at byte 0" in refusal(
        disk_with(with_header_field(data, other_magic))
    )


@pytest.mark.parametrize(
    ("offset", "value", "what"),
    [
        (24, 9, "unknown type 9"),  # type
        (25, 200, "not a valid EntryKind"),  # kind
        (32, 5, "entry 5 follows entry 0"),  # index
    ],
)
def test_a_record_with_a_good_checksum_that_makes_no_sense_is_damage_even_at_the_end(
    offset: int, value: int, what: str
) -> None:
    disk = SimDisk(random.Random(0))
    log, _ = LogStore.open(disk)
    log.write(hard_state=None, truncate_from=None, entries=[entry(1)])
    data = bytearray(disk.read(FIRST))
    data[HEADER_BYTES + offset] = value
    seed = int.from_bytes(data[HEADER_BYTES - 4 : HEADER_BYTES], "little")
    data[HEADER_BYTES + 4 : HEADER_BYTES + 8] = struct.pack(
        "<I", zlib.crc32(data[HEADER_BYTES + 8 :], seed)
    )
    assert what in refusal(disk_with(bytes(data)))


def golden_bytes() -> bytes:
    return bytes.fromhex(GOLDEN.read_text())


def test_a_log_of_format_1_reads_as_it_was_written() -> None:
    found = opened(disk_with(golden_bytes()))
    assert found.hard_state == HardState(term=2)
    assert found.entries == [entry(1), entry(2), entry(3, 2), entry(4, 2)]
    assert (found.torn_bytes, found.files) == (0, 1)


def test_todays_code_writes_format_1_byte_for_byte() -> None:
    assert one_segment()[0] == golden_bytes()
