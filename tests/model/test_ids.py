"""Ids: 32 hex digits from a generator that the caller passes."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2psched.model import ids


@given(st.integers())
def test_a_new_id_is_a_whole_id_and_its_seed_repeats_it(seed: int) -> None:
    made = ids.new_id(random.Random(seed))
    assert ids.is_id(made)
    assert made == ids.new_id(random.Random(seed))


def test_small_numbers_keep_their_leading_zeros() -> None:
    class Low(random.Random):
        def getrandbits(self, bits: int, /) -> int:
            assert bits == ids.ID_BITS
            return 0xA

    assert ids.new_id(Low()) == "0" * 31 + "a"


def test_ids_of_one_generator_differ() -> None:
    rng = random.Random(1)
    assert len({ids.new_id(rng) for _ in range(1_000)}) == 1_000


@pytest.mark.parametrize(
    "text",
    ["", "0" * 31, "0" * 33, "A" * 32, "g" * 32, "0" * 32 + "\n", " " + "0" * 31, "٣" * 32],
)
def test_anything_else_is_no_id(text: str) -> None:
    assert not ids.is_id(text)


def test_people_see_the_first_eight_digits() -> None:
    assert ids.short("0123456789abcdef" * 2) == "01234567"
