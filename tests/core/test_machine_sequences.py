"""The state machine under any sequence of commands, sensible or not."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2psched.core.levels import KNOWN_LEVEL
from p2psched.core.machine import Machine
from p2psched.core.snapshot import encode_machine
from p2psched.model.blob import ResultBlob
from p2psched.model.commands import (
    Cancel,
    Command,
    Complete,
    Drain,
    DrainMode,
    Forget,
    ForgetPeer,
    GiveBack,
    Granted,
    Held,
    JobForgotten,
    JobReopened,
    KeptGrant,
    PeerDown,
    Pin,
    Place,
    RaiseLevel,
    Recorded,
    Retry,
    SubmitJob,
)
from p2psched.model.ids import JobId
from p2psched.model.job import Cause
from p2psched.model.moves import Transfer
from p2psched.model.taskset import EMPTY, TaskSet
from tests.core.test_machine import Ledger, P, Q, blob_ref, ended, spec, up

JOBS = st.sampled_from([JobId("one"), JobId("two")])
PEERS = st.sampled_from([P, Q])
SETS = st.tuples(st.integers(0, 11), st.integers(1, 12)).map(lambda r: TaskSet.of(*sorted(r)))
GRANTS = st.integers(1, 40)
INCARNATIONS = st.integers(1, 4)
PLAIN_SEGMENTS = st.builds(
    lambda start, size, cause: ended(start, start + size, cause),
    st.integers(0, 9),
    st.integers(1, 5),
    st.sampled_from([Cause.OK, Cause.EXIT, Cause.TOO_LARGE, Cause.NO_SPACE]),
)
NAMES = st.sampled_from(["", "weights.bin"])
HOLDERS = st.sampled_from([(), (P,), (P, Q)])
LARGE_SEGMENTS = st.builds(
    lambda start, size, held: msgspec.structs.replace(
        ended(start, start + size),
        blobs=tuple(
            ResultBlob(start + at, name, blob_ref(start + at), holders)
            for at, (name, holders) in enumerate(held[:size])
        ),
    ),
    st.integers(0, 9),
    st.integers(1, 3),
    st.lists(st.tuples(NAMES, HOLDERS), min_size=1, max_size=3),
)
SEGMENTS = PLAIN_SEGMENTS | LARGE_SEGMENTS
HELD = st.builds(
    lambda index, name, digest: (index, name, blob_ref(digest).digest),
    st.integers(0, 9),
    NAMES,
    st.integers(0, 9),
)
SETUP: tuple[Command, ...] = (
    up(P),
    up(Q),
    SubmitJob(JobId("one"), spec(retries=1)),
    SubmitJob(JobId("two"), spec(retries=1)),
    RaiseLevel(KNOWN_LEVEL),
)
COMMANDS: st.SearchStrategy[Command] = st.one_of(
    st.builds(SubmitJob, JOBS, st.just(spec(retries=1))),
    st.builds(Place, JOBS, SETS, PEERS, INCARNATIONS),
    st.builds(Complete, JOBS, GRANTS, st.tuples(SEGMENTS) | st.tuples(SEGMENTS, SEGMENTS)),
    st.builds(up, PEERS, INCARNATIONS, st.tuples(st.builds(KeptGrant, JOBS, GRANTS, SETS))),
    st.builds(PeerDown, PEERS, INCARNATIONS, st.just(""), st.booleans()),
    st.builds(
        lambda peer, incarnation: msgspec.structs.replace(
            up(peer, incarnation), continues=incarnation - 1
        ),
        PEERS,
        INCARNATIONS,
    ),
    st.builds(Cancel, JOBS),
    st.builds(Forget, JOBS),
    st.builds(Pin, JOBS, st.booleans()),
    st.builds(Retry, JOBS, st.just(spec(retries=1)), st.just(EMPTY) | SETS),
    st.builds(Held, JOBS, PEERS, st.lists(HELD, max_size=4).map(tuple), st.booleans()),
    st.builds(Drain, PEERS, st.sampled_from(DrainMode)),
    st.builds(GiveBack, JOBS, GRANTS, SETS),
    st.builds(Transfer, JOBS, GRANTS, SETS, PEERS, INCARNATIONS),
    st.builds(ForgetPeer, PEERS),
)


@settings(max_examples=80, deadline=None)
@given(st.lists(COMMANDS, max_size=40))
def test_any_commands_keep_each_task_in_one_place_and_each_result_single(
    commands: list[Command],
) -> None:
    ledger = Ledger()
    for setup in SETUP:
        ledger.do(setup)
    recorded: set[tuple[JobId, int]] = set()
    granted: dict[tuple[JobId, int], int] = {}
    for command in commands:
        ledger.do(command)
        for event in ledger.events:
            match event:
                case Recorded(job=job):
                    tasks = {(job, index) for index in event.segment.tasks}
                    assert not tasks & recorded
                    recorded |= tasks
                case JobReopened(job=job):
                    recorded -= {(job, index) for index in event.tasks}
                case JobForgotten(job=job):
                    recorded -= {task for task in recorded if task[0] == job}
                case Granted(job=job, grant=grant):
                    assert ledger.machine.peers[event.peer].drain is DrainMode.OFF
                    for index in event.tasks:
                        assert granted.get((job, index), 0) < grant
                        granted[job, index] = grant
                case _:
                    pass


@settings(max_examples=40, deadline=None)
@given(st.lists(COMMANDS, max_size=40))
def test_equal_ledgers_give_equal_machines(commands: list[Command]) -> None:
    one, two = Ledger(), Ledger()
    for command in commands:
        assert one.do(command) == two.do(command)
        assert one.machine.state_hash == two.machine.state_hash
    assert one.machine.dump() == two.machine.dump()


@pytest.mark.parametrize("seed", range(25))
def test_a_grant_whose_results_come_at_once_ends_as_any_other(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    rng = random.Random(seed)
    shortcuts = 0

    def counted(machine: Machine, *given: object) -> object:
        nonlocal shortcuts
        outcome = shortcut(machine, *given)  # type: ignore[arg-type]  # what it was called with
        shortcuts += outcome is not None
        return outcome

    shortcut = Machine._complete_grant
    quick, slow = Ledger(), Ledger()
    for setup in SETUP:
        assert quick.do(setup) == slow.do(setup)
    for _ in range(60):
        command = _likely(quick.machine, rng)
        monkeypatch.setattr(Machine, "_complete_grant", counted)
        outcome = quick.do(command)
        monkeypatch.setattr(Machine, "_complete_grant", lambda *_: None)
        assert slow.do(command) == outcome
        assert encode_machine(quick.machine) == encode_machine(slow.machine)
    assert shortcuts


def _likely(machine: Machine, rng: random.Random) -> Command:
    """Mostly what acts: placements, and results of whole grants, in two jobs of ten tasks."""
    job = machine.jobs.get(JobId(rng.choice(["one", "two"])))
    if job is None:
        return SubmitJob(JobId("two"), spec(retries=1))
    chance = rng.random()
    if job.grants and chance < 0.5:
        grant = rng.choice(list(job.grants))
        start, stop = rng.choice(job.grants[grant].tasks.ranges)
        stop = rng.choice([stop, stop, rng.randint(start + 1, stop)])
        cause = rng.choice([Cause.OK, Cause.OK, Cause.EXIT])
        return Complete(job.id, grant, (ended(start, stop, cause),))
    if chance < 0.85:
        start = rng.randrange(10)
        tasks = TaskSet.of(start, rng.randint(start + 1, 10))
        peer = rng.choice([P, Q])
        row = machine.peers[peer]
        return Place(job.id, tasks, peer, row.info.incarnation)
    if chance < 0.9:
        return Retry(job.id, spec(retries=1))
    peer = rng.choice([P, Q])
    row = machine.peers[peer]
    if row.live:
        return PeerDown(peer, row.info.incarnation, "")
    return up(peer, row.info.incarnation + 1)
