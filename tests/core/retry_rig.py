"""A machine whose ledger time a test moves."""

from __future__ import annotations

from p2psched.core.jobs import Job
from p2psched.core.levels import KNOWN_LEVEL
from p2psched.core.machine import Machine
from p2psched.model import chunks, items
from p2psched.model.actions import Elapsed
from p2psched.model.commands import (
    Command,
    Complete,
    Envelope,
    Event,
    Outcome,
    PeerInfo,
    PeerUp,
    Place,
    Placed,
    RaiseLevel,
    SubmitJob,
)
from p2psched.model.execution import Committed
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause, JobSpec, ProgramWork, Segment
from p2psched.model.retry import RetryPolicy, RetryRule, TimeLimits
from p2psched.model.retry_events import Alerted
from p2psched.model.taskset import TaskSet

P, Q, R = PeerId("p"), PeerId("q"), PeerId("r")
PEERS = (P, Q, R)


def info(peer: PeerId, slots: int = 4) -> PeerInfo:
    return PeerInfo(peer, 1, peer, f"{peer}:1", 1, slots, "0", "3.11", KNOWN_LEVEL)


def spec(
    count: int, *rules: RetryRule, retries: int = 0, times: TimeLimits | None = None
) -> JobSpec:
    return JobSpec(
        "job",
        TaskSet.of(0, count),
        ProgramWork(("true",)),
        retries=retries,
        retry=RetryPolicy(rules) if rules else None,
        times=times,
    )


class Ledger:
    def __init__(self, *, level: int = KNOWN_LEVEL, slots: int = 4, checks: bool = True) -> None:
        self.machine = Machine()
        self._checks = checks
        self.now_ms = 1_000
        self.events: list[Event] = []  # of all commands
        for peer in PEERS:
            self.do(PeerUp(info(peer, slots)))
        if level > 1:
            self.do(RaiseLevel(level))

    def do(self, command: Command) -> Outcome:
        index = self.machine.applied_index + 1
        batch = Committed(index, self.now_ms, self.now_ms, (Envelope(P, index, command),))
        (outcome,), events = self.machine.apply(batch)
        self.events += [stamped.event for stamped in events]
        for job in self.machine.jobs.values() if self._checks else ():
            job.check()
        return outcome

    def submit(self, wanted: JobSpec, name: str = "j") -> Job:
        self.do(SubmitJob(JobId(name), wanted))
        return self.machine.jobs[JobId(name)]

    def place(self, job: Job, peer: PeerId = P, tasks: TaskSet | None = None) -> Placed:
        wanted = job.spec.tasks if tasks is None else tasks
        outcome = self.do(Place(job.id, wanted, peer, 1))
        assert isinstance(outcome, Placed)
        return outcome

    def end(self, job: Job, placed: Placed, cause: Cause) -> None:
        """All that was placed there."""
        item = items.pack({"message": "over"})
        segments = tuple(
            Segment(start, stop, cause, chunks.pack([item] * (stop - start)))
            for start, stop in placed.tasks.ranges
        )
        self.do(Complete(job.id, placed.grant, segments))

    def run(self, job: Job, cause: Cause, peer: PeerId = P) -> TaskSet:
        """Whatever may be placed runs there and ends so. What it was."""
        placed = self.place(job, peer)
        if placed.tasks:
            self.end(job, placed, cause)
        return placed.tasks

    def wait(self, duration_ms: int) -> None:
        """Time passes, and what is due is said."""
        self.now_ms += duration_ms
        self.do(Elapsed(self.now_ms))

    @property
    def alerts(self) -> list[tuple[str, str]]:
        return [(e.cause.value, e.severity) for e in self.events if isinstance(e, Alerted)]
