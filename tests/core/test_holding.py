"""Jobs whose tasks hold a lock: how many run at a time, in which order, and that none is stuck."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2psched.core import holding
from p2psched.core.jobs import UNBOUND, Job
from p2psched.core.levels import KNOWN_LEVEL
from p2psched.core.machine import Machine
from p2psched.core.snapshot import encode_machine, restore_machine
from p2psched.model import chunks
from p2psched.model.commands import (
    Cancel,
    Command,
    Complete,
    Envelope,
    Event,
    GiveBack,
    Granted,
    KeptGrant,
    Outcome,
    PeerDown,
    PeerInfo,
    PeerUp,
    Place,
    Placed,
    RaiseLevel,
    Rejected,
    Retry,
    SubmitJob,
)
from p2psched.model.execution import Committed
from p2psched.model.hold import Hold
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause, JobSpec, JobState, ProgramWork, Segment
from p2psched.model.taskset import EMPTY, TaskSet

P, Q = PeerId("p"), PeerId("q")
DB, CAMERAS, TURN = Hold("db"), Hold("cameras", 3), Hold("queue:q", in_order=True)


def info(peer: PeerId, incarnation: int = 1) -> PeerInfo:
    return PeerInfo(peer, incarnation, peer, f"{peer}:1", 1, 4, "0", "3.11", KNOWN_LEVEL)


def spec(count: int, hold: Hold | None, retries: int = 0) -> JobSpec:
    work = ProgramWork(("true",))
    return JobSpec("job", TaskSet.of(0, count), work, retries=retries, hold=hold)


class Ledger:
    def __init__(self, *, level: int = KNOWN_LEVEL) -> None:
        self.machine = Machine()
        self.incarnations = {P: 1, Q: 1}
        self.granted: list[tuple[JobId, int]] = []  # tasks, in the order of their grants
        self.specs: dict[JobId, JobSpec] = {}
        self.do(PeerUp(info(P)))
        self.do(PeerUp(info(Q)))
        if level > 1:
            self.do(RaiseLevel(level))

    def do(self, command: Command) -> Outcome:
        index = self.machine.applied_index + 1
        batch = Committed(index, index, index, (Envelope(P, index, command),))
        (outcome,), events = self.machine.apply(batch)
        self._note(stamped.event for stamped in events)
        self.check()
        return outcome

    def _note(self, events: object) -> None:
        assert hasattr(events, "__iter__")
        event: Event
        for event in events:
            if isinstance(event, Granted):
                self.granted += [(event.job, task) for task in event.tasks]

    def submit(self, name: str, count: int, hold: Hold | None, retries: int = 0) -> Job:
        job = JobId(name)
        self.specs[job] = spec(count, hold, retries)
        self.do(SubmitJob(job, self.specs[job]))
        return self.machine.jobs[job]

    def place(self, job: Job, peer: PeerId = P, tasks: TaskSet | None = None) -> Placed:
        wanted = job.spec.tasks if tasks is None else tasks
        outcome = self.do(Place(job.id, wanted, peer, self.incarnations[peer]))
        assert isinstance(outcome, Placed)
        return outcome

    def end(self, job: Job, grant: int, tasks: TaskSet, cause: Cause = Cause.OK) -> None:
        segments = tuple(
            Segment(start, stop, cause, chunks.pack([b"x"] * (stop - start)))
            for start, stop in tasks.ranges
        )
        self.do(Complete(job.id, grant, segments))

    def lose(self, peer: PeerId) -> None:
        self.do(PeerDown(peer, self.incarnations[peer], "gone"))

    def come_back(self, peer: PeerId) -> None:
        before = self.incarnations[peer]
        self.incarnations[peer] += 1
        kept = tuple(
            KeptGrant(job.id, held.grant, held.tasks)
            for job in self.machine.jobs.values()
            for held in job.grants.values()
            if held.peer == peer
        )
        self.do(PeerUp(info(peer, self.incarnations[peer]), kept, continues=before))

    def run_all(self) -> None:
        """Place what may be placed, let it end, until there is nothing more."""
        for _ in range(10_000):
            machine = self.machine
            for name in list(machine.unplaced):
                self.place(machine.jobs[name], P, holding.placeable(machine, machine.jobs[name]))
            held = next(
                (
                    (j, g)
                    for j in map(machine.jobs.get, machine.running)
                    if j
                    for g in j.grants.values()
                ),
                None,
            )
            if held is None:
                assert not machine.unplaced
                return
            self.end(held[0], held[1].grant, held[1].tasks.take(1))
        raise AssertionError("it never ends")

    def check(self) -> None:
        machine = self.machine
        assert not machine.turning
        in_use: dict[str, int] = {}
        for job in machine.jobs.values():
            job.check()
            hold = job.spec.hold
            if hold is None:
                assert not job.claims
                continue
            bound = sorted(bound for bound in job.claims.values() if bound != UNBOUND)
            owned = sorted((g.grant, task) for g in job.grants.values() for task in g.tasks)
            assert bound == owned, "each task that is owned holds a permit, and no other does"
            in_use[hold.lock] = in_use.get(hold.lock, 0) + len(bound)
            assert in_use[hold.lock] <= hold.capacity
            assert all(claim in machine.lock_claims for claim in job.claims)
            assert bool(job.claims) == (not job.ended), "who waits has a claim"
            ready = bool(holding.placeable(machine, job)) and not job.ended
            assert ready == (job.id in machine.unplaced)
        claims = [claim for job in machine.jobs.values() for claim in job.claims]
        assert len(claims) == len(machine.lock_claims)


def test_a_lock_is_held_by_one_task_at_a_time() -> None:
    ledger = Ledger()
    job = ledger.submit("j", 3, DB)
    first = ledger.place(job)
    assert first.tasks == TaskSet.of(0, 1)
    assert ledger.place(job).tasks == EMPTY
    ledger.end(job, first.grant, first.tasks)
    assert ledger.place(job, Q).tasks == TaskSet.of(1, 2)


def test_a_counted_resource_is_held_by_as_many_as_there_are() -> None:
    ledger = Ledger()
    one, other = ledger.submit("a", 10, CAMERAS), ledger.submit("b", 10, CAMERAS)
    assert len(ledger.place(one).tasks) == 3
    assert ledger.place(other).tasks == EMPTY


def test_jobs_take_turns_task_by_task() -> None:
    ledger = Ledger()
    one, other = ledger.submit("a", 3, DB), ledger.submit("b", 3, DB)
    ledger.run_all()
    assert ledger.granted == [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2), ("b", 2)]
    assert {one.state, other.state} == {JobState.SUCCEEDED}
    assert not ledger.machine.lock_claims


def test_an_ordered_queue_runs_in_the_order_of_its_submits_one_task_at_a_time() -> None:
    ledger = Ledger()
    for name in "abc":
        ledger.submit(name, 3, TURN)
    ledger.run_all()
    assert ledger.granted == [(name, task) for name in "abc" for task in range(3)]


def test_a_task_of_an_ordered_queue_that_is_tried_again_comes_before_all_later_ones() -> None:
    ledger = Ledger()
    job = ledger.submit("a", 3, TURN, retries=1)
    ledger.submit("b", 1, TURN)
    first = ledger.place(job)
    ledger.end(job, first.grant, first.tasks, Cause.EXIT)
    ledger.run_all()
    assert ledger.granted == [("a", 0), ("a", 0), ("a", 1), ("a", 2), ("b", 0)]


def test_tokens_rise_from_one_task_to_the_next() -> None:
    ledger = Ledger()
    tokens = []
    for hold in (DB, TURN):
        job = ledger.submit(f"j{hold.lock}", 4, hold)
        while not job.ended:
            placed = ledger.place(job)
            tokens.append(job.grants[placed.grant].token)
            ledger.end(job, placed.grant, placed.tasks)
    assert tokens == sorted(set(tokens))
    assert tokens[0] > 0


def test_what_a_lost_peer_held_goes_to_the_next_at_once_and_it_may_not_keep_it() -> None:
    ledger = Ledger()
    job, other = ledger.submit("a", 1, DB), ledger.submit("b", 1, DB)
    lost = ledger.place(job)
    ledger.lose(P)
    assert ledger.place(other, Q).tasks == TaskSet.of(0, 1)
    ledger.come_back(P)
    ledger.end(job, lost.grant, lost.tasks)
    assert not job.succeeded, "a result under a lock that is another's is refused"
    ledger.run_all()
    assert job.state is other.state is JobState.SUCCEEDED


def test_a_cancelled_job_lets_go() -> None:
    ledger = Ledger()
    job, other = ledger.submit("a", 5, DB), ledger.submit("b", 1, DB)
    ledger.place(job)
    ledger.do(Cancel(job.id))
    assert ledger.place(other).tasks == TaskSet.of(0, 1)


def test_a_job_that_is_run_again_waits_for_its_turn() -> None:
    ledger = Ledger()
    job = ledger.submit("a", 1, TURN)
    placed = ledger.place(job)
    ledger.end(job, placed.grant, placed.tasks, Cause.EXIT)
    assert job.state.value == "failed"
    other = ledger.submit("b", 1, TURN)
    ledger.place(other)
    ledger.do(Retry(job.id, ledger.specs[job.id]))
    assert ledger.place(job).tasks == EMPTY
    ledger.run_all()
    assert job.state is JobState.SUCCEEDED


def test_all_who_take_a_lock_name_the_same_capacity() -> None:
    ledger = Ledger()
    ledger.submit("a", 1, CAMERAS)
    outcome = ledger.do(SubmitJob(JobId("b"), spec(1, Hold("cameras", 2))))
    assert isinstance(outcome, Rejected)
    assert "capacity 3" in outcome.message
    assert JobId("b") not in ledger.machine.jobs


def test_no_job_holds_a_lock_before_all_peers_know_what_that_is() -> None:
    ledger = Ledger(level=3)
    outcome = ledger.do(SubmitJob(JobId("a"), spec(1, DB)))
    assert isinstance(outcome, Rejected)
    assert "level" in outcome.message


def test_a_spec_that_holds_nothing_has_the_digest_that_it_always_had() -> None:
    from p2psched.model.job_head import digest_of  # noqa: PLC0415

    plain = spec(1, None)
    fields = msgspec.structs.astuple(plain)[: JobSpec.__struct_fields__.index("hold")]
    import hashlib  # noqa: PLC0415

    data = msgspec.msgpack.encode(fields)
    assert digest_of(plain) == hashlib.blake2b(data, digest_size=16).digest()
    assert digest_of(plain) != digest_of(spec(1, DB))


@pytest.mark.parametrize("hold", [("",), ("a\nb",), ("a", 0), ("a", 70_000), ("a", 2, True)])
def test_what_is_no_lock_is_refused(hold: tuple[object, ...]) -> None:
    with pytest.raises(ValueError, match=r"lock|order"):
        Hold(*hold)  # type: ignore[arg-type]


HOLDS = st.sampled_from([None, DB, CAMERAS, TURN, Hold("queue:q/k", in_order=True)])
STEPS = st.lists(
    st.tuples(st.sampled_from("sspppeeefgldc"), st.integers(0, 7), st.integers(0, 5), HOLDS),
    max_size=60,
)


def step(ledger: Ledger, kind: str, number: int, count: int, hold: Hold | None) -> None:
    machine = ledger.machine
    jobs = list(machine.jobs.values())
    peer = P if count % 2 else Q
    if kind == "s":
        ledger.submit(f"j{len(jobs)}", 1 + count, hold, retries=number % 2)
        return
    if kind == "l":
        ledger.lose(peer)
    elif kind == "d":
        ledger.come_back(peer)
    if not jobs:
        return
    job = jobs[number % len(jobs)]
    if kind == "p":
        ledger.place(job, peer, TaskSet.of(0, 1 + count) if count else job.spec.tasks)
    elif kind == "c":
        ledger.do(Cancel(job.id))
    for held in list(job.grants.values())[:1]:
        tasks = held.tasks.take(1 + count)
        if kind in "ef":
            ledger.end(job, held.grant, tasks, Cause.OK if kind == "e" else Cause.EXIT)
        elif kind == "g":
            ledger.do(GiveBack(job.id, held.grant, tasks))


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_whatever_happens_no_lock_is_held_too_often_and_no_job_is_stuck(
    steps: list[tuple[str, int, int, Hold | None]],
) -> None:
    ledger = Ledger()
    for kind, number, count, hold in steps:
        step(ledger, kind, number, count, hold)
        other = Machine()
        restore_machine(other, encode_machine(ledger.machine))
        assert encode_machine(other) == encode_machine(ledger.machine)
        ledger.machine = other
    for peer in (P, Q):
        ledger.come_back(peer)
    ledger.run_all()
    assert all(job.ended for job in ledger.machine.jobs.values())
    assert not ledger.machine.lock_claims
