"""Numbers of the protocol. Those of memberlist's presets where it has one; the others say why."""

from __future__ import annotations

import math
from typing import Final

import msgspec

MEMBERS_MAX: Final = 4_096  # whoever is beyond them is not taken up
RELAYS_MAX: Final = 64  # probes on behalf of others at a time; the oldest is dropped
EXCHANGE_BYTES_MAX: Final = 384 * 1024  # of standings, and again of news, in one answer


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    probe_ms: int = 1_000  # one peer is probed in so long
    ack_ms: int = 500  # before others are asked to try
    relays: int = 3  # how many
    gossip_ms: int = 200  # between datagrams that only carry rumours or news
    fanout: int = 3  # of them at a time
    suspicion: int = 4  # probes, times log10 of the group: nobody is dead before
    suspicion_max: int = 6  # times that, as long as nobody else suspects it
    retransmits: int = 4  # times log10 of the group, of one rumour by one peer
    exchange_ms: int = 30_000  # between two comparisons with somebody; rarer in large groups
    retry_ms: int = 1_000  # after a comparison that failed
    soon_ms: int = 50  # after one that brought names that were not known
    # One dead peer is asked in so long whether it is: what heals a split. Costs a datagram.
    dead_probe_ms: int = 5_000
    forget_ms: int = 24 * 3_600_000  # after a death
    # Of news on the wire in the long run, and what may go at once when much happens.
    news_bytes_per_s: int = 1_000
    news_burst_bytes: int = 8_192

    def suspicion_ms(self, members: int) -> tuple[int, int]:
        """The shortest and the longest that one is suspected in a group of so many."""
        shortest = int(self.suspicion * max(1.0, math.log10(max(1, members))) * self.probe_ms)
        return shortest, shortest * self.suspicion_max

    def transmits(self, members: int) -> int:
        """How often one peer tells a rumour."""
        return self.retransmits * math.ceil(math.log10(members + 1))

    def news_transmits(self, members: int) -> int:
        """Fewer: the next news replaces this one, and comparisons find who has missed it."""
        return max(2, math.ceil(math.log(members + 1)))

    def checks(self, members: int) -> int:
        """Comparisons that find the same before who was behind rests."""
        return max(1, math.ceil(math.log10(members)))

    def exchange_every_ms(self, members: int) -> int:
        """As memberlist: from 32 on, once more for each doubling."""
        return self.exchange_ms * (1 + max(0, math.ceil(math.log2(max(1, members) / 32))))
