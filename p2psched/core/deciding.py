"""What the coordinator has proposed and not seen applied: placements, one round at a time, and
deaths. All of it is decided anew by whoever coordinates next.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from p2psched.core.backup_plan import BackupPlan
from p2psched.core.coordinator import Coordinator
from p2psched.core.feed import Say
from p2psched.core.life import Life
from p2psched.core.machine import Machine
from p2psched.core.owner import Owner
from p2psched.core.preempting import Preempting
from p2psched.core.replica import Replica
from p2psched.core.scheduler_events import YieldLead
from p2psched.core.unplaced import unplaced_sights
from p2psched.core.watchdog import Found, Sight
from p2psched.model.backing import Lagging
from p2psched.model.commands import Outcome, Placed, Stamped
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
        self.backups = BackupPlan(machine, coordinator.takers)
        self.preempting = Preempting(machine, coordinator.takers)
        self._backups: set[int] = set()  # requests of the round of backups in flight
        self._backups_sent_ms = 0
        self._deaths: set[int] = set()  # requests of the peers that we want declared down
        self._placed = False  # something, by the round in flight
        self._refused = 0  # rounds in a row by which nothing was placed

    def forget(self) -> None:
        for request in self._places | self._deaths | self._backups:
            self._replica.forget(request)
        self._places.clear()
        self._deaths.clear()
        self._backups.clear()
        self.backups.forget()
        self.preempting.forget()
        self._refused = 0

    def on_outcome(self, request: int, outcome: Outcome) -> None:
        self._deaths.discard(request)
        self._backups.discard(request)
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
        if self._machine.backed and self._coordinator.coordinates:
            self._back_up(now_ms)
        if not self._places and self._coordinator.coordinates:
            self._placed = False
            for place in self._coordinator.place():
                self._places.add(self._life.propose(place, now_ms))
                self._places_sent_ms = now_ms

    @property
    def coordinates(self) -> bool:
        return self._coordinator.coordinates

    @property
    def has_unplaced(self) -> bool:
        """Time alone may make that it places a task."""
        return bool(self._machine.unplaced) and self._coordinator.coordinates

    @property
    def window_ms(self) -> int:
        """Silence after which a peer is declared down."""
        return self._coordinator.window_ms

    def is_overdue(self, now_ms: int) -> bool:
        """A round of placements is to be given up."""
        return bool(self._places) and now_ms - self._places_sent_ms >= PLACE_PATIENCE_MS

    # --- backups ---

    @property
    def looks_for_late(self) -> bool:
        """Time alone may make it back up a task."""
        return bool(self._machine.backed) and self._coordinator.coordinates

    def _back_up(self, now_ms: int) -> None:
        """Before younger work takes the room."""
        if self._backups and now_ms - self._backups_sent_ms >= PLACE_PATIENCE_MS:
            for request in self._backups:
                self._replica.forget(request)
            self._backups.clear()
        for command in self.backups.round(now_ms) if not self._backups else ():
            self._backups.add(self._life.propose(command, now_ms))
            self._backups_sent_ms = now_ms

    def measure(self, events: Iterable[Stamped]) -> None:
        """What policies and backups go by that measure themselves."""
        if self._machine.choosy:
            self._coordinator.measure(events)
        if self._machine.backed:
            self.backups.on_events(events)

    def on_lagging(self, now_ms: int, sender: PeerId, lagging: Lagging) -> None:
        if self._coordinator.coordinates:
            self.backups.stragglers.on_lagging(now_ms, sender, lagging)

    def pass_on(self, now_ms: int, owner: Owner, coordinator: PeerId | None) -> list[Say]:
        """What is to be said of tasks that run here for long, to who coordinates; and by who does
        to owners whose tasks shall make way."""
        if not self._coordinator.coordinates:
            return owner.pacing.say_lagging(coordinator)
        me = self._life.info.peer
        lagging = owner.pacing.take_lagging()
        if lagging is not None:
            self.on_lagging(now_ms, me, lagging)
        ways = self.preempting.round(now_ms) if self._machine.ranked else []
        for peer, way in ways:
            if peer == me:
                owner.making_way.ask(way)
        return [Say(peer, way) for peer, way in ways if peer != me]

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
