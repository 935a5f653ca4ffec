"""A ledger of a usual size on a disk that spoils it at each byte, and ends it at each length (P10).

The log has 64 KiB, a vote, and its marker behind it; so has the newest of two snapshots. Whatever
happens to the log is damage that is told with file and offset, and nothing on the disk changes; a
spoilt snapshot is never what a start goes on from. How many positions were tried is printed.
"""

from __future__ import annotations

import random
import re
from typing import Final

import pytest

from p2psched.model.errors import Damaged
from p2psched.model.ids import PeerId
from p2psched.model.raft import Entry, EntryKind, HardState, Member, Membership, Snapshot
from p2psched.store.log import LogStore, Recovered
from p2psched.store.marker import MARKER, MarkerState
from p2psched.store.segments import segment_name
from p2psched.store.snapshots import described, snapshot_name
from p2psched.testing.sim_disk import SimDisk

LOG_BYTES: Final = 64 * 1024
VOTE: Final = HardState(term=7, vote=PeerId("ab" * 16))
MEMBERS: Final = Membership((Member(PeerId("a"), "name", "host:1"),))
OLDER, NEWER = 1, 2  # entries that snapshots stand for
LOG: Final = segment_name(1)

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]


def state_at(index: int) -> bytes:
    """That doesn't repeat itself."""
    return random.Random(index).randbytes(LOG_BYTES)


def entry(index: int) -> Entry:
    data = random.Random(index).randbytes(100 + 37 * index % 900)
    return Entry(index, 7, EntryKind.COMMANDS, index, 0, data)


@pytest.fixture
def disk() -> SimDisk:
    disk = SimDisk(random.Random(0))
    log, _ = LogStore.open(disk)
    log.write(hard_state=VOTE, truncate_from=None, entries=[])
    index = 0
    while log.size_bytes < LOG_BYTES:
        index += 1
        log.write(hard_state=None, truncate_from=None, entries=[entry(index)])
        log.sync()
    for at in (OLDER, NEWER):
        head = Snapshot(at, 7, at, MEMBERS)
        log.snapshots.save(described(head, state_at(at)), state_at(at))
    log.mark_end()
    log.close()
    assert len(disk.read(LOG)) >= LOG_BYTES
    return disk


def opened(disk: SimDisk) -> Recovered:
    log, found = LogStore.open(disk)
    log.close()
    return found


def told_at(disk: SimDisk) -> int:
    """The offset that a start tells, which changes nothing. Fails if it starts."""
    steps = disk.steps
    with pytest.raises(Damaged) as raised:
        LogStore.open(disk)
    assert disk.steps == steps
    assert LOG in str(raised.value)
    return int(re.findall(r"at byte (\d+)", str(raised.value))[0])


def test_each_byte_and_each_length_of_a_log_of_64_kib_is_told(disk: SimDisk) -> None:
    sound, data = opened(disk), disk.read(LOG)
    assert (sound.hard_state, sound.marker) == (VOTE, MarkerState.SOUND)
    assert sound.entries == [entry(index) for index in range(1, sound.last_index + 1)]
    for at in range(len(data)):
        bit = 8 * at + at % 8
        disk.flip_bit(LOG, bit)
        assert told_at(disk) <= at
        disk.flip_bit(LOG, bit)
    whole = disk.copy(random.Random(0))
    for size in reversed(range(len(data))):
        disk.truncate(LOG, size)
        assert told_at(disk) <= size
    assert opened(whole) == sound
    print(f"{2 * len(data):,} positions of a log, none silent")


def test_each_byte_and_each_length_of_a_snapshot_of_64_kib_is_seen(disk: SimDisk) -> None:
    name = snapshot_name(NEWER)
    data = disk.read(name)
    assert len(data) >= LOG_BYTES
    assert opened(disk.copy(random.Random(0))).state == state_at(NEWER)

    def check(at: int) -> None:
        found = opened(disk.copy(random.Random(0)))
        assert found.damaged == (name,), at
        assert found.snapshot is not None
        assert (found.snapshot.index, found.state) == (OLDER, state_at(OLDER)), at

    for at in range(len(data)):
        bit = 8 * at + at % 8
        disk.flip_bit(name, bit)
        check(at)
        disk.flip_bit(name, bit)
    for size in reversed(range(len(data))):
        disk.truncate(name, size)
        check(size)
    print(f"{2 * len(data):,} positions of a snapshot, none silent")


def test_each_byte_and_each_length_of_the_marker_loses_no_vote(disk: SimDisk) -> None:
    """Which has term and vote a second time: what it says counts only if it is whole."""
    data, last = disk.read(MARKER), opened(disk.copy(random.Random(0))).last_index
    for at in range(len(data)):
        for bad in (data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :], data[:at]):
            twin = disk.copy(random.Random(0))
            twin.replace(MARKER, bad)
            try:
                found = opened(twin)
            except Damaged:
                continue
            assert found.marker is not MarkerState.SOUND, at
            assert (found.hard_state, found.last_index) == (VOTE, last), at
