"""How a peer becomes a member of the ledger's group, and stays one. It asks; the leader decides."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Final

from p2psched.model.config import Config
from p2psched.model.errors import P2PSchedError, Refused
from p2psched.model.ids import PeerId
from p2psched.model.messages import Join
from p2psched.model.raft import Member
from p2psched.net.address import parse
from p2psched.net.peers import PeerLinks
from p2psched.peer.cluster import Belonging, meet
from p2psched.ports.clock import Clock
from p2psched.ports.engine import Engine

JOIN_RETRY_S: Final = 0.2
MEET_RETRY_S: Final = 0.5
FORGOTTEN_ELECTIONS: Final = 3  # so long without a leader as these would take, at most
CALL_PATIENCE_S: Final = 5.0

NoteAddress = Callable[[PeerId, str, str], None]  # peer, name, address


class Joining:
    """Of one run of a peer. `addresses` may grow: peer -> name and address."""

    def __init__(
        self,
        member: Member,
        *,
        config: Config,
        belonging: Belonging,
        clock: Clock,
        ledger: Engine,
        links: PeerLinks,
        addresses: Mapping[PeerId, tuple[str, str]],
        note_address: NoteAddress,
    ) -> None:
        self._member = member
        self._config = config
        self._belonging = belonging
        self._clock = clock
        self._ledger = ledger
        self._links = links
        self._addresses = addresses
        self._note_address = note_address

    def start(self, group: asyncio.TaskGroup) -> None:
        """Both of what follows; nothing where the group is static."""
        if not self._belonging.group:
            group.create_task(self.keep_membership())
            group.create_task(self.meet_joins())

    async def keep_membership(self) -> None:
        """Ask those we know to make us a member, with our address of now, until we are one; and
        again when nobody leads us: the entry that made us a member may have been dropped."""
        raft = self._ledger.engine.raft
        led_at = self._clock.now_ms()
        forgotten_ms = FORGOTTEN_ELECTIONS * self._config.election_ms_max
        while True:
            if raft.leader_is_live():
                led_at = self._clock.now_ms()
            is_member = raft.membership.member(self._member.peer) == self._member
            if not is_member or self._clock.now_ms() - led_at > forgotten_ms:
                await self._ask_to_join()
            await asyncio.sleep(JOIN_RETRY_S)

    async def _ask_to_join(self) -> None:
        if self._ledger.engine.raft.is_leader:
            self._ledger.add_member(self._member)
            return
        for peer in sorted(self._addresses):
            try:
                async with asyncio.timeout(CALL_PATIENCE_S):
                    await self._links.call(peer, Join(self._member))
            except Refused:  # nobody will have us
                raise
            except (TimeoutError, P2PSchedError):
                continue  # another may be there
            return

    async def meet_joins(self) -> None:
        """Find those at the addresses to join, who may come up after us, until somebody leads."""
        cluster, secret = self._belonging.cluster, self._belonging.secret
        while not self._ledger.engine.raft.leader_is_live():
            for address in self._config.join:
                with contextlib.suppress(P2PSchedError):
                    peer, _ = await meet(address, secret, cluster)
                    self._note_address(peer, "", str(parse(address)))
            await asyncio.sleep(MEET_RETRY_S)
