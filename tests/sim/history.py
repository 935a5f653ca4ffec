"""Record what concurrent clients and peers asked of a simulated cluster, and what they learned.

Clients each wait for one answer at a time, at a peer that they leave when it doesn't answer. What
peers propose themselves (placements, results, comings and goings) is recorded where it is numbered
and where its outcome is learned. What is never answered happened at some time, or never: whether,
and by when at the latest, is asked of the ledger in the end, or the checker would have to try all.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final
from unittest.mock import patch

import msgspec

from p2psched.core.jobs import Job
from p2psched.core.replica import Outcomes, Replica
from p2psched.model.backing import BackUp
from p2psched.model.commands import (
    Cancel,
    Command,
    Complete,
    Envelope,
    Forget,
    Granted,
    Held,
    NewGeneration,
    Outcome,
    PeerDown,
    PeerUp,
    Pin,
    Place,
    Placed,
    RaiseLevel,
    Recorded,
    Rejected,
    Retry,
    SubmitJob,
)
from p2psched.model.execution import Committed
from p2psched.model.ids import JobId, PeerId, new_id
from p2psched.model.job import Cause
from p2psched.model.moves import Transfer
from p2psched.model.needs import Offer
from p2psched.model.pace_commands import Warn
from p2psched.model.reconciled import Reconciled
from p2psched.model.resumed import NoteResumed
from p2psched.model.taskset import EMPTY, TaskSet
from p2psched.testing.linearizable import History, Operation, Result, check
from p2psched.testing.sim import SimCluster
from p2psched.testing.sim_jobs import sim_job
from tests.sim.sequential import (
    CANCELLED,
    FAILED,
    SUCCEEDED,
    WAITING,
    Granting,
    JobModel,
    Look,
    Proposal,
    Proposed,
)

PATIENCE_MS: Final = 1_500  # of a client with a peer
PAUSE_MS_MAX: Final = 150  # of a client between two requests
JOBS_MAX: Final = 5
TASKS_MAX: Final = 5
NEVER: Final[Proposal] = (PeerId(""), -1)


def look_at(job: Job | None) -> Look | None:
    """What a read answers: the job's state, and of each task where it is."""
    if job is None:
        return None
    places = dict.fromkeys(job.spec.tasks, WAITING)
    for held in job.grants.values():
        places.update(dict.fromkeys(held.tasks, held.grant))
    for tasks, place in (
        (job.succeeded, SUCCEEDED),
        (job.failed, FAILED),
        (job.cancelled, CANCELLED),
    ):
        places.update(dict.fromkeys(tasks, place))
    return str(job.state), tuple(places.values())


class Recorder:
    """A history, and what the ledger first made of each proposal."""

    def __init__(self) -> None:
        self.history = History()
        self.grants: dict[Proposal, Granting] = {}
        self._suspicious = False
        self.killers: dict[Proposal, dict[JobId, TaskSet]] = {}  # failed for deaths of their peers
        self.unanswered = 0  # as found by `check`
        self._asked: dict[int, tuple[Command, Operation]] = {}  # by identity of the command
        self._proposals: dict[int, Proposal] = {}  # operation -> what the peers call it
        self._open: dict[Proposal, Operation] = {}
        self._applied: dict[Proposal, int] = {}  # when a peer first applied it

    def check(self) -> Result:
        """Once, when nothing can happen any more."""
        for op in list(self.history.operations):
            if op.answered is None:
                self.unanswered += 1
                op.answered = self._applied.get(self._proposals.get(op.number, NEVER))
                if op.answered is None:
                    self.history.void(op)
        return check(self.history.operations, JobModel(self.grants, self.killers))

    def ask(self, client: str, command: SubmitJob | Cancel) -> tuple[SubmitJob | Cancel, Operation]:
        """A client asks; the command to send, which is recognised when a peer proposes it."""
        op = self.history.call(client, Proposed(command.job, command))
        sent = msgspec.structs.replace(command)
        self._asked[id(sent)] = (sent, op)
        return sent, op

    def count(self, command: type[Command] | None) -> int:
        """How many operations of a kind were answered; None: reads."""
        kind = type(None) if command is None else command
        asked = [op.asked for op in self.history.operations if op.answered is not None]
        return sum(isinstance(a, Proposed) and isinstance(a.command, kind) for a in asked)

    # --- what peers propose themselves ---

    @contextmanager
    def watching_peers(self) -> Iterator[None]:
        number, apply = Replica.number, Replica.apply

        def on_number(replica: Replica, command: Command) -> Envelope:
            envelope = number(replica, command)
            self._on_proposed(envelope)
            return envelope

        def on_apply(replica: Replica, batch: Committed) -> Outcomes:
            before = replica.machine.command_index
            brought = apply(replica, batch)
            self._on_applied(replica, batch, before, brought)
            return brought

        with patch.object(Replica, "number", on_number), patch.object(Replica, "apply", on_apply):
            yield

    def _on_proposed(self, envelope: Envelope) -> None:
        command, proposal = envelope.command, (envelope.proposer, envelope.request)
        match command:
            case Place(job=job) | Transfer(job=job) | Complete(job=job):
                asked = Proposed(job, command, proposal)
            case PeerUp() | PeerDown():
                asked = Proposed(None, command, proposal)
            case SubmitJob() | Cancel():  # of a client, which recorded it
                _, op = self._asked[id(command)]
                self._proposals[op.number] = proposal
                return
            case RaiseLevel() | Offer() | Warn() | Reconciled() | NoteResumed():
                return  # what the others do doesn't depend on it
            case Forget() | Pin() | Retry() | Held() | NewGeneration() | BackUp():
                raise AssertionError("nobody asks for it in these histories")
        op = self.history.call(envelope.proposer[:4], asked)
        self._open[proposal] = op
        self._proposals[op.number] = proposal

    def _on_applied(
        self, replica: Replica, batch: Committed, before: int, brought: Outcomes
    ) -> None:
        outcomes = dict(brought.own)
        jobs = replica.machine.jobs.values()
        self._suspicious = self._suspicious or any(job.suspects for job in jobs)
        granted = {s.index: s.event.tasks for s in brought.events if isinstance(s.event, Granted)}
        for index, envelope in enumerate(batch.envelopes, start=before + 1):
            proposal = (envelope.proposer, envelope.request)
            outcome = outcomes.get(envelope.request)
            if isinstance(envelope.command, Place | Transfer) and proposal not in self.grants:
                tasks = granted.get(index, EMPTY)
                self.grants[proposal] = Granting(index, tasks, self._suspicious)
                if envelope.proposer == replica._me and outcome is None:
                    outcome = Placed(index, tasks)  # it rode with a submit
            for event in [s.event for s in brought.events if s.index == index]:
                if isinstance(event, Recorded) and event.segment.cause is Cause.PEER_LOST:
                    failed = self.killers.setdefault(proposal, {})
                    failed[event.job] = failed.get(event.job, EMPTY) | event.segment.tasks
            self._applied.setdefault(proposal, self.history.now + 1)  # before the next call
            if envelope.proposer == replica._me and outcome is not None:
                op = self._open.pop(proposal, None)
                if op is not None:
                    self.history.answer(op, outcome)


class Client:
    """Submits, submits again, cancels and looks; one request at a time."""

    def __init__(
        self, cluster: SimCluster, recorder: Recorder, jobs: list[SubmitJob], rng: random.Random
    ) -> None:
        self._cluster = cluster
        self._recorder = recorder
        self._history = recorder.history
        self._jobs = jobs  # shared by all clients, accepted or not
        self._rng = rng
        self._name = f"client {rng.randrange(1000)}"
        self._peer = rng.randrange(cluster.size)
        self._request = 0  # counts requests: what comes for an older one is too late
        self._stopped = False

    def stop(self) -> None:
        self._stopped = True

    def next(self) -> None:
        """One more request; the next one follows its answer, or the lack of one."""
        if self._stopped:
            return
        self._request += 1
        rng = self._rng
        draw = rng.random()
        if len(self._jobs) < JOBS_MAX and draw < 0.2:
            self._jobs.append(_draw_job(rng))
        if not self._jobs:
            self._later(rng.randrange(1, PAUSE_MS_MAX))
        elif draw < 0.3:
            self._call(rng.choice((self._jobs[-1], rng.choice(self._jobs))))
        elif draw < 0.4:
            self._call(Cancel(rng.choice(self._jobs).job))
        else:
            self._look(rng.choice(self._jobs[-2:]).job)

    def _call(self, command: SubmitJob | Cancel) -> None:
        sent, op = self._recorder.ask(self._name, command)

        def on_answered(outcome: Outcome) -> None:
            if isinstance(outcome, Rejected) and outcome.code == "unavailable":
                self._history.void(op)  # refused at the door
            else:
                self._history.answer(op, outcome)
            self._go_on(request)

        tag = self._cluster.callers.call(self._peer, sent, on_answered)
        request = self._request
        self._cluster.after(PATIENCE_MS, lambda: self._turn_away(request, tag))

    def _look(self, job: JobId) -> None:
        op = self._history.call(self._name, Proposed(job, None))
        machine = self._cluster.peers[self._peer].scheduler.machine
        request = self._request

        def on_read(index: int | None) -> None:
            if index is None:
                self._history.void(op)  # no quorum: it saw nothing
            elif op.answered is None:
                self._history.answer(op, look_at(machine.jobs.get(job)))
            self._go_on(request)

        self._cluster.read(self._peer, on_read)
        self._cluster.after(PATIENCE_MS, lambda: self._turn_away(request, None))

    def _turn_away(self, request: int, tag: int | None) -> None:
        """The peer didn't answer: ask another one from now on."""
        if request == self._request:
            if tag is not None:
                self._cluster.callers.give_up(tag)
            self._peer = self._rng.randrange(self._cluster.size)
            self._request += 1
            self._later(1)

    def _go_on(self, request: int) -> None:
        if request == self._request:
            self._request += 1
            self._later(self._rng.randrange(1, PAUSE_MS_MAX))

    def _later(self, delay_ms: int) -> None:
        self._cluster.after(delay_ms, self.next)


def _draw_job(rng: random.Random) -> SubmitJob:
    spec = sim_job(
        TaskSet.of(0, rng.randint(1, TASKS_MAX)),
        mean_us=rng.choice((5_000, 50_000, 400_000)),
        fail_permille=rng.choice((0, 300)),
        retries=rng.choice((0, 2)),
    )
    return SubmitJob(JobId(new_id(rng)), spec)


Stop = Callable[[], None]


def start_clients(cluster: SimCluster, recorder: Recorder, count: int, rng: random.Random) -> Stop:
    """Let `count` clients work on the same few jobs until the returned function is called."""
    jobs: list[SubmitJob] = []
    clients = [
        Client(cluster, recorder, jobs, random.Random(rng.getrandbits(64))) for _ in range(count)
    ]
    for client in clients:
        cluster.after(rng.randrange(100, 500), client.next)

    def stop() -> None:
        for client in clients:
            client.stop()

    return stop
