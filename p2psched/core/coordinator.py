"""What the coordinator alone may do: place what nobody live owns, declare peers down, and raise the
feature level.

It decides on applied state only, one round of placements at a time. Its decisions are proposals:
a stale one changes nothing. It declares nobody down before it has listened for a whole window.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from p2psched.core import acts, holding, levels, poison, retry_turns
from p2psched.core.drain import is_draining
from p2psched.core.jobs import Job
from p2psched.core.machine import Machine
from p2psched.core.placement import Candidate, has_room, share_out
from p2psched.core.retry_budget import SHARE_PERCENT, RetryBudget
from p2psched.model.actions import Elapsed
from p2psched.model.commands import (
    Command,
    Envelope,
    Event,
    PeerDown,
    Place,
    Recorded,
    Retried,
    SubmitJob,
)
from p2psched.model.ids import PeerId
from p2psched.model.job import Cause
from p2psched.model.load import Seen

DETECTION_WINDOW_MS: Final = 2500  # silence after which a peer is declared down
# After a task ended there because its disk was full, nothing is placed on a peer for so long.
FULL_MS: Final = 10_000
YIELD_RETRY_MS: Final = 3_000  # between two tries to hand over: nothing is appended meanwhile
ELAPSE_RETRY_MS: Final = 1_000  # a proposal that is not applied by then is made again
PLACEMENTS_MAX: Final = 256  # commands in one round; the next round goes on


class Coordinator:
    """Idle unless this peer coordinates."""

    def __init__(
        self,
        me: PeerId,
        machine: Machine,
        *,
        window_ms: int,
        retry_percent: int = SHARE_PERCENT,
    ) -> None:
        self._me = me
        self._machine = machine
        self._window_ms = window_ms
        self._since_ms: int | None = None  # coordinating since; None: somebody else does
        self._looked_ms = 0
        self._declared_ms: dict[tuple[PeerId, int], int] = {}
        # Peers whose disks were full lately -> until when, in ledger time: who starts and applies
        # its log again doesn't wait for what is long over. Whoever leads next has applied the same.
        self._full: dict[PeerId, int] = {}
        self._say_full: frozenset[PeerId] = frozenset()
        self._seen: Mapping[PeerId, Seen] = {}
        self._yield_again_ms = 0
        self.budget = RetryBudget(machine, percent=retry_percent)
        self._elapse = (-1, 0)  # what was due when we last proposed so, and when to do it again

    def on_coordinator(self, now_ms: int, *, is_self: bool) -> None:
        self._since_ms = now_ms if is_self else None
        self._looked_ms = now_ms
        self._declared_ms.clear()
        self._elapse = (-1, 0)
        self.budget.begin()

    def on_event(self, event: Event) -> None:
        """Of the ledger, in order, on every peer, as it is applied."""
        if isinstance(event, (Retried, Recorded)):
            self.budget.on_event(event)
            if event.segment.cause is Cause.NO_SPACE:
                self._full[event.peer] = self._machine.stamp_ms + FULL_MS

    def on_full(self, peers: frozenset[PeerId]) -> None:
        """Whose disks are full now, as they say themselves: they get nothing more."""
        self._say_full = peers

    def on_seen(self, seen: Mapping[PeerId, Seen]) -> None:
        """What gossip says of the other peers: advice, which may be old or wrong."""
        self._seen = seen

    def forgive_full(self, ledger_ms: int) -> None:
        """Those whose disks were full long ago may get tasks again."""
        self._full = {peer: until for peer, until in self._full.items() if until > ledger_ms}

    @property
    def coordinates(self) -> bool:
        return self._since_ms is not None

    def find_dead(self, now_ms: int, contacts: Mapping[PeerId, int]) -> list[Command]:
        """`contacts`: peer -> when it was last heard. Each is proposed once a window."""
        if self._since_ms is None:
            return []
        # After a pause of our own (a stopped process, a suspended machine) what others sent lies
        # unread: listen for a whole window again.
        if now_ms - self._looked_ms > self._window_ms // 2:
            self._since_ms = now_ms
        self._looked_ms = now_ms
        rows = self._machine.peers.values()
        self.budget.on_time(now_ms, sum(row.info.slots for row in rows if row.takes_tasks))
        commands: list[Command] = []
        for peer, row in sorted(self._machine.peers.items()):
            if peer == self._me or not row.live:
                continue
            heard_ms = max(contacts.get(peer, 0), self._since_ms)
            key = (peer, row.info.incarnation)
            asked_ms = self._declared_ms.get(key, now_ms - self._window_ms)
            if now_ms - heard_ms >= self._window_ms and now_ms - asked_ms >= self._window_ms:
                self._declared_ms[key] = now_ms
                reason = f"not heard for {now_ms - heard_ms} ms"
                commands.append(PeerDown(peer, row.info.incarnation, reason))
        return commands

    def must_yield(self, now_ms: int) -> bool:
        """True if it drains and shall let another lead; once in a while, as long as it leads."""
        if not self.coordinates or not is_draining(self._machine, self._me):
            self._yield_again_ms = now_ms
            return False
        is_due = now_ms >= self._yield_again_ms
        if is_due:
            self._yield_again_ms = now_ms + YIELD_RETRY_MS
        return is_due

    def to_elapse(self, ledger_ms: int) -> list[Command]:
        """What is due may happen. Proposed again after a while if it has not: the same twice is no
        harm."""
        due_ms = acts.next_due_ms(self._machine) if self.coordinates else None
        if due_ms is None or due_ms > ledger_ms:
            return []
        proposed_due_ms, again_ms = self._elapse
        if due_ms == proposed_due_ms and ledger_ms < again_ms:
            return []
        self._elapse = (due_ms, ledger_ms + ELAPSE_RETRY_MS)
        return [Elapsed(ledger_ms)]

    def to_raise(self, removed: Iterable[PeerId]) -> list[Command]:
        """The next feature level, once all peers know it but those that were removed."""
        return levels.to_raise(self._machine, removed) if self.coordinates else []

    def place(self) -> list[Command]:
        """Placements for tasks that nobody live owns: suspects, then oldest job first. A job that
        gets nothing though a peer is large enough for it keeps younger jobs off the least busy
        such peer."""
        machine = self._machine
        if self._since_ms is None or not machine.unplaced:
            return []
        commands, candidates = self._isolate(self._candidates())
        everyone = candidates
        jobs = self._oldest_fitting() if any(map(has_room, candidates)) else []
        placeable = ((j, holding.placeable(machine, j) - j.suspects) for j in jobs)
        for turn in retry_turns.turns(placeable):
            job, cost_us = turn.job, self._cost_us(turn.job)
            fitting, tasks = candidates, turn.tasks
            if turn.is_retry:
                cost_us = self.budget.cost_us(job, cost_us)
                fitting = retry_turns.fitting(turn, candidates, everyone)
                fitting, tasks = self.budget.allowed(job, tasks, cost_us, fitting)
                if not tasks:
                    continue
            shares = share_out(
                tasks,
                fitting,
                estimate_us=max(1, cost_us // job.spec.cpus),
                cpus=job.spec.cpus,
                owned_here=_owned_by_peer(job),
            )
            for candidate, share in shares:
                commands.append(Place(job.id, share, candidate.peer, candidate.incarnation))
                candidates = _with_load(candidates, candidate, len(share), cost_us)
                if turn.is_retry:
                    self.budget.spend(len(share), cost_us)
            if not shares and fitting:
                candidates = _without_least_busy(candidates, fitting, job.spec.cpus)
            if len(commands) >= PLACEMENTS_MAX or not any(map(has_room, candidates)):
                break
        return commands

    def _oldest_fitting(self) -> list[Job]:
        """The oldest unplaced jobs that some live peer is large enough for; enough for a round."""
        machine = self._machine
        rows = machine.peers.values()
        largest = max((row.info.slots for row in rows if row.takes_tasks), default=0)
        fitting = (
            job
            for job in map(machine.jobs.__getitem__, machine.unplaced)
            if job.spec.cpus <= largest
            and (job.id not in machine.suspected or holding.placeable(machine, job) - job.suspects)
        )
        return heapq.nsmallest(PLACEMENTS_MAX, fitting, key=lambda job: job.index)

    def _isolate(self, candidates: list[Candidate]) -> tuple[list[Command], list[Candidate]]:
        """Placements of suspects, each on a peer that owns nothing, and the peers that are left
        for all other tasks. A suspect that finds no such peer keeps others off the least busy one
        until it is free. Half of the peers are never suspects', if there are two."""
        machine = self._machine
        commands: list[Command] = []
        if not machine.suspected:
            return commands, candidates
        taken = sum(row.live and row.suspects > 0 for row in machine.peers.values())
        room = max(1, (len(candidates) + taken) // 2) - taken
        jobs = [machine.jobs[name] for name in machine.suspected if name in machine.unplaced]
        for job in sorted(jobs, key=lambda job: job.index):
            for group in poison.groups(job):
                fitting = [c for c in candidates if c.slots >= job.spec.cpus]
                if room <= 0 or not fitting:
                    break
                killed = job.killed.get(group.first, ())
                chosen = min(fitting, key=lambda c: _business(c, killed))
                candidates = [c for c in candidates if c is not chosen]
                room -= 1
                if not chosen.owned:
                    commands.append(Place(job.id, group, chosen.peer, chosen.incarnation))
        return commands, candidates

    def _cost_us(self, job: Job) -> int:
        return (job.estimate_us or self._machine.estimate_us) * job.spec.cpus

    def first_placements(self, envelopes: Iterable[Envelope]) -> list[Command]:
        """Placements that travel in the same entry as the jobs that they are for: saves a round."""
        submits = [e.command for e in envelopes if isinstance(e.command, SubmitJob)]
        if self._since_ms is None or not submits:
            return []
        _, candidates = self._isolate(self._candidates())
        commands: list[Command] = []
        for command in submits:
            if command.job in self._machine.jobs:
                continue
            estimate_us, spec = self._machine.estimate_us, command.spec
            tasks = holding.first_placeable(self._machine, spec)
            if not tasks:
                continue
            shares = share_out(
                tasks, candidates, estimate_us=estimate_us, cpus=spec.cpus, owned_here={}
            )
            for candidate, share in shares:
                commands.append(Place(command.job, share, candidate.peer, candidate.incarnation))
                cost_us = estimate_us * spec.cpus
                candidates = _with_load(candidates, candidate, len(share), cost_us)
        return commands

    def _candidates(self) -> list[Candidate]:
        return [
            Candidate(
                *(peer, row.info.incarnation, row.info.slots, row.owned, row.load_us),
                is_self=peer == self._me,
            )
            for peer, row in sorted(self._machine.peers.items())
            if row.takes_tasks
            and row.info.slots > 0
            and not row.suspects
            and not self._is_full(peer)
        ]

    def _is_full(self, peer: PeerId) -> bool:
        return peer in self._full or peer in self._say_full


def _owned_by_peer(job: Job) -> dict[PeerId, int]:
    owned: dict[PeerId, int] = {}
    for held in job.grants.values():
        owned[held.peer] = owned.get(held.peer, 0) + len(held.tasks)
    return owned


def _business(
    c: Candidate, killed: Sequence[PeerId]
) -> tuple[bool, bool, float, bool, bool, int, PeerId]:
    """Least first. If it may be had, a peer that this task has not killed yet, for it may have been
    the machine: the last try waits until it may be had. And not the coordinator: its death stops
    more than its tasks."""
    again = c.peer in killed
    last = again and len(killed) >= poison.POISON_DEATHS - 1
    return last, c.owned > 0, c.load_us / c.slots, again, c.is_self, c.slots, c.peer


def _without_least_busy(
    candidates: list[Candidate], fitting: list[Candidate], cpus: int
) -> list[Candidate]:
    fitting = [c for c in fitting if c.slots >= cpus]
    if not fitting:
        return candidates
    kept_free = min(fitting, key=lambda c: (c.load_us / c.slots, c.peer))
    return [c for c in candidates if c is not kept_free]


def _with_load(
    candidates: list[Candidate], chosen: Candidate, count: int, cost_us: int
) -> list[Candidate]:
    """The view after a share was given away, so that one round doesn't flood one peer."""
    return [
        msgspec.structs.replace(c, owned=c.owned + count, load_us=c.load_us + count * cost_us)
        if c.peer == chosen.peer
        else c
        for c in candidates
    ]
