"""How gossip gets to other peers: as datagrams, over a link if there is one or has to be, and, to
compare, over a connection of its own: a link that stays open costs more than a comparison."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

import msgspec

from p2psched.core.swim.members import Members
from p2psched.model.errors import P2PSchedError, Unavailable, UsageError
from p2psched.model.gossip import Datagram, encode
from p2psched.model.gossip_messages import Carried, Compared, GossipAnswer, GossipCall, Told
from p2psched.model.ids import PeerId, short
from p2psched.net.address import parse
from p2psched.net.calls import CallClient
from p2psched.net.datagrams import Datagrams, Where, look_up, numeric
from p2psched.net.dial import connect
from p2psched.net.link import Connection, Handlers, State
from p2psched.net.peers import PeerLinks

log = logging.getLogger(__name__)

CALL_PATIENCE_S: Final = 5.0
# Links that gossip opens by itself, to try once more whom no datagram reaches.
DIALLED_MAX: Final = 32
NAMES_MAX: Final = 1_024  # hosts by name whose addresses are kept
NAME_FRESH_S: Final = 60.0


class Ways:
    """Of one run of a peer's gossip."""

    def __init__(
        self,
        datagrams: Datagrams,
        links: PeerLinks,
        members: Members,
        *,
        secret: bytes,
        meet: Callable[[PeerId, str], None],
        group: asyncio.TaskGroup,
    ) -> None:
        """`meet`: a link to that peer is wanted, and this is where it is."""
        self._datagrams = datagrams
        self._links = links
        self._members = members
        self._secret = secret
        self._meet = meet
        self._group = group
        self._loop = asyncio.get_running_loop()
        self._names: dict[str, tuple[Where | None, float]] = {}  # and until when that counts
        self._came_over: dict[PeerId, Connection] = {}  # that a datagram was carried over last
        self._dialled: set[PeerId] = set()
        self.carried = 0  # datagrams over links
        self.sent_bytes = 0  # of those, and of comparisons that we began

    def send(self, to: PeerId, address: str, datagram: Datagram) -> None:
        """Or drop: gossip repeats itself."""
        body = encode(datagram)
        if address and self._datagrams.is_open:
            where = self._where(address)
            if where is not None:
                self._datagrams.send(where, body)
            return
        self._carry(to, body)

    def came_over(self, connection: Connection) -> None:
        """The answer goes back the same way."""
        assert connection.peer is not None
        self._came_over[connection.peer] = connection

    def on_closed(self, connection: Connection) -> None:
        if connection.peer is not None and self._came_over.get(connection.peer) is connection:
            del self._came_over[connection.peer]

    async def call(self, peer: PeerId, body: GossipCall) -> GossipAnswer | None:
        """None if there is no answer."""
        try:
            async with asyncio.timeout(CALL_PATIENCE_S):
                if peer in self._links.connected() and self._speaks(peer):
                    self.sent_bytes += len(msgspec.msgpack.encode(body))
                    answer: object = await self._links.call(peer, body)
                else:
                    answer = await self._call_alone(peer, body)
        except (TimeoutError, P2PSchedError) as error:
            log.debug("gossip-not-compared", extra={"peer": peer, "error": str(error)})
            return None
        return answer if isinstance(answer, Compared | Told) else None

    async def _call_alone(self, peer: PeerId, body: GossipCall) -> object:
        member = self._members.get(peer)
        address = member.address if member is not None else self._links.address(peer)
        if not address:
            raise Unavailable(f"no way to peer {short(peer)} is known yet")
        connection = await connect(
            address,
            identity=self._links.identity,
            secret=self._secret,
            handlers=Handlers(on_message=lambda _connection, _message: None),
        )
        try:
            if connection.peer != peer:
                raise Unavailable(f"{address} is another peer now, not {short(peer)}")
            return await CallClient(connection).call(body)
        finally:
            self.sent_bytes += connection.sent_bytes
            connection.close()

    def _carry(self, to: PeerId, body: bytes) -> None:
        """An older version would end a link on which it gets what it does not know."""
        if not self._speaks(to):
            return
        connection = self._came_over.get(to)
        if to in self._links.connected():
            self._links.send(to, Carried(body))
        elif connection is not None and connection.state is State.OPEN:
            connection.send_nowait(Carried(body))
        elif self._may_dial(to):
            self._links.send(to, Carried(body))
        else:
            return
        self.carried += 1
        self.sent_bytes += len(body)

    def _speaks(self, peer: PeerId) -> bool:
        """It has said something in gossip itself: others are known from elsewhere only."""
        member = self._members.get(peer)
        return member is not None and member.number > 0

    def _may_dial(self, to: PeerId) -> bool:
        member = self._members.get(to)
        if member is None or not member.address:
            return False
        if not member.deaf and self._datagrams.is_open and to not in self._dialled:
            if len(self._dialled) >= DIALLED_MAX:
                return False
            self._dialled.add(to)
        if self._links.address(to) is None:
            self._meet(to, member.address)
        return self._links.address(to) is not None

    # --- names ------------------------------------------------------------------------------------

    def _where(self, address: str) -> Where | None:
        """None: not known yet, or no address."""
        where, until = self._names.get(address, (None, 0.0))
        if self._loop.time() < until:
            return where
        try:
            parsed = parse(address)
        except UsageError:
            return None
        found = numeric(parsed)
        if len(self._names) >= NAMES_MAX:
            self._names.clear()
        self._names[address] = (found or where, self._loop.time() + NAME_FRESH_S)
        if found is None:
            self._group.create_task(self._look_up(address))
        return found or where

    async def _look_up(self, address: str) -> None:
        try:
            where: Where | None = await look_up(parse(address))
        except OSError:
            where = None
        self._names[address] = (where, self._loop.time() + NAME_FRESH_S)
