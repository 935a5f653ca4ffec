"""Ids of forgotten jobs: taken for long enough, and never more than so many."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2psched.core import forgotten
from p2psched.core.forgotten import GENERATION_IDS_MAX, GENERATION_MS, Forgotten
from p2psched.model.ids import JobId, new_id
from p2psched.model.limits import FORGOTTEN_IDS_MAX, FORGOTTEN_MS


def ids(count: int, seed: int = 1) -> list[JobId]:
    rng = random.Random(seed)
    return [JobId(new_id(rng)) for _ in range(count)]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A million ids takes a while: a thousand shows the same."""
    monkeypatch.setattr(forgotten, "FORGOTTEN_IDS_MAX", 1_000)
    monkeypatch.setattr(forgotten, "GENERATION_IDS_MAX", 100)


def test_nothing_is_known_at_first() -> None:
    assert JobId("a" * 32) not in Forgotten()
    assert len(Forgotten()) == 0


def test_an_id_that_was_added_is_taken_and_others_are_not() -> None:
    known = Forgotten()
    one, two = ids(2)
    known.add(one, 0)
    assert one in known
    assert two not in known


def test_an_id_stays_taken_for_a_day_of_ledger_time() -> None:
    known = Forgotten()
    first, *others = ids(400)
    known.add(first, 0)
    for number, other in enumerate(others, start=1):
        now_ms = number * FORGOTTEN_MS // len(others)
        if now_ms >= FORGOTTEN_MS:
            break
        known.add(other, now_ms)
        assert first in known


def test_an_id_is_free_again_two_generations_after_its_day_at_the_latest() -> None:
    known = Forgotten()
    first, *others = ids(60)
    known.add(first, 0)
    for number, other in enumerate(others):
        known.add(other, number * GENERATION_MS)
    assert first not in known
    assert len(known.generations) <= 24 + 2


def test_time_alone_frees_nothing_until_another_job_is_forgotten() -> None:
    known = Forgotten()
    first, second, third = ids(3)
    known.add(first, 0)
    known.add(second, 10 * FORGOTTEN_MS)
    assert first in known  # longer than promised, and bounded by what comes
    known.add(third, 20 * FORGOTTEN_MS)
    assert first not in known
    assert second in known


@pytest.mark.usefixtures("small")
def test_the_last_ids_up_to_the_maximum_are_always_taken() -> None:
    known = Forgotten()
    added = ids(5_000)
    for number, job in enumerate(added):
        known.add(job, 0)
        if number % 37 == 0:
            assert all(each in known for each in added[max(0, number - 999) : number + 1])


@pytest.mark.usefixtures("small")
def test_no_more_than_the_maximum_and_two_generations_are_kept() -> None:
    known = Forgotten()
    for job in ids(5_000):
        known.add(job, 0)
        assert len(known) <= 1_000 + 2 * 100
        assert len(known.generations) <= 1_000 // 100 + 2


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, FORGOTTEN_MS // 3), max_size=60))
def test_no_id_is_free_before_its_day_is_over(pauses_ms: list[int]) -> None:
    known = Forgotten()
    added: list[tuple[JobId, int]] = []
    now_ms = 0
    for pause_ms, job in zip(pauses_ms, ids(len(pauses_ms)), strict=True):
        now_ms += pause_ms
        known.add(job, now_ms)
        added.append((job, now_ms))
        assert all(each in known for each, at_ms in added if now_ms - at_ms < FORGOTTEN_MS)
        assert len(known.generations) <= 24 + 3


def test_the_real_bounds_are_a_day_and_a_million() -> None:
    assert (FORGOTTEN_MS, FORGOTTEN_IDS_MAX) == (24 * 3600 * 1000, 1_000_000)
    assert GENERATION_MS * 24 == FORGOTTEN_MS
    assert GENERATION_IDS_MAX * 16 == FORGOTTEN_IDS_MAX
