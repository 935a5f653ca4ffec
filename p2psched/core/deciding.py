"""What a peer has proposed because it coordinates: placements, and peers to be declared down.
Whoever coordinates after it decides both anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from p2psched.core.coordinator import Coordinator
from p2psched.core.life import Life
from p2psched.core.replica import Proposals
from p2psched.model.ids import PeerId

PLACE_PATIENCE_MS: Final = 1000  # a round of placements that isn't seen by then is given up


class Deciding:
    def __init__(self, coordinator: Coordinator, life: Life, proposals: Proposals) -> None:
        self._coordinator = coordinator
        self._life = life
        self._proposals = proposals
        self._places: set[int] = set()  # requests of the round of placements in flight
        self._places_sent_ms = 0
        self._deaths: set[int] = set()  # requests of the peers that we want declared down

    def forget(self) -> None:
        for request in self._places | self._deaths:
            self._proposals.forget(request)
        self._places.clear()
        self._deaths.clear()

    def settle(self, request: int) -> None:
        """The outcome is known."""
        self._places.discard(request)
        self._deaths.discard(request)

    def find_dead(self, now_ms: int, contacts: Mapping[PeerId, int]) -> None:
        for command in self._coordinator.find_dead(now_ms, contacts):
            self._deaths.add(self._life.propose(command, now_ms))

    def place(self, now_ms: int) -> None:
        """One round at a time."""
        if self._places and now_ms - self._places_sent_ms >= PLACE_PATIENCE_MS:
            for request in self._places:
                self._proposals.forget(request)
            self._places.clear()
        if not self._places and self._coordinator.coordinates:
            for place in self._coordinator.place():
                self._places.add(self._life.propose(place, now_ms))
                self._places_sent_ms = now_ms
