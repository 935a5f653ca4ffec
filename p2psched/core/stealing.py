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
from p2psched.core.owner import Owner, TakeBack
from p2psched.core.quarantine import THROUGH_PEER
from p2psched.core.spare import SPARE_MIN, WHOLE, spare
from p2psched.core.state import LedgerState
from p2psched.core.thief import IDLE_MS, Busy, Thief
from p2psched.model.backing import Lagging
from p2psched.model.commands import PeerInfo
from p2psched.model.execution import ExecutorEvent, Progress, TakenBack
from p2psched.model.explain_messages import Decision, WallOf
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause
from p2psched.model.load import Seen
from p2psched.model.moves import Transfer
from p2psched.model.needs import NOTHING, Offers
from p2psched.model.precedence import MakeWay
from p2psched.model.steal_messages import Gives, Steal, StealMessage

REMEMBERED_MAX: Final = 1_024  # moves that are remembered, for who asks why
ASKING_MAX: Final = 64  # in one turn; others ask again
MOVES_MAX: Final = 8  # commands under way; who asks then asks again soon
SOON_MS: Final = 20
TAKE_BACK_MS: Final = 20  # between two times that what has not begun is taken back
LATER_MS: Final = 100  # when nothing waits that is worth a move
UNPLACED_MS: Final = 30  # idle, while the coordinator has something to place
REST_MS_MAX: Final = 5_000  # after a steal, by who has less than whole slots
MADE_WAY_MS: Final = 1_000  # tasks of others are asked for no sooner, after some were to make way
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
        self._waiting: dict[PeerId, Steal] = {}  # while what has not begun is taken back for them
        self._taken_ms: int | None = None  # when that was done last
        self._remembered: deque[Given] = deque(maxlen=REMEMBERED_MAX)
        self._idle_since_ms: int | None = None
        self._full_until_ms = 0
        self._now_ms = 0
        self._group = 1  # peers that there are, as far as this one knows
        self._spare = WHOLE  # of the slots here
        self._slots = 0
        self._progress_ms: int | None = None  # when something ended here last, or a slot was free
        self._ended_ms = 0  # when something ended here last, or nothing ran
        self._is_back = False  # what had not begun is: the next answers are made of it
        self._vain_ms = 0  # nobody wanted it when nothing had ended for so long; 0: somebody did
        self._granted_ms: int | None = None  # since the last turn there were tasks for this peer

    # --- what comes in ---

    def on_seen(self, group: int, me: Seen | None, slots: int) -> None:
        """So many peers there are, and this is how this one is itself."""
        self._group, self._slots = group, slots
        self._spare = spare(me.load if me is not None else None, slots)

    def on_granted(self, now_ms: int) -> None:
        """This peer has tasks again."""
        self.thief.on_granted(now_ms)
        self._granted_ms = now_ms

    def on_message(self, now_ms: int, sender: PeerId, message: StealMessage) -> None:
        self._now_ms = now_ms
        match message:
            case Steal():
                if sender in self._asking or len(self._asking) < ASKING_MAX:
                    self._asking[sender] = message
            case Gives():
                self.thief.on_gives(now_ms, sender, message)
            case MakeWay():  # and what is free then is for those
                self.thief.rest(now_ms, MADE_WAY_MS)
                self.owner.making_way.ask(message)
            case Lagging():
                pass  # for who coordinates

    def on_executed(self, now_ms: int, event: ExecutorEvent) -> None:
        if isinstance(event, TakenBack):
            self._asking = {**self._waiting, **self._asking}
            self._waiting.clear()
            self._is_back = True
            return
        if not isinstance(event, Progress):  # what comes back has not ended
            return
        self._progress_ms = self._ended_ms = now_ms
        self._vain_ms = 0
        if any(segment.cause is Cause.NO_SPACE for segment in event.segments):
            self._full_until_ms = now_ms + FULL_MS
        failed = sum(len(s.tasks) for s in event.segments if s.cause in THROUGH_PEER)
        succeeded = sum(len(s.tasks) for s in event.segments if s.cause is Cause.OK)
        self.thief.on_ended(now_ms, failed=failed, succeeded=succeeded)

    # --- a turn ---

    @property
    def is_asked(self) -> bool:
        """Somebody is to be answered."""
        return bool(self._asking)

    def give(
        self, me: PeerInfo, *, gives_nothing: bool, shunned: Container[PeerId] = ()
    ) -> tuple[list[Transfer], list[Say | TakeBack]]:
        """Answer who has asked since the last turn, before anything else is started. The caller
        proposes the commands, and tells the owner. `shunned`: who gets nothing. If nothing waits
        what the executor has not begun is taken back first."""
        if not self._asking:
            return [], []
        asking, self._asking = self._asking, {}
        moves: list[Transfer] = []
        answers: list[Say | TakeBack] = []
        for peer, steal in asking.items():
            given: list[Transfer] = []
            is_busy = self.owner.departing.moves + len(moves) >= MOVES_MAX
            is_shut = gives_nothing or peer in shunned or min(steal.slots, me.slots) < 1
            if not (is_shut or is_busy or not self.is_known):
                given = self._give(peer, steal, me)
                if not given and self._may_take_back(me.slots):
                    self._waiting[peer] = steal
                    continue
            moves += given
            self.counts.answered += 1
            count = sum(len(move.tasks) for move in given)
            self.counts.given += count
            self.counts.refused += not count
            again_ms = 0 if count else SOON_MS if is_busy else LATER_MS
            answers.append(Say(peer, Gives(steal.number, count, again_ms)))
        if self._is_back:
            self._vain_ms = 0 if moves else max(1, self._stood_ms)
            self._is_back = False
        if self._waiting:
            self._taken_ms = self._now_ms
            answers.append(TakeBack())
        return moves, answers

    @property
    def _stood_ms(self) -> int:
        """How long nothing has ended here."""
        return max(0, self._now_ms - self._ended_ms)

    def _may_take_back(self, slots: int) -> bool:
        if self._taken_ms is not None and self._now_ms - self._taken_ms < TAKE_BACK_MS:
            return False
        # What was in vain is tried again once that has lasted twice as long: in between what stands
        # still stays where it is, and is found.
        if self._vain_ms and self._stood_ms < 2 * self._vain_ms:
            return False
        return self.owner.has_ready(self._busy_us(slots) // slots)

    def _busy_us(self, slots: int) -> int:
        """What takes longer than it was expected to is expected to take as long again."""
        since_ms = self._now_ms if self._progress_ms is None else self._progress_ms
        return max(self.owner.busy_us, (self._now_ms - since_ms) * 1000 * slots)

    def _give(self, peer: PeerId, steal: Steal, me: PeerInfo) -> list[Transfer]:
        owner, slots = self.owner, me.slots
        lots = owner.lots(peer, steal.slots, steal.offers)
        busy_us = self._busy_us(slots)
        taker_spare = max(SPARE_MIN, min(steal.spare, WHOLE))
        own = {"slots": slots, "busy_us": busy_us, "spare": self._spare}
        taker = {"taker_slots": steal.slots, "taker_spare": taker_spare, "most": steal.most}
        chosen = choose(lots, **own, **taker)
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
        if not self.owner.batches:
            self._ended_ms = now_ms
        if self._granted_ms is not None:
            self._rest_since(self._granted_ms)
            self._granted_ms = None
        is_hungry = self.owner.is_hungry(now_ms)
        if is_hungry or self._progress_ms is None:
            self._progress_ms = now_ms
        if is_hungry:
            return self.thief.may_ask(now_ms)
        self._idle_since_ms = None
        return False

    def _rest_since(self, granted_ms: int) -> None:
        """Where others compute, too, a peer with new tasks asks for no more before these could have
        ended on what is left there: also if they only wait."""
        if self._spare < WHOLE and self._slots:
            took_ms = self.owner.owned_us * WHOLE // (self._slots * self._spare * 1000)
            self.thief.rest(granted_ms, min(took_ms, REST_MS_MAX))

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
        return self.ask(now_ms, me, found, group=self._group)

    def ask(
        self, now_ms: int, me: PeerInfo, victims: Sequence[Busy], *, group: int = 1
    ) -> list[Say]:
        asked = self.thief.ask(now_ms, victims, group=group)
        if asked is None:
            return []
        peer, number = asked
        steal = Steal(
            *(number, me.incarnation, me.slots, self._offers, self.thief.most), spare=self._spare
        )
        return [Say(peer, steal)]

    @property
    def is_known(self) -> bool:
        """All peers know of it."""
        return self._state.level >= NEEDED[Transfer]
