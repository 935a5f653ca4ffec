"""Whom a follower follows, and how it finds the next one."""

from __future__ import annotations

from p2psched.core.coordinator import DETECTION_WINDOW_MS
from p2psched.core.follower import (
    FEED_PATIENCE_MS,
    FIRST_PATIENCE_MS,
    SEEK_PAUSE_MS,
    Follower,
)
from p2psched.core.follower_events import Lost
from p2psched.model.commands import PeerDown
from p2psched.model.feed_messages import Follow
from p2psched.model.ids import PeerId
from tests.core.feed_rig import GROUP, A, B, F, L, Rig, info


def up() -> Rig:
    """The ledger knows the follower."""
    rig = Rig()
    rig.begin()
    assert rig.follower.is_known
    return rig


def is_fed(rig: Rig) -> bool:
    return rig.follower.is_fed


def test_followers_spread_over_all_who_do_not_lead() -> None:
    chosen = [Follower(info(PeerId(f"f{n}")), GROUP, L).feeders()[0] for n in range(200)]
    assert {*chosen} == {A, B}
    assert 60 < chosen.count(A) < 140


def test_it_is_fed_by_one_who_does_not_lead() -> None:
    rig = up()
    assert rig.follower.feeder in (A, B)


def test_a_broken_connection_is_enough_to_go_elsewhere() -> None:
    rig = up()
    first = rig.follower.feeder
    assert first is not None
    rig.step(Lost(rig.now_ms, first))
    assert rig.follower.feeder != first


def test_while_nobody_leads_it_asks_around_at_a_walk() -> None:
    rig = up()
    for holder in rig.holders.values():
        holder.led = False
    rig.said.clear()
    rig.run(2_000)
    asked = [say for say in rig.said if isinstance(say.message, Follow)]
    assert len(asked) <= (2_000 // SEEK_PAUSE_MS + 1) * len(rig.holders)
    assert not is_fed(rig)
    for holder in rig.holders.values():
        holder.led = True
    rig.run(200)
    assert is_fed(rig)


def test_a_leader_that_takes_over_from_a_dead_one_hears_of_the_followers_in_time() -> None:
    """However the follower ranks the two that are left and the dead one: it is not declared down
    for its feeder's promotion."""
    for number in range(24):
        rig = Rig(name=PeerId(f"f{number}"))
        rig.begin()
        rig.run(500)
        rig.cut.add(L)
        feeder = rig.follower.feeder
        assert feeder is not None
        other = B if feeder == A else A
        for holder in rig.holders.values():
            holder.led = False
        rig.run(700)
        for peer in (A, B):
            rig.holders[peer].feeding.on_coordinator(feeder)
            rig.holders[peer].led = True
        since_ms = rig.now_ms
        rig.run(DETECTION_WINDOW_MS // 2)
        leader = rig.holders[feeder].feeding
        assert leader.roll.through == {rig.follower.info.peer: other}
        heard_ms = leader.contacts(rig.now_ms, GROUP)[rig.follower.info.peer]
        assert heard_ms > since_ms


def test_a_slow_feeder_that_answers_in_the_end_is_followed() -> None:
    rig = up()
    rig.delay_ms = 3 * FIRST_PATIENCE_MS
    assert rig.follower.feeder is not None
    rig.step(Lost(rig.now_ms, rig.follower.feeder))
    rig.run(20_000)
    assert is_fed(rig)


def test_who_leads_alone_feeds_itself() -> None:
    rig = up()
    leader = rig.holders[L]
    for peer in (A, B):
        rig.commit(PeerDown(peer, 1, "gone"))
        rig.cut.add(peer)
    rig.run(3 * FEED_PATIENCE_MS)
    assert rig.follower.feeder == L
    assert leader.feeding.contacts(rig.now_ms, GROUP)[F] >= rig.now_ms - 100
