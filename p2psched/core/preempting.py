"""Whom the coordinator asks to make way: a pure rule over the ledger's state (ADR 0070).

A job with tasks that wait, for which no peer has had a slot for WAIT_MS, and than which others that
may make way have a lower priority: where it fits once some of these have ended, their owner is
asked. The lowest go first, of these the youngest grants; never more than the tasks that wait can
use. What is said is advice: an owner knows what really runs, and does as it thinks right
(`making_way`). It is said again as long as the job waits, of the same tasks, so a word that is lost
costs time and nothing else.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Final, NamedTuple

import msgspec

from p2psched.core import fitting, holding
from p2psched.core.jobs import HeldGrant, Job
from p2psched.core.machine import Machine
from p2psched.core.placement import Candidate
from p2psched.model.commands import Grant
from p2psched.model.ids import JobId, PeerId
from p2psched.model.precedence import WAYS_MAX, MakeWay, Way
from p2psched.model.taskset import TaskSet

LOOK_MS: Final = 500  # between two words
WAIT_MS: Final = 1_000  # without a task of it being placed
LOOKED_AT_MAX: Final = 10_000  # jobs with a precedence, or that wait: the oldest
WAITING_MAX: Final = 64  # of those that wait, the first in turn
TASKS_MAX: Final = 16  # for which somebody is asked to make way, in one round


class _Victim(NamedTuple):
    """A task that may be ended."""

    priority: int
    youngest: int  # the newest grant is the least
    job: Job
    held: HeldGrant


class _Room:
    """What a peer has left, as far as it was not promised in this round."""

    def __init__(self, candidate: Candidate) -> None:
        self.candidate = candidate
        self.free = candidate.slots  # less than none: it owns more than can run
        self.gpus = self.memory_mib = 0  # promised, less what is freed
        self.victims: list[_Victim] = []


class _Waits(msgspec.Struct):
    count: int
    since_ms: int


class Preempting:
    """Idle unless this peer coordinates."""

    def __init__(self, machine: Machine, takers: Callable[[], list[Candidate]]) -> None:
        """`takers`: who may be given tasks now."""
        self._machine = machine
        self._takers = takers
        self._looked_ms: int | None = None
        self._waits: dict[JobId, _Waits] = {}
        self._seen_ms: dict[Grant, int] = {}  # when grants of preemptible tasks were seen first

    def forget(self) -> None:
        """Somebody else coordinates, or this peer begins to."""
        self._looked_ms = None
        self._waits.clear()
        self._seen_ms.clear()

    def round(self, now_ms: int) -> list[tuple[PeerId, MakeWay]]:
        """What to say now, and to whom."""
        is_first = self._looked_ms is None
        if not is_first and now_ms - (self._looked_ms or 0) < LOOK_MS:
            return []
        self._looked_ms = now_ms
        names = islice(self._machine.ranked, LOOKED_AT_MAX)
        ranked = [self._machine.jobs[name] for name in names]
        may_end = [job for job in ranked if job.grants and _may_end(job)]
        victims = self._victims(may_end, now_ms, is_first=is_first)
        lowest = min((job.spec.priority for job in may_end), default=None)
        waiting = self._waiting(now_ms, lowest) if lowest is not None else []
        self._waits = {job.id: self._waits[job.id] for job, _ in waiting}
        due = [
            (job, tasks)
            for job, tasks in waiting
            if now_ms - self._waits[job.id].since_ms >= WAIT_MS
        ]
        return self._ask(due, victims) if due else []

    # --- who waits, and who may end ---

    def _waiting(self, now_ms: int, lowest: int) -> list[tuple[Job, TaskSet]]:
        """Jobs that may make others wait, in the order of their turns, and what of them waits."""
        machine = self._machine
        names: Iterable[JobId] = machine.ranked if lowest >= 0 else machine.unplaced
        unplaced = (name for name in names if name in machine.unplaced)
        jobs = [machine.jobs[name] for name in islice(unplaced, LOOKED_AT_MAX)]
        found = []
        for job in heapq.nsmallest(WAITING_MAX, jobs, key=lambda job: job.turn):
            # What has ended badly waits for its turn among retries, too.
            tasks = holding.placeable(machine, job) - job.suspects - job.retried
            if job.spec.priority <= lowest or not tasks.ranges:
                continue
            waits = self._waits.get(job.id)
            if waits is None or len(tasks) < waits.count:  # some have found a slot
                waits = _Waits(len(tasks), now_ms)
            waits.count = len(tasks)
            self._waits[job.id] = waits
            found.append((job, tasks))
        return found

    def _victims(
        self, jobs: Iterable[Job], now_ms: int, *, is_first: bool
    ) -> list[tuple[PeerId, _Victim]]:
        """For each task one; of grants that are old enough."""
        found: list[tuple[PeerId, _Victim]] = []
        seen_ms: dict[Grant, int] = {}
        for job in jobs:
            precedence = job.spec.precedence
            assert precedence is not None
            for grant, held in job.grants.items():
                # Who has just begun to coordinate knows of none how old it is.
                since_ms = now_ms - precedence.runs_ms if is_first else now_ms
                seen_ms[grant] = self._seen_ms.get(grant, since_ms)
                if held.suspect or now_ms - seen_ms[grant] < precedence.runs_ms:
                    continue
                if self._machine.is_live(held.peer, held.incarnation):
                    victim = _Victim(precedence.priority, -grant, job, held)
                    count = len(held.tasks - job.spared)
                    found += [(held.peer, victim)] * min(count, TASKS_MAX)
        self._seen_ms = seen_ms
        return found

    # --- where ---

    def _ask(
        self, waiting: list[tuple[Job, TaskSet]], victims: list[tuple[PeerId, _Victim]]
    ) -> list[tuple[PeerId, MakeWay]]:
        rooms = self._rooms(victims)
        said: list[tuple[PeerId, MakeWay]] = []
        left = TASKS_MAX
        for job, tasks in waiting:
            cpus = job.spec.cpus
            if any(room.free >= cpus and self._fits(job, room) for room in rooms.values()):
                continue  # it waits for something else
            ways: dict[PeerId, list[_Victim]] = {}
            unbegun: dict[PeerId, None] = {}
            for _ in range(min(len(tasks), left)):
                chosen = self._choose(job, rooms)
                if chosen is None:
                    break
                left -= 1
                room, ended = chosen
                peer = room.candidate.peer
                if room.free < 0:
                    unbegun[peer] = None
                _take(room, job, ended)
                ways.setdefault(peer, []).extend(ended)
            said += [
                (peer, _word(job, ended, unbegun=peer in unbegun)) for peer, ended in ways.items()
            ]
        return said

    def _rooms(self, victims: list[tuple[PeerId, _Victim]]) -> dict[PeerId, _Room]:
        """Cost O(grants)."""
        rooms = {c.peer: _Room(c) for c in self._takers()}
        for job in self._machine.jobs_with_grants():
            for held in (*job.grants.values(), *job.backups.values()):
                if held.peer in rooms:
                    rooms[held.peer].free -= job.spec.cpus * len(held.tasks)
        for peer, victim in sorted(victims, key=lambda one: one[1][:2]):
            if peer in rooms:
                rooms[peer].victims.append(victim)
        return rooms

    def _fits(self, job: Job, room: _Room, freed: Iterable[_Victim] = ()) -> bool:
        """Whether one more task may be there once these have ended, whatever runs."""
        gpus = room.gpus - sum(victim.held.gpus for victim in freed)
        memory_mib = room.memory_mib - sum(victim.held.memory_mib for victim in freed)
        row = self._machine.peers[room.candidate.peer]
        if room.candidate.slots < job.spec.cpus:
            return False
        return fitting.room(self._machine, job, row, gpus=gpus, memory_mib=memory_mib) > 0

    def _choose(
        self, job: Job, rooms: Mapping[PeerId, _Room]
    ) -> tuple[_Room, list[_Victim]] | None:
        """Where the fewest steps of priority are lost, and the least work."""
        best: tuple[tuple[int, int, PeerId], _Room, list[_Victim]] | None = None
        for peer, room in rooms.items():
            ended = self._enough(job, room)
            if ended:
                rank = (ended[-1].priority, ended[-1].youngest, peer)
                if best is None or rank < best[0]:
                    best = rank, room, ended
        return best[1:] if best is not None else None

    def _enough(self, job: Job, room: _Room) -> list[_Victim]:
        """What ends there so that a task of the job may run; nothing if that is not enough."""
        needed = job.spec.cpus - max(0, room.free)
        ended: list[_Victim] = []
        for victim in room.victims:
            if victim.priority >= job.spec.priority:
                break
            ended.append(victim)
            needed -= victim.job.spec.cpus
            if needed <= 0 and self._fits(job, room, ended):
                return self._needed(job, room, ended)
        return []

    def _needed(self, job: Job, room: _Room, ended: list[_Victim]) -> list[_Victim]:
        """Without those that bring nothing that it lacks."""
        for victim in ended[:-1]:
            others = list(ended)
            others.remove(victim)
            freed = sum(other.job.spec.cpus for other in others)
            enough = freed >= job.spec.cpus - max(0, room.free)
            if enough and self._fits(job, room, others):
                ended = others
        return ended


def _may_end(job: Job) -> bool:
    precedence = job.spec.precedence
    return precedence is not None and precedence.preemptible


def _take(room: _Room, job: Job, ended: list[_Victim]) -> None:
    """That is promised."""
    gpus, memory_mib = fitting.weight_of(job)
    room.free = max(0, room.free) + sum(v.job.spec.cpus for v in ended) - job.spec.cpus
    room.gpus += gpus - sum(victim.held.gpus for victim in ended)
    room.memory_mib += memory_mib - sum(victim.held.memory_mib for victim in ended)
    for victim in ended:
        room.victims.remove(victim)


def _word(job: Job, ended: Iterable[_Victim], *, unbegun: bool) -> MakeWay:
    counts: dict[tuple[JobId, Grant], int] = {}
    for victim in ended:
        key = victim.job.id, victim.held.grant
        counts[key] = counts.get(key, 0) + 1
    ways = tuple(Way(name, grant, count) for (name, grant), count in counts.items())
    return MakeWay(job.id, job.spec.priority, ways[:WAYS_MAX], unbegun)
