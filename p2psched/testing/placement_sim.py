"""Placement alone, in virtual time: thousands of tasks a second.

The ledger's fold and the coordinator are the real ones. What is made simple: an entry commits some
milliseconds after it was proposed, peers run what they own first come first served, nobody fails,
and nobody steals, so that a policy is seen as it is. What gossip says is as old as it is told.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Final

from p2psched.core.coordinator import DETECTION_WINDOW_MS, Coordinator
from p2psched.core.kinds import blob_key, kind_of
from p2psched.core.levels import KNOWN_LEVEL
from p2psched.core.machine import Machine as Fold
from p2psched.core.policies.base import Policy
from p2psched.core.policies.registry import POLICIES
from p2psched.model import chunks
from p2psched.model.blob import BlobRef
from p2psched.model.commands import (
    Command,
    Complete,
    Envelope,
    Grant,
    Granted,
    PeerInfo,
    PeerUp,
    RaiseLevel,
    Stamped,
    SubmitJob,
)
from p2psched.model.execution import Committed
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause, JobSpec, ProgramWork, Segment, SentFile
from p2psched.model.limits import MIB
from p2psched.model.load import Liveness, LoadReport, Seen, TypeSpeed
from p2psched.model.needs import AVERAGE_WEIGHT, Needs, Offer, Offers
from p2psched.model.taskset import TaskSet
from p2psched.testing.workloads import Load, Machine, Workload

COMMIT_US: Final = 2_000  # from a proposal until it is applied
GOSSIP_US: Final = 500_000  # between two reports of a peer
RATE_BYTES_PER_US: Final = 100
NEWEST_COUNTS: Final = 0.25  # of the tasks of a kind that a peer has measured
_DATA: Final = chunks.pack([b""])


@dataclass(slots=True)
class Run:
    """What came of it."""

    workload: str
    policy: str
    makespan_us: int = 0
    ideal_us: int = 1
    waits_us: list[int] = field(default_factory=list)
    ran_on: list[tuple[str, int, int]] = field(default_factory=list)  # kind, machine, start in us
    queues: list[list[int]] = field(default_factory=list)  # tasks owned by each, at each report

    @property
    def over_ideal(self) -> float:
        return self.makespan_us / self.ideal_us

    @property
    def p95_wait_us(self) -> int:
        waits = sorted(self.waits_us)
        return waits[len(waits) * 95 // 100] if waits else 0


class PlacedPeer:
    def __init__(self, number: int, machine: Machine) -> None:
        self.number = number
        self.id = PeerId(f"{number:032x}")
        self.machine = machine
        self.queue: deque[tuple[JobId, Grant, int]] = deque()
        self.busy = 0
        self.ended: list[tuple[JobId, Grant, int, int]] = []
        self.is_telling = False
        self.means: dict[str, float] = {}
        self.spreads: dict[str, float] = {}
        self.counts: dict[str, int] = {}
        self.warm: set[int] = set()


class PlacementSim:
    """One workload under one policy. `views_us`: how old what gossip says is, at least."""

    def __init__(
        self,
        workload: Workload,
        policy: str,
        *,
        policies: Mapping[str, Policy] = POLICIES,
        views_us: int = GOSSIP_US,
    ) -> None:
        self.run_ = Run(workload.name, policy, ideal_us=workload.ideal_us)
        self._workload = workload
        self._policy = policy
        self._views_us = views_us
        self._now_us = 0
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._numbers = count()
        self._fold = Fold()
        self._peers = {
            peer.id: peer for peer in (PlacedPeer(n, m) for n, m in enumerate(workload.machines))
        }
        self._loads: dict[JobId, Load] = {}
        self._left = sum(len(load.tasks_us) for load in workload.loads)
        self._places = 0  # in flight
        self._index = count(1)
        for peer in self._peers.values():
            self._apply(PeerUp(self._info(peer)))
        self._apply(RaiseLevel(KNOWN_LEVEL))
        for peer in self._peers.values():
            machine = peer.machine
            weight = round(machine.weight * AVERAGE_WEIGHT)
            offers = Offers(memory_mib=machine.memory_mib, weight=weight)
            self._apply(Offer(peer.id, 1, offers))
        first = next(iter(self._peers))
        self._coordinator = Coordinator(
            first, self._fold, window_ms=DETECTION_WINDOW_MS, policies=policies
        )
        self._coordinator.on_coordinator(0, is_self=True)

    def run(self) -> Run:
        for number, load in enumerate(self._workload.loads):
            self._after(load.at_us, self._submitter(JobId(f"{number:032x}"), load))
        self._after(0, self._gossip)
        while self._left:
            self._now_us, _, act = heapq.heappop(self._events)
            act()
        return self.run_

    # --- time and ledger ---

    def _after(self, delay_us: int, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self._now_us + delay_us, next(self._numbers), act))

    def _apply(self, *commands: Command) -> None:
        index = next(self._index)
        envelopes = tuple(
            Envelope(PeerId(""), 1_000 * index + n, c) for n, c in enumerate(commands)
        )
        now_ms = self._now_us // 1_000
        _, events = self._fold.apply(Committed(index, now_ms, now_ms, envelopes))
        if hasattr(self, "_coordinator"):
            self._coordinator.measure(events)
        self._on_events(events)

    def _on_events(self, events: list[Stamped]) -> None:
        for stamped in events:
            event = stamped.event
            if isinstance(event, Granted):
                peer = self._peers[event.peer]
                peer.queue += [(event.job, event.grant, task) for task in event.tasks]
                self._start(peer)

    def _commit(self, *commands: Command) -> None:
        """An entry, now; then another round of placements."""
        self._apply(*commands)
        if self._places:
            return
        for peer in self._peers.values():
            if not peer.queue:
                self._coordinator.on_pull(peer.id)
        places = self._coordinator.place()
        if places:
            self._places = 1
            self._after(COMMIT_US, lambda: self._placed(places))

    def _placed(self, places: list[Command]) -> None:
        self._places = 0
        self._commit(*places)

    def _info(self, peer: PlacedPeer) -> PeerInfo:
        name, slots = f"peer-{peer.number}", peer.machine.slots
        return PeerInfo(peer.id, 1, name, "", 0, slots, "0", "3.11", KNOWN_LEVEL)

    # --- jobs ---

    def _submitter(self, job: JobId, load: Load) -> Callable[[], None]:
        needs = Needs(memory_mib=load.memory_mib) if load.memory_mib else None
        files: tuple[SentFile, ...] = ()
        if load.data_mib:
            digest = load.kind.encode().ljust(32, b".")
            files = (SentFile("data", 0o644, BlobRef(digest, load.data_mib * MIB)),)
        spec = JobSpec(
            name=load.kind,
            tasks=TaskSet.of(0, len(load.tasks_us)),
            work=ProgramWork((load.kind,), files=files),
            cpus=load.cpus,
            policy="" if self._policy == "adaptive" else self._policy,
            needs=needs,
        )
        self._loads[job] = load
        spec = self._with_options(spec)

        def submit() -> None:
            command = SubmitJob(job, spec)
            first = self._coordinator.first_placements([Envelope(PeerId(""), 0, command)])
            self._after(COMMIT_US, lambda: self._commit(command, *first))

        return submit

    def _with_options(self, spec: JobSpec) -> JobSpec:
        return spec

    def _start(self, peer: PlacedPeer) -> None:
        while peer.queue:
            job, grant, task = peer.queue[0]
            load = self._loads[job]
            if peer.busy + load.cpus > peer.machine.slots:
                return
            peer.queue.popleft()
            peer.busy += load.cpus
            self.run_.waits_us.append(self._now_us - load.at_us)
            self.run_.ran_on.append((load.kind, peer.number, self._now_us))
            took_us = self._duration(peer, job, load, task)
            self._begin(peer, (job, grant, task), took_us)

    def _begin(self, peer: PlacedPeer, what: tuple[JobId, Grant, int], took_us: int) -> None:
        self._after(took_us, self._ender(peer, *what, took_us))

    def _duration(self, peer: PlacedPeer, job: JobId, load: Load, task: int) -> int:
        machine, now_us = peer.machine, self._now_us
        power = machine.power_of(load.kind) * (1 - machine.foreign_at(now_us))
        took_us = round(load.tasks_us[task] / power) + machine.extra_at(now_us)
        for ref in self._fold.jobs[job].spec.blobs:
            if blob_key(ref) not in peer.warm:
                peer.warm.add(blob_key(ref))
                took_us += ref.size // RATE_BYTES_PER_US
        return max(1, took_us)

    def _ender(
        self, peer: PlacedPeer, job: JobId, grant: Grant, task: int, took_us: int
    ) -> Callable[[], None]:
        return lambda: self._end(peer, job, grant, task, took_us)

    def _end(self, peer: PlacedPeer, job: JobId, grant: Grant, task: int, took_us: int) -> None:
        load = self._loads[job]
        peer.busy -= load.cpus
        peer.ended.append((job, grant, task, took_us))
        self._measure(peer, load, took_us)
        self._count_end()
        self._start(peer)
        self._tell(peer)

    @staticmethod
    def _measure(peer: PlacedPeer, load: Load, took_us: int) -> None:
        known = peer.means.get(load.kind, float(took_us))
        peer.means[load.kind] = known + NEWEST_COUNTS * (took_us - known)
        spread = peer.spreads.get(load.kind, 0.0)
        peer.spreads[load.kind] = spread + NEWEST_COUNTS * (abs(took_us - known) - spread)
        peer.counts[load.kind] = peer.counts.get(load.kind, 0) + 1

    def _count_end(self) -> None:
        self._left -= 1
        self.run_.makespan_us = self._now_us

    def _tell(self, peer: PlacedPeer) -> None:
        """Results, one round in flight at a time."""
        if peer.is_telling or not peer.ended:
            return
        peer.is_telling = True
        ended, peer.ended = peer.ended, []
        told = [
            Complete(job, grant, (Segment(task, task + 1, Cause.OK, _DATA, took_us),))
            for job, grant, task, took_us in ended
        ]

        def committed() -> None:
            peer.is_telling = False
            self._commit(*told)
            self._tell(peer)

        self._after(COMMIT_US, committed)

    # --- gossip ---

    def _gossip(self) -> None:
        seen = {peer.id: self._report(peer) for peer in self._peers.values()}
        self.run_.queues.append([self._fold.peers[peer].owned for peer in self._peers])
        self._after(self._views_us, lambda: self._coordinator.on_seen(seen))
        now_ms = self._now_us // 1_000
        self._coordinator.find_dead(now_ms, dict.fromkeys(self._peers, now_ms))
        self._after(GOSSIP_US, self._gossip)

    def _report(self, peer: PlacedPeer) -> Seen:
        speeds = tuple(
            TypeSpeed(
                kind_of(ProgramWork((kind,))),
                max(1, round(mean)),
                round(peer.spreads[kind]),
                peer.counts[kind],
            )
            for kind, mean in peer.means.items()
        )
        now_us, slots = self._now_us, peer.machine.slots
        report = LoadReport(
            number=now_us // GOSSIP_US + 1,
            slots=slots,
            running=peer.busy,
            queue=len(peer.queue),
            cores=slots,
            foreign_cpu=round(peer.machine.foreign_at(now_us) * 1_000),
            speeds=speeds,
            warm=tuple(sorted(peer.warm)),
        )
        return Seen(peer.id, 1, Liveness.ALIVE, now_us // 1_000, report)


def simulate(
    workload: Workload,
    policy: str,
    policies: Mapping[str, Policy] = POLICIES,
    *,
    views_us: int = GOSSIP_US,
) -> Run:
    return PlacementSim(workload, policy, policies=policies, views_us=views_us).run()
