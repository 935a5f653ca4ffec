"""A peer at which nothing happens may look at its clock seldom; whatever time brings forward, or
might, is waited for as ever."""

from __future__ import annotations

import pytest

from p2psched.core.coordinator import DETECTION_WINDOW_MS
from p2psched.core.levels import KNOWN_LEVEL
from p2psched.core.quiet import SELDOM_MS, is_quiet
from p2psched.core.scheduler import Clocked, CoordinatorChanged, Leaving
from p2psched.model.actions import Act
from p2psched.model.commands import Cancel, Drain, DrainMode, PeerInfo, PeerUp
from p2psched.model.feed_messages import Follow
from p2psched.model.ids import PeerId
from p2psched.model.lease_actions import Enrol, TakeLease
from p2psched.model.raft import Member, Membership
from tests.core.test_machine import JOB, P, Q
from tests.core.test_scheduler import FOUR, SUBMIT, Peer, peer

__all__ = ["peer"]  # a fixture


@pytest.fixture
def leader(peer: Peer) -> Peer:
    """It coordinates; there is another peer, that was heard just now."""
    peer.commit_from_elsewhere(PeerUp(PeerInfo(Q, 1, "q", "", 0, 2, "", "")))
    peer.coordinate()
    peer.round()
    if peer.proposed:  # placements of nothing, levels
        peer.commit()
    return peer


def quiet(peer: Peer, *, silent_ms: int = 0, shuns: bool = False) -> bool:
    heard = {Q: peer.now_ms - silent_ms}
    peer.do(Clocked(peer.now_ms, heard))
    found = is_quiet(peer.scheduler, peer.now_ms, heard, shuns=shuns)
    peer.round()
    return found


def test_whoever_only_waits_is_quiet_leader_or_not(peer: Peer, leader: Peer) -> None:
    assert quiet(leader)
    leader.do(CoordinatorChanged(leader.now_ms, Q, is_self=False))
    assert quiet(peer)


def test_a_job_is_not_quiet_until_it_has_ended(peer: Peer) -> None:
    peer.commit_from_elsewhere(SUBMIT)
    assert not quiet(peer)
    peer.commit_from_elsewhere(Cancel(JOB))
    assert quiet(peer)


def test_tasks_that_still_run_of_a_job_that_has_ended_are_not_quiet(peer: Peer) -> None:
    peer.commit_from_elsewhere(SUBMIT)
    peer.grant(FOUR)
    assert peer.batches()
    peer.commit_from_elsewhere(Cancel(JOB))
    assert not quiet(peer)


def test_nobody_is_quiet_without_a_coordinator_or_about_to_go(peer: Peer) -> None:
    peer.do(CoordinatorChanged(peer.now_ms, None, is_self=False))
    assert not quiet(peer)
    peer.do(CoordinatorChanged(peer.now_ms, Q, is_self=False))
    assert quiet(peer)
    peer.do(Leaving(peer.now_ms, 1))
    assert not quiet(peer)


def test_a_peer_that_is_drained_is_not_quiet(peer: Peer) -> None:
    peer.scheduler.machine.level = KNOWN_LEVEL
    peer.commit_from_elsewhere(Drain(P, DrainMode.ON))
    assert not quiet(peer)


def test_a_leader_watches_whoever_is_silent_long_before_it_declares_it_down(leader: Peer) -> None:
    part_ms = DETECTION_WINDOW_MS // 4
    assert quiet(leader, silent_ms=part_ms)
    assert not quiet(leader, silent_ms=part_ms + 1)
    assert not quiet(leader, shuns=True)
    assert part_ms + 2 * SELDOM_MS < DETECTION_WINDOW_MS  # then it looks often, in time


def test_a_window_too_short_for_seldom_looks_has_none(leader: Peer) -> None:
    assert quiet(leader)
    leader.scheduler._coordinator.window_ms = 3 * SELDOM_MS
    assert not quiet(leader)


def test_the_end_of_a_lease_is_waited_for_from_shortly_before_it(leader: Peer) -> None:
    leader.scheduler.machine.level = KNOWN_LEVEL
    leader.commit_from_elsewhere(Act(0, 0, 0, Enrol()))
    caller = max(leader.scheduler.machine.callers)
    leader.commit_from_elsewhere(Act(caller, 1, 1, TakeLease("a" * 32, 10_000)))
    assert quiet(leader)
    leader.now_ms += 10_000 - SELDOM_MS
    assert not quiet(leader)


def test_whoever_feeds_a_follower_is_not_quiet(peer: Peer) -> None:
    follower = PeerId("f" * 32)
    group = Membership((Member(Q, "q", "", votes=True),))
    feeder = peer.scheduler.feeding.feeder
    feeder.on_clock(peer.now_ms, group, Q, led=True)
    feeder.on_follow(peer.now_ms, follower, Follow(1, 0, 0, ()))
    assert feeder.followers
    assert not is_quiet(peer.scheduler, peer.now_ms, {}, shuns=False)
