"""Peers that are drained: what the ledger grants, what comes back, and when nothing is left."""

from __future__ import annotations

from p2psched.core.copies import lacking, staying_peers
from p2psched.core.drain import standing
from p2psched.core.levels import CORDON_LEVEL, KNOWN_LEVEL
from p2psched.core.machine import Machine
from p2psched.core.owner import StartBatch
from p2psched.core.scheduler import (
    AppendToLedger,
    Applied,
    Clocked,
    CoordinatorChanged,
    Restored,
    Round,
    Scheduler,
    SchedulerEffect,
    YieldLead,
)
from p2psched.core.snapshot import encode_machine, restore_machine
from p2psched.model import chunks
from p2psched.model.blob import BlobRef, ResultBlob
from p2psched.model.commands import (
    Acknowledged,
    Command,
    Complete,
    Drain,
    DrainMode,
    Envelope,
    GiveBack,
    GivenBack,
    Outcome,
    PeerDown,
    PeerDrains,
    PeerInfo,
    PeerUp,
    Place,
    Placed,
    RaiseLevel,
    Rejected,
    SubmitJob,
)
from p2psched.model.execution import Committed
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause, JobSpec, ProgramWork, Segment
from p2psched.model.peer_messages import CORDONED, DRAINED, DRAINING
from p2psched.model.taskset import EMPTY, TaskSet

A, B, C = PeerId("a"), PeerId("b"), PeerId("c")
JOB = JobId("job")
TEN = TaskSet.of(0, 10)


def info(peer: PeerId, incarnation: int = 1, slots: int = 2) -> PeerInfo:
    return PeerInfo(peer, incarnation, peer, f"{peer}:1", 0, slots, "0", "3", level=KNOWN_LEVEL)


class Ledger:
    """Commands one after another, into a machine and whoever follows."""

    def __init__(self, *, level: int = 2) -> None:
        self.machine = Machine()
        self.followers: list[Scheduler] = []
        self.effects: list[SchedulerEffect] = []
        self.events: list[object] = []
        self._number = 0
        for peer in (A, B, C):
            self.do(PeerUp(info(peer)))
        self.do(RaiseLevel(level))

    def do(self, command: Command, proposer: PeerId = A, request: int | None = None) -> Outcome:
        self._number += 1
        envelope = Envelope(proposer, self._number if request is None else request, command)
        batch = Committed(self._number, self._number, 0, (envelope,))
        (outcome,), stamped = self.machine.apply(batch)
        self.events = [one.event for one in stamped]
        for follower in self.followers:
            self.effects += follower.step(Applied(self._number, (batch,)))
        return outcome

    def submit(self, copies: int = 2) -> None:
        spec = JobSpec("j", TEN, ProgramWork(("true",)), copies=copies)
        self.do(SubmitJob(JOB, spec))

    def place(self, peer: PeerId, tasks: TaskSet = TEN, incarnation: int = 1) -> Placed:
        placed = self.do(Place(JOB, tasks, peer, incarnation))
        assert isinstance(placed, Placed)
        return placed

    def drain(self, peer: PeerId, mode: DrainMode = DrainMode.ON) -> Outcome:
        return self.do(Drain(peer, mode))


def follow(ledger: Ledger, peer: PeerId) -> Scheduler:
    scheduler = Scheduler(info(peer))
    scheduler.step(Restored(0, encode_machine(ledger.machine)))
    ledger.followers.append(scheduler)
    return scheduler


def proposals(effects: list[SchedulerEffect]) -> list[Command]:
    return [
        envelope.command
        for effect in effects
        if isinstance(effect, AppendToLedger)
        for envelope in effect.envelopes
    ]


def test_a_drained_peer_is_granted_nothing_until_it_is_taken_back() -> None:
    ledger = Ledger()
    ledger.submit()
    assert ledger.drain(B) == Acknowledged()
    assert ledger.events == [PeerDrains(B, DrainMode.ON)]
    assert ledger.drain(B) == Acknowledged()
    assert ledger.events == []
    assert ledger.place(B).tasks == EMPTY
    ledger.drain(B, DrainMode.OFF)
    assert ledger.place(B).tasks == TEN


def test_what_is_given_back_waits_and_costs_nothing() -> None:
    ledger = Ledger()
    ledger.submit()
    grant = ledger.place(B).grant
    ledger.drain(B)
    back = TaskSet.of(4, 10)
    assert ledger.do(GiveBack(JOB, grant, back), B) == Acknowledged()
    job = ledger.machine.jobs[JOB]
    job.check()
    assert (job.waiting, job.attempts_lost, job.attempts_failed) == (back, 0, 0)
    assert ledger.events == [GivenBack(JOB, grant, B, back)]
    assert ledger.machine.peers[B].owned == 4
    newer = ledger.place(C, back).grant
    # Committed once more, by a proposer that has not seen it: the newer grant is not meant.
    ledger.do(GiveBack(JOB, grant, back), B, request=77)
    assert job.current_part(newer, TEN) == back
    ledger.do(GiveBack(JobId("gone"), grant, back), B)
    assert ledger.events == []


def test_a_drain_survives_a_restart_and_one_for_once_ends_with_it() -> None:
    for mode, after in ((DrainMode.ON, DrainMode.ON), (DrainMode.ONCE, DrainMode.OFF)):
        ledger = Ledger()
        ledger.drain(B, mode)
        ledger.do(PeerDown(B, 1, "cut off"))
        ledger.do(PeerUp(info(B, 2), continues=1))  # the same process
        assert ledger.machine.peers[B].drain is mode
        ledger.do(PeerUp(info(B, 3)))
        assert ledger.machine.peers[B].drain is after


def test_a_drain_is_in_the_snapshot() -> None:
    ledger = Ledger()
    ledger.drain(B, DrainMode.ONCE)
    again = Machine()
    restore_machine(again, encode_machine(ledger.machine))
    assert again.peers[B].drain is DrainMode.ONCE
    assert again.peers[C].drain is DrainMode.OFF


def test_nobody_is_drained_before_all_peers_know_of_it() -> None:
    ledger = Ledger(level=1)
    outcome = ledger.drain(B)
    assert isinstance(outcome, Rejected)
    assert outcome.code == "unavailable"
    assert ledger.machine.peers[B].drain is DrainMode.OFF


def test_a_cordoned_peer_is_granted_nothing_and_keeps_what_it_has() -> None:
    ledger = Ledger(level=KNOWN_LEVEL)
    scheduler = follow(ledger, B)
    ledger.submit()
    placed = ledger.place(B, TaskSet.of(0, 5))
    assert ledger.drain(B, DrainMode.CORDON) == Acknowledged()
    assert ledger.events == [PeerDrains(B, DrainMode.CORDON)]
    assert ledger.place(B, TaskSet.of(5, 10)).tasks == EMPTY
    ledger.effects.clear()
    scheduler.step(Round(1_000))
    assert not [c for c in proposals(ledger.effects) if isinstance(c, GiveBack)]
    assert ledger.machine.jobs[JOB].grants[placed.grant].tasks == TaskSet.of(0, 5)
    assert standing(ledger.machine, B, leads=False) == (CORDONED, 0)
    assert B in staying_peers(ledger.machine)
    ledger.do(PeerDown(B, 1, "cut off"))
    ledger.do(PeerUp(info(B, 2)))
    assert ledger.machine.peers[B].drain is DrainMode.CORDON, "it survives a restart"
    ledger.drain(B, DrainMode.OFF)
    assert ledger.place(B, TaskSet.of(5, 10), 2).tasks == TaskSet.of(5, 10)


def test_nobody_is_cordoned_before_all_peers_know_of_it() -> None:
    outcome = Ledger(level=CORDON_LEVEL - 1).drain(B, DrainMode.CORDON)
    assert isinstance(outcome, Rejected)
    assert outcome.code == "unavailable"


def test_an_unknown_peer_is_not_drained() -> None:
    outcome = Ledger().drain(PeerId("x"))
    assert isinstance(outcome, Rejected)
    assert outcome.code == "not-found"


def test_an_owner_gives_back_what_it_has_not_started_and_goes_on_with_the_rest() -> None:
    ledger = Ledger()
    owner = follow(ledger, B)
    ledger.submit()
    ledger.place(B)
    started = [e.batch.tasks for e in owner.step(Round(1)) if isinstance(e, StartBatch)]
    running = TaskSet.union(started)
    assert len(running) == 2
    ledger.drain(B)
    effects = owner.step(Round(2))
    (back,) = proposals(effects)
    assert isinstance(back, GiveBack)
    assert back.tasks == TEN - running
    assert not any(isinstance(effect, StartBatch) for effect in effects)
    assert not proposals(owner.step(Round(3)))  # once
    # Declared down meanwhile, it says what it holds, and what is on its way back is part of it.
    assert TaskSet.union(kept.tasks for kept in owner.owner.kept()) == TEN
    (envelope,) = [e for effect in effects for e in getattr(effect, "envelopes", ())]
    ledger.do(back, B, envelope.request)
    assert TaskSet.union(kept.tasks for kept in owner.owner.kept()) == running
    assert ledger.machine.jobs[JOB].waiting == back.tasks


def test_a_grant_that_crosses_the_drain_comes_back() -> None:
    """It was committed before the drain, and its peer hears of both at once."""
    ledger = Ledger()
    ledger.submit()
    ledger.place(B)
    ledger.drain(B)
    owner = follow(ledger, B)
    effects = owner.step(Round(1))
    assert [type(command) for command in proposals(effects)] == [GiveBack]


def test_the_coordinator_places_nothing_on_who_is_drained() -> None:
    ledger = Ledger()
    coordinator = follow(ledger, A)
    coordinator.step(CoordinatorChanged(0, A, True))
    ledger.drain(B)
    ledger.drain(A)
    ledger.submit()
    places = [c for c in proposals(coordinator.step(Round(5))) if isinstance(c, Place)]
    assert {place.peer for place in places} == {C}
    first = coordinator.decorate((Envelope(A, 900, SubmitJob(JobId("k"), _spec())),))
    assert {e.command.peer for e in first if isinstance(e.command, Place)} == {C}


def _spec() -> JobSpec:
    return JobSpec("k", TEN, ProgramWork(("true",)))


def test_a_drained_leader_asks_for_another_once_in_a_while() -> None:
    ledger = Ledger()
    coordinator = follow(ledger, A)
    coordinator.step(CoordinatorChanged(0, A, True))

    def yields(now_ms: int) -> list[frozenset[PeerId]]:
        effects = coordinator.step(Clocked(now_ms, {}))
        return [effect.avoid for effect in effects if isinstance(effect, YieldLead)]

    assert yields(100) == []
    ledger.drain(A)
    ledger.drain(C)
    assert yields(200) == [frozenset({A, C})]
    assert yields(300) == []
    assert yields(3_300) == [frozenset({A, C})]
    coordinator.step(CoordinatorChanged(3_400, B, False))
    assert yields(9_000) == []


def large(ledger: Ledger, holders: tuple[PeerId, ...], copies: int = 2) -> None:
    """All tasks end on B, the first with a large result."""
    ledger.submit(copies)
    grant = ledger.place(B).grant
    blob = ResultBlob(0, "out", BlobRef(bytes(32), 5), holders)
    data = chunks.pack([b"x"] * 10)
    segment = Segment(0, 10, Cause.OK, data, 10, (blob,))
    ledger.do(Complete(JOB, grant, (segment,)), B)


def test_copies_on_a_drained_peer_do_not_count_and_are_made_elsewhere() -> None:
    ledger = Ledger()
    large(ledger, (A, B))
    assert not list(lacking(ledger.machine))
    ledger.drain(B)
    (lack,) = lacking(ledger.machine)
    assert lack.takers == (C,)
    assert standing(ledger.machine, B, leads=False) == (DRAINING, 1)
    ledger.drain(C)
    assert not list(lacking(ledger.machine))  # one disk stays, and it has one
    assert standing(ledger.machine, B, leads=False) == (DRAINED, 0)


def test_a_peer_is_not_drained_while_it_holds_the_only_copy_works_or_leads() -> None:
    ledger = Ledger()
    large(ledger, (B,), copies=1)
    for peer in (A, C):
        ledger.do(PeerDown(peer, 1, "stopped", stopped=True))
    ledger.drain(B)
    assert not list(lacking(ledger.machine))  # nobody is there to take it
    assert standing(ledger.machine, B, leads=False) == (DRAINING, 1)
    ledger.do(PeerUp(info(A, 2)))
    assert [lack.takers for lack in lacking(ledger.machine)] == [(A,)]
    assert standing(ledger.machine, A, leads=True) == ("", 0)
    ledger.drain(C)
    assert standing(ledger.machine, C, leads=True) == (DRAINING, 0)
    assert standing(ledger.machine, C, leads=False) == (DRAINED, 0)
