"""The coordinator: placing, and declaring peers down after a whole window of silence."""

from __future__ import annotations

import msgspec
import pytest

from p2psched.core.coordinator import PLACEMENTS_MAX, Coordinator
from p2psched.core.machine import Machine
from p2psched.model.commands import Command, Complete, Envelope, PeerDown, Place, SubmitJob
from p2psched.model.execution import Committed
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Segment
from p2psched.model.taskset import EMPTY, TaskSet
from tests.core.test_machine import JOB, P, Q, ended, spec, up

WINDOW_MS = 2_500


def complete_of(job: JobId, grant: int, segment: Segment) -> Complete:
    return Complete(job, grant, (segment,))


def apply(machine: Machine, *commands: Command) -> None:
    index = machine.applied_index + 1
    envelopes = tuple(Envelope(P, 100 * index + i, c) for i, c in enumerate(commands))
    machine.apply(Committed(index, 0, 0, envelopes))


@pytest.fixture
def machine() -> Machine:
    made = Machine()
    apply(made, up(P), up(Q))
    return made


@pytest.fixture
def coordinator(machine: Machine) -> Coordinator:
    made = Coordinator(P, machine, window_ms=WINDOW_MS)
    made.on_coordinator(10_000, is_self=True)
    return made


def look(
    coordinator: Coordinator, until_ms: int, contacts: dict[PeerId, int] | None = None
) -> list[Command]:
    """Look every 100 ms from 10 s on, as a clock does."""
    found: list[Command] = []
    for now_ms in range(10_000, until_ms + 1, 100):
        found += coordinator.find_dead(now_ms, contacts or {})
    return found


def test_nobody_is_declared_down_before_a_window_of_listening(coordinator: Coordinator) -> None:
    assert look(coordinator, 10_000 + WINDOW_MS - 100) == []
    (down,) = coordinator.find_dead(10_000 + WINDOW_MS, {})
    assert isinstance(down, PeerDown)
    assert (down.peer, down.incarnation) == (Q, 1)


def test_who_was_heard_within_the_window_lives(coordinator: Coordinator) -> None:
    assert look(coordinator, 20_000, {Q: 20_000 - WINDOW_MS + 1}) == []
    assert len(coordinator.find_dead(20_001, {Q: 20_000 - WINDOW_MS + 1})) == 1


def test_a_silent_peer_is_proposed_once_a_window(coordinator: Coordinator) -> None:
    assert len(look(coordinator, 10_000 + WINDOW_MS)) == 1
    assert len(look(coordinator, 10_000 + 3 * WINDOW_MS)) == 2


def test_after_a_pause_of_its_own_it_listens_for_a_whole_window_again(
    coordinator: Coordinator,
) -> None:
    look(coordinator, 11_000)
    assert coordinator.find_dead(60_000, {}) == []  # what others sent meanwhile lies unread
    assert coordinator.find_dead(61_000, {}) == []
    assert coordinator.find_dead(62_000, {Q: 60_500}) == []
    assert coordinator.find_dead(62_999, {Q: 60_500}) == []
    assert len(coordinator.find_dead(63_000, {Q: 60_500})) == 1


def test_a_peer_that_is_down_is_not_declared_again(
    machine: Machine, coordinator: Coordinator
) -> None:
    apply(machine, PeerDown(Q, 1, ""))
    assert look(coordinator, 20_000) == []


def test_a_coordinator_never_declares_itself_down(coordinator: Coordinator) -> None:
    found = look(coordinator, 20_000)
    assert found
    assert all(isinstance(c, PeerDown) and c.peer != P for c in found)


def test_who_no_longer_coordinates_decides_nothing(
    machine: Machine, coordinator: Coordinator
) -> None:
    submit = SubmitJob(JOB, spec())
    apply(machine, submit)
    coordinator.on_coordinator(11_000, is_self=False)
    assert coordinator.find_dead(99_000, {}) == []
    assert coordinator.place() == []
    assert coordinator.first_placements([Envelope(P, 0, submit)]) == []


def test_a_new_coordinator_listens_for_a_window_of_its_own(coordinator: Coordinator) -> None:
    coordinator.on_coordinator(50_000, is_self=False)
    coordinator.on_coordinator(60_000, is_self=True)
    assert coordinator.find_dead(60_000 + WINDOW_MS - 1, {}) == []


def placed(commands: list[Command]) -> TaskSet:
    tasks = EMPTY
    for command in commands:
        assert isinstance(command, Place)
        assert not tasks & command.tasks
        tasks = tasks | command.tasks
    return tasks


def test_tasks_go_to_live_peers_only(machine: Machine, coordinator: Coordinator) -> None:
    apply(machine, SubmitJob(JOB, spec()), PeerDown(Q, 1, ""))
    commands = coordinator.place()
    assert placed(commands)
    assert {c.peer for c in commands if isinstance(c, Place)} == {P}


def test_first_placements_are_for_new_jobs_only(machine: Machine, coordinator: Coordinator) -> None:
    known, new = SubmitJob(JOB, spec()), SubmitJob(JobId("new"), spec())
    apply(machine, known)
    commands = coordinator.first_placements([Envelope(P, 0, known), Envelope(P, 1, new)])
    assert {c.job for c in commands if isinstance(c, Place)} == {"new"}
    assert placed(commands)


def test_one_round_places_a_bounded_number(machine: Machine, coordinator: Coordinator) -> None:
    for number in range(5_000):
        apply(machine, SubmitJob(JobId(f"job-{number}"), spec(TaskSet.of(0, 1))))
    machine.estimate_us = 1
    assert len(coordinator.place()) <= PLACEMENTS_MAX + len(machine.peers)


def test_orphans_of_a_dead_peer_are_placed_again(
    machine: Machine, coordinator: Coordinator
) -> None:
    apply(machine, SubmitJob(JOB, spec(TaskSet.of(0, 2))), Place(JOB, TaskSet.of(0, 2), Q, 1))
    assert coordinator.place() == []
    apply(machine, PeerDown(Q, 1, ""))
    assert placed(coordinator.place()) == TaskSet.of(0, 2)


def test_nobody_with_slots_gets_nothing() -> None:
    machine = Machine()
    apply(machine, SubmitJob(JOB, spec()))
    coordinator = Coordinator(PeerId("x"), machine, window_ms=WINDOW_MS)
    coordinator.on_coordinator(0, is_self=True)
    assert coordinator.place() == []


def test_a_job_of_wide_tasks_is_not_starved_by_younger_ones(machine: Machine) -> None:
    coordinator = Coordinator(P, machine, window_ms=WINDOW_MS)
    coordinator.on_coordinator(0, is_self=True)
    wide, narrow = JobId("1" * 32), JobId("2" * 32)
    slots = machine.peers[P].info.slots
    busy = JobId("0" * 32)
    apply(machine, SubmitJob(busy, spec(TaskSet.of(0, 100))))
    apply(machine, *coordinator.place())  # everybody has work
    wide_spec = msgspec.structs.replace(spec(TaskSet.of(0, 1)), cpus=slots)
    apply(machine, SubmitJob(wide, wide_spec), SubmitJob(narrow, spec(TaskSet.of(0, 1000))))
    for _ in range(200):
        if not machine.jobs[wide].waiting:
            return
        for job in (busy, narrow):  # peers finish what they have, oldest first
            for held in list(machine.jobs[job].grants.values())[:2]:
                first = held.tasks.first
                apply(machine, complete_of(job, held.grant, ended(first, first + 1)))
        apply(machine, *coordinator.place())
    raise AssertionError("the wide task was never placed")
