"""A second, naive reading of the ledger: one dictionary entry a task, no sets, no shortcuts.

The referees compare what a peer's machine says (granted, recorded, retried, ended) with what this
one says of the same committed commands. It is written from the meaning of the commands and shares
no code with the machine.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from p2psched.model.actions import Elapsed
from p2psched.model.backing import BackUp
from p2psched.model.commands import (
    Cancel,
    Command,
    Complete,
    Drain,
    DrainMode,
    Forget,
    ForgetPeer,
    GiveBack,
    Held,
    NewGeneration,
    PeerDown,
    PeerUp,
    Pin,
    Place,
    RaiseLevel,
    Retry,
    SubmitJob,
)
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause, JobSpec, Segment
from p2psched.model.moves import Transfer
from p2psched.model.needs import Offer, Offers
from p2psched.model.once import Once
from p2psched.model.pace_commands import Warn
from p2psched.testing import (
    shadow_after,
    shadow_backups,
    shadow_keeping,
    shadow_moving,
    shadow_needs,
    shadow_once,
    shadow_peers,
    shadow_retries,
)
from p2psched.testing.facts import Fact
from p2psched.testing.shadow_job import ENDED, WAITING, Away, BlobName, ShadowJob
from p2psched.testing.shadow_turns import Turns

SUSPECT: Final = 2  # deaths
SPACELESS: Final = 12
LATER: Final = 2  # the level that knows of what came later
FORGETS: Final = 3  # and of removed peers that are forgotten
HOLDS: Final = 4  # and of tasks that hold locks
_FINAL_CAUSES: Final = frozenset({Cause.NOT_SERIALISABLE, Cause.TOO_LARGE})

ACTS_ONCE: Final = (
    Place | Cancel | Forget | Pin | Retry | Held | Drain | GiveBack | Transfer | Once | BackUp
)  # whoever proposes it again


class Shadow:
    """Fold commands in ledger order; `facts` are those of the last command."""

    def __init__(self) -> None:
        self.jobs: dict[JobId, ShadowJob] = {}
        self.holders: dict[int, tuple[PeerId, int]] = {}  # grant -> peer, incarnation
        self.granted_tasks: dict[int, tuple[JobId, frozenset[int]]] = {}
        self.live: dict[PeerId, tuple[int, bool]] = {}  # newest incarnation, up?
        self.index = 0
        self.command = 0  # the index of the last one itself, which may have lifted it
        self.facts: list[Fact] = []
        self.cancelled_by: dict[JobId, int] = {}  # job -> the command that ended it
        self.forgotten: dict[JobId, None] = {}  # for the length of a simulation: for ever
        self.replaced: list[tuple[JobId, BlobName, bytes]] = []  # large results that were voided
        self.stamp_ms = 0
        self.generation = 1
        self.generation_ms = 0
        self.counts: Counter[str] = Counter()  # of facts, by what they say
        self.moves: dict[int, int] = {}  # grant -> how often its tasks had moved
        self.stays: set[int] = set()  # grants that began as backups
        self.suspicious: set[int] = set()  # grants of suspects
        self.away: dict[PeerId, Away] = {}  # peers that are down
        self.blamed: dict[JobId, None] = {}  # jobs with tasks whose owners died alone with them
        self.level = 1
        self.levels: dict[PeerId, int] = {}  # that each peer knows
        self.drains: dict[PeerId, DrainMode] = {}
        self.gone: set[PeerId] = set()  # for the length of a simulation: for ever
        self.offers: dict[PeerId, Offers] = {}
        self.slots: dict[PeerId, int] = {}
        self.has_apart = False  # some job was apart from another
        self._refused: set[tuple[PeerId, int] | None] = set()
        self._turns = Turns(self.jobs)
        self._taken: set[tuple[PeerId, int]] = set()  # of `ACTS_ONCE`, applied before

    def apply(
        self,
        command: Command,
        proposal: tuple[PeerId, int] | None = None,
        *,
        stamp_ms: int = 0,
    ) -> list[Fact]:
        """`proposal`: who proposed it under which number; a repeat changes nothing."""
        self.index += 1
        self.command = self.index
        self.stamp_ms = max(self.stamp_ms, stamp_ms)
        self.facts = []
        if proposal is not None and isinstance(command, ACTS_ONCE):
            if proposal in self._taken:
                return []
            self._taken.add(proposal)
        if isinstance(command, Transfer):
            shadow_moving.transfer(self, command, proposal)
        elif isinstance(command, Once):
            shadow_once.apply(self, command)
        elif isinstance(command, BackUp):
            shadow_backups.back_up(self, command)
        else:
            self._apply(command, proposal)
        shadow_after.settle(self, [JobId(fact[1]) for fact in self.facts if fact[0] == "ended"])
        self._turns.settle()
        return sorted(self.facts)

    def _submit(self, command: SubmitJob, proposal: tuple[PeerId, int] | None) -> None:
        job, spec = command.job, command.spec
        if job in self.jobs or job in self.forgotten or proposal in self._refused:
            return
        if not self._accepts(spec):
            if shadow_needs.is_choosy(spec) or spec.after is not None:
                self._refused.add(proposal)
            return
        self.has_apart |= spec.needs is not None and bool(spec.needs.apart)
        self.jobs[job] = ShadowJob(spec)
        shadow_retries.begin(self, self.jobs[job])
        self._turns.add(job, self.jobs[job])
        self.say("added", job)
        shadow_once.begin(self, job, self.jobs[job])
        shadow_after.begin(self, job, self.jobs[job])

    def _apply(self, command: Command, proposal: tuple[PeerId, int] | None) -> None:
        match command:
            case SubmitJob():
                self._submit(command, proposal)
            case Place():
                self._place(command)
            case Complete():
                self._complete(command)
            case PeerUp():
                shadow_peers.peer_up(self, command)
            case Offer():
                shadow_needs.offer(self, command)
            case PeerDown(peer=peer, incarnation=incarnation):
                if self.live.get(peer) == (incarnation, True):
                    shadow_peers.peer_down(self, command)
            case Cancel() | Forget() | Pin() | Retry() | Held() | NewGeneration():
                self._keep(command)
            case Drain() | GiveBack() | RaiseLevel() | ForgetPeer() | Elapsed() | Warn():
                self._on_later(command)

    def _accepts(self, spec: JobSpec) -> bool:
        if not shadow_after.accepts(self, spec):
            return False
        if shadow_backups.is_wanted(spec) and self.level < shadow_backups.LEVEL:
            return False
        if shadow_needs.is_choosy(spec):
            return self.level >= shadow_needs.LEVEL and shadow_needs.accepts(self, spec)
        if spec.start and self.level < shadow_once.level_of(spec.start):
            return False
        if spec.checkpoint and self.level < shadow_retries.RULES:
            return False
        if spec.retry is not None or spec.times is not None or spec.pace is not None:
            return self.level >= shadow_retries.RULES
        return spec.hold is None or self.level >= HOLDS

    def _on_later(
        self, command: Drain | GiveBack | RaiseLevel | ForgetPeer | Elapsed | Warn
    ) -> None:
        """What not all versions know: nothing before it is in use."""
        match command:
            case RaiseLevel(level=level, gone=gone):
                down = {peer for peer in gone if not self.live.get(peer, (0, True))[1]}
                if all(known >= level for peer, known in self.levels.items() if peer not in down):
                    self.level = max(self.level, level)
            case Drain() | GiveBack():
                if self.level >= LATER:
                    shadow_keeping.drain(self, command)
            case ForgetPeer(peer=peer):
                if self.level >= FORGETS and peer in self.live:
                    shadow_keeping.forget_peer(self, peer)
            case Elapsed(upto_ms=upto_ms):
                if self.level >= HOLDS:
                    shadow_retries.elapse(self, upto_ms)
            case Warn():
                shadow_retries.warn(self, command)

    def _keep(self, command: Cancel | Forget | Pin | Retry | Held | NewGeneration) -> None:
        if isinstance(command, NewGeneration):
            shadow_keeping.begin_generation(self, command)
            return
        job = self.jobs.get(command.job)
        if job is None:
            return
        match command:
            case Cancel():
                self._cancel(command.job)
            case Forget():
                shadow_keeping.forget(self, job, command)
            case Pin(pinned=pinned):
                job.pinned = pinned
            case Retry():
                shadow_keeping.retry(self, job, command)
            case Held():
                shadow_keeping.held(self, job, command)

    def owned_by(self, peer: PeerId) -> list[tuple[JobId, int]]:
        """The tasks that `peer` owns, under whatever incarnation."""
        return [
            (name, index)
            for name, job in self.jobs.items()
            if job.state == "running"
            for index, grant in job.owner.items()
            if grant > 0 and self.holders[grant][0] == peer
        ]

    def runs_on(self, peer: PeerId) -> list[tuple[JobId, int]]:
        """What it owns or backs up."""
        backups = shadow_backups.copies_on(self, peer)
        return [*self.owned_by(peer), *((name, index) for name, index, _ in backups)]

    def holds_suspects(self, peer: PeerId) -> bool:
        owned = self.owned_by(peer)
        return any(self.jobs[name].owner[index] in self.suspicious for name, index in owned)

    def say(self, what: str, job: JobId, task: int = -1, detail: object = "") -> None:
        self.facts.append((what, job, task, str(detail)))
        self.counts[what] += 1

    def is_live(self, grant: int) -> bool:
        peer, incarnation = self.holders[grant]
        return self.live.get(peer) == (incarnation, True)

    def _place(self, command: Place) -> None:
        job, grant = self.jobs.get(command.job), self.index
        if job is None or self.live.get(command.peer) != (command.incarnation, True):
            return
        if self.drains.get(command.peer, DrainMode.OFF) is not DrainMode.OFF:
            return
        free = [index for index in command.tasks if self._is_free(job, index)]
        free = shadow_needs.may_own(self, command.job, command.peer, free)
        for index in free:
            owner = job.owner[index]
            if owner > 0:
                shadow_peers.lose(
                    self, command.job, index, died=not self.away[self.holders[owner][0]].stopped
                )
        self.end_if_done(command.job, job)
        taken = [index for index in free if job.owner.get(index, ENDED) == WAITING]
        others = [index for index in taken if job.deaths[index] < SUSPECT]
        if self.holds_suspects(command.peer):
            return  # a suspect is there, and alone
        if others or self.runs_on(command.peer):
            taken = others
        taken = self._turns.may_start(command.job, job, taken)
        if not taken:
            return
        self._turns.start(command.job, job, grant, taken)
        self.holders[grant] = (command.peer, command.incarnation)
        self.granted_tasks[grant] = (command.job, frozenset(taken))
        job.tried.update(taken)
        job.thinned.difference_update(taken)
        if any(job.deaths[index] >= SUSPECT for index in taken):
            self.suspicious.add(grant)
        for index in taken:
            job.owner[index] = grant
            self.say("granted", command.job, index, grant)

    def _is_free(self, job: ShadowJob, index: int) -> bool:
        owner = job.owner.get(index, ENDED)
        if owner == WAITING:
            return index not in job.due and not job.open
        return owner > 0 and not self.is_live(owner)

    def _complete(self, command: Complete) -> None:
        job = self.jobs.get(command.job)
        if job is None:
            return
        shadow_once.heard(self, command)
        said = job.said.setdefault(command.grant, set())
        refused: set[int] = set()
        for segment in command.segments:
            fresh: set[int] = set()  # a duplicate is what was said before this segment
            for index in segment.tasks:
                if shadow_backups.end(self, command, job, index, segment):
                    fresh.add(index)
                elif job.owner.get(index, ENDED) == command.grant:
                    fresh.add(index)
                    self._end_attempt(command, job, index, segment)
                elif index not in said:
                    refused.add(index)
            said |= fresh
        for index in sorted(refused):
            self.say("refused", command.job, index, command.grant)
        if job.fatal and job.state == "running":
            shadow_retries.stop(self, command.job, job)
        self.end_if_done(command.job, job)

    def _end_attempt(self, command: Complete, job: ShadowJob, index: int, segment: Segment) -> None:
        cause = segment.cause
        self.counts["stalled"] += cause is Cause.STALLED
        rule = shadow_retries.rule_of(job, cause)
        if rule is not None:
            task = command.job, index
            if not shadow_retries.end_attempt(self, task, command.grant, rule):
                return
            self._end_task(command, job, index, segment)
            return
        ends, most = job.failures, job.spec.retries
        if cause is Cause.NO_SPACE:
            ends, most = job.spaceless, most if job.spec.start else SPACELESS
        if cause is not Cause.OK and cause not in _FINAL_CAUSES and ends[index] < most:
            ends[index] += 1
            self.counts["spaceless"] += cause is Cause.NO_SPACE
            job.owner[index] = WAITING
            self.say("retried", command.job, index, command.grant)
            return
        self._end_task(command, job, index, segment)

    def _end_task(self, command: Complete, job: ShadowJob, index: int, segment: Segment) -> None:
        cause = segment.cause
        self.counts["timed out"] += cause is Cause.TIMEOUT
        job.causes[index] = cause
        job.owner[index] = ENDED
        job.left -= 1
        self.say("recorded", command.job, index, f"{command.grant} {cause}")
        if cause is not Cause.OK:
            return
        for blob in segment.blobs:
            if blob.index == index:
                job.blobs[index, blob.name] = blob.ref.digest, set(blob.holders)
                self.counts["large"] += 1
        if index in job.lost:
            self.say("lost", command.job, index)

    def end_if_done(self, name: JobId, job: ShadowJob) -> None:
        if not job.left and job.state == "running":
            is_bad = job.failed or job.given_up
            job.state, job.ended_ms = "failed" if is_bad else "succeeded", self.stamp_ms
            self.say("ended", name, -1, job.state)

    def _cancel(self, name: JobId) -> None:
        job = self.jobs.get(name)
        if job is None or job.state != "running":
            return
        self.cancelled_by[name] = self.index
        shadow_retries.stop(self, name, job, "cancelled")

    def out_of_reach(self, job: ShadowJob) -> set[int]:
        """Tasks with a large result that no peer has which is up."""
        return {
            index
            for (index, _), (_, holders) in job.blobs.items()
            if not any(self.live.get(peer, (0, False))[1] for peer in holders)
        }
