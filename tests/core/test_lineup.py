"""What the coordinator keeps from round to round: it decides as one that has kept nothing, and a
round costs as much as has changed."""

from __future__ import annotations

import random

import pytest

from p2psched.core import lineup, placement
from p2psched.core.coordinator import Coordinator
from p2psched.core.machine import Machine
from p2psched.core.placement import Candidate, room_in
from p2psched.core.snapshot import encode_machine, restore_machine
from p2psched.model.commands import (
    Command,
    Complete,
    Drain,
    DrainMode,
    Envelope,
    PeerDown,
    Place,
    SubmitJob,
)
from p2psched.model.ids import JobId, PeerId
from p2psched.model.load import Liveness, Seen
from p2psched.model.taskset import TaskSet
from tests.core.test_coordinator import WINDOW_MS, apply
from tests.core.test_machine import ended, spec, up


def peer(number: int) -> PeerId:
    return PeerId(f"peer-{number:04}")


def coordinates(machine: Machine) -> Coordinator:
    made = Coordinator(peer(0), machine, window_ms=WINDOW_MS)
    made.on_coordinator(10_000, is_self=True)
    return made


class Story:
    """Something happens, again and again."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.machine = Machine()
        apply(self.machine, *(up(peer(n)) for n in range(6)))
        self.coordinator = coordinates(self.machine)
        self.full: frozenset[PeerId] = frozenset()
        self.seen: dict[PeerId, Seen] = {}
        self.asks: set[PeerId] = set()
        self._jobs = 0

    def fresh(self) -> Coordinator:
        """Of the same, by somebody who has only now begun to look."""
        machine = Machine()
        restore_machine(machine, encode_machine(self.machine))
        made = coordinates(machine)
        made.on_full(self.full)
        made.on_seen(self.seen)
        for one in self.asks:
            made.on_pull(one)
        return made

    def go_on(self) -> None:
        match self.rng.randrange(8):
            case 0:
                self._submit()
            case 1 | 2 | 3 | 4:
                self._complete()
            case 5:
                self._change_a_peer()
            case 6:
                self.full = frozenset(self.rng.sample([peer(n) for n in range(6)], 2))
                self.coordinator.on_full(self.full)
            case _:
                self._hear()

    def _submit(self) -> None:
        self._jobs += 1
        count = self.rng.choice((1, 1, 30))
        submit = SubmitJob(JobId(f"job-{self._jobs}"), spec(TaskSet.of(0, count)))
        first = self.coordinator.first_placements([Envelope(peer(0), 0, submit)])
        assert first == self.fresh().first_placements([Envelope(peer(0), 0, submit)])
        apply(self.machine, submit, *first)

    def _complete(self) -> None:
        held = [
            (job.id, held)
            for job in self.machine.jobs_with_grants()
            for held in job.grants.values()
        ]
        if held:
            job, grant = self.rng.choice(held)
            start, stop = grant.tasks.ranges[0]
            busy_us = self.rng.choice((1_000, 30_000, 700_000)) * (stop - start)
            apply(self.machine, Complete(job, grant.grant, (ended(start, stop, busy_us=busy_us),)))

    def _change_a_peer(self) -> None:
        one = peer(self.rng.randrange(6))
        row = self.machine.peers[one]
        life = row.info.incarnation
        changes: list[Command] = [PeerDown(one, life, ""), up(one, life + 1)]
        changes += [Drain(one, mode) for mode in (DrainMode.ON, DrainMode.OFF)]
        apply(self.machine, self.rng.choice(changes))

    def _hear(self) -> None:
        one = peer(self.rng.randrange(6))
        if self.rng.random() < 0.5:
            self.asks.add(one)
            self.coordinator.on_pull(one)
        else:
            self.seen = {**self.seen, one: Seen(one, 1, Liveness.ALIVE, self._jobs)}
            self.coordinator.on_seen(self.seen)


@pytest.mark.parametrize("seed", range(12))
def test_who_has_looked_all_the_time_decides_as_one_that_begins_to_look(seed: int) -> None:
    story = Story(seed)
    placed = 0
    for _ in range(120):
        story.go_on()
        fresh = story.fresh()
        assert story.coordinator.takers() == fresh.takers()
        if story.machine.unplaced:
            story.asks.clear()
        commands = story.coordinator.place()
        assert commands == fresh.place()
        if commands and story.rng.random() < 0.7:  # else the round is lost
            placed += len(commands)
            apply(story.machine, *commands)
    assert placed > 10


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[PeerId]:
    """At peers, one by one."""
    found: list[PeerId] = []

    def counted(c: Candidate, quota: int, owned_here: int, estimate_us: int, cpus: int) -> int:
        found.append(c.peer)
        return room_in(c, quota, owned_here, estimate_us, cpus)

    monkeypatch.setattr(placement, "room_in", counted)
    monkeypatch.setattr(lineup, "room_in", counted)
    return found


@pytest.mark.parametrize("peers", [10, 300])
def test_a_round_looks_at_what_has_changed(looks: list[PeerId], peers: int) -> None:
    machine = Machine()
    apply(machine, *(up(peer(n)) for n in range(peers)))
    coordinator = coordinates(machine)
    job = JobId("job")
    apply(machine, SubmitJob(job, spec(TaskSet.of(0, 20 * peers))))
    while commands := coordinator.place():
        apply(machine, *commands)
    assert machine.unplaced
    ended_at: set[PeerId] = set()
    for number, grant in enumerate(list(machine.jobs[job].grants.values())[:5]):
        looks.clear()
        start = grant.tasks.ranges[0][0]
        apply(machine, Complete(job, grant.grant, (ended(start, start + 1, busy_us=600_000),)))
        coordinator.place()
        ended_at.add(grant.peer)
        if number:  # at first it looks at all that were given tasks
            assert grant.peer in looks
            assert set(looks) <= ended_at
        else:
            assert len(set(looks)) == peers


def test_a_round_of_one_that_coordinates_again_knows_what_happened_meanwhile() -> None:
    machine = Machine()
    apply(machine, up(peer(0)), up(peer(1)))
    coordinator = coordinates(machine)
    assert [c.peer for c in coordinator.takers()] == [peer(0), peer(1)]
    coordinator.on_coordinator(11_000, is_self=False)
    apply(machine, PeerDown(peer(1), 1, ""), SubmitJob(JobId("job"), spec()))
    coordinator.on_coordinator(12_000, is_self=True)
    assert {c.peer for c in coordinator.place() if isinstance(c, Place)} == {peer(0)}


def test_after_a_restore_all_is_looked_at_anew() -> None:
    machine, other = Machine(), Machine()
    apply(machine, up(peer(0)), up(peer(1)))
    coordinator = coordinates(machine)
    coordinator.takers()
    apply(other, up(peer(0)), up(peer(2)))
    restore_machine(machine, encode_machine(other))
    coordinator.on_restored()
    assert [c.peer for c in coordinator.takers()] == [peer(0), peer(2)]
