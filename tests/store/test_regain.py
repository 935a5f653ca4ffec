"""A damaged log is set aside: what was promised stays, what is sound stays, the rest must be asked
for; and where that would be a lie, nothing is touched."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from p2psched.core.raft.effects import Persist
from p2psched.model.errors import Damaged
from p2psched.model.ids import PeerId
from p2psched.model.raft import Entry, EntryKind, HardState, Member, Membership, Snapshot
from p2psched.store.log import LogStore, Recovered
from p2psched.store.marker import MARKER
from p2psched.store.persist import perform
from p2psched.store.regain import ASIDE, NOTE, open_or_regain, read_note
from p2psched.store.snapshots import described, snapshot_name
from p2psched.testing.sim_disk import SimDisk

SMALL = 700
LAST = 9
VOTE = HardState(term=7, vote=PeerId("ab" * 16))
MEMBERSHIP = Membership((Member(PeerId("a"), "name", "host:1"),))
HEAD = described(Snapshot(4, 7, 4, MEMBERSHIP), b"state")


def entry(index: int) -> Entry:
    return Entry(index, 7, EntryKind.COMMANDS, index, 0, bytes([index]) * 90)


def sound(seed: int = 0) -> SimDisk:
    disk = SimDisk(random.Random(seed))
    log, _ = LogStore.open(disk, segment_bytes_max=SMALL)
    log.write(hard_state=VOTE, truncate_from=None, entries=[])
    for index in range(1, LAST + 1):
        log.write(hard_state=None, truncate_from=None, entries=[entry(index)])
        log.sync()
    log.snapshots.save(HEAD, b"state")
    log.mark_end()
    log.close()
    return disk


def segments(disk: SimDisk) -> list[str]:
    return [name for name in disk.names() if name.startswith("log-")]


def damaged(seed: int = 0) -> SimDisk:
    disk = sound(seed)
    disk.flip_bit(segments(disk)[0], 8 * 200)
    return disk


def opened(disk: SimDisk, *, has_others: bool = True) -> Recovered:
    log, found = open_or_regain(disk, has_others=has_others, segment_bytes_max=SMALL)
    log.close()
    return found


def contents(disk: SimDisk) -> dict[str, bytes]:
    return {name: disk.read(name) for name in disk.names()}


def test_a_sound_log_is_opened_and_nothing_is_noted() -> None:
    disk = sound()
    found = opened(disk)
    assert found.lost is None
    assert (found.last_index, found.hard_state) == (LAST, VOTE)
    assert NOTE not in disk.names()


def test_a_damaged_log_is_set_aside_whole_and_what_was_promised_stays() -> None:
    disk = damaged()
    before = contents(disk)
    with pytest.raises(Damaged) as raised:
        LogStore.open(disk, segment_bytes_max=SMALL)
    found = opened(disk)
    assert found.lost is not None
    assert (found.lost.file, found.lost.offset) == (raised.value.file, raised.value.offset)
    assert "Nothing was changed" not in str(found.lost)
    assert found.hard_state == VOTE
    assert (found.snapshot, found.state, found.entries) == (HEAD, b"state", [])
    for name in before:
        if name.startswith("log-"):
            assert disk.read(ASIDE + name) == before[name]


def test_it_is_lacking_until_it_is_said_to_be_whole_however_often_it_starts() -> None:
    disk = damaged()
    first = opened(disk)
    log, again = open_or_regain(disk, has_others=True, segment_bytes_max=SMALL)
    assert str(again.lost) == str(first.lost)
    new = (entry(5), entry(6))
    perform(log, Persist(1, None, None, new))
    log.sync()
    log.close()
    log, again = open_or_regain(disk, has_others=True, segment_bytes_max=SMALL)
    assert again.lost is not None
    assert again.entries == list(new)
    perform(log, Persist(2, None, None, (), regained=True))
    log.sync()
    log.close()
    found = opened(disk)
    assert (found.lost, found.last_index, found.hard_state) == (None, 6, VOTE)


def without_marker(disk: SimDisk) -> None:
    disk.remove(MARKER)


def with_a_bad_marker(disk: SimDisk) -> None:
    disk.flip_bit(MARKER, 100)


@pytest.mark.parametrize("spoil", [without_marker, with_a_bad_marker])
def test_a_peer_whose_promises_are_lost_too_is_not_let_in_again(
    spoil: Callable[[SimDisk], None],
) -> None:
    disk = damaged()
    spoil(disk)
    before = contents(disk)
    with pytest.raises(Damaged, match="Nothing was changed"):
        opened(disk)
    assert contents(disk) == before


def test_a_peer_with_nobody_to_ask_says_so_and_changes_nothing() -> None:
    disk = damaged()
    before = contents(disk)
    with pytest.raises(Damaged, match="at byte"):
        opened(disk, has_others=False)
    assert contents(disk) == before


def test_a_note_that_is_damaged_is_not_passed_over() -> None:
    disk = damaged()
    opened(disk)
    for bit in range(8 * len(disk.read(NOTE))):
        twin = disk.copy(random.Random(0))
        twin.flip_bit(NOTE, bit)
        with pytest.raises(Damaged, match=NOTE):
            opened(twin)
    for size in range(len(disk.read(NOTE))):
        twin = disk.copy(random.Random(0))
        twin.replace(NOTE, disk.read(NOTE)[:size])
        with pytest.raises(Damaged, match=NOTE):
            opened(twin)


def test_a_damaged_snapshot_goes_with_it_and_an_older_one_stands() -> None:
    disk = damaged()
    disk.replace(snapshot_name(8), b"p2psnap\n and nothing that fits")
    found = opened(disk)
    assert found.snapshot == HEAD
    assert ASIDE + snapshot_name(8) in disk.names()


def test_what_is_damaged_while_it_is_lacking_starts_over_and_only_the_newest_is_kept() -> None:
    disk = damaged()
    log, _ = open_or_regain(disk, has_others=True, segment_bytes_max=SMALL)
    voted = HardState(8, PeerId("c" * 32))
    log.write(hard_state=voted, truncate_from=None, entries=[entry(index) for index in (5, 6)])
    log.sync()
    log.mark_end()
    log.close()
    name = segments(disk)[-1]
    disk.lose_end(name, len(disk.read(name)) - 8)
    later = [disk.read(other) for other in segments(disk)]
    found = opened(disk)
    assert found.lost is not None
    assert found.hard_state == voted
    assert found.last_index == HEAD.index
    aside = [other for other in disk.names() if other.startswith(ASIDE)]
    assert aside
    assert all(disk.read(other) in later for other in aside)


@pytest.mark.parametrize("steps", range(40))
def test_power_lost_at_each_step_of_setting_aside_leaves_nobody_who_thinks_it_is_whole(
    steps: int,
) -> None:
    for seed in range(6):
        disk = damaged(seed)
        disk.steps_left = steps
        try:
            opened(disk)
        except OSError:
            assert disk.steps_left == 0
        disk.crash()
        try:
            found = opened(disk)
        except Damaged as damage:  # it may not, once anything was moved
            raise AssertionError(contents(disk)) from damage
        assert found.lost is not None
        assert found.hard_state == VOTE
        assert found.last_index == HEAD.index
        assert read_note(disk) is not None


@pytest.mark.parametrize("steps", range(4))
def test_power_lost_as_it_gets_whole_leaves_either(steps: int) -> None:
    for seed in range(6):
        disk = damaged(seed)
        log, _ = open_or_regain(disk, has_others=True, segment_bytes_max=SMALL)
        perform(log, Persist(1, None, None, (entry(5),)))
        log.sync()
        disk.steps_left = steps
        try:
            perform(log, Persist(2, None, None, (), regained=True))
        except OSError:
            assert disk.steps_left == 0
        disk.crash()
        assert opened(disk).last_index == 5
