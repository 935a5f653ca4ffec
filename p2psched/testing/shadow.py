"""A second, naive reading of the ledger: one dictionary entry a task, no sets, no shortcuts.

The referees compare what a peer's machine says (granted, recorded, retried, ended) with what this
one says of the same committed commands. It is written from the meaning of the commands and shares
no code with the machine.
"""

from __future__ import annotations

from typing import Final

from p2psched.model.commands import (
    Cancel,
    Command,
    Complete,
    Granted,
    JobAdded,
    JobEnded,
    PeerDown,
    PeerUp,
    Place,
    Recorded,
    ResultRefused,
    Retried,
    Revoked,
    Stamped,
    SubmitJob,
)
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause, JobSpec

WAITING: Final = 0  # grants are 1 and more
ENDED: Final = -1
_FINAL_CAUSES: Final = frozenset({Cause.NOT_SERIALISABLE, Cause.TOO_LARGE})

Fact = tuple[str, str, int, str]  # what, job, task (-1: the job), grant or cause


class ShadowJob:
    """`owner`: task -> grant, `WAITING` or `ENDED`."""

    def __init__(self, spec: JobSpec) -> None:
        self.spec = spec
        self.owner: dict[int, int] = dict.fromkeys(spec.tasks, WAITING)
        self.left = len(self.owner)
        self.failures: dict[int, int] = {}
        self.failed = False
        self.state = "running"
        self.said: dict[int, set[int]] = {}  # grant -> tasks that it had its say about


class Shadow:
    """Fold commands in ledger order; `facts` are those of the last command."""

    def __init__(self) -> None:
        self.jobs: dict[JobId, ShadowJob] = {}
        self.holders: dict[int, tuple[PeerId, int]] = {}  # grant -> peer, incarnation
        self.granted_tasks: dict[int, tuple[JobId, frozenset[int]]] = {}
        self.live: dict[PeerId, tuple[int, bool]] = {}  # newest incarnation, up?
        self.index = 0
        self.facts: list[Fact] = []
        self.cancelled_by: dict[JobId, int] = {}  # job -> the command that ended it
        self._taken: set[tuple[PeerId, int]] = set()  # placements and cancels applied before

    def apply(self, command: Command, proposal: tuple[PeerId, int] | None = None) -> list[Fact]:
        """`proposal`: who proposed it under which number; a repeat changes nothing."""
        self.index += 1
        self.facts = []
        if proposal is not None and isinstance(command, Place | Cancel):
            if proposal in self._taken:
                return []
            self._taken.add(proposal)
        self._apply(command)
        return sorted(self.facts)

    def _apply(self, command: Command) -> None:
        match command:
            case SubmitJob(job=job, spec=spec):
                if job not in self.jobs:
                    self.jobs[job] = ShadowJob(spec)
                    self._say("added", job)
            case Place():
                self._place(command)
            case Complete():
                self._complete(command)
            case PeerUp():
                self._peer_up(command)
            case PeerDown(peer=peer, incarnation=incarnation):
                if self.live.get(peer) == (incarnation, True):
                    self.live[peer] = (incarnation, False)
            case Cancel(job=job):
                self._cancel(job)

    def owned_by(self, peer: PeerId) -> list[tuple[JobId, int]]:
        """The tasks that `peer` owns, under whatever incarnation."""
        return [
            (name, index)
            for name, job in self.jobs.items()
            if job.state == "running"
            for index, grant in job.owner.items()
            if grant > 0 and self.holders[grant][0] == peer
        ]

    def _say(self, what: str, job: JobId, task: int = -1, detail: object = "") -> None:
        self.facts.append((what, job, task, str(detail)))

    def _is_live(self, grant: int) -> bool:
        peer, incarnation = self.holders[grant]
        return self.live.get(peer) == (incarnation, True)

    def _place(self, command: Place) -> None:
        job, grant = self.jobs.get(command.job), self.index
        if job is None or self.live.get(command.peer) != (command.incarnation, True):
            return
        taken = []
        for index in command.tasks:
            owner = job.owner.get(index, ENDED)
            if owner == WAITING or (owner > 0 and not self._is_live(owner)):
                if owner > 0:
                    self._say("revoked", command.job, index, owner)
                taken.append(index)
        if not taken:
            return
        self.holders[grant] = (command.peer, command.incarnation)
        self.granted_tasks[grant] = (command.job, frozenset(taken))
        for index in taken:
            job.owner[index] = grant
            self._say("granted", command.job, index, grant)

    def _complete(self, command: Complete) -> None:
        job = self.jobs.get(command.job)
        if job is None:
            return
        said = job.said.setdefault(command.grant, set())
        refused: set[int] = set()
        for segment in command.segments:
            fresh: set[int] = set()  # a duplicate is what was said before this segment
            for index in segment.tasks:
                if job.owner.get(index, ENDED) == command.grant:
                    fresh.add(index)
                    self._end_attempt(command, job, index, segment.cause)
                elif index not in said:
                    refused.add(index)
            said |= fresh
        for index in sorted(refused):
            self._say("refused", command.job, index, command.grant)
        self._end_if_done(command.job, job)

    def _end_attempt(self, command: Complete, job: ShadowJob, index: int, cause: Cause) -> None:
        failures = job.failures.get(index, 0)
        if cause is not Cause.OK and cause not in _FINAL_CAUSES and failures < job.spec.retries:
            job.failures[index] = failures + 1
            job.owner[index] = WAITING
            self._say("retried", command.job, index, command.grant)
            return
        job.failed = job.failed or cause is not Cause.OK
        job.owner[index] = ENDED
        job.left -= 1
        self._say("recorded", command.job, index, f"{command.grant} {cause}")

    def _end_if_done(self, name: JobId, job: ShadowJob) -> None:
        if not job.left and job.state == "running":
            job.state = "failed" if job.failed else "succeeded"
            self._say("ended", name, -1, job.state)

    def _peer_up(self, command: PeerUp) -> None:
        peer, incarnation = command.info.peer, command.info.incarnation
        known = self.live.get(peer)
        if known is not None and incarnation <= known[0]:
            return
        self.live[peer] = (incarnation, True)
        kept = {(k.job, k.grant, index) for k in command.kept for index in k.tasks}
        for name, index in self.owned_by(peer):
            grant = self.jobs[name].owner[index]
            if (name, grant, index) not in kept:
                self.jobs[name].owner[index] = WAITING
                self._say("revoked", name, index, grant)
        for grant, (holder, _) in self.holders.items():
            if holder == peer:
                self.holders[grant] = (peer, incarnation)

    def _cancel(self, name: JobId) -> None:
        job = self.jobs.get(name)
        if job is None or job.state != "running":
            return
        for index, owner in job.owner.items():
            if owner > 0:
                self._say("revoked", name, index, owner)
            job.owner[index] = ENDED
        job.left, job.state = 0, "cancelled"
        self.cancelled_by[name] = self.index
        self._say("ended", name, -1, "cancelled")


def facts_of(events: list[Stamped]) -> list[Fact]:
    """What a machine said of one command, in the words of the shadow."""
    facts: list[Fact] = []
    for stamped in events:
        event = stamped.event
        match event:
            case JobAdded(job=job):
                facts.append(("added", job, -1, ""))
            case Granted(job=job, grant=grant):
                facts += [("granted", job, index, str(grant)) for index in event.tasks]
            case Revoked(job=job, grant=grant):
                facts += [("revoked", job, index, str(grant)) for index in event.tasks]
            case Recorded(job=job, grant=grant, segment=segment):
                detail = f"{grant} {segment.cause}"
                facts += [("recorded", job, index, detail) for index in segment.tasks]
            case Retried(job=job, grant=grant):
                facts += [("retried", job, index, str(grant)) for index in event.segment.tasks]
            case ResultRefused(job=job, grant=grant):
                facts += [("refused", job, index, str(grant)) for index in event.tasks]
            case JobEnded(job=job, state=state):
                facts.append(("ended", job, -1, str(state)))
            case _:
                pass
    return sorted(facts)
