"""Peers that are cut off, in whole seeds: what the referee made of them once and shouldn't have."""

from __future__ import annotations

import pytest

from p2psched.testing.simulate import simulate


# Without a majority for seconds, then a word of it and a grant of long ago, before the next look at
# the time: in the log, in a snapshot.
@pytest.mark.parametrize("seed", [7_300_116, 7_200_009])
def test_a_word_of_a_majority_counts_from_when_it_comes(seed: int) -> None:
    simulate(seed)
