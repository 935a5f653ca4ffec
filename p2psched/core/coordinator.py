"""What the coordinator alone may do: place what nobody live owns, declare peers down, and raise the
feature level.

It decides on applied state only, one round of placements at a time. Its decisions are proposals:
a stale one changes nothing. It declares nobody down before it has listened for a whole window.
"""

from __future__ import annotations

import heapq
import operator
from collections.abc import Iterable, Mapping
from typing import Final

from p2psched.core import holding, levels, poison, retry_turns
from p2psched.core.choosing import Chooser
from p2psched.core.drain import is_draining
from p2psched.core.elapsing import Elapsing
from p2psched.core.jobs import Job
from p2psched.core.lineup import Lineup, Round, Views
from p2psched.core.machine import Machine
from p2psched.core.placement import (
    Candidate,
    cut,
    with_load,
)
from p2psched.core.policies.adaptive import share_leaning
from p2psched.core.policies.base import Ask, Policy
from p2psched.core.policies.registry import POLICIES
from p2psched.core.quarantine import Quarantine
from p2psched.core.retry_budget import SHARE_PERCENT, RetryBudget
from p2psched.core.shunning import to_shun
from p2psched.model.commands import (
    Command,
    Envelope,
    Event,
    PeerDown,
    Place,
    Recorded,
    Retried,
    Stamped,
    SubmitJob,
)
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause
from p2psched.model.load import Seen
from p2psched.model.stalls import Stalled
from p2psched.model.taskset import TaskSet

DETECTION_WINDOW_MS: Final = 2500  # silence after which a peer is declared down
# After a task ended there because its disk was full, nothing is placed on a peer for so long.
FULL_MS: Final = 10_000
YIELD_RETRY_MS: Final = 3_000  # between two tries to hand over: nothing is appended meanwhile
NOBODY: Final[frozenset[PeerId]] = frozenset()
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
        policies: Mapping[str, Policy] = POLICIES,
    ) -> None:
        self.chooser = Chooser(me, machine, policies)
        self._me = me
        self._machine = machine
        self._lineup = Lineup(me, machine)
        self.window_ms = window_ms
        self._since_ms: int | None = None  # coordinating since; None: somebody else does
        self._looked_ms = 0
        self._declared_ms: dict[tuple[PeerId, int], int] = {}
        # Peers whose disks were full lately -> until when, in ledger time: who starts and applies
        # its log again doesn't wait for what is long over. Whoever leads next has applied the same.
        self._full: dict[PeerId, int] = {}
        self.quarantine: Final = Quarantine()
        self._ledger_ms = 0
        self._say_full: frozenset[PeerId] = frozenset()
        self._seen: Mapping[PeerId, Seen] = {}
        self._asking: set[PeerId] = set()  # since the last round
        self._shunned: frozenset[PeerId] = frozenset()
        self._yield_again_ms = 0
        self.budget = RetryBudget(machine, percent=retry_percent)
        self._elapsing = Elapsing(machine)

    def on_coordinator(self, now_ms: int, *, is_self: bool) -> None:
        self._since_ms = now_ms if is_self else None
        self._looked_ms = now_ms
        self._declared_ms.clear()
        self._elapsing.begin()
        self.budget.begin()
        self.chooser.measuring.clear()
        if is_self:
            self._lineup.begin()
        else:
            self._lineup.end()

    def on_restored(self) -> None:
        """Another state came in the place of the one before."""
        if self.coordinates:
            self._lineup.begin()

    def on_event(self, event: Event) -> None:
        """Of the ledger, in order, on every peer, as it is applied."""
        if isinstance(event, (Retried, Recorded, Stalled)):
            self.quarantine.on_event(event, self._machine.stamp_ms)
        if not isinstance(event, (Retried, Recorded)):
            return
        self.budget.on_event(event)
        if event.segment.cause is Cause.NO_SPACE:
            self._full[event.peer] = self._machine.stamp_ms + FULL_MS

    def forget(self, job: JobId) -> None:
        self.quarantine.forget(job)
        self.budget.on_job_ended(job)

    def on_full(self, peers: frozenset[PeerId]) -> None:
        """Whose disks are full now, as they say themselves: they get nothing more."""
        self._say_full = peers

    def on_seen(self, seen: Mapping[PeerId, Seen]) -> None:
        """What gossip says of the other peers: advice, which may be old or wrong."""
        self._seen = seen

    def measure(self, events: Iterable[Stamped]) -> None:
        """What policies go by that measure answers themselves."""
        for stamped in events:
            self.chooser.measuring.on_event(stamped.event, stamped.at_ms)

    def on_pull(self, peer: PeerId) -> None:
        """It has nothing to do: the next round may give it what nobody is given otherwise."""
        self._asking.add(peer)

    def on_shun(self, said: frozenset[PeerId], now_ms: int, contacts: Mapping[PeerId, int]) -> None:
        """Whom gossip doubts: they get nothing more, as long as that is so."""
        rows = self._machine.peers.items() if said else ()
        others = {p for p, row in rows if p != self._me and row.takes_tasks and row.info.slots > 0}
        self._shunned = to_shun(said, others, now_ms=now_ms, heard_ms=contacts)

    def forgive_full(self, ledger_ms: int) -> None:
        """Those whose disks were full long ago may get tasks again."""
        self._ledger_ms = ledger_ms
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
        if now_ms - self._looked_ms > self.window_ms // 2:
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
            asked_ms = self._declared_ms.get(key, now_ms - self.window_ms)
            if now_ms - heard_ms >= self.window_ms and now_ms - asked_ms >= self.window_ms:
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
        """What is due may happen."""
        return self._elapsing.due(ledger_ms) if self.coordinates else []

    def to_raise(self, removed: Iterable[PeerId]) -> list[Command]:
        """The next feature level, once all peers know it but those that were removed."""
        return levels.to_raise(self._machine, removed) if self.coordinates else []

    def place(self) -> list[Command]:
        """Placements for tasks that nobody live owns: suspects, then by priority and age. A job
        that gets nothing though a peer is large enough for it keeps later ones off the least busy
        such peer."""
        machine = self._machine
        if self._since_ms is None or not machine.unplaced:
            return []
        commands, candidates = self._isolate(self._candidates())
        self._asking.clear()
        is_open = self._lineup.is_open(candidates)
        if not is_open and not machine.choosy:
            return commands
        jobs = self._oldest_fitting(candidates, is_open=is_open)
        placeable = ((j, holding.placeable(machine, j) - j.suspects) for j in jobs)
        round_ = Round(commands, candidates)
        for turn in retry_turns.turns(placeable):
            if not self._goes_on(round_):
                break
            self._place_some(turn, round_)
        return commands

    def _goes_on(self, round_: Round) -> bool:
        """There may be something for more of it."""
        if round_.waits is not None:
            kept = self._without_least_busy(round_.candidates, *round_.waits)
            round_.candidates, round_.waits = kept, None
        if not round_.begun:
            return True
        is_full = len(round_.commands) >= PLACEMENTS_MAX
        return not is_full and (
            bool(self._machine.choosy) or self._lineup.is_open(round_.candidates)
        )

    def _place_some(self, turn: retry_turns.Turn, round_: Round) -> None:
        job, cost_us = turn.job, self._cost_us(turn.job)
        fitting, tasks = round_.candidates, turn.tasks
        if turn.is_retry:
            cost_us = self.budget.cost_us(job, cost_us)
            able = self.chooser.able(job, round_.everyone)
            fitting, tasks = turn.limited(self.budget, cost_us, round_.candidates, able)
            if not tasks:
                return
        round_.begun = True
        shares = self._share(job, tasks, fitting, max(1, cost_us // job.spec.cpus))
        for candidate, share in shares:
            round_.commands.append(Place(job.id, share, candidate.peer, candidate.incarnation))
            round_.candidates = with_load(round_.candidates, candidate, len(share), cost_us)
            if turn.is_retry:
                self.budget.spend(len(share), cost_us)
        if not shares and fitting:
            round_.waits = fitting, job

    def _share(
        self, job: Job, tasks: TaskSet, candidates: list[Candidate], estimate_us: int
    ) -> list[tuple[Candidate, TaskSet]]:
        chooser = self.chooser
        if job.spec.is_choosy or self._machine.apart or self._is_leaning(job):
            return chooser.share(job, tasks, candidates, self._looked_ms)
        cpus = job.spec.cpus
        shares = self._lineup.share_out(job, tasks, candidates, estimate_us=estimate_us, cpus=cpus)
        if shares:
            at_ms = self._looked_ms
            chooser.note(
                job.id, shares, candidates, at_ms=at_ms, estimate_us=estimate_us, cpus=cpus
            )
        return shares

    def _is_leaning(self, job: Job) -> bool:
        """True if gossip makes a difference between peers for it."""
        if not self._seen or job.full is None:
            return False
        return bool(job.spec.blobs) or bool(self.chooser.leans(job.full.work).of)

    def _oldest_fitting(self, candidates: list[Candidate], *, is_open: bool) -> list[Job]:
        """The oldest unplaced jobs that some live peer is large enough for; enough for a round.
        While no peer has room only those that don't wait for it."""
        machine = self._machine
        largest, unplaced = self._lineup.largest, machine.unplaced
        names = unplaced if is_open else [name for name in machine.choosy if name in unplaced]
        fitting = (
            job
            for job in map(machine.jobs.__getitem__, names)
            if job.spec.cpus <= largest
            and (job.id not in machine.suspected or holding.placeable(machine, job) - job.suspects)
        )
        turn = operator.attrgetter("turn" if machine.ranked else "index")
        if not machine.choosy:
            return heapq.nsmallest(PLACEMENTS_MAX, fitting, key=turn)
        ordered = sorted(fitting, key=turn)
        return self.chooser.free(ordered, candidates, PLACEMENTS_MAX, is_open=is_open)

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
            for group in holding.grantable_of(machine, job, poison.groups(job)):
                fitting = [c for c in candidates if self._may_own(job, c)]
                if room <= 0 or not fitting:
                    break
                killed = job.killed.get(group.first, ())
                chosen = min(fitting, key=lambda c: poison.business(c, killed))
                candidates = [c for c in candidates if c is not chosen]
                room -= 1
                if not chosen.owned:
                    commands.append(Place(job.id, group, chosen.peer, chosen.incarnation))
        return commands, candidates

    def _may_own(self, job: Job, c: Candidate) -> bool:
        if c.slots < job.spec.cpus:
            return False
        return not job.spec.is_choosy or self.chooser.can_go(job, [c])

    def _without_least_busy(
        self, candidates: list[Candidate], fitting: list[Candidate], job: Job
    ) -> list[Candidate]:
        fitting = [c for c in fitting if self._may_own(job, c)]
        if not fitting or (job.spec.is_choosy and self.chooser.is_early(job)):
            return candidates
        kept_free = min(fitting, key=lambda c: (c.load_us / c.slots, c.peer))
        return [c for c in candidates if c is not kept_free]

    def _cost_us(self, job: Job) -> int:
        return (job.estimate_us or self._machine.estimate_us) * job.spec.cpus

    def first_placements(self, envelopes: Iterable[Envelope]) -> list[Command]:
        """Placements that travel in the same entry as the jobs that they are for: saves a round."""
        submits = [e.command for e in envelopes if isinstance(e.command, SubmitJob)]
        is_disputed = self._machine.ranked and self._machine.unplaced  # some may go before others
        if self._since_ms is None or not submits or is_disputed:
            return []
        _, candidates = self._isolate(self._candidates())
        commands: list[Command] = []
        for command in submits:
            if command.job in self._machine.jobs:
                continue
            estimate_us, spec = self._machine.estimate_us, command.spec
            if spec.needs is not None or spec.policy or self._machine.apart or spec.precedence:
                continue  # the next round knows what they may, and who is first
            tasks = holding.first_placeable(self._machine, spec)
            if not tasks:
                continue
            leans = None
            if self._seen:
                leans = self.chooser.leans(spec.work)
            if leans is not None and leans.of:
                ask = Ask(command.job, len(tasks), estimate_us, spec.cpus, {}, is_guess=True)
                shares = cut(tasks, share_leaning(ask, candidates, leans))
            else:
                shares = self._lineup.share_out(
                    None, tasks, candidates, estimate_us=estimate_us, cpus=spec.cpus
                )
            if shares:
                self.chooser.note(
                    *(command.job, shares, candidates),
                    at_ms=self._looked_ms,
                    estimate_us=estimate_us,
                    cpus=spec.cpus,
                )
            for candidate, share in shares:
                commands.append(Place(command.job, share, candidate.peer, candidate.incarnation))
                cost_us = estimate_us * spec.cpus
                candidates = with_load(candidates, candidate, len(share), cost_us)
        return commands

    def shunned(self) -> frozenset[PeerId]:
        """Who shall get nothing from others, either: innocent tasks fail there."""
        return frozenset().union(*self._shut()) if self.quarantine.suspects else NOBODY

    def stories(self) -> dict[PeerId, str]:
        """Why peers get nothing, or little, for people."""
        shut = self.shunned()
        return {peer: self.quarantine.story(peer, self._ledger_ms) for peer in shut}

    def _shut(self) -> tuple[frozenset[PeerId], frozenset[PeerId]]:
        if not self.quarantine.suspects:
            return NOBODY, NOBODY
        rows = self._machine.peers.items()
        takers = {peer: row.info.slots for peer, row in rows if row.takes_tasks and row.info.slots}
        return self.quarantine.shut(takers, self._ledger_ms)

    def takers(self) -> list[Candidate]:
        """Who may be given tasks."""
        return self._isolate(self._candidates())[1]

    def idle(self) -> list[Candidate]:
        """Those of them who have none."""
        return [candidate for candidate in self.takers() if not candidate.owned]

    def _candidates(self) -> list[Candidate]:
        out, probed = self._shut()
        closed = out.union(self._full, self._say_full, self._shunned)
        found = self._lineup.look(Views(closed, probed, frozenset(self._asking), self._seen))
        if self._seen:
            self.chooser.look(found, self._looked_ms)
        return found
