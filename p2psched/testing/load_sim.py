"""A group of peers that gossip about their load, under virtual time: `sim_load` on `gossip_sim`.

What each says is what a real one would say; what it costs is counted on the wire, beside what the
same would cost in other ways.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

import msgspec

from p2psched.core.load_report import LoadReporter, differs, is_urgent, share_bytes_s
from p2psched.core.load_view import LoadView
from p2psched.core.swim.events import Changed, NewsOf, Published, Send, SwimEffect
from p2psched.core.swim.settings import Settings
from p2psched.model.gossip import Kind
from p2psched.model.load import LoadReport
from p2psched.net.load_codec import LoadCodec
from p2psched.testing.gossip_sim import GossipSim, SimPeer
from p2psched.testing.sim_load import LOOK_MS, SimPeerLoad


class LoadSim(GossipSim):
    """`jobs_per_min` of each peer, by its index."""

    def __init__(
        self,
        peers: int,
        *,
        seed: int,
        jobs_per_min: Callable[[int], float],
        loss: float = 0.0,
        settings: Settings | None = None,
    ) -> None:
        super().__init__(peers, seed=seed, loss=loss, settings=settings)
        rng = random.Random(f"load {seed}")
        self.codec: Final = LoadCodec()
        self.loads = [SimPeerLoad(rng, jobs_per_min=jobs_per_min(i)) for i in range(peers)]
        self.reporters = [LoadReporter(self.codec.encode) for _ in range(peers)]
        self.views = [LoadView(peer.id) for peer in self.peers]
        self.found = [LoadReport(number=0)] * peers
        self.json_bytes = 0  # of all that was said, had it been said whole and as JSON
        self.plain_bytes = 0  # likewise, whole and as MessagePack
        self.items = 0  # reports and rumours in all datagrams
        self.bare = 0  # datagrams that would have gone without any of them: probes and answers
        self.idle = False  # nothing new happens

    def begin(self, after_ms: int = 10_000) -> None:
        """All are there; from now on they look at their load."""
        self.start_all()
        self.run_until(self.agree, within_ms=60_000)
        self.run(after_ms)
        self.look()

    @property
    def said_bytes(self) -> int:
        return sum(reporter.bytes_said for reporter in self.reporters)

    @property
    def said_count(self) -> int:
        return sum(one.whole_count + one.delta_count for one in self.reporters)

    def share_bytes_s(self) -> float:
        group = len(self.living())
        settings = self.settings
        return share_bytes_s(settings.news_bytes_per_s, group, settings.news_transmits(group))

    def off(self) -> int:
        """Pairs of living peers where one knows nothing of the other, or what counts otherwise."""
        return sum(
            self._is_off(peer, other) for peer in self.living() for other in self.living(peer.index)
        )

    def _is_off(self, peer: SimPeer, other: SimPeer) -> bool:
        seen = self.views[peer.index].seen().get(other.id)
        now = self.found[other.index]
        if seen is None or seen.load is None or is_urgent(seen.load, now):
            return True
        return any(differs(name, seen.load, now) for name in ("queue_us", "cpu", "foreign_cpu"))

    def look(self) -> None:
        """Of all at their load, now and every LOOK_MS from now on."""
        share = self.share_bytes_s()
        for peer in self.living():
            index = peer.index
            if not self.idle:
                self.found[index] = self.loads[index].look(self.now_ms // LOOK_MS * LOOK_MS)
            found, reporter = self.found[index], self.reporters[index]
            said = reporter.look(self.now_ms, found, bytes_s=share)
            if said is not None:
                self.json_bytes += len(msgspec.json.encode(_named(found)))
                self.plain_bytes += len(msgspec.msgpack.encode(found))
                self.give(index, Published(self.now_ms, said.data, 0 if said.is_whole else 1))
        self._at(self.now_ms + LOOK_MS, self.look)

    def _perform(self, peer: SimPeer, effect: SwimEffect) -> None:
        super()._perform(peer, effect)
        if isinstance(effect, Send):
            self.items += len(effect.datagram.news) + len(effect.datagram.standings)
            self.bare += effect.datagram.kind is not Kind.GOSSIP
        view = self.views[peer.index]
        match effect:
            case Changed(liveness=None):
                view.forget(effect.peer)
            case Changed(peer=who, life=life, liveness=liveness):
                assert liveness is not None
                view.on_member(self.now_ms, who, incarnation=life, liveness=liveness)
            case NewsOf():
                news = self.codec.decode(effect.data)
                view.on_news(self.now_ms, effect.peer, effect.life, news)
            case _:
                pass


def _named(report: LoadReport) -> dict[str, object]:
    """As a plain program would say it."""
    fields = msgspec.structs.asdict(report)
    return {**fields, "speeds": [msgspec.structs.asdict(speed) for speed in report.speeds]}
