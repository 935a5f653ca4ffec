"""Opaque news of peers, the newest of each and topic: what is told of it, and within which budget.

A bucket of bytes fills at the rate that the settings allow: what many peers have to say at once
goes at once, but not for ever. At its end news wait, and newer ones replace them where they wait.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from p2psched.core.swim.settings import Settings
from p2psched.model.gossip import Item, size_of_item
from p2psched.model.ids import PeerId

_Key = tuple[PeerId, int]  # whose, and on what


class _Waiting:
    __slots__ = ("item", "size", "told", "via")

    def __init__(self, item: Item, via: PeerId | None) -> None:
        self.item = item
        self.size = size_of_item(item)
        self.told = 0
        self.via = via  # who told us, and needs no telling


class News:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._newest: dict[PeerId, dict[int, Item]] = {}  # by topic
        self._waiting: dict[_Key, _Waiting] = {}
        self._tokens = float(settings.news_burst_bytes)
        self._filled_ms = 0

    def __bool__(self) -> bool:
        """There is something to tell."""
        return bool(self._waiting)

    def learn(self, item: Item, via: PeerId | None, *, is_told: bool = True) -> bool:
        """False if it is none. `is_told`: others shall hear it from us."""
        known = self._newest.get(item.peer, {}).get(item.topic)
        if known is not None and (known.life, known.number) >= (item.life, item.number):
            return False
        self._newest.setdefault(item.peer, {})[item.topic] = item
        key = (item.peer, item.topic)
        self._waiting.pop(key, None)
        if is_told:
            self._waiting[key] = _Waiting(item, via)
        return True

    def forget(self, peer: PeerId) -> None:
        for topic in self._newest.pop(peer, ()):
            self._waiting.pop((peer, topic), None)

    def of(self, peer: PeerId) -> list[Item]:
        return [item for _, item in sorted(self._newest.get(peer, {}).items())]

    def all(self) -> Iterator[Item]:
        for peer in sorted(self._newest):
            yield from self.of(peer)

    def number(self, peer: PeerId, life: int) -> int:
        """Rises with each news of that life that arrives here, and is equal where there are the
        same."""
        items = self._newest.get(peer, {}).values()
        return sum(item.number for item in items if item.life == life)

    @property
    def ready_ms(self) -> int:
        """When the smallest of them may go."""
        least = min((waiting.size for waiting in self._waiting.values()), default=0)
        lacking = max(0.0, least - self._tokens)
        return self._filled_ms + math.ceil(lacking * 1000 / self._settings.news_bytes_per_s)

    def take(self, now_ms: int, to: PeerId, room: int, transmits: int) -> list[Item]:
        """For `to`, of at most `room` bytes together."""
        self._fill(now_ms)
        taken: list[Item] = []
        for key, waiting in sorted(self._waiting.items(), key=lambda pair: pair[1].told):
            if waiting.size > self._tokens:
                break
            if to not in (waiting.item.peer, waiting.via):
                if waiting.size > room:
                    continue
                room -= waiting.size
                self._tokens -= waiting.size
                taken.append(waiting.item)
            waiting.told += 1  # who knows it needs no telling, and counts
            if waiting.told >= transmits:
                del self._waiting[key]
        return taken

    def charge(self, size: int) -> None:
        """A datagram that goes only for them costs its head, too."""
        self._tokens -= size

    def _fill(self, now_ms: int) -> None:
        passed_ms = max(0, now_ms - self._filled_ms)
        self._filled_ms = now_ms
        gained = passed_ms * self._settings.news_bytes_per_s / 1000
        self._tokens = min(self._tokens + gained, float(self._settings.news_burst_bytes))
