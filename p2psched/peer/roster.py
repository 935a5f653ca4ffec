"""Who is in the cluster: the list that people see, and how a new peer gets onto it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from p2psched.core.feed import LEVEL, holders_wanted, members_of
from p2psched.core.scheduler import Scheduler
from p2psched.model.errors import Unavailable
from p2psched.model.feed_messages import Following
from p2psched.model.ids import PeerId
from p2psched.model.messages import ContactList, Contacts, Done, Join, PeerList
from p2psched.peer.others import Others
from p2psched.peer.raft_loop import RaftLedger
from p2psched.peer.views import peer_views

PATIENCE_S: Final = 5.0  # for a leader to be there; then the caller is told to come back
CONTACT_PATIENCE_S: Final = 0.5
NO_QUORUM: Final = (
    "no quorum: no majority of the voters answers; `p2psched peers` shows who is there"
)


class Roster:
    """A part of the API, see `peer.api`."""

    def __init__(
        self,
        me: PeerId,
        scheduler: Scheduler,
        ledger: RaftLedger,
        others: Others,
        linearize: Callable[[], Awaitable[None]],
    ) -> None:
        self._me = me
        self._machine = scheduler.machine
        self._feeding = scheduler.feeding
        self._ledger = ledger
        self._others = others
        self._linearize = linearize

    async def peers(self) -> PeerList:
        """With a leader, what it knows; without one, whom this peer reaches: people need to see
        who is missing above all then."""
        raft = self._ledger.engine.raft
        if raft.leader_is_live():
            await self._linearize()
            ages = await self._ages()
            reached = None
        else:
            ages, reached = {}, self._others.connected() | {self._me}
        leader = self._ledger.coordinator()
        return PeerList(tuple(peer_views(self._machine, raft.membership, leader, ages, reached)))

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
            self._machine.level >= LEVEL and len(members_of(group)) >= holders_wanted(group)
        )

    async def join(self, join: Join) -> Done | Following:
        """Until the membership holds the new member, or it is one too many and follows. Only the
        leader can; others pass it on."""
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
