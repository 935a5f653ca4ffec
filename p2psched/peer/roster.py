"""Who is in the cluster: the list that people see, and how a new peer gets onto it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from p2psched.core.machine import Machine
from p2psched.model.errors import P2PSchedError, Unavailable
from p2psched.model.ids import PeerId
from p2psched.model.member_messages import GetStanding, Standing
from p2psched.model.messages import ContactList, Contacts, Done, Join
from p2psched.model.peer_messages import PeerList
from p2psched.model.raft import Member
from p2psched.net.together import together
from p2psched.peer.members import was_removed
from p2psched.peer.others import Others
from p2psched.peer.raft_loop import RaftLedger
from p2psched.peer.views import peer_views, with_standings

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
        machine: Machine,
        ledger: RaftLedger,
        others: Others,
    ) -> None:
        self._me = me
        self._machine = machine
        self._ledger = ledger
        self._others = others

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
        views = peer_views(self._machine, raft.membership, leader, ages, reached)
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
        """Until the membership holds the new member. Only the leader can; others pass it on.
        Raises Removed."""
        raft = self._ledger.engine.raft
        if raft.knows_removed(member.peer) or member.peer in self._machine.gone:
            raise was_removed(member.name, member.peer)
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
