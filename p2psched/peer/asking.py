"""How a peer finds the others while nobody leads it: it asks who answers at the addresses to join,
whose peers may come up after us, and at all that it has heard of, and where the others are."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from p2psched.model.config import Config
from p2psched.model.errors import P2PSchedError
from p2psched.model.raft import Member
from p2psched.model.sighting_messages import Sightings
from p2psched.net.address import parse
from p2psched.net.auth import Identity
from p2psched.net.calls import CallClient
from p2psched.net.dial import connect
from p2psched.net.link import Connection, Handlers
from p2psched.net.peers import ATTEMPT_TIMEOUT_S
from p2psched.observe.beat import until_beat
from p2psched.peer.cluster import Belonging
from p2psched.peer.whereabouts import Whereabouts
from p2psched.ports.clock import Clock

MEET_RETRY_S: Final = 0.5
FORGOTTEN_ELECTIONS: Final = 3  # so long without a leader as these would take, at most
ASKED_MAX: Final = 8  # addresses in one round, besides those to join


class AskingAround:
    """Of one run of a peer."""

    def __init__(
        self,
        member: Member,
        *,
        config: Config,
        belonging: Belonging,
        clock: Clock,
        where: Whereabouts,
    ) -> None:
        self._member = member
        self._config = config
        self._belonging = belonging
        self._clock = clock
        self._where = where
        self._turn = 0  # of the addresses that are asked at

    async def run(self, is_led: Callable[[], bool]) -> None:
        """At the start, and whenever nobody leads for long; whoever does tells us all."""
        lonely_ms = FORGOTTEN_ELECTIONS * self._config.election_ms_max
        led_at = self._clock.now_ms() - lonely_ms
        while True:
            now_ms = self._clock.now_ms()
            if is_led():
                led_at = now_ms
            elif now_ms - led_at >= lonely_ms:
                async with asyncio.TaskGroup() as group:
                    for address in self._to_ask():
                        group.create_task(self._ask_at(address))
            await asyncio.sleep(until_beat(MEET_RETRY_S))

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
