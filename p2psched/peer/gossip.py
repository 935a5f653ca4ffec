"""Drives the core of gossip: a socket, a timer, and what the ledger knows of the others.

It is advice, and the peer lives without it: a port that can't be had, or a bug in here, is logged
and told in `status`, and nothing else stops. One for the life of a process; it runs in each life
of the peer, as a follower and as a member.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol

import msgspec

from p2psched.core.swim.events import (
    Answered,
    Called,
    CallPeer,
    Changed,
    Gone,
    Heard,
    Leaving,
    NewsOf,
    Published,
    Received,
    Removed,
    Renewed,
    Reply,
    Send,
    SwimEffect,
    SwimEvent,
    Ticked,
)
from p2psched.core.swim.members import Member
from p2psched.core.swim.settings import Settings
from p2psched.core.swim.swim import Swim
from p2psched.model.config import Config
from p2psched.model.errors import Unavailable
from p2psched.model.gossip import decode
from p2psched.model.gossip_messages import Carried, Compare, GossipAnswer, GossipCall
from p2psched.model.ids import PeerId
from p2psched.model.load import Liveness
from p2psched.model.messages import Answer, Failure
from p2psched.model.status_messages import GossipStatus
from p2psched.net.address import Address
from p2psched.net.auth import Identity
from p2psched.net.datagrams import Datagrams, Seal
from p2psched.net.link import Connection
from p2psched.net.peers import PeerLinks
from p2psched.observe.beat import until_beat
from p2psched.observe.rate import Rate
from p2psched.peer.gossip_ways import Ways
from p2psched.ports.clock import Clock

log = logging.getLogger(__name__)

LOOK_S: Final = 1.0  # between two looks at what the ledger knows
_NOT_YET: Final = "this peer does not gossip yet"


class Around(Protocol):
    """What else this peer knows of the others."""

    def incarnation(self) -> int:
        """Ours, as we tell the ledger."""
        ...

    def known(self) -> Iterable[tuple[PeerId, int, str]]:
        """Peers that live or may, their incarnations (0: not known), and addresses."""
        ...

    def removed(self) -> Iterable[PeerId]:
        """Members no more."""
        ...


class Gossip:
    """`open` it, `run` it in each life, `close` it."""

    def __init__(self, identity: Identity, secret: bytes, config: Config, clock: Clock) -> None:
        assert identity.peer is not None
        assert identity.cluster is not None
        self._me = identity.peer
        self._secret = secret
        self._clock = clock
        self._settings = Settings(probe_ms=config.probe_ms, ack_ms=config.probe_ack_ms)
        self._datagrams = Datagrams(Seal(secret, identity.cluster), self._on_datagram)
        self._why_deaf = "not open"
        self._rate = Rate()
        self._swim: Swim | None = None
        self._ways: Ways | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._told: dict[PeerId, tuple[int, str]] = {}  # to the core, of what the ledger knows
        self._shunned: frozenset[PeerId] = frozenset()
        self._on_news: list[Callable[[NewsOf], None]] = []
        self._on_changed: list[Callable[[Changed], None]] = []
        self._malformed = 0
        self._answered_bytes = 0
        self._past = (0, 0)  # bytes of comparisons and datagrams carried, of runs before
        self._failed = False

    async def open(self, address: Address | None) -> None:
        """Listen for datagrams; without them, or an address (raftos has its own there), all goes
        over links."""
        if address is None:
            self._why_deaf = "the ledger's engine has the port"
            return
        try:
            await self._datagrams.open_socket(address)
        except OSError as error:
            self._why_deaf = error.strerror or str(error)
            log.warning("no-datagrams", extra={"address": str(address), "error": self._why_deaf})

    def close(self) -> None:
        self._datagrams.close()

    def address(self, peer: PeerId) -> str:
        """Where gossip says that a peer is; empty: it does not know."""
        member = self._swim.members.get(peer) if self._swim is not None else None
        return member.address if member is not None else ""

    async def run(
        self, around: Around, links: PeerLinks, meet: Callable[[PeerId, str], None]
    ) -> None:
        """Until cancelled. `meet`: that peer is there, for links to it."""
        if self._swim is None:
            self._swim = self._begin(around.incarnation(), links.identity.address)
        try:
            async with asyncio.TaskGroup() as group:
                self._ways = Ways(
                    self._datagrams,
                    links,
                    self._swim.members,
                    secret=self._secret,
                    meet=meet,
                    group=group,
                )
                self._group = group
                while True:
                    self._look(around)
                    self._step(Ticked(self._clock.now_ms()))
                    await asyncio.sleep(until_beat(LOOK_S))
        finally:
            if self._ways is not None:
                self._past = (self._past[0] + self._ways.sent_bytes, self._carried())
            self._ways = None
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _begin(self, incarnation: int, address: str) -> Swim:
        return Swim(
            self._me,
            life=incarnation,
            address=address,
            seed=random.SystemRandom().getrandbits(64),
            now_ms=self._clock.now_ms(),
            deaf=not self._datagrams.is_open,
            settings=self._settings,
        )

    # --- for the rest of the peer -----------------------------------------------------------------

    @property
    def settings(self) -> Settings:
        return self._settings

    @property
    def runs(self) -> bool:
        """What is published is told."""
        return self._swim is not None and self._ways is not None and not self._failed

    @property
    def members(self) -> Mapping[PeerId, Member]:
        """All others, as gossip sees them."""
        return self._swim.members.known if self._swim is not None else {}

    @property
    def shunned(self) -> frozenset[PeerId]:
        """Who is suspect, dead or has left: they should get nothing new."""
        return self._shunned

    def publish(self, data: bytes, topic: int = 0) -> None:
        """News of ours: see `Published`. Dropped before it runs."""
        self._step(Published(self._clock.now_ms(), data, topic))

    def hear_news(self, on_news: Callable[[NewsOf], None]) -> None:
        """From now on. Must not raise, nor call this one."""
        self._on_news.append(on_news)

    def hear_changes(self, on_changed: Callable[[Changed], None]) -> None:
        """From now on, of what is thought of others. Must not raise, nor call this one."""
        self._on_changed.append(on_changed)

    def leave(self) -> None:
        """Say that we stop. Nothing more is said or heard after it."""
        self._step(Leaving(self._clock.now_ms()))

    def status(self) -> GossipStatus:
        counts = self._datagrams.counts
        found = dict.fromkeys(Liveness, 0)
        for member in self.members.values():
            found[member.liveness] += 1
        swim = self._swim
        return GossipStatus(
            problem="failed: see its log" if self._failed else self._problem(),
            alive=found[Liveness.ALIVE],
            suspect=found[Liveness.SUSPECT],
            dead=found[Liveness.DEAD],
            left=found[Liveness.LEFT],
            health=swim.health if swim is not None else 0,
            refuted=swim.opinion.refuted if swim is not None else 0,
            probes=swim.prober.probes if swim is not None else 0,
            probes_failed=swim.prober.failed if swim is not None else 0,
            datagrams_sent=counts.sent,
            datagrams_received=counts.received,
            bytes_sent=self._sent_bytes(),
            bytes_received=counts.received_bytes,
            bytes_per_s=round(self._rate.per_s(self._clock.now_ms(), self._sent_bytes())),
            carried=self._carried(),
            foreign=counts.foreign,
            malformed=self._malformed,
            unsent=counts.unsent,
        )

    def _sent_bytes(self) -> int:
        compared = self._past[0] + (self._ways.sent_bytes if self._ways is not None else 0)
        return self._datagrams.counts.sent_bytes + self._answered_bytes + compared

    def _carried(self) -> int:
        return self._past[1] + (self._ways.carried if self._ways is not None else 0)

    def _problem(self) -> str:
        return "" if self._datagrams.is_open else self._why_deaf

    # --- what comes in ----------------------------------------------------------------------------

    def _on_datagram(self, source: str, body: bytes) -> None:
        if self._ways is None:
            return
        try:
            datagram = decode(body)
        except ValueError:
            self._malformed += 1
            return
        self._step(Received(self._clock.now_ms(), source, datagram))

    def on_carried(self, connection: Connection, carried: Carried) -> None:
        """A datagram over a link."""
        if self._ways is not None and connection.peer is not None:
            self._ways.came_over(connection)
            self._on_datagram("", carried.data)

    def on_closed(self, connection: Connection) -> None:
        if self._ways is not None:
            self._ways.on_closed(connection)

    def on_call(self, connection: Connection, number: int, body: GossipCall) -> None:
        """Answered at once. Only a peer may, and only for itself."""
        asker = body.asker if isinstance(body, Compare) else body.teller
        effects: list[SwimEffect] = []
        if connection.peer == asker:
            effects = self._step_for(Called(self._clock.now_ms(), body))
        answer = next((e.body for e in effects if isinstance(e, Reply)), None)
        if answer is None:
            connection.send_nowait(Failure(number, Unavailable.code, _NOT_YET, 1000))
            return
        self._answered_bytes += len(msgspec.msgpack.encode(answer))
        connection.send_nowait(Answer(number, answer))

    def _look(self, around: Around) -> None:
        """The ledger knows who has come up since, and who was removed."""
        now_ms = self._clock.now_ms()
        assert self._swim is not None
        found: set[PeerId] = set()
        for peer, life, address in around.known():
            found.add(peer)
            if peer != self._me and self._told.get(peer) != (life, address):
                self._told[peer] = (life, address)
                self._step(Heard(now_ms, peer, life, address))
        for peer in sorted(self._told.keys() - found):
            del self._told[peer]
            self._step(Gone(now_ms, peer))
        for peer in around.removed():
            self._step(Removed(now_ms, peer))
        if around.incarnation() > self._swim.life:
            self._step(Renewed(now_ms, around.incarnation()))
        self._rate.note(now_ms, self._sent_bytes())

    # --- the core ---------------------------------------------------------------------------------

    def _step(self, event: SwimEvent) -> None:
        self._step_for(event)

    def _step_for(self, event: SwimEvent) -> list[SwimEffect]:
        if self._swim is None or self._ways is None or self._failed:
            return []
        try:
            effects = self._swim.step(event)
        except ValueError:
            self._malformed += 1
            return []
        except Exception:
            # A bug of ours: others will miss us in gossip, and the ledger goes on.
            log.exception("gossip-failed")
            self._failed = True
            return []
        for effect in effects:
            self._perform(effect)
        self._arm()
        return effects

    def _perform(self, effect: SwimEffect) -> None:
        assert self._ways is not None
        match effect:
            case Send(peer=peer, address=address, datagram=datagram):
                self._ways.send(peer, address, datagram)
            case CallPeer(peer=peer, body=body):
                self._group.create_task(self._call(peer, body))
            case Changed():
                self._note_change(effect)
            case NewsOf():
                for on_news in self._on_news:
                    on_news(effect)
            case Reply():
                pass  # whoever was called takes it

    def _note_change(self, changed: Changed) -> None:
        if changed.liveness in (None, Liveness.ALIVE):
            self._shunned -= {changed.peer}
        else:
            self._shunned |= {changed.peer}
        state = changed.liveness.name.lower() if changed.liveness is not None else "forgotten"
        log.info("gossip", extra={"peer": changed.peer, "state": state})
        for on_changed in self._on_changed:
            on_changed(changed)

    async def _call(self, peer: PeerId, body: GossipCall) -> None:
        assert self._ways is not None
        answer: GossipAnswer | None = await self._ways.call(peer, body)
        self._step(Answered(self._clock.now_ms(), peer, answer))

    def _arm(self) -> None:
        """The core wants to be told when its time has come."""
        assert self._swim is not None
        if self._timer is not None:
            self._timer.cancel()
        wait_s = max(1, self._swim.due_ms - self._clock.now_ms()) / 1000
        # The tick of `run` is there at the latest.
        self._timer = asyncio.get_running_loop().call_later(min(wait_s, LOOK_S), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._step(Ticked(self._clock.now_ms()))
