"""Both sides of stealing, put together: a part of a scheduler's core, and of a follower's.

Who has nothing to do asks one peer that looks busy; who is asked sets tasks aside and proposes to
the ledger that they move. Nothing that is said here counts: the ledger grants.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Container, Sequence
from typing import Final, NamedTuple, Protocol

import msgspec

from p2psched.core.feed import Say
from p2psched.core.giving import choose
from p2psched.core.levels import NEEDED
from p2psched.core.owner import Owner
from p2psched.core.quarantine import THROUGH_PEER
from p2psched.core.state import LedgerState
from p2psched.core.thief import IDLE_MS, Busy, Thief
from p2psched.model.commands import PeerInfo
from p2psched.model.execution import ExecutorEvent, Progress
from p2psched.model.explain_messages import Decision, WallOf
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause
from p2psched.model.moves import Transfer
from p2psched.model.needs import NOTHING, Offers
from p2psched.model.steal_messages import Gives, Steal, StealMessage

REMEMBERED_MAX: Final = 1_024  # moves that are remembered, for who asks why
ASKING_MAX: Final = 64  # in one turn; others ask again
MOVES_MAX: Final = 8  # commands under way; who asks then asks again soon
SOON_MS: Final = 20
LATER_MS: Final = 100  # when nothing waits that is worth a move
UNPLACED_MS: Final = 30  # idle, while the coordinator has something to place
FULL_MS: Final = 10_000  # after a task found no space here, nothing is asked for


class Counts(msgspec.Struct):
    """Since the start of the process."""

    given: int = 0  # tasks
    answered: int = 0  # requests of others
    refused: int = 0  # of these, without a task


class Given(NamedTuple):
    """Why tasks were given away, for who asks."""

    move: Transfer
    wait_us: int  # expected work of all that waited, for each slot
    at_ms: int
    by: PeerId


class Victims(Protocol):
    def __call__(self, *, asks_all: bool) -> Sequence[Busy]: ...


class Stealing:
    def __init__(
        self, state: LedgerState, owner: Owner, rng: random.Random, offers: Offers = NOTHING
    ) -> None:
        self._offers = offers
        self.counts = Counts()
        self.thief = Thief(rng)
        self._state = state
        self.owner = owner
        self._asking: dict[PeerId, Steal] = {}
        self._remembered: deque[Given] = deque(maxlen=REMEMBERED_MAX)
        self._idle_since_ms: int | None = None
        self._full_until_ms = 0
        self._now_ms = 0
        self.group = 1  # peers that there are, as far as this one knows
        self._progress_ms: int | None = None  # when something began or ended here last

    # --- what comes in ---

    def on_message(self, now_ms: int, sender: PeerId, message: StealMessage) -> None:
        self._now_ms = now_ms
        match message:
            case Steal():
                if sender in self._asking or len(self._asking) < ASKING_MAX:
                    self._asking[sender] = message
            case Gives():
                self.thief.on_gives(now_ms, sender, message)

    def on_executed(self, now_ms: int, event: ExecutorEvent) -> None:
        self._progress_ms = now_ms
        if not isinstance(event, Progress):
            return
        if any(segment.cause is Cause.NO_SPACE for segment in event.segments):
            self._full_until_ms = now_ms + FULL_MS
        failed = sum(len(s.tasks) for s in event.segments if s.cause in THROUGH_PEER)
        succeeded = sum(len(s.tasks) for s in event.segments if s.cause is Cause.OK)
        self.thief.on_ended(now_ms, failed=failed, succeeded=succeeded)

    # --- a turn ---

    def give(
        self, me: PeerInfo, *, gives_nothing: bool, shunned: Container[PeerId] = ()
    ) -> tuple[list[Transfer], list[Say]]:
        """Answer who has asked since the last turn, before anything else is started. The caller
        proposes the commands, and tells the owner. `shunned`: who gets nothing."""
        if not self._asking:
            return [], []
        asking, self._asking = self._asking, {}
        moves: list[Transfer] = []
        answers: list[Say] = []
        for peer, steal in asking.items():
            self.counts.answered += 1
            given: list[Transfer] = []
            is_busy = self.owner.departing.moves + len(moves) >= MOVES_MAX
            is_shut = gives_nothing or peer in shunned or min(steal.slots, me.slots) < 1
            if not (is_shut or is_busy or not self.is_known):
                given = self._give(peer, steal, me)
            moves += given
            count = sum(len(move.tasks) for move in given)
            self.counts.given += count
            self.counts.refused += not count
            again_ms = 0 if count else SOON_MS if is_busy else LATER_MS
            answers.append(Say(peer, Gives(steal.number, count, again_ms)))
        return moves, answers

    def _give(self, peer: PeerId, steal: Steal, me: PeerInfo) -> list[Transfer]:
        owner, slots = self.owner, me.slots
        lots = owner.lots(peer, steal.slots, steal.offers)
        # What takes longer than it was expected to is expected to take as long again.
        since_ms = self._now_ms if self._progress_ms is None else self._progress_ms
        stalled_us = max(0, self._now_ms - since_ms) * 1000 * slots
        busy_us = max(owner.busy_us, stalled_us)
        wanted = {"taker_slots": steal.slots, "most": steal.most}
        chosen = choose(lots, slots=slots, busy_us=busy_us, **wanted)
        moves = [
            Transfer(job, grant, tasks, peer, steal.incarnation)
            for job, grant, tasks in owner.set_aside(chosen)
        ]
        wait_us = (busy_us + sum(lot.tasks * lot.work_us for lot in lots)) // slots
        self._remembered += [Given(move, wait_us, self._now_ms, me.peer) for move in moves]
        return moves

    def remembered(self, job: JobId, index: int, wall_of: WallOf) -> list[Decision]:
        """Why this peer gave a task away; the newest first."""
        return [
            Decision(
                kind="moved",
                by=given.by,
                chosen=given.move.peer,
                tasks=given.move.tasks,
                note=f"{given.wait_us / 1000:,.0f} ms of work waited for each slot there, and "
                "this peer had nothing to do",
                wall_ms=wall_of(given.at_ms),
            )
            for given in reversed(self._remembered)
            if given.move.job == job and index in given.move.tasks
        ]

    def is_idle(self, now_ms: int) -> bool:
        """Whether to `look`. Cheap: asked each turn."""
        is_hungry = self.owner.is_hungry
        if is_hungry or self._progress_ms is None:
            self._progress_ms = now_ms
        if is_hungry:
            return self.thief.may_ask(now_ms)
        self._idle_since_ms = None
        return False

    def look(self, now_ms: int, me: PeerInfo, victims: Victims, *, takes: bool) -> list[Say]:
        """Ask somebody, if it is time. `takes`: tasks are wanted here, and would be granted.
        `victims`: of whom; all that have a queue, if it was idle for long."""
        if not takes or now_ms < self._full_until_ms or not self.is_known:
            self._idle_since_ms = None
            return []
        if self._idle_since_ms is None:
            self._idle_since_ms = now_ms
        if self._state.unplaced and now_ms - self._idle_since_ms < UNPLACED_MS:
            return []
        found = victims(asks_all=now_ms - self._idle_since_ms >= IDLE_MS)
        return self.ask(now_ms, me, found, group=self.group)

    def ask(
        self, now_ms: int, me: PeerInfo, victims: Sequence[Busy], *, group: int = 1
    ) -> list[Say]:
        asked = self.thief.ask(now_ms, victims, group=group)
        if asked is None:
            return []
        peer, number = asked
        most = self.thief.most
        return [Say(peer, Steal(number, me.incarnation, me.slots, self._offers, most))]

    @property
    def is_known(self) -> bool:
        """All peers know of it."""
        return self._state.level >= NEEDED[Transfer]
