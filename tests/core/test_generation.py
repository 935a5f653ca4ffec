"""A new generation: nothing that was granted before counts any more, and nothing else is lost."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2psched.core.capture import Capture
from p2psched.core.generation import GENERATIONS_MAX, INDEX_BITS, STARTS_MAX
from p2psched.core.levels import KNOWN_LEVEL
from p2psched.core.machine import Machine
from p2psched.core.snapshot import encode_machine, restore_machine
from p2psched.model.blob import ResultBlob
from p2psched.model.commands import (
    Acknowledged,
    Command,
    Complete,
    Completed,
    Envelope,
    NewGeneration,
    PeerDown,
    PeerInfo,
    PeerUp,
    Place,
    Placed,
    Rejected,
    SubmitJob,
    Submitted,
)
from p2psched.model.execution import Committed
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause, JobState, Segment
from p2psched.model.taskset import EMPTY, TaskSet
from p2psched.testing.facts import facts_of
from p2psched.testing.shadow import Shadow
from tests.core.test_machine import ALL, JOB, Ledger, P, Q, blob_ref, complete, ended, spec, up
from tests.core.test_machine_sequences import COMMANDS, SETUP

NEW = PeerId("new")
NEW_UP = PeerUp(PeerInfo(NEW, 1, "new", "", 0, 2, "", "", KNOWN_LEVEL))


@pytest.fixture
def led() -> tuple[Ledger, int]:
    """Half a job is done, the other half is granted."""
    ledger = Ledger()
    ledger.do(up(P))
    ledger.do(up(Q))
    ledger.do(SubmitJob(JOB, spec()))
    grant = ledger.grant(ALL)
    ledger.do(complete(grant, ended(0, 5)))
    return ledger, grant


def test_what_was_granted_waits_and_its_results_are_refused(led: tuple[Ledger, int]) -> None:
    ledger, old = led
    assert ledger.do(NewGeneration(2, NEW)) == Acknowledged()
    job = ledger.machine.jobs[JOB]
    assert not job.grants
    assert job.waiting == TaskSet.of(5, 10)
    assert job.succeeded == TaskSet.of(0, 5)
    assert not job.deaths.levels  # no task is suspected of it
    assert list(ledger.machine.unplaced) == [JOB]

    refused = ledger.do(complete(old, ended(5, 10)))
    assert refused == Completed(stale=TaskSet.of(5, 10))
    ledger.do(NEW_UP)
    placed = ledger.do(Place(JOB, ALL, NEW, 1))
    assert isinstance(placed, Placed)
    assert placed.grant >> INDEX_BITS == 2
    assert ledger.do(complete(old, ended(5, 10))) == Completed(stale=TaskSet.of(5, 10))
    ledger.do(complete(placed.grant, ended(5, 10)))
    assert ledger.state is JobState.SUCCEEDED
    assert ledger.do(SubmitJob(JOB, spec())) == Submitted(JOB, duplicate=True)


def test_peers_of_before_are_not_there_and_get_nothing(led: tuple[Ledger, int]) -> None:
    ledger, _ = led
    ledger.do(NewGeneration(2, NEW))
    assert not ledger.machine.peers
    assert ledger.do(Place(JOB, ALL, P, 1)) == Placed(ledger.machine.command_index, EMPTY)
    ledger.do(PeerDown(P, 1, "silent"))
    assert not ledger.machine.peers


def test_orphans_wait_too(led: tuple[Ledger, int]) -> None:
    ledger, _ = led
    ledger.do(PeerDown(P, 1, "silent"))
    ledger.do(NewGeneration(2, NEW))
    job = ledger.machine.jobs[JOB]
    assert job.orphaned == EMPTY
    assert job.waiting == TaskSet.of(5, 10)


def test_grants_are_higher_than_those_that_other_copies_may_have_made(
    led: tuple[Ledger, int],
) -> None:
    ledger, _ = led
    copy = Machine()
    restore_machine(copy, encode_machine(ledger.machine))
    for _ in range(50):  # the others have gone on
        ledger.do(up(PeerId("z"), ledger.machine.command_index))
    elsewhere = ledger.machine.command_index
    copy.apply(Committed(copy.applied_index + 1, 0, 0, (Envelope(NEW, 1, NewGeneration(2, NEW)),)))
    assert copy.command_index > elsewhere
    assert copy.generation == 2
    again = Machine()
    restore_machine(again, encode_machine(copy))
    assert again.generation == 2
    assert again.command_index == copy.command_index


def test_a_generation_follows_a_lower_one_only(led: tuple[Ledger, int]) -> None:
    ledger, _ = led
    ledger.do(NewGeneration(3, NEW))
    ledger.do(NEW_UP)
    for wrong in (1, 2, 3, GENERATIONS_MAX):
        assert isinstance(ledger.do(NewGeneration(wrong, Q)), Rejected)
    for start in (-1, STARTS_MAX):
        assert isinstance(ledger.do(NewGeneration(4, Q, start)), Rejected)
    assert list(ledger.machine.peers) == [NEW]


STARTS = st.lists(
    st.integers(0, (STARTS_MAX - 1) // 1000).map(lambda n: 1000 * n), min_size=2, unique=True
)


@settings(max_examples=60, deadline=None)
@given(STARTS, st.lists(COMMANDS, max_size=30))
def test_two_that_go_on_from_one_copy_never_take_a_result_under_the_other_ones_grant(
    starts: list[int], commands: list[Command]
) -> None:
    """Even if all else that happens in them is the same."""
    one, other = Ledger(), Ledger()
    for ledger, start in ((one, starts[0]), (other, starts[1])):
        for command in (*SETUP, NewGeneration(2, NEW, start), up(P), up(Q), *commands):
            ledger.do(command)
        for row in list(ledger.machine.peers.values()):
            for name in list(ledger.machine.jobs):
                ledger.do(Place(name, ALL, row.info.peer, row.info.incarnation))
    assert one.machine.jobs.keys() == other.machine.jobs.keys()
    for name, job in one.machine.jobs.items():
        for grant, held in job.grants.items():
            assert grant >> INDEX_BITS == 2
            tasks = held.tasks.first
            said = other.do(Complete(name, grant, (ended(tasks, tasks + 1),)))
            assert said == Completed(stale=TaskSet.of(tasks, tasks + 1))


def test_large_results_are_with_the_one_peer_until_it_says_otherwise() -> None:
    ledger = Ledger()
    ledger.do(up(P))
    ledger.do(SubmitJob(JOB, spec(TaskSet.of(0, 2))))
    grant = ledger.grant(TaskSet.of(0, 2))
    blobs = (ResultBlob(0, "", blob_ref(0), (P,)), ResultBlob(1, "", blob_ref(1), ()))
    segment = Segment(0, 2, Cause.OK, ended(0, 2).data, 1, blobs)
    ledger.do(Complete(JOB, grant, (segment,)))
    assert ledger.machine.jobs[JOB].lost == TaskSet.of(1, 2)
    ledger.do(NewGeneration(2, NEW))
    job = ledger.machine.jobs[JOB]
    assert {blob.holders for blob in job.blobs.values()} == {(NEW,)}
    assert job.lost == EMPTY


@settings(max_examples=200, deadline=None)
@given(st.lists(COMMANDS, max_size=25), st.lists(COMMANDS, max_size=25))
def test_after_any_history_no_command_of_before_brings_a_result(
    before: list[Command], after: list[Command]
) -> None:
    """Whatever peers of before say: and a second, naive reading of the ledger agrees."""
    machine, shadow, number = Machine(), Shadow(), 0

    def do(command: Command) -> list[tuple[str, str, int, str]]:
        nonlocal number
        number += 1
        batch = Committed(number, number, 0, (Envelope(NEW, number, command),))
        _, events = machine.apply(batch)
        facts = facts_of(events)
        assert facts == shadow.apply(command, (NEW, number), stamp_ms=number)
        for job in machine.jobs.values():
            job.check()
        return facts

    for command in (*SETUP, *before):
        do(command)
    ended_before = {job.id: job.succeeded | job.failed for job in machine.jobs.values()}
    do(NewGeneration(2, NEW))
    for name, job in machine.jobs.items():
        assert job.succeeded | job.failed == ended_before[name]
    for command in after:
        if isinstance(command, PeerUp):
            continue  # nobody of before gets in: see the opening of connections
        facts = do(command)
        assert not [fact for fact in facts if fact[0] in {"recorded", "granted", "retried"}]


def test_a_capture_that_is_under_way_is_of_before(led: tuple[Ledger, int]) -> None:
    machine = led[0].machine
    wanted = encode_machine(machine)
    capture = Capture(machine)
    batch = Committed(machine.applied_index + 1, 99, 0, (Envelope(NEW, 1, NewGeneration(2, NEW)),))
    capture.before([batch])
    machine.apply(batch)
    assert b"".join(capture.pieces()) == wanted
    assert JobId("job") in machine.jobs
