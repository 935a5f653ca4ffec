"""A round that has nothing to do is told from one that has."""

from __future__ import annotations

import msgspec
import pytest

from p2psched.core.levels import NEEDED
from p2psched.core.scheduler import Asked, Clocked, CoordinatorChanged, GaveUp, Leaving
from p2psched.core.thief import PAUSE_MS_MIN
from p2psched.model.commands import Cancel, SubmitJob
from p2psched.model.ids import JobId
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
    assert not thief.scheduler.owner.is_hungry(thief.now_ms)
    assert wants_round(thief)


def test_a_caller_that_waits_no_more_wants_no_round(thief: Peer) -> None:
    thief.do(Asked(thief.now_ms, 7, Cancel(JobId("0" * 26))))
    thief.round()
    assert not wants_round(thief)
    thief.do(GaveUp(thief.now_ms, 7))
    assert not wants_round(thief)
    thief.do(Leaving(thief.now_ms, 8))
    thief.round()
    thief.do(GaveUp(thief.now_ms, 8))
    assert wants_round(thief)


def test_what_a_caller_proposes_wants_a_round_that_only_lets_it_leave(thief: Peer) -> None:
    thief.round()
    cancel = Cancel(JobId("0" * 26))
    thief.do(Asked(thief.now_ms, 7, cancel))
    assert wants_round(thief)
    assert thief.scheduler.resting.only_asks(thief.now_ms)
    assert thief.round() == [cancel]
    assert thief.round() == []
    assert not wants_round(thief)


def test_what_is_proposed_to_who_leaves_wants_a_whole_round(thief: Peer) -> None:
    thief.do(Leaving(thief.now_ms, 8))
    thief.round()
    thief.do(Asked(thief.now_ms, 7, Cancel(JobId("0" * 26))))
    assert not thief.scheduler.resting.only_asks(thief.now_ms)


def test_a_round_in_which_nothing_came_only_asks_for_work(thief: Peer) -> None:
    thief.round()
    thief.now_ms += PAUSE_MS_MIN
    resting = thief.scheduler.resting
    assert resting.only_asks(thief.now_ms)
    thief.round()
    assert resting.only_asks(thief.now_ms)
    assert not wants_round(thief)  # it has asked, and waits for its turn
    thief.do(Clocked(thief.now_ms, {}))
    assert not resting.only_asks(thief.now_ms)


def test_who_coordinates_looks_in_each_round_at_tasks_that_nobody_could_take(thief: Peer) -> None:
    thief.coordinate()
    wide = msgspec.structs.replace(SUBMIT.spec, cpus=3)
    thief.commit_from_elsewhere(SubmitJob(SUBMIT.job, wide))
    assert not thief.round()
    resting = thief.scheduler.resting
    assert not resting.only_asks(thief.now_ms)
    thief.do(GaveUp(thief.now_ms, 7))
    assert wants_round(thief)
    thief.do(CoordinatorChanged(thief.now_ms, None, is_self=False))
    thief.round()
    assert resting.only_asks(thief.now_ms)
