"""A ledger, a coordinator and peers with what they have, for jobs that choose their peers."""

from __future__ import annotations

from collections.abc import Mapping

from p2psched.core.coordinator import Coordinator
from p2psched.core.jobs import Job
from p2psched.core.levels import KNOWN_LEVEL
from p2psched.core.machine import Machine
from p2psched.core.policies.base import Policy
from p2psched.core.policies.registry import POLICIES
from p2psched.model import chunks
from p2psched.model.commands import (
    Command,
    Complete,
    Envelope,
    KeptGrant,
    Outcome,
    PeerDown,
    PeerInfo,
    PeerUp,
    Place,
    RaiseLevel,
    Stamped,
    SubmitJob,
)
from p2psched.model.execution import Committed
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause, JobSpec, ProgramWork, Segment
from p2psched.model.needs import Needs, Offer, Offers
from p2psched.model.taskset import TaskSet

A, B, C = (PeerId(letter * 32) for letter in "abc")
WINDOW_MS = 2_500


def job_id(number: int) -> JobId:
    return JobId(f"{number:032x}")


def spec(
    count: int = 1, needs: Needs | None = None, *, policy: str = "", cpus: int = 1, argv: str = "x"
) -> JobSpec:
    work = ProgramWork((argv,))
    return JobSpec("job", TaskSet.of(0, count), work, cpus=cpus, policy=policy, needs=needs)


class Cluster:
    """`offers`: each peer and what it has."""

    def __init__(
        self,
        offers: Mapping[PeerId, Offers],
        *,
        slots: int = 4,
        level: int = KNOWN_LEVEL,
        policies: Mapping[str, Policy] = POLICIES,
    ) -> None:
        self.machine = Machine()
        self.offers = dict(offers)
        self.slots = slots
        self.now_ms = 10_000
        self.incarnations = dict.fromkeys(offers, 1)
        self.stamped: list[Stamped] = []  # all events
        for peer in offers:
            self.do(PeerUp(self.info(peer)))
        if level > 1:
            self.do(RaiseLevel(level))
        for peer in offers:
            self.offer(peer)
        self.coordinator = Coordinator(
            min(offers), self.machine, window_ms=WINDOW_MS, policies=policies
        )
        self.coordinator.on_coordinator(self.now_ms, is_self=True)

    def info(self, peer: PeerId) -> PeerInfo:
        number = self.incarnations[peer]
        return PeerInfo(
            peer, number, f"peer-{peer[0]}", "h:1", 1, self.slots, "0", "3", KNOWN_LEVEL
        )

    def do(self, command: Command, *, request: int | None = None) -> Outcome:
        index = self.machine.applied_index + 1
        envelope = Envelope(A, index if request is None else request, command)
        batch = Committed(index, self.now_ms, self.now_ms, (envelope,))
        (outcome,), events = self.machine.apply(batch)
        self.stamped += events
        self.check()
        return outcome

    def offer(self, peer: PeerId) -> Outcome:
        return self.do(Offer(peer, self.incarnations[peer], self.offers[peer]))

    def submit(self, number: int, wanted: JobSpec) -> Outcome:
        return self.do(SubmitJob(job_id(number), wanted))

    def job(self, number: int) -> Job:
        return self.machine.jobs[job_id(number)]

    def place(self) -> list[Place]:
        """One round of the coordinator, committed."""
        places = [c for c in self.coordinator.place() if isinstance(c, Place)]
        for command in places:
            self.do(command)
        return places

    def end(self, job: Job, tasks: TaskSet | None = None, busy_us: int = 1_000) -> None:
        """What is owned of it succeeds."""
        for held in list(job.grants.values()):
            for start, stop in (held.tasks if tasks is None else held.tasks & tasks).ranges:
                data = chunks.pack([b"x"] * (stop - start))
                busy = busy_us * (stop - start)
                segment = Segment(start, stop, Cause.OK, data, busy)
                self.do(Complete(job.id, held.grant, (segment,)))

    def lose(self, peer: PeerId) -> None:
        self.do(PeerDown(peer, self.incarnations[peer], "gone"))

    def restart(self, peer: PeerId) -> None:
        """A new process, which has not said what it has."""
        self.incarnations[peer] += 1
        self.do(PeerUp(self.info(peer)))

    def go_on(self, peer: PeerId) -> None:
        """It was cut off, and the same process is back with all that it owns."""
        kept = tuple(
            KeptGrant(job.id, held.grant, held.tasks)
            for job in self.machine.jobs.values()
            for held in job.grants.values()
            if held.peer == peer
        )
        before = self.incarnations[peer]
        self.incarnations[peer] += 1
        self.do(PeerUp(self.info(peer), kept, continues=before))

    def owned(self, peer: PeerId) -> int:
        return self.machine.peers[peer].owned

    def check(self) -> None:
        """What needs GPUs and memory never owns more of them than there are."""
        used: dict[PeerId, list[int]] = {peer: [0, 0] for peer in self.machine.peers}
        for job in self.machine.jobs.values():
            needs = job.spec.needs or Needs()
            job.check()
            for held in (*job.grants.values(), *job.backups.values()):
                used[held.peer][0] += len(held.tasks) * needs.gpus
                used[held.peer][1] += len(held.tasks) * needs.memory_mib
        for peer, row in self.machine.peers.items():
            assert [row.gpus, row.memory_mib] == used[peer]
