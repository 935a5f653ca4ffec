"""What gossip says of the others reaches the cores with the clock, and no other way."""

from __future__ import annotations

from p2psched.core.follower import Follower
from p2psched.core.follower_events import Passed
from p2psched.core.scheduler import Clocked, Round, Scheduler
from p2psched.model.commands import PeerInfo
from p2psched.model.ids import PeerId
from p2psched.model.load import Liveness, LoadReport, Seen
from p2psched.model.raft import Member, Membership

P, Q = PeerId("p"), PeerId("q")
INFO = PeerInfo(P, 1, "p", "p:1", pid=1, slots=1, version="1", python="3.11")
SEEN = {Q: Seen(Q, 1, Liveness.ALIVE, 0, LoadReport(number=1, foreign_cpu=900))}


def test_a_scheduler_sees_what_was_seen_when_time_last_went_on() -> None:
    scheduler = Scheduler(INFO)
    assert not scheduler.seen
    scheduler.step(Clocked(100, {}, seen=SEEN))
    scheduler.step(Round(150))
    assert scheduler.seen == SEEN
    scheduler.step(Clocked(200, {}))
    assert not scheduler.seen


def test_a_follower_sees_it_too() -> None:
    follower = Follower(INFO, Membership((Member(Q, "q", "q:1", True),)), None)
    assert not follower.seen
    follower.step(Passed(100, SEEN))
    follower.step(Round(150))
    assert follower.seen == SEEN
