"""Who is in the cluster: the list that people see, and how a new peer gets onto it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from p2psched.core.machine import Machine
from p2psched.model.errors import Unavailable
from p2psched.model.ids import PeerId
from p2psched.model.messages import ContactList, Contacts, Done, Join, PeerList
from p2psched.model.raft import Member
from p2psched.peer.others import Others
from p2psched.peer.views import peer_views
from p2psched.ports.engine import Engine

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
        machine: Machine,
        ledger: Engine,
        others: Others,
        linearize: Callable[[], Awaitable[None]],
    ) -> None:
        self._me = me
        self._machine = machine
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
            return dict(self._ledger.contacts())
        if leader is None:
            return {}
        try:
            async with asyncio.timeout(CONTACT_PATIENCE_S):
                answer = await self._others.call(leader, Contacts())
        except (TimeoutError, Unavailable):
            return {}
        assert isinstance(answer, ContactList)
        return dict(answer.ages_ms)

    async def join(self, member: Member) -> Done:
        """Until the membership holds the new member. Only the leader can; others pass it on."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    leader = self._ledger.coordinator()
                    if leader == self._me:
                        if self._ledger.engine.raft.is_settled_member(member):
                            return Done()
                        self._ledger.add_member(member)
                    elif leader is not None:
                        await self._others.call(leader, Join(member))
                        return Done()
                    await asyncio.sleep(0.05)
        except TimeoutError as exc:
            raise Unavailable(NO_QUORUM) from exc
