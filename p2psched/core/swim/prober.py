"""Asks one peer after the other whether it is there: itself, then through others and over the link,
and suspects whoever does not answer (SWIM, 4.1). Answers those who ask.

Who is dead is asked once in a while, too: one that answers has been called so wrongly, or is behind
a split that has healed.
"""

from __future__ import annotations

from typing import Final

from p2psched.core.swim.events import Received
from p2psched.core.swim.opinion import Opinion
from p2psched.core.swim.probe import Circle, Probe, Relay
from p2psched.core.swim.settings import RELAYS_MAX
from p2psched.core.swim.state import SwimState
from p2psched.model.gossip import Kind
from p2psched.model.ids import PeerId
from p2psched.model.load import Liveness

_NEVER_MS: Final = 1 << 62
NACK_SHARE: Final = 0.8  # of the limit of an answer: a nack has to travel, too


class Prober:
    def __init__(self, state: SwimState, opinion: Opinion, circle: Circle, now_ms: int) -> None:
        self._state = state
        self._opinion = opinion
        self._circle = circle
        self._probe: Probe | None = None
        self._relays: dict[int, Relay] = {}  # by our own number
        # Not in step with others that start now.
        self._next_ms = now_ms + state.rng.randrange(state.settings.probe_ms)
        self._dead_ms = now_ms + state.settings.dead_probe_ms
        self._dead_asked: tuple[PeerId, int] | None = None  # and the number
        self.probes = 0
        self.failed = 0
        self.indirect = 0  # probes that needed help

    @property
    def due_ms(self) -> int:
        due_ms = min((r.due_ms for r in self._relays.values()), default=_NEVER_MS)
        if self._probe is None:
            due_ms = min(due_ms, self._next_ms)
        else:
            probe = self._probe
            due_ms = min(due_ms, probe.due_ms if probe.widened else probe.others_ms)
        return min(due_ms, self._dead_ms)

    def tick(self, now_ms: int) -> None:
        self._tick_relays(now_ms)
        self._tick_probe(now_ms)
        if now_ms >= self._dead_ms:
            self._dead_ms = now_ms + self._state.settings.dead_probe_ms
            self._ask_a_dead_one(now_ms)

    def delay(self, pause_ms: int) -> None:
        """We were not there for so long: answers may lie unread."""
        if self._probe is not None:
            self._probe.others_ms += pause_ms
            self._probe.due_ms += pause_ms
        for relay in self._relays.values():
            relay.due_ms += pause_ms

    def on_ping(self, event: Received) -> None:
        got = event.datagram
        self._state.send(event.now_ms, Kind.ACK, got.sender, event.source, sequence=got.sequence)

    def on_ask(self, event: Received) -> None:
        got, state = event.datagram, self._state
        target = state.members.get(got.target) if got.target is not None else None
        if target is None:
            return
        while len(self._relays) >= RELAYS_MAX:
            del self._relays[next(iter(self._relays))]
        sequence = state.next_sequence()
        due_ms = event.now_ms + int(state.settings.ack_ms * NACK_SHARE)
        self._relays[sequence] = Relay(got.sender, event.source, got.sequence, target.peer, due_ms)
        address = target.datagram_address
        state.send(event.now_ms, Kind.PING, target.peer, address, sequence=sequence)

    def on_ack(self, event: Received) -> PeerId | None:
        """A peer that was dead and answers."""
        got, state, probe = event.datagram, self._state, self._probe
        relay = self._relays.get(got.sequence)
        if relay is not None and relay.target == got.sender:
            del self._relays[got.sequence]
            state.send(event.now_ms, Kind.ACK, relay.asker, relay.source, sequence=relay.sequence)
        elif probe is not None and probe.sequence == got.sequence:
            # From the peer itself, or from one that we have asked, and that had its answer.
            if probe.peer == got.sender or probe.widened:
                self._probe = None
                state.awareness.add(-1)
        elif self._dead_asked == (got.sender, got.sequence):
            self._dead_asked = None
            return got.sender
        return None

    def on_nack(self, event: Received) -> None:
        probe = self._probe
        if probe is not None and probe.widened and probe.sequence == event.datagram.sequence:
            probe.nacks += 1

    def _tick_relays(self, now_ms: int) -> None:
        """An answer that comes later is still passed on, as long as there is room for it."""
        for relay in self._relays.values():
            if relay.due_ms <= now_ms:
                relay.due_ms = _NEVER_MS
                self._state.send(
                    now_ms, Kind.NACK, relay.asker, relay.source, sequence=relay.sequence
                )

    def _tick_probe(self, now_ms: int) -> None:
        probe = self._probe
        if probe is not None and not probe.widened and now_ms >= probe.others_ms:
            self._widen(probe, now_ms)
        if probe is not None and now_ms >= probe.due_ms:
            self._probe = None
            self._on_failed(probe, now_ms)
        if self._probe is None and now_ms >= self._next_ms:
            self._next_ms = now_ms + self._state.settings.probe_ms
            self._begin(now_ms)

    def _begin(self, now_ms: int) -> None:
        state = self._state
        peer = self._circle.next(
            lambda: [member.peer for member in state.members.sorted_present()],
            fits=self._is_present,
        )
        if peer is None:
            return
        member = state.members.known[peer]
        settings, awareness = state.settings, state.awareness
        others_ms = now_ms + awareness.stretched_ms(settings.ack_ms)
        due_ms = now_ms + awareness.stretched_ms(settings.probe_ms)
        sequence = state.next_sequence()
        self._probe = Probe(peer, sequence, others_ms=others_ms, due_ms=due_ms)
        self.probes += 1
        state.send(now_ms, Kind.PING, peer, member.datagram_address, sequence=sequence)

    def _widen(self, probe: Probe, now_ms: int) -> None:
        probe.widened = True
        state, sequence = self._state, probe.sequence
        self.indirect += 1
        helpers = state.members.choose(
            state.rng, state.settings.relays, Liveness.ALIVE, but=(probe.peer,)
        )
        probe.asked = len(helpers)
        for helper in helpers:
            state.send(
                now_ms,
                *(Kind.ASK, helper.peer, helper.datagram_address),
                sequence=sequence,
                target=probe.peer,
            )
        # Where datagrams don't pass, as behind some firewalls, links do.
        state.send(now_ms, Kind.PING, probe.peer, "", sequence=sequence)

    def _on_failed(self, probe: Probe, now_ms: int) -> None:
        """If those that we asked don't even say that they wait, it may be our ears."""
        self.failed += 1
        lacking = probe.asked - probe.nacks if probe.asked else 1
        self._state.awareness.add(max(0, lacking))
        self._opinion.suspect(probe.peer, now_ms)

    def _ask_a_dead_one(self, now_ms: int) -> None:
        state = self._state
        for dead in state.members.choose(state.rng, 1, Liveness.DEAD):
            sequence = state.next_sequence()
            self._dead_asked = (dead.peer, sequence)
            address = dead.datagram_address
            state.send(now_ms, Kind.PING, dead.peer, address, sequence=sequence)

    def _is_present(self, peer: PeerId) -> bool:
        member = self._state.members.get(peer)
        return member is not None and member.is_present
