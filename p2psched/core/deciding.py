"""What the coordinator has proposed and not seen applied: placements, one round at a time, and
deaths. All of it is decided anew by whoever coordinates next.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from p2psched.core.coordinator import Coordinator
from p2psched.core.life import Life
from p2psched.core.machine import Machine
from p2psched.core.replica import Replica
from p2psched.core.scheduler_events import YieldLead
from p2psched.core.unplaced import unplaced_sights
from p2psched.core.watchdog import Found, Sight
from p2psched.model.commands import Outcome, Placed
from p2psched.model.ids import PeerId

PLACE_PATIENCE_MS: Final = 1000  # a round of placements that isn't seen by then is given up
REFUSED_MIN: Final = 3  # rounds in a row that placed nothing: the ledger and we see it differently


class Deciding:
    def __init__(
        self, coordinator: Coordinator, machine: Machine, replica: Replica, life: Life
    ) -> None:
        self._coordinator = coordinator
        self._machine = machine
        self._replica = replica
        self._life = life
        self._places: set[int] = set()  # requests of the round of placements in flight
        self._places_sent_ms = 0
        self._deaths: set[int] = set()  # requests of the peers that we want declared down
        self._placed = False  # something, by the round in flight
        self._refused = 0  # rounds in a row by which nothing was placed

    def forget(self) -> None:
        for request in self._places | self._deaths:
            self._replica.forget(request)
        self._places.clear()
        self._deaths.clear()
        self._refused = 0

    def on_outcome(self, request: int, outcome: Outcome) -> None:
        self._deaths.discard(request)
        if request in self._places:
            self._places.discard(request)
            self._placed |= isinstance(outcome, Placed) and bool(outcome.tasks)
            if not self._places:
                self._refused = 0 if self._placed else self._refused + 1

    def find_dead(self, now_ms: int, contacts: Mapping[PeerId, int]) -> None:
        for command in self._coordinator.find_dead(now_ms, contacts):
            self._deaths.add(self._life.propose(command, now_ms))

    def place(self, now_ms: int) -> None:
        if self.is_overdue(now_ms):
            for request in self._places:
                self._replica.forget(request)
            self._places.clear()
        if not self._places and self._coordinator.coordinates:
            self._placed = False
            for place in self._coordinator.place():
                self._places.add(self._life.propose(place, now_ms))
                self._places_sent_ms = now_ms

    @property
    def coordinates(self) -> bool:
        return self._coordinator.coordinates

    def is_overdue(self, now_ms: int) -> bool:
        """A round of placements is to be given up."""
        return bool(self._places) and now_ms - self._places_sent_ms >= PLACE_PATIENCE_MS

    # --- for the watchdog ---

    def sights(self) -> list[Sight]:
        """Jobs that could be placed and are not."""
        if not self._coordinator.coordinates or not self._machine.unplaced:
            return []
        on_its_way = bool(self._places) and self._refused < REFUSED_MIN
        return unplaced_sights(self._coordinator, self._machine, on_its_way=on_its_way)

    def heal(self, found: Found) -> list[YieldLead]:
        """First all is decided anew, then by the default policy, then by another peer."""
        self.forget()
        chooser = self._coordinator.chooser
        chooser.begin_round()
        if found.step > 1:
            chooser.doubt(sight.job for sight in found.sights)
        return [YieldLead(frozenset())] * (found.step > 2)
