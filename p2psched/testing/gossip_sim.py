"""A group of peers that gossip, under virtual time: datagrams get lost, come late and in any order,
links break, peers die, stop and starve. One seed, one history.

It runs the core of gossip and nothing else of a peer. Sizes are those of the wire, with the heads
of IP and UDP or TCP.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from p2psched.core.swim.events import (
    Answered,
    Called,
    CallPeer,
    Changed,
    Heard,
    Leaving,
    NewsOf,
    Published,
    Received,
    Reply,
    Send,
    SwimEffect,
    SwimEvent,
    Ticked,
)
from p2psched.core.swim.settings import Settings
from p2psched.core.swim.swim import Swim
from p2psched.model.gossip import BODY_BYTES_MAX, DATAGRAM_BYTES_MAX, decode, encode
from p2psched.model.gossip_messages import GossipAnswer, GossipCall
from p2psched.model.ids import PeerId, new_id
from p2psched.model.load import Liveness

DATAGRAM_HEAD_BYTES: Final = 28 + DATAGRAM_BYTES_MAX - BODY_BYTES_MAX  # IP, UDP and the seal
LINK_HEAD_BYTES: Final = 40 + 8  # IP, TCP, frame and call, of one packet
INBOX_MAX: Final = 256  # datagrams that wait for a peer that does not run; others are lost


class Link(msgspec.Struct):
    """What datagrams and calls from one peer to another meet."""

    loss: float = 0.0
    delay_ms: tuple[int, int] = (0, 2)
    cut: bool = False
    calls: bool = True  # links work although datagrams may not


class Seen(NamedTuple):
    """One peer has changed its opinion of another."""

    at_ms: int
    by: int
    of: int
    liveness: Liveness | None


class News(NamedTuple):
    at_ms: int
    by: int
    of: int
    number: int


class SimPeer:
    """`swim` is None while it is dead."""

    def __init__(self, index: int, identity: PeerId) -> None:
        self.index = index
        self.id = identity
        self.life = 0
        self.swim: Swim | None = None
        self.asleep_until_ms = 0
        self.inbox: deque[tuple[Callable[[int], SwimEvent], Callable[[SwimEffect], bool]]] = deque()
        self.tick_ms = -1  # when the next one is due
        self.sent_bytes = 0  # of datagrams
        self.link_bytes = 0
        self.datagrams = 0
        self.starving: Callable[[], tuple[int, int]] | None = None


class GossipSim:
    """`link(a, b)` may be set by tests; by default all are alike."""

    def __init__(
        self,
        peers: int,
        *,
        seed: int,
        loss: float = 0.0,
        delay_ms: tuple[int, int] = (0, 2),
        settings: Settings | None = None,
        make: Callable[..., Swim] = Swim,
    ) -> None:
        self.rng = random.Random(seed)
        self.now_ms = 0
        self.settings = settings if settings is not None else Settings()
        self.link: Callable[[int, int], Link] = _always(Link(loss, delay_ms))
        self.peers = [SimPeer(index, PeerId(new_id(self.rng))) for index in range(peers)]
        self.index_of = {peer.id: peer.index for peer in self.peers}
        self.seen: list[Seen] = []
        self.news: list[News] = []
        self.largest_datagram = 0
        self._make = make
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0

    # --- what tests do ----------------------------------------------------------------------------

    def start(self, index: int, *knows: int, deaf: bool = False) -> None:
        """A process begins, with the addresses of some others."""
        peer = self.peers[index]
        assert peer.swim is None
        peer.life += 1
        peer.inbox.clear()
        peer.swim = self._make(
            peer.id,
            life=peer.life,
            address=_address(index),
            seed=self.rng.getrandbits(64),
            now_ms=self.now_ms,
            deaf=deaf,
            settings=self.settings,
        )
        for other in knows:
            self.give(index, Heard(self.now_ms, self.peers[other].id, 0, _address(other)))
        self._schedule_tick(peer)

    def start_all(self, *, apart_ms: int = 0) -> None:
        """Each knows the first one."""
        for peer in self.peers:
            self.start(peer.index, *([0] if peer.index else []))
            self.run(apart_ms)

    def kill(self, index: int) -> None:
        self.peers[index].swim = None

    def leave(self, index: int) -> None:
        self.give(index, Leaving(self.now_ms))
        self.kill(index)

    def stop(self, index: int, until_ms: int) -> None:
        """SIGSTOP."""
        peer = self.peers[index]
        peer.asleep_until_ms = max(peer.asleep_until_ms, until_ms)
        self._at(peer.asleep_until_ms, lambda: self._wake(peer))

    def starve(self, index: int, away_ms: tuple[int, int], there_ms: int) -> None:
        """It runs for a moment only, again and again."""
        peer = self.peers[index]

        def again() -> None:
            if peer.swim is not None and peer.starving is not None:
                away = self.rng.randint(*away_ms)
                self.stop(index, self.now_ms + away)
                self._at(self.now_ms + away + there_ms, again)

        peer.starving = lambda: away_ms
        again()

    def feed(self, index: int) -> None:
        """The end of `starve`."""
        self.peers[index].starving = None

    def publish(self, index: int, data: bytes, topic: int = 0) -> None:
        self.give(index, Published(self.now_ms, data, topic))

    def run(self, ms: int) -> None:
        """On to a later time."""
        end_ms = self.now_ms + ms
        while self._queue and self._queue[0][0] <= end_ms:
            self.now_ms, _, do = heapq.heappop(self._queue)
            do()
        self.now_ms = end_ms

    def run_until(self, fits: Callable[[], bool], *, within_ms: int, step_ms: int = 50) -> int:
        """How long it took. Fails if it takes longer than allowed."""
        begin_ms = self.now_ms
        while not fits():
            assert self.now_ms - begin_ms < within_ms, f"not within {within_ms} ms"
            self.run(step_ms)
        return self.now_ms - begin_ms

    # --- what tests look at -----------------------------------------------------------------------

    def opinion(self, by: int, of: int) -> Liveness | None:
        swim = self.peers[by].swim
        assert swim is not None
        member = swim.members.get(self.peers[of].id)
        return member.liveness if member is not None else None

    def all_see(self, of: int, liveness: Liveness | None) -> bool:
        """All that live, but itself."""
        return all(self.opinion(peer.index, of) is liveness for peer in self.living(but=of))

    def living(self, but: int = -1) -> list[SimPeer]:
        return [peer for peer in self.peers if peer.swim is not None and peer.index != but]

    def agree(self) -> bool:
        """Those that live hold each other for alive, and nobody else."""
        living = [peer for peer in self.peers if peer.swim is not None]
        others = len(living) - 1  # counted first: to look at all of them costs their square
        return all(peer.swim and peer.swim.members.present == others for peer in living) and all(
            all(self._holds_alive(peer, other) for other in living if other is not peer)
            for peer in living
        )

    def _holds_alive(self, peer: SimPeer, other: SimPeer) -> bool:
        assert peer.swim is not None
        member = peer.swim.members.get(other.id)
        return member is not None and member.liveness is Liveness.ALIVE

    def false_deaths(self) -> list[Seen]:
        """Of peers that were there all the time."""
        return [
            seen
            for seen in self.seen
            if seen.liveness is Liveness.DEAD and self.peers[seen.of].swim is not None
        ]

    def bytes_per_s(self, over_ms: int) -> float:
        """That a peer sends, on average, while so long passes."""
        before = sum(peer.sent_bytes + peer.link_bytes for peer in self.peers)
        self.run(over_ms)
        after = sum(peer.sent_bytes + peer.link_bytes for peer in self.peers)
        return (after - before) / len(self.living()) / over_ms * 1000

    # --- one step ---------------------------------------------------------------------------------

    def give(self, index: int, event: SwimEvent) -> None:
        """Now, if it runs."""
        peer = self.peers[index]
        if peer.swim is not None:
            for effect in peer.swim.step(event):
                self._perform(peer, effect)
            self._schedule_tick(peer)

    def _perform(self, peer: SimPeer, effect: SwimEffect) -> None:
        match effect:
            case Send():
                self._send(peer, effect)
            case CallPeer():
                self._call(peer, effect)
            case Changed():
                seen = Seen(self.now_ms, peer.index, self.index_of[effect.peer], effect.liveness)
                self.seen.append(seen)
            case NewsOf():
                of = self.index_of[effect.peer]
                self.news.append(News(self.now_ms, peer.index, of, effect.number))
            case Reply():
                raise AssertionError("nobody asked")

    def _schedule_tick(self, peer: SimPeer) -> None:
        assert peer.swim is not None
        due_ms = max(peer.swim.due_ms, self.now_ms)
        if peer.tick_ms < 0 or due_ms < peer.tick_ms:
            peer.tick_ms = due_ms
            self._at(due_ms, lambda: self._tick(peer, due_ms))

    def _tick(self, peer: SimPeer, due_ms: int) -> None:
        if peer.swim is None or peer.tick_ms != due_ms:
            return
        if self.now_ms < peer.asleep_until_ms:
            return  # `_wake` ticks
        peer.tick_ms = -1
        self.give(peer.index, Ticked(self.now_ms))

    def _wake(self, peer: SimPeer) -> None:
        """What came while it did not run lies in its socket, and is read first."""
        if peer.swim is None or self.now_ms < peer.asleep_until_ms:
            return
        while peer.inbox:
            make, keep = peer.inbox.popleft()
            self._handle(peer, make, keep)
        peer.tick_ms = -1
        self.give(peer.index, Ticked(self.now_ms))

    def _arrive(
        self,
        to: SimPeer,
        make: Callable[[int], SwimEvent],
        keep: Callable[[SwimEffect], bool] = lambda _: False,
    ) -> None:
        """`keep`: takes the effects that are not for the network."""
        if to.swim is None:
            return
        if self.now_ms < to.asleep_until_ms:
            if len(to.inbox) < INBOX_MAX:
                to.inbox.append((make, keep))
            return
        self._handle(to, make, keep)

    def _handle(
        self, to: SimPeer, make: Callable[[int], SwimEvent], keep: Callable[[SwimEffect], bool]
    ) -> None:
        assert to.swim is not None
        for effect in to.swim.step(make(self.now_ms)):
            if not keep(effect):
                self._perform(to, effect)
        self._schedule_tick(to)

    # --- the network ------------------------------------------------------------------------------

    def _send(self, peer: SimPeer, send: Send) -> None:
        data = encode(send.datagram)
        assert len(data) <= BODY_BYTES_MAX
        self.largest_datagram = max(self.largest_datagram, len(data))
        to = self.peers[self.index_of[send.peer]]
        link = self.link(peer.index, to.index)
        if send.address:
            peer.sent_bytes += len(data) + DATAGRAM_HEAD_BYTES
            peer.datagrams += 1
            lost = link.cut or self.rng.random() < link.loss
            source = _address(peer.index)
        else:
            peer.link_bytes += len(data) + LINK_HEAD_BYTES
            lost, source = not self._is_linked(peer, to), ""
        if not lost:
            datagram = decode(data)
            at_ms = self.now_ms + self.rng.randint(*link.delay_ms)
            self._at(at_ms, lambda: self._arrive(to, lambda now: Received(now, source, datagram)))

    def _is_linked(self, a: SimPeer, b: SimPeer) -> bool:
        """A link needs both ways."""
        there, back = self.link(a.index, b.index), self.link(b.index, a.index)
        return there.calls and back.calls and not there.cut and not back.cut

    def _call(self, peer: SimPeer, call: CallPeer) -> None:
        to = self.peers[self.index_of[call.peer]]
        peer.link_bytes += _size(call.body)
        life = peer.life
        done = [False]

        def answer(body: GossipAnswer | None) -> None:
            if not done[0] and peer.life == life:
                done[0] = True
                self._arrive(peer, lambda now: Answered(now, call.peer, body))

        def keep(effect: SwimEffect) -> bool:
            if isinstance(effect, Reply):
                to.link_bytes += _size(effect.body)
                self._later(to, peer, lambda: answer(effect.body))
                return True
            return False

        self._at(self.now_ms + CALL_MS, lambda: answer(None))
        if to.swim is not None and self._is_linked(peer, to):
            self._later(
                peer, to, lambda: self._arrive(to, lambda now: Called(now, call.body), keep)
            )

    def _later(self, a: SimPeer, b: SimPeer, do: Callable[[], None]) -> None:
        self._at(self.now_ms + self.rng.randint(*self.link(a.index, b.index).delay_ms), do)

    def _at(self, at_ms: int, do: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._queue, (at_ms, self._count, do))


CALL_MS: Final = 2_000  # then a call has failed


def _size(body: GossipCall | GossipAnswer) -> int:
    return len(msgspec.msgpack.encode(body)) + LINK_HEAD_BYTES


def _address(index: int) -> str:
    return f"10.0.{index >> 8}.{index & 255}:7430"


def _always(link: Link) -> Callable[[int, int], Link]:
    return lambda _a, _b: link
