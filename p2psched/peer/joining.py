"""How a peer becomes a member of the ledger's group, and stays one: it asks, the leader decides.
And how it finds the others while nobody leads: it asks around."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from p2psched.model.config import Config
from p2psched.model.errors import P2PSchedError, Refused, Removed
from p2psched.model.messages import Join
from p2psched.model.raft import Member
from p2psched.model.sighting_messages import Sightings
from p2psched.net.address import parse
from p2psched.net.auth import Identity
from p2psched.net.calls import CallClient
from p2psched.net.dial import connect
from p2psched.net.link import Connection, Handlers
from p2psched.net.peers import ATTEMPT_TIMEOUT_S, PeerLinks
from p2psched.peer.cluster import Belonging
from p2psched.peer.members import was_removed
from p2psched.peer.whereabouts import Whereabouts
from p2psched.ports.clock import Clock
from p2psched.ports.engine import Engine

JOIN_RETRY_S: Final = 0.2
MEET_RETRY_S: Final = 0.5
FORGOTTEN_ELECTIONS: Final = 3  # so long without a leader as these would take, at most
CALL_PATIENCE_S: Final = 5.0
ASKED_MAX: Final = 8  # addresses in one round, besides those to join


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
        self._turn = 0  # of the addresses that are asked at

    def start(self, group: asyncio.TaskGroup) -> None:
        """Both of what follows; nothing where the group is static."""
        if not self._belonging.group:
            group.create_task(self.keep_membership())
            group.create_task(self.find_others())

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
            await asyncio.sleep(JOIN_RETRY_S)
        self._on_removed(was_removed(self._member.name, self._member.peer, self._config.data))

    async def _ask_to_join(self) -> None:
        """Raises Removed."""
        if self._ledger.engine.raft.is_leader:
            self._ledger.add_member(self._member)
            return
        for peer in sorted(self._where.known):
            try:
                async with asyncio.timeout(CALL_PATIENCE_S):
                    await self._links.call(peer, Join(self._member))
            except Refused:  # nobody will have us
                raise
            except (TimeoutError, P2PSchedError):
                continue  # another may be there
            return

    # --- while nobody leads -----------------------------------------------------------------------

    async def find_others(self) -> None:
        """Ask at the addresses to join, whose peers may come up after us, and at all that we have
        heard of: who answers there, and where are the others? At the start, and whenever nobody
        leads for long. Once somebody does, the ledger tells."""
        lonely_ms = FORGOTTEN_ELECTIONS * self._config.election_ms_max
        led_at = self._clock.now_ms() - lonely_ms
        while True:
            now_ms = self._clock.now_ms()
            if self._ledger.engine.raft.leader_is_live():
                led_at = now_ms
            elif now_ms - led_at >= lonely_ms:
                async with asyncio.TaskGroup() as group:
                    for address in self._to_ask():
                        group.create_task(self._ask_at(address))
            await asyncio.sleep(MEET_RETRY_S)

    def _to_ask(self) -> list[str]:
        """Those to join, and some of all others in turn."""
        joins = [str(parse(address)) for address in self._config.join]
        own = {*joins, self._member.address}
        others = [address for address in self._where.addresses if address not in own]
        self._turn = self._turn + ASKED_MAX if self._turn + ASKED_MAX < len(others) else 0
        return [*joins, *others[self._turn : self._turn + ASKED_MAX]]

    async def _ask_at(self, address: str) -> None:
        """On a connection of its own: whoever is of an older version closes it at this question."""
        with contextlib.suppress(TimeoutError, P2PSchedError):
            async with asyncio.timeout(ATTEMPT_TIMEOUT_S):
                connection = await connect(
                    address,
                    identity=Identity(cluster=self._belonging.cluster),
                    secret=self._belonging.secret,
                    handlers=Handlers(on_message=lambda _connection, _message: None),
                )
                try:
                    await self._ask(connection, address)
                finally:
                    connection.close()

    async def _ask(self, connection: Connection, address: str) -> None:
        peer = connection.peer
        if peer is None or peer == self._member.peer:
            return  # the address is our own by now
        self._where.meet(peer, address)
        answer = await CallClient(connection).call(self._where.question())
        if isinstance(answer, Sightings):
            self._where.on_answer(peer, answer.found)
