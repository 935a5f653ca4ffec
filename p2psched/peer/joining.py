"""How a peer becomes a member of the ledger's group, and stays one: it asks, the leader decides."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from p2psched.model.config import Config
from p2psched.model.errors import P2PSchedError, Removed, Static
from p2psched.model.messages import Join
from p2psched.model.raft import Member
from p2psched.net.peers import PeerLinks
from p2psched.observe.beat import until_beat
from p2psched.peer.asking import FORGOTTEN_ELECTIONS, AskingAround
from p2psched.peer.cluster import Belonging
from p2psched.peer.failures import was_removed
from p2psched.peer.whereabouts import Whereabouts
from p2psched.ports.clock import Clock
from p2psched.ports.engine import Engine

JOIN_RETRY_S: Final = 0.2
LOOK_S: Final = 0.5  # between two looks whether we are still a member, and led
CALL_PATIENCE_S: Final = 5.0


class Joining:
    """Of one run of a peer."""

    def __init__(
        self,
        member: Member,
        *,
        config: Config,
        belonging: Belonging,
        clock: Clock,
        ledger: Engine,
        links: PeerLinks,
        where: Whereabouts,
        on_removed: Callable[[Removed], None],
    ) -> None:
        self._member = member
        self._config = config
        self._belonging = belonging
        self._clock = clock
        self._ledger = ledger
        self._links = links
        self._where = where
        self._on_removed = on_removed
        self._asking = AskingAround(
            member, config=config, belonging=belonging, clock=clock, where=where
        )

    def start(self, group: asyncio.TaskGroup) -> None:
        """Both of what follows; nothing where the group is static."""
        if not self._belonging.group:
            group.create_task(self.keep_membership())
            group.create_task(self._asking.run(self._ledger.engine.raft.leader_is_live))

    async def keep_membership(self) -> None:
        """Ask those we know to make us a member, with our address of now, until we are one; and
        again when nobody leads us: the entry that made us a member may have been dropped. Until we
        learn, from our log or from them, that we were removed."""
        raft = self._ledger.engine.raft
        led_at = self._clock.now_ms()
        forgotten_ms = FORGOTTEN_ELECTIONS * self._config.election_ms_max
        while not raft.knows_removed(self._member.peer):
            if raft.leader_is_live():
                led_at = self._clock.now_ms()
            is_member = raft.membership.member(self._member.peer) == self._member
            if not is_member or self._clock.now_ms() - led_at > forgotten_ms:
                try:
                    await self._ask_to_join()
                except Removed:
                    break
            await asyncio.sleep(until_beat(LOOK_S if is_member else JOIN_RETRY_S))
        self._on_removed(was_removed(self._member.name, self._member.peer, self._config.data))

    async def _ask_to_join(self) -> None:
        """Raises Removed, Static."""
        if self._ledger.engine.raft.is_leader:
            self._ledger.add_member(self._member)
            return
        for peer in sorted(self._where.known):
            try:
                async with asyncio.timeout(CALL_PATIENCE_S):
                    await self._links.call(peer, Join(self._member))
            except (Removed, Static):
                raise
            except (TimeoutError, P2PSchedError):
                continue  # another may be there
            return
