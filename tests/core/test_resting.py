"""A round that has nothing to do is told from one that has."""

from __future__ import annotations

import pytest

from p2psched.core.levels import NEEDED
from p2psched.core.scheduler import Clocked
from p2psched.core.thief import PAUSE_MS_MIN
from p2psched.model.moves import Transfer
from tests.core.test_scheduler import FOUR, SUBMIT, Peer, peer

__all__ = ["peer"]  # a fixture


@pytest.fixture
def thief(peer: Peer) -> Peer:
    """All know of stealing, and there is nobody to steal from."""
    peer.scheduler.machine.level = NEEDED[Transfer]
    peer.do(Clocked(peer.now_ms, {}))
    return peer


def wants_round(peer: Peer) -> bool:
    return peer.scheduler.resting.wants_round(peer.now_ms)


def test_whatever_comes_wants_a_round_and_then_nothing_does(thief: Peer) -> None:
    assert wants_round(thief)
    thief.round()
    assert not wants_round(thief)
    thief.commit_from_elsewhere(SUBMIT)
    assert wants_round(thief)


def test_who_has_nothing_to_do_wants_one_when_it_may_ask_again(thief: Peer) -> None:
    thief.round()
    thief.now_ms += PAUSE_MS_MIN - 1
    assert not wants_round(thief)
    thief.now_ms += 1
    assert wants_round(thief)


def test_tasks_that_wait_for_a_slot_want_rounds(thief: Peer) -> None:
    thief.commit_from_elsewhere(SUBMIT)
    thief.grant(FOUR)
    assert thief.scheduler.owner.has_queue
    assert not thief.scheduler.owner.is_hungry
    assert wants_round(thief)
