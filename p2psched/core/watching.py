"""What a peer looks at to find that it stands still, and what it does then: the watchdog put
together with an owner, and on a holder of the ledger with what it decides as coordinator.

What nobody here knows any more is given back: it comes under a newer grant, so whatever became of
it counts no more. Nothing else here touches what has begun.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final, Protocol

import msgspec

from p2psched.core.drain import is_draining
from p2psched.core.jobs import HeldGrant, Job
from p2psched.core.levels import STALL_LEVEL
from p2psched.core.life import Life
from p2psched.core.owned import Running
from p2psched.core.owner import Owner, OwnerEffect, StopBatch
from p2psched.core.scheduler_events import Noticed, Tend, Watched, YieldLead
from p2psched.core.state import LedgerState
from p2psched.core.watchdog import Found, Over, Sight, Watchdog
from p2psched.model.commands import GiveBack, PeerInfo
from p2psched.model.execution import Standing, Tending
from p2psched.model.explain_messages import Decision, WallOf
from p2psched.model.ids import JobId
from p2psched.model.job import Cause
from p2psched.model.stalls import Fault, Stall, StallStatus
from p2psched.model.taskset import EMPTY

RETURNING_MS: Final = 5_000  # what was stopped to be given back has ended by then
REMEMBERED_MAX: Final = 256  # stalls, for who asks why
HEALING: Final = {
    (Fault.QUEUE, 1): "it counts anew what runs here",
    (Fault.QUEUE, 2): "it gives its queue back, for others",
    (Fault.EXECUTOR, 1): "it looks again at all that waits",
    (Fault.EXECUTOR, 2): "it ends the processes that should have begun it",
    (Fault.EXECUTOR, 3): "it starts its workers anew, unless one of them runs something",
    (Fault.EXECUTOR, 4): "it gives back what has not begun, for others",
    (Fault.GRANT, 1): "it gives them back",
    (Fault.PLACEMENT, 1): "it decides anew",
    (Fault.PLACEMENT, 2): "it places them by the default policy",
    (Fault.PLACEMENT, 3): "it lets another peer lead",
}

Effect = OwnerEffect | Tend | Noticed | YieldLead


class Placing(Protocol):
    """Of who may coordinate."""

    def sights(self) -> list[Sight]: ...
    def heal(self, found: Found) -> list[YieldLead]: ...


class Watching:
    """Of one process."""

    def __init__(
        self,
        state: LedgerState,
        owner: Owner,
        life: Life,
        *,
        patience_ms: int,
        placing: Placing | None = None,
    ) -> None:
        """Without `placing` the state is only this peer's part of it."""
        self.watchdog = Watchdog(patience_ms)
        self._state = state
        self._owner = owner
        self._life = life
        self._placing = placing
        self._departing = owner.departing
        self._returning: frozenset[int] | None = None  # batches that end, to be given back then
        self._returned_by_ms = 0
        self._stall: Stall | None = None  # because of which
        self._remembered: deque[tuple[int, Decision]] = deque(maxlen=REMEMBERED_MAX)

    def on_watched(self, watched: Watched) -> list[Effect]:
        now_ms = watched.now_ms
        if self._returning is not None and now_ms >= self._returned_by_ms:
            self._returning = frozenset()
        unbegun = [one.batch for one in watched.standing.unbegun]
        effects: list[Effect] = [*self._owner.stop_unbegun(unbegun)]
        for said in self.watchdog.look(now_ms, self._sights(watched.standing)):
            if isinstance(said, Over):
                note = f"after {said.lasted_ms / 1000:.1f} s and step {said.step}"
                effects.append(Noticed("over", said.fault, said.step, None, EMPTY, note))
                continue
            effects.append(self._notice(now_ms, said))
            effects += self._heal(now_ms, said, watched.standing)
        return effects

    # --- what stands still ---

    def _sights(self, standing: Standing) -> list[Sight]:
        owner, me, shut = self._owner, self._life.info, self.shut
        sights = [] if self._placing is None else self._placing.sights()
        sights += _not_begun(owner, standing)
        first = owner.first
        free = me.slots - sum(
            run.slots for number, run in owner.batches.items() if number in standing.batches
        )
        if first is not None:
            cpus = min(self._owner.cpus_of(first.job), me.slots)
            reason = "" if free >= cpus else "no slot is free"
            what = f"{len(first.tasks)} tasks of job {first.job[:8]} wait here, and a slot is free"
            reason = reason or shut or owner.standstill()
            key = owner.next_batch
            sights.append(Sight(Fault.QUEUE, key, first.job, first.tasks, what, reason))
        elif free > 0 and self._returning is None and not self._life.leaving:
            sights += self._unknown(me)  # a drained peer has to give that back, above all
        return sights

    def _unknown(self, me: PeerInfo) -> list[Sight]:
        """What the ledger says is ours, and this process knows nothing of."""
        row = self._state.peers.get(me.peer)
        held = self._owner.held()
        if row is None or row.info.incarnation != me.incarnation:
            return []
        if self._placing is not None and row.owned <= sum(map(len, held.values())):
            return []  # most of the time, and jobs may be many
        sights = []
        for job, grant in _grants(self._state, me):
            tasks = grant.tasks - held.get((job.id, grant.grant), EMPTY)
            if tasks:
                what = f"{len(tasks)} tasks of job {job.id[:8]} were granted, and nobody knows them"
                key = job.id, grant.grant
                sights.append(Sight(Fault.GRANT, key, job.id, tasks, what))
        return sights

    # --- what is done about it ---

    def _heal(self, now_ms: int, found: Found, standing: Standing) -> Sequence[Effect]:
        owner = self._owner
        match found.fault, found.step:
            case Fault.PLACEMENT, _:
                assert self._placing is not None, "only a coordinator sees that"
                return self._placing.heal(found)
            case Fault.GRANT, _:
                for sight in found.sights:
                    assert isinstance(sight.key, tuple)
                    back = GiveBack(sight.job, sight.key[1], sight.tasks)
                    self._departing.lost.append(back)
            case Fault.QUEUE, 1:
                owner.reckon()
            case Fault.QUEUE, _:
                self._returning, self._returned_by_ms = frozenset(), now_ms + RETURNING_MS
            case Fault.EXECUTOR, step:
                keys = [sight.key for sight in found.sights]
                batches = frozenset(key for key in keys if isinstance(key, int))
                lost = batches - standing.batches
                given_back = [owner.lose(number) for number in sorted(lost)]
                self._departing.lost += [command for command in given_back if command.tasks]
                return self._tend(now_ms, step, batches - lost)
        return []

    def _tend(self, now_ms: int, step: int, batches: frozenset[int]) -> Sequence[Effect]:
        if not batches:
            return []
        if step <= max(Tending):
            return [Tend(Tending(step), batches)]
        self._returning, self._returned_by_ms = batches, now_ms + RETURNING_MS
        return [StopBatch(number, Cause.PEER_LOST) for number in sorted(batches)]

    @property
    def shut(self) -> str:
        """Why nothing is started here now, nor taken, if that is so."""
        if self._life.leaving:
            return "this peer is about to stop"
        if is_draining(self._state, self._life.info.peer):
            return "this peer is drained"
        return "" if self._returning is None else "its queue is on its way back"

    def give_back(self) -> list[GiveBack]:
        """To propose now, and to tell the owner of."""
        if self._returning is None and not self._departing.lost:  # asked in each turn
            return []
        commands = self._departing.take_lost()
        if self._returning is not None and not self._returning & self._owner.batches.keys():
            self._returning = None
            commands += self._owner.give_back()
        if self._state.level < STALL_LEVEL:
            return commands
        return [msgspec.structs.replace(command, stall=self._stall) for command in commands]

    # --- what is said of it ---

    def _notice(self, now_ms: int, found: Found) -> Noticed:
        first, me = found.sights[0], self._life.info.peer
        heals = HEALING[found.fault, found.step]
        note = f"{first.what}, for {found.lasted_ms / 1000:.1f} s: {heals}"
        self._stall = Stall(me, found.fault, found.step, note)
        for sight in found.sights:
            stood = Decision(
                kind="stalled",
                by=me,
                chosen=me,
                tasks=sight.tasks,
                note=f"{sight.what}: {heals}",
                job=sight.job,
            )
            self._remembered.append((now_ms, stood))
        if found.is_new and found.fault is not Fault.GRANT and self._state.level >= STALL_LEVEL:
            told = GiveBack(first.job, 0, first.tasks, self._stall)
            self._life.propose(told, now_ms)
        what = "found" if found.is_new else "lasts"
        return Noticed(what, found.fault, found.step, first.job, first.tasks, note)

    def remembered(self, job: JobId, index: int, wall_of: WallOf) -> list[Decision]:
        """What stood still of this task here; the newest first."""
        return [
            msgspec.structs.replace(one, wall_ms=wall_of(at_ms))
            for at_ms, one in reversed(self._remembered)
            if one.job == job and index in one.tasks
        ]

    def status(self) -> StallStatus:
        dog = self.watchdog
        return StallStatus(dog.found, dog.healed, dog.now, tuple(dict.fromkeys(dog.waits.values())))


def _not_begun(owner: Owner, standing: Standing) -> list[Sight]:
    """What the executor has, and has not begun; and what it should have, and has not."""
    sights: list[Sight] = []

    def see(number: int, run: Running, what: str, reason: str = "") -> None:
        sights.append(Sight(Fault.EXECUTOR, number, run.batch.job, run.left, what, reason))

    for unbegun in standing.unbegun:
        run = owner.batches.get(unbegun.batch)
        if run is not None and not run.stopped:
            see(unbegun.batch, run, unbegun.what, unbegun.reason)
    for number in owner.batches.keys() - standing.batches:  # one that is stopped holds a slot, too
        what = "the workers know nothing of tasks that they were given"
        see(number, owner.batches[number], what)
    return sights


def _grants(state: LedgerState, me: PeerInfo) -> list[tuple[Job, HeldGrant]]:
    return [
        (job, held)
        for job in state.jobs_with_grants()
        for held in (*job.grants.values(), *job.backups.values())
        if (held.peer, held.incarnation) == (me.peer, me.incarnation)
    ]
