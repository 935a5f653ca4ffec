"""Who may be given tasks, as the coordinator keeps it, is what one finds who looks only now."""

from __future__ import annotations

import pytest

from p2psched.core.lineup import Lineup, Views
from p2psched.core.placement import Candidate, busyness, has_room
from p2psched.core.state import LedgerState
from p2psched.testing.simulate import simulate


def anew(lineup: Lineup, views: Views) -> list[Candidate]:
    """Of the same ledger, with nothing kept."""
    state, kept = lineup._state, lineup._state.ownings
    other = Lineup(lineup._me, state)
    other.begin()
    found = other.look(views)
    state.ownings = kept
    assert lineup.largest == other.largest
    assert lineup._ranks == sorted(busyness(c) for c in found if has_room(c))
    return found


@pytest.mark.parametrize("seed", range(73_000, 73_003))
def test_what_is_kept_is_what_would_be_found(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else somebody changes a row and does not say so (`LedgerState.touch`)."""
    looks = 0
    look = Lineup.look

    def compared(lineup: Lineup, views: Views) -> list[Candidate]:
        nonlocal looks
        looks += 1
        found = look(lineup, views)
        with monkeypatch.context() as within:
            within.setattr(Lineup, "look", look)
            assert found == anew(lineup, views)
        return found

    monkeypatch.setattr(Lineup, "look", compared)
    simulate(seed)
    assert looks > 10


@pytest.mark.parametrize("seed", [73_000])
def test_a_row_that_changes_in_silence_is_noticed(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LedgerState, "touch", lambda _state, _peer: None)
    with pytest.raises(Exception, match="assert"):
        test_what_is_kept_is_what_would_be_found(seed, monkeypatch)
