"""What a holder of the whole ledger does for followers, put together: it feeds them, says whom it
hears, and, while it coordinates, knows who hears whom. A part of the scheduler's core.
"""

from __future__ import annotations

from collections.abc import Mapping

from p2psched.core.feed import Feeder, Say, members_of
from p2psched.core.machine import Machine
from p2psched.core.roll import Reporter, Roll
from p2psched.core.scheduler_events import Clocked
from p2psched.model.feed_messages import FeedReport, FeedReported, Follow
from p2psched.model.ids import PeerId
from p2psched.model.raft import Membership


class Feeding:
    def __init__(self, me: PeerId, machine: Machine) -> None:
        self._me = me
        self._machine = machine
        self.coordinator: PeerId | None = None
        self.feeder = Feeder(me, machine)
        self.roll = Roll()
        self._reporter = Reporter()
        self._out: list[Say] = []

    def on_coordinator(self, coordinator: PeerId | None) -> None:
        self.coordinator = coordinator
        self.roll.clear()

    def on_message(
        self, now_ms: int, sender: PeerId, message: Follow | FeedReport | FeedReported
    ) -> None:
        match message:
            case Follow():
                self.feeder.on_follow(now_ms, sender, message)
            case FeedReport():
                if self.coordinator == self._me:
                    answer = self.roll.on_report(now_ms, sender, message)
                    if answer is not None:
                        self._out.append(Say(sender, answer))
            case FeedReported():
                self._reporter.on_reported(sender, message)

    def on_clock(self, clocked: Clocked) -> Mapping[PeerId, int]:
        """When each peer was heard, followers too."""
        now_ms, group, leader = clocked.now_ms, clocked.group, self.coordinator
        if group is None:
            return clocked.contacts
        self.feeder.on_clock(now_ms, group, leader, led=clocked.is_led)
        if leader == self._me:
            self.roll.on_own(now_ms, self._me, self.feeder.heard(now_ms))
            return {**self.contacts(now_ms, group), **clocked.contacts}
        if leader is not None and clocked.is_led:
            report = self._reporter.on_clock(now_ms, leader, self.feeder.heard(now_ms))
            if report is not None:
                self._out.append(Say(leader, report))
        return clocked.contacts

    def contacts(self, now_ms: int, group: Membership) -> Mapping[PeerId, int]:
        """On the coordinator: when each follower was heard."""
        # Whoever was removed is no follower: nobody should hear it.
        members = {*group.removed, *(member.peer for member in members_of(group))}
        rows = sorted(self._machine.peers.items())
        return self.roll.contacts(now_ms, [p for p, row in rows if row.live and p not in members])

    def on_round(self) -> list[Say]:
        out, self._out = self._out, []
        return out + self.feeder.on_round()
