"""A running log read from behind: what counts is told, what was void never is."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2psched.model.errors import Unavailable
from p2psched.model.raft import Entry
from p2psched.store.log import LogStore
from p2psched.store.past import entries as read_entries
from p2psched.store.past import scan
from p2psched.testing.sim_disk import SimDisk
from tests.store.test_snapshots import VOTE, append, entries, entry, opened, save, snapshot_at, take


def new_log() -> tuple[SimDisk, LogStore]:
    disk = SimDisk(random.Random(0))
    return disk, opened(disk)[0]


def told(disk: SimDisk, upto: Entry, first: int = 1) -> list[Entry]:
    return list(read_entries(disk, scan(disk, upto=upto.index, term=upto.term), first=first))


def test_entries_come_from_all_segments_while_the_log_is_open() -> None:
    disk, log = new_log()
    append(log, entries(1, 30), VOTE)
    assert len(disk.names()) > 3
    assert told(disk, entry(30)) == entries(1, 30)
    assert told(disk, entry(20), first=7) == entries(7, 20)
    assert scan(disk, upto=30, term=1).first == 1


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_what_a_later_term_replaced_is_never_told(seed: int) -> None:
    rng = random.Random(seed)
    disk, log = new_log()
    held: list[Entry] = []
    for term in range(1, 8):
        cut = rng.randint(max(0, len(held) - 12), len(held))
        new = entries(cut + 1, cut + rng.randint(1, 10), term)
        log.write(
            hard_state=None,
            truncate_from=cut + 1 if cut < len(held) else None,
            entries=new,
        )
        log.sync()
        held = held[:cut] + new
    upto = rng.randint(1, len(held))
    assert told(disk, held[upto - 1]) == held[:upto]


def test_a_disk_that_lacks_the_committed_entry_is_behind() -> None:
    disk, log = new_log()
    append(log, entries(1, 10), VOTE)
    with pytest.raises(Unavailable, match="behind"):
        scan(disk, upto=10, term=2)  # of another leader, and on its way to the disk
    with pytest.raises(Unavailable, match="behind"):
        scan(disk, upto=11, term=1)


def test_a_log_that_was_cut_says_where_it_begins() -> None:
    disk, log = new_log()
    append(log, entries(1, 30), VOTE)
    save(log, 15)
    append(log, entries(31, 40))
    save(log, 30)
    seen = scan(disk, upto=35, term=1)
    assert 1 < seen.first <= 16
    assert list(read_entries(disk, seen, first=16)) == entries(16, 35)


def test_behind_a_snapshot_that_came_from_others_nothing_of_before_is_told() -> None:
    disk, log = new_log()
    append(log, entries(1, 10), VOTE)
    take(log, snapshot_at(50, term=3))
    append(log, entries(51, 55, 3))
    assert scan(disk, upto=55, term=3).first == 51
    assert told(disk, entry(55, 3), first=51) == entries(51, 55, 3)


def test_a_segment_that_goes_meanwhile_is_noticed() -> None:
    disk, log = new_log()
    append(log, entries(1, 30), VOTE)
    seen = scan(disk, upto=30, term=1)
    disk.remove(disk.names()[0])
    with pytest.raises(FileNotFoundError):
        list(read_entries(disk, seen, first=1))
