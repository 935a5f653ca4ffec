"""Who is in the cluster: the list that people see, and how a new peer gets onto it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from p2psched.core.feed import LEVEL, holders, holders_wanted
from p2psched.core.scheduler import Scheduler
from p2psched.core.swim.members import Member
from p2psched.model.errors import P2PSchedError, Unavailable
from p2psched.model.feed_messages import Following
from p2psched.model.ids import PeerId
from p2psched.model.load import Seen
from p2psched.model.member_messages import GetStanding, Standing
from p2psched.model.messages import ContactList, Contacts, Done, Join
from p2psched.model.peer_messages import PeerList
from p2psched.net.together import together
from p2psched.peer.failures import was_removed
from p2psched.peer.others import Others
from p2psched.peer.views import peer_views, with_gossip, with_loads, with_standings
from p2psched.ports.engine import Engine

PATIENCE_S: Final = 5.0  # for a leader to be there; then the caller is told to come back
CONTACT_PATIENCE_S: Final = 0.5
ASKED_AT_ONCE_MAX: Final = 64
NO_QUORUM: Final = (
    "no quorum: no majority of the voters answers; `p2psched peers --stale` shows who is there"
)
READ_NO_QUORUM: Final = (
    f"{NO_QUORUM}, and --stale on other commands what this peer knew when it last heard of one"
)


class Roster:
    """A part of the API, see `peer.api`."""

    def __init__(
        self,
        me: PeerId,
        scheduler: Scheduler,
        ledger: Engine,
        others: Others,
        *,
        gossip: Callable[[], Mapping[PeerId, Member]],
        seen: Callable[[], Mapping[PeerId, Seen]],
    ) -> None:
        self._me = me
        self._scheduler = scheduler
        self._machine = scheduler.machine
        self._feeding = scheduler.feeding
        self._ledger = ledger
        self._others = others
        self._gossip = gossip
        self._seen = seen

    async def peers(self, *, fresh: bool) -> PeerList:
        """As of now, with what the leader knows; not `fresh`: whom this peer reaches. People need
        to see who is missing above all where there is no majority."""
        raft = self._ledger.engine.raft
        ages: dict[PeerId, int] = {}
        reached = None
        if fresh:
            ages = await self._ages()
        else:
            reached = self._others.connected() | {self._me}
        leader = self._ledger.coordinator()
        stories = self._scheduler.stories()
        views = [
            msgspec.structs.replace(view, quarantine=stories.get(view.info.peer, ""))
            for view in peer_views(self._machine, raft.membership, leader, ages, reached)
        ]
        views = with_gossip(views, self._gossip())
        views = with_loads(views, self._seen(), self._ledger.now_ms)
        return PeerList(tuple(with_standings(views, await self._standings())))

    async def _standings(self) -> dict[PeerId, Standing]:
        """Of all that are alive and answer at once."""
        raft = self._ledger.engine.raft
        found = {self._me: Standing(raft.term, self._machine.applied_index)}

        async def ask(peer: PeerId) -> None:
            with contextlib.suppress(TimeoutError, P2PSchedError):
                async with asyncio.timeout(CONTACT_PATIENCE_S):
                    answer = await self._others.call(peer, GetStanding())
                    assert isinstance(answer, Standing)
                    found[peer] = answer

        live = [peer for peer, row in self._machine.peers.items() if row.live and peer != self._me]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2 * CONTACT_PATIENCE_S):
                await together(ask, live, at_most=ASKED_AT_ONCE_MAX)
        return found

    async def _ages(self) -> dict[PeerId, int]:
        leader = self._ledger.coordinator()
        if leader == self._me:
            return dict(self.contacts())
        if leader is None:
            return {}
        try:
            async with asyncio.timeout(CONTACT_PATIENCE_S):
                answer = await self._others.call(leader, Contacts())
        except (TimeoutError, Unavailable):
            return {}
        assert isinstance(answer, ContactList)
        return dict(answer.ages_ms)

    def contacts(self) -> dict[PeerId, int]:
        """On the leader: how long ago each peer was heard, followers too."""
        if self._ledger.coordinator() != self._me:
            return {}
        now_ms = self._ledger.now_ms
        heard = self._feeding.contacts(now_ms, self._ledger.engine.raft.membership)
        ages = {peer: now_ms - heard_ms for peer, heard_ms in heard.items()}
        return {**ages, **self._ledger.contacts()}

    def _should_follow(self, join: Join) -> bool:
        group = self._ledger.engine.raft.membership
        if not join.may_follow or group.member(join.member.peer) is not None:
            return False
        return join.would_rather or (
            self._machine.level >= LEVEL and holders(group, self._machine) >= holders_wanted(group)
        )

    async def join(self, join: Join) -> Done | Following:
        """Until the membership holds the new member, or it is one too many and follows. Only the
        leader can; others pass it on. Raises Removed."""
        member = join.member
        raft = self._ledger.engine.raft
        if raft.knows_removed(member.peer) or member.peer in self._machine.gone:
            raise was_removed(member.name, member.peer)
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    leader = self._ledger.coordinator()
                    if leader == self._me:
                        if self._should_follow(join):
                            if self._machine.level >= LEVEL:  # else soon
                                return Following(self._ledger.engine.raft.membership, leader)
                        elif self._ledger.engine.raft.is_settled_member(join.member):
                            return Done()
                        else:
                            self._ledger.add_member(join.member)
                    elif leader is not None:
                        answer = await self._others.call(leader, join)
                        assert isinstance(answer, Done | Following)
                        return answer
                    await asyncio.sleep(0.05)
        except TimeoutError as exc:
            raise Unavailable(NO_QUORUM) from exc
