"""Snapshots beside the log: what they allow to be removed, what damage means, and crashes at each
step."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from p2psched.model.errors import Damaged, Refused
from p2psched.model.ids import PeerId
from p2psched.model.raft import Entry, EntryKind, HardState, Member, Membership, Snapshot
from p2psched.store.log import LogStore, Recovered
from p2psched.store.snapshots import (
    INCOMING,
    SnapshotFiles,
    described,
    encode_head,
    snapshot_name,
)
from p2psched.testing.sim_disk import SimDisk

GOLDEN = Path(__file__).parent / "golden" / "snapshot_v1.hex"
GOLDEN_MARKED = GOLDEN.with_name("snapshot_v1_marked.hex")  # since there is a marker
GOLDEN_REMOVED = GOLDEN.with_name("snapshot_v1_removed.hex")  # since members can be removed
GOLDEN_PIECES = GOLDEN.with_name("snapshot_v1_pieces.hex")  # since the head is written last
GOLDEN_ZONES = GOLDEN.with_name("snapshot_v1_zones.hex")  # since members have zones
SMALL = 700
VOTE = HardState(term=7, vote=PeerId("ab" * 16))
MEMBERSHIP = Membership((Member(PeerId("a"), "name", "host:1"),))


def entry(index: int, term: int = 1) -> Entry:
    return Entry(index, term, EntryKind.COMMANDS, index, 0, bytes([index % 256]) * 90)


def entries(first: int, last: int, term: int = 1) -> list[Entry]:
    return [entry(index, term) for index in range(first, last + 1)]


def state_at(index: int) -> bytes:
    return f"state at {index} ".encode() * 40


def snapshot_at(index: int, term: int = 1) -> Snapshot:
    return described(Snapshot(index, term, index, MEMBERSHIP), state_at(index))


def opened(disk: SimDisk) -> tuple[LogStore, Recovered]:
    return LogStore.open(disk, segment_bytes_max=SMALL)


def append(log: LogStore, new: list[Entry], hard_state: HardState | None = None) -> None:
    for one in new:
        log.write(hard_state=hard_state, truncate_from=None, entries=[one])
        hard_state = None
    log.sync()


def save(log: LogStore, index: int) -> None:
    log.snapshots.save(snapshot_at(index), state_at(index))
    log.compact()


def take(log: LogStore, snapshot: Snapshot, pieces: int = 3) -> None:
    """A snapshot of the leader comes in and is put in the place of the log."""
    state = state_at(snapshot.index)
    size = -(-len(state) // pieces)
    for offset in range(0, len(state), size):
        log.snapshots.take_piece(snapshot, offset, state[offset : offset + size])
    log.snapshots.install(snapshot)
    log.reset(snapshot)


def with_two_snapshots() -> SimDisk:
    disk = SimDisk(random.Random(5))
    log, _ = opened(disk)
    append(log, entries(1, 30), VOTE)
    save(log, 20)
    append(log, entries(31, 60))
    save(log, 50)
    append(log, entries(61, 64))
    log.close()
    return disk


def segments(disk: SimDisk) -> list[str]:
    return [name for name in disk.names() if name.endswith(".seg")]


def test_a_log_without_its_beginning_opens_from_the_newest_snapshot() -> None:
    disk = with_two_snapshots()
    assert segments(disk)[0] > "log-00000001.seg"
    _, found = opened(disk)
    assert (found.snapshot, found.state) == (snapshot_at(50), state_at(50))
    assert found.hard_state == VOTE  # though the segment that it was written to is gone
    assert found.entries[0].index <= 21  # the older snapshot could stand in
    assert found.entries == entries(found.entries[0].index, 64)


def test_the_disk_stays_bounded_however_many_entries_pass() -> None:
    disk = SimDisk(random.Random(5))
    log, _ = opened(disk)
    most = 0
    for round_ in range(1, 60):
        append(log, entries(20 * round_ - 19, 20 * round_))
        save(log, 20 * round_)
        most = max(most, sum(len(disk.read(name)) for name in disk.names()))
        assert len(disk.names()) <= 2 + 12
    assert most < 12_000
    assert log.size_bytes == sum(len(disk.read(name)) for name in segments(disk))


def test_a_damaged_newest_snapshot_is_stood_in_for_by_the_one_before_and_the_log() -> None:
    disk = with_two_snapshots()
    name = snapshot_name(50)
    for bit in range(0, 8 * len(disk.read(name)), 7):
        disk.flip_bit(name, bit)
        twin = disk.copy(random.Random(1))
        try:
            _, found = opened(twin)
        except Refused:  # the bit that made it a file of a newer version would be told first
            raise AssertionError(bit) from None
        assert (found.snapshot, found.state) == (snapshot_at(20), state_at(20))
        assert found.damaged == (name,)
        assert found.entries[-1] == entry(64)
        disk.flip_bit(name, bit)


def test_two_damaged_snapshots_are_refused_and_nothing_is_changed() -> None:
    disk = with_two_snapshots()
    for index in (20, 50):
        disk.flip_bit(snapshot_name(index), 500)
    before = {name: disk.read(name) for name in disk.names()}
    with pytest.raises(Damaged, match="would lack what it knew"):
        opened(disk)
    assert {name: disk.read(name) for name in disk.names()} == before


def test_a_damaged_snapshot_that_was_taken_from_the_leader_is_refused() -> None:
    disk = SimDisk(random.Random(1))
    log, _ = opened(disk)
    append(log, entries(1, 4))
    take(log, snapshot_at(90))
    log.close()
    disk.flip_bit(snapshot_name(90), 400)
    with pytest.raises(Damaged):
        opened(disk)


def test_a_log_whose_segments_are_gone_is_refused_beside_a_snapshot() -> None:
    disk = with_two_snapshots()
    for name in segments(disk):
        disk.remove(name)
    with pytest.raises(Damaged, match="no log"):
        opened(disk)


def test_a_snapshot_of_a_newer_format_is_refused() -> None:
    disk = with_two_snapshots()
    data = bytearray(disk.read(snapshot_name(50)))
    data[8] = 2
    head = bytes(data[:16])
    size = int.from_bytes(head[12:16], "little")
    checksum = zlib.crc32(bytes(data[20 : 20 + size]), zlib.crc32(head))
    data[16:20] = checksum.to_bytes(4, "little")
    disk.replace(snapshot_name(50), bytes(data))
    with pytest.raises(Refused, match="newer"):
        opened(disk)


def test_a_snapshot_from_the_leader_takes_the_place_of_the_whole_log() -> None:
    disk = SimDisk(random.Random(1))
    log, _ = opened(disk)
    append(log, entries(1, 30), VOTE)
    take(log, snapshot_at(90, term=3))
    assert len(segments(disk)) == 1
    append(log, entries(91, 95, term=3))
    log.close()
    _, found = opened(disk)
    assert (found.snapshot, found.state) == (snapshot_at(90, term=3), state_at(90))
    assert (found.entries, found.hard_state) == (entries(91, 95, term=3), VOTE)


def test_a_snapshot_that_came_in_damaged_is_not_installed() -> None:
    disk = SimDisk(random.Random(1))
    log, _ = opened(disk)
    append(log, entries(1, 3))
    log.snapshots.take_piece(snapshot_at(9), 0, state_at(9)[:-1] + b"?")
    with pytest.raises(Damaged):
        log.snapshots.install(snapshot_at(9))
    log.close()
    _, found = opened(disk)
    assert (found.snapshot, found.entries) == (None, entries(1, 3))
    assert INCOMING not in disk.names()


def test_entries_that_contradict_a_snapshot_are_void() -> None:
    disk = SimDisk(random.Random(1))
    log, _ = opened(disk)
    append(log, entries(1, 30))
    log.close()
    SnapshotFiles(disk).save(snapshot_at(20, term=2), state_at(20))
    log, found = opened(disk)
    assert (found.entries, found.snapshot) == ([], snapshot_at(20, term=2))
    append(log, entries(21, 22, term=2))
    log.close()
    assert opened(disk)[1].entries == entries(21, 22, term=2)


@pytest.mark.parametrize("where", ["head", "state"])
def test_a_damaged_snapshot_is_not_sent_a_second_time(where: str) -> None:
    disk = SimDisk(random.Random(1))
    files = SnapshotFiles(disk)
    snapshot = snapshot_at(50)
    files.save(snapshot, state_at(50))
    half = snapshot.size // 2
    pieces = (0, half), (half, snapshot.size - half)
    for offset, size in pieces * 3:  # others may take it often
        assert files.read_piece(snapshot, offset, size) == state_at(50)[offset : offset + size]
    at = 30 if where == "head" else len(encode_head(snapshot)) + half
    disk.flip_bit(snapshot_name(50), 8 * at)
    with pytest.raises(Damaged, match=r"snapshot-0+50.snap is damaged"):
        files.read_piece(snapshot, *pieces[0])


def test_a_damaged_snapshot_of_one_piece_is_not_sent_at_all() -> None:
    disk = SimDisk(random.Random(1))
    files = SnapshotFiles(disk)
    snapshot = snapshot_at(50)
    files.save(snapshot, state_at(50))
    disk.flip_bit(snapshot_name(50), 8 * len(encode_head(snapshot)))
    with pytest.raises(Damaged):
        files.read_piece(snapshot, 0, snapshot.size)


def test_pieces_are_read_of_this_very_snapshot_only() -> None:
    disk = with_two_snapshots()
    files = SnapshotFiles(disk)
    assert files.read_piece(snapshot_at(50), 100, 50) == state_at(50)[100:150]
    assert files.read_piece(snapshot_at(50, term=2), 0, 50) is None
    assert files.read_piece(snapshot_at(51), 0, 50) is None
    assert encode_head(snapshot_at(50)) + state_at(50) == disk.read(snapshot_name(50))


def golden_files() -> dict[str, bytes]:
    """A segment that begins with a snapshot, and that snapshot, as today's code writes them."""
    disk = SimDisk(random.Random(0))
    log, _ = LogStore.open(disk, segment_bytes_max=300)
    append(log, entries(1, 4), VOTE)
    take(log, snapshot_at(9, term=3))
    append(log, entries(10, 14, term=3))
    log.close()
    return {name: disk.read(name) for name in disk.names()}


def stored_golden(path: Path) -> dict[str, bytes]:
    return {
        name: bytes.fromhex(data)
        for name, data in (line.split() for line in path.read_text().splitlines())
    }


@pytest.mark.parametrize(
    "path",
    [GOLDEN, GOLDEN_MARKED, GOLDEN_REMOVED, GOLDEN_PIECES, GOLDEN_ZONES],
    ids=lambda p: p.stem,
)
def test_files_of_format_2_read_as_they_were_written(path: Path) -> None:
    disk = SimDisk(random.Random(0))
    for name, data in stored_golden(path).items():
        disk.replace(name, data)
    _, found = opened(disk)
    assert (found.snapshot, found.state) == (snapshot_at(9, term=3), state_at(9))
    assert (found.entries, found.hard_state) == (entries(10, 14, term=3), VOTE)


def test_todays_code_writes_format_2_byte_for_byte() -> None:
    assert golden_files() == stored_golden(GOLDEN_ZONES)


# --- crashes --------------------------------------------------------------------------------------


class Acknowledged:
    """What a peer may have spoken of."""

    def __init__(self) -> None:
        self.last = 0  # entries up to here are synced
        self.installed = 0

    def check(self, found: Recovered) -> None:
        known = found.snapshot.index if found.snapshot is not None else 0
        assert known >= self.installed
        last = found.entries[-1].index if found.entries else known
        assert max(last, known) >= self.last
        if found.entries:
            assert found.entries[0].index <= known + 1
        terms = {e.index: e.term for e in found.entries}
        assert all(terms[index] == 1 for index in range(known + 1, self.last + 1) if index <= 64)


def saves_two(log: LogStore, said: Acknowledged) -> None:
    for first, last, index in ((31, 45, 35), (46, 60, 55)):
        append(log, entries(first, last))
        said.last = last
        save(log, index)


def takes_one(log: LogStore, said: Acknowledged) -> None:
    take(log, snapshot_at(90))
    said.installed = said.last = 90
    append(log, entries(91, 95))
    said.last = 95


def keeps_one(log: LogStore, said: Acknowledged) -> None:
    assert log.begin_segment() == 30
    save(log, 30)
    log.compact(kept=1)
    append(log, entries(31, 40))
    said.last = 40


@pytest.mark.parametrize("act", [saves_two, takes_one, keeps_one])
def test_power_lost_at_each_step_loses_nothing_that_was_spoken_of(
    act: Callable[[LogStore, Acknowledged], None],
) -> None:
    reached = set()
    for steps in range(200):
        for seed in range(4):
            disk = SimDisk(random.Random(seed))
            log, _ = opened(disk)
            append(log, entries(1, 20), VOTE)
            save(log, 15)
            append(log, entries(21, 30))
            said = Acknowledged()
            said.last = 30
            disk.steps_left = steps
            try:
                act(log, said)
                done = True
            except OSError:
                done = False
            disk.crash()
            for _ in range(2):  # and what recovery did is good for another one
                log, found = opened(disk)
                said.check(found)
                assert found.hard_state == VOTE
                log.close()
                disk.crash()
            reached.add(found.snapshot.index if found.snapshot else 0)
        if done:
            break
    else:
        raise AssertionError("it never ends")
    assert len(reached) >= 2


def test_power_lost_while_a_snapshot_is_put_in_the_place_of_the_log_at_start() -> None:
    for steps in range(60):
        disk = SimDisk(random.Random(steps))
        log, _ = opened(disk)
        append(log, entries(1, 30), VOTE)
        log.close()
        SnapshotFiles(disk).save(snapshot_at(50), state_at(50))
        disk.steps_left = steps
        try:
            opened(disk)
            done = True
        except OSError:
            done = False
        disk.crash()
        log, found = opened(disk)
        assert (found.snapshot, found.entries, found.hard_state) == (snapshot_at(50), [], VOTE)
        append(log, entries(51, 52))
        log.close()
        assert opened(disk)[1].entries == entries(51, 52)
        if done:
            return
    raise AssertionError("it never ends")
