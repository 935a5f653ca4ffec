"""How a simulated peer becomes a member and stays one, and how it looks after the group."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from p2psched.core.levels import GROUP_LEVEL
from p2psched.core.raft.effects import AddMember, MemberEvent, Receive, Regulate
from p2psched.core.raft.engine import Forwarded
from p2psched.core.scheduler import Followed
from p2psched.model.backing import Lagging
from p2psched.model.feed_messages import Feed, FeedElsewhere, FeedReport, FeedReported, Follow
from p2psched.model.ids import PeerId
from p2psched.model.messages import Forward
from p2psched.model.precedence import MakeWay
from p2psched.model.raft import Append, AppendReply
from p2psched.model.steal_messages import Gives, Steal
from p2psched.testing.sim_items import Join, WireMessage, encode_wire
from p2psched.testing.sim_world import World

if TYPE_CHECKING:
    from p2psched.testing.sim_peer import SimPeer

JOIN_MS: Final = 300  # between two tries to become a member


class Joining:
    """Of one process."""

    def __init__(self, peer: SimPeer, world: World) -> None:
        self._peer = peer
        self._world = world
        self._at_ms = 0

    def look(self, now_ms: int, wall_ms: int) -> list[MemberEvent]:
        """For our own engine, which leads if it matters; and ask somebody if need be."""
        away_ms, level = self._world.away_ms, self._peer.scheduler.machine.level
        events: list[MemberEvent] = []
        if away_ms is not None and level >= GROUP_LEVEL:
            events.append(Regulate(now_ms, wall_ms, away_ms))
        if self._wants_to_join(now_ms):
            events.append(AddMember(now_ms, wall_ms, self._peer.member))
        return events

    def _wants_to_join(self, now_ms: int) -> bool:
        if now_ms < self._at_ms:
            return False
        self._at_ms = now_ms + JOIN_MS
        peer, raft = self._peer, self._peer.engine.raft
        # What our log says of us may be an entry that the others have dropped since: then nobody
        # would ever send us another one.
        if raft.membership.member(peer.id) == peer.member and raft.leader_is_live():
            return False
        if not raft.is_leader and self._world.size > 1:
            self._world.send(peer, self._whom(raft.leader), encode_wire(Join(peer.member)))
        return raft.is_leader

    def receive(self, sender: PeerId, message: WireMessage, now_ms: int) -> None:
        """A message of whoever wants to join, follows, or is a member."""
        peer, engine = self._peer, self._peer.engine
        match message:
            case Append() | AppendReply():  # nearly all
                peer.step(Receive(now_ms, sender, message))
            case Join(member=member):
                if engine.raft.is_leader:
                    peer.step(AddMember(now_ms, peer.wall_ms, member))
            case Forward():
                if engine.raft.is_leader or engine.raft.membership.member(sender) is not None:
                    peer.step(Forwarded(now_ms, message))
                else:  # a follower's
                    engine.append(message.envelopes)
            case Follow() | FeedReport() | FeedReported():
                peer.decide(Followed(now_ms, sender, message))
            case Steal() | Gives() | Lagging() | MakeWay():
                peer.decide(Followed(now_ms, sender, message))
            case Feed() | FeedElsewhere():
                pass  # for a follower
            case _:
                peer.step(Receive(now_ms, sender, message))

    def _whom(self, leader: PeerId | None) -> PeerId:
        if leader in (None, self._peer.id):
            return self._world.any_other(self._peer)
        assert leader is not None
        return leader
