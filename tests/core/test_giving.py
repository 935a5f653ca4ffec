"""What an owner gives to who asks: from the end, at most half, at least one, if it pays."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2psched.core.giving import LOTS_MAX, ROUND_US, Lot, choose, worth_us

LOTS = st.lists(
    st.builds(
        Lot,
        st.integers(1, 500),
        st.integers(1, 2_000_000),
        st.integers(1, 4),
        moves=st.integers(0, 20),
        may_go=st.booleans(),
        carry_bytes=st.sampled_from((0, 1_000_000, 10**12)),
    ),
    max_size=12,
)


def test_half_of_the_work_goes_from_the_end() -> None:
    lots = [Lot(10, 10_000, 1), Lot(4, 10_000, 1), Lot(2, 10_000, 1)]
    assert choose(lots, slots=1, busy_us=10_000, taker_slots=1) == [(2, 2), (1, 4), (0, 2)]


def test_a_single_task_behind_a_long_one_goes() -> None:
    assert choose([Lot(1, 500_000, 1)], slots=1, busy_us=500_000, taker_slots=1) == [(0, 1)]
    assert choose([Lot(1, 1_000, 1)], slots=1, busy_us=500_000, taker_slots=1) == [(0, 1)]


def test_who_runs_nothing_gives_nothing() -> None:
    assert choose([], slots=0, busy_us=0, taker_slots=1) == []
    assert choose([Lot(1, 500_000, 1)], slots=0, busy_us=0, taker_slots=1) == []


def test_what_is_begun_soon_stays() -> None:
    assert choose([Lot(8, 1_000, 1)], slots=1, busy_us=1_000, taker_slots=4) == []


def test_a_small_peer_gets_its_share_of_a_large_one_s_work() -> None:
    ((_, count),) = choose([Lot(100, 10_000, 1)], slots=4, busy_us=0, taker_slots=1)
    assert count == 20


def test_what_needs_more_slots_than_the_taker_has_or_is_large_stays() -> None:
    wide = Lot(4, 100_000, 4)
    heavy = Lot(4, 100_000, 1, carry_bytes=10**9)
    locked = Lot(4, 100_000, 1, may_go=False)
    light = Lot(4, 100_000, 1)
    lots = [light, wide, heavy, locked]
    assert choose(lots, slots=1, busy_us=0, taker_slots=2) == [(0, 4)]
    assert choose(lots[1:], slots=1, busy_us=0, taker_slots=2) == []


def test_each_further_move_has_to_save_twice_as_much() -> None:
    assert [worth_us(Lot(1, 1, 1, moves=n)) for n in (0, 1, 2)] == [
        ROUND_US,
        2 * ROUND_US,
        4 * ROUND_US,
    ]
    moved = [Lot(10, 10_000, 1, moves=4)]
    assert choose(moved, slots=1, busy_us=0, taker_slots=1) == []
    assert choose([Lot(40, 10_000, 1, moves=4)], slots=1, busy_us=0, taker_slots=1)


@given(LOTS, st.integers(1, 8), st.integers(0, 10_000_000), st.integers(1, 8))
def test_whatever_waits_at_most_half_goes_but_one_task_may(
    lots: list[Lot], slots: int, busy_us: int, taker_slots: int
) -> None:
    chosen = choose(lots, slots=slots, busy_us=busy_us, taker_slots=taker_slots)
    assert len(chosen) <= LOTS_MAX
    given_us = 0
    for position, count in chosen:
        lot = lots[position]
        assert 1 <= count <= lot.tasks
        assert lot.may_go
        assert lot.cpus <= taker_slots
        given_us += count * lot.work_us
    positions = [position for position, _ in chosen]
    assert positions == sorted(positions, reverse=True)
    whole_us = sum(lot.tasks * lot.work_us for lot in lots)
    assert given_us * 2 <= whole_us or sum(count for _, count in chosen) == 1


def test_who_wants_one_task_gets_one() -> None:
    lots = [Lot(50, 1_000_000, 1), Lot(50, 1_000_000, 1)]
    assert choose(lots, slots=2, busy_us=0, taker_slots=8, most=1) == [(1, 1)]
