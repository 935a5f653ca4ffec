"""Public events: what an entry means outside, at which place, and that none is told wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2psched.core import generation
from p2psched.core.event_log import KINDS, OF_STORES, is_public, records_of
from p2psched.core.levels import KNOWN_LEVEL
from p2psched.core.machine import Machine
from p2psched.core.replica import fold
from p2psched.model.commands import (
    Cancel,
    Command,
    Drain,
    DrainMode,
    Envelope,
    Event,
    Forget,
    GiveBack,
    NewGeneration,
    PeerDown,
    Pin,
    Place,
    RaiseLevel,
    Retry,
    SubmitJob,
)
from p2psched.model.event_messages import EventFilter, EventRecord
from p2psched.model.event_messages import Place as At
from p2psched.model.execution import Committed
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause
from p2psched.model.raft import Member, Membership
from p2psched.model.taskset import TaskSet
from tests.core.test_machine import ALL, JOB, P, Q, complete, ended, spec, up
from tests.core.test_machine_sequences import COMMANDS, SETUP

R = PeerId("r")


class Told:
    """A ledger, and the events that it told of its last entry."""

    def __init__(self, level: int = 1) -> None:
        self.machine = Machine(level)
        self.request = 0

    def do(self, *commands: Command, membership: Membership | None = None) -> list[EventRecord]:
        index = self.machine.applied_index + 1
        envelopes = []
        for command in commands:
            self.request += 1
            envelopes.append(Envelope(Q, self.request, command))
        batch = Committed(index, 10 * index, 1_000 * index, tuple(envelopes), membership)
        return records_of(fold(self.machine, batch))


@pytest.fixture
def told() -> Told:
    """Two peers are up, and a job of ten tasks that may be tried twice waits."""
    made = Told()
    made.do(up(P), up(Q), SubmitJob(JOB, spec(retries=1)))
    return made


def kinds(records: Sequence[EventRecord]) -> list[str]:
    return [record.kind for record in records]


def test_events_of_an_entry_stand_in_order_with_their_commands_and_both_times() -> None:
    records = Told().do(up(P), SubmitJob(JOB, spec()), Place(JOB, ALL, P, 1))
    assert kinds(records) == ["peer.up", "job.submitted", "tasks.granted"]
    assert [(r.index, r.position, r.command) for r in records] == [(1, 0, 1), (1, 1, 2), (1, 2, 3)]
    assert {(r.at_ms, r.wall_ms) for r in records} == {(10, 1_000)}
    assert records[2].data == {"grant": 3, "incarnation": 1}
    assert (records[2].job, records[2].peer, records[2].tasks) == (JOB, P, ALL)


def test_what_is_accepted_told_twice_and_stale_is_told_apart(told: Told) -> None:
    told.do(Place(JOB, ALL, P, 1))  # grant 4
    assert kinds(told.do(complete(4, ended(0, 4)))) == ["tasks.ended"]
    again = told.do(complete(4, ended(0, 4)), complete(3, ended(0, 4)))
    assert kinds(again) == ["tasks.repeated", "tasks.refused"]
    assert [(r.tasks, r.data["grant"]) for r in again] == [
        (TaskSet.of(0, 4), 4),
        (TaskSet.of(0, 4), 3),
    ]
    assert kinds(told.do(complete(4, ended(4, 10, Cause.EXIT)))) == ["tasks.retried"]


def test_a_job_that_is_cancelled_is_told_to_be_once(told: Told) -> None:
    told.do(Place(JOB, ALL, P, 1))
    records = told.do(Cancel(JOB), Cancel(JOB))
    assert kinds(records) == ["job.cancelled", "tasks.revoked", "job.ended"]
    assert records[0].peer == Q  # who proposed it
    assert records[2].data == {"state": "cancelled"}


def test_what_changes_nothing_is_no_event(told: Told) -> None:
    assert told.do(Forget(JOB), Cancel(JobId("none")), Pin(JobId("none"), pinned=True)) == []
    assert told.do(SubmitJob(JOB, spec(retries=1)), RaiseLevel(1), PeerDown(Q, 7, "")) == []


def test_a_job_goes_its_way_until_it_is_forgotten(told: Told) -> None:
    told.do(Place(JOB, ALL, P, 1))
    end = told.do(complete(4, ended(0, 10, Cause.TOO_LARGE)))
    assert kinds(end) == ["tasks.ended", "job.ended"]
    assert kinds(told.do(Retry(JOB, spec(retries=1)))) == ["job.reopened"]
    told.do(Cancel(JOB))
    kept = told.do(Pin(JOB, pinned=True), Pin(JOB, pinned=False), Forget(JOB))
    assert kinds(kept) == ["job.pinned", "job.unpinned", "job.forgotten"]
    assert kept[2].data == {"asked": True}


def test_members_and_levels_are_told() -> None:
    told = Told(level=3)
    member = Member(P, "a", "host:1")
    (record,) = told.do(membership=Membership((member,)))
    assert (record.kind, record.command) == ("members.changed", 0)
    assert record.data == {"voters": [P], "learners": [], "removed": []}
    told.do(RaiseLevel(2))
    assert told.machine.level == 2
    (raised,) = Told(level=3).do(RaiseLevel(3))
    assert (raised.kind, raised.data) == ("level.raised", {"level": 3})


def test_what_follows_a_new_generation_is_told_under_its_numbers(told: Told) -> None:
    told.do(Place(JOB, ALL, P, 1))
    records = told.do(NewGeneration(2, R), up(R), Cancel(JOB))
    assert kinds(records) == [
        "generation.began",
        "tasks.revoked",
        "peer.down",
        "peer.down",
        "peer.up",
        "job.cancelled",
        "job.ended",
        "level.raised",
    ]
    numbers = [record.command for record in records]
    first = generation.first_index(2)
    assert numbers[:4] == [5] * 4
    assert numbers[4:] == [first + 1, first + 2, first + 2, first + 2]
    assert told.machine.command_index == first + 2


def test_a_drain_and_what_is_given_back_are_told() -> None:
    told = Told(level=2)
    told.do(up(P), SubmitJob(JOB, spec()), RaiseLevel(2))
    granted = told.do(Place(JOB, ALL, P, 1))[0]
    (drained,) = told.do(Drain(P, DrainMode.ONCE))
    assert (drained.kind, drained.peer, drained.data) == ("peer.drain", P, {"mode": "once"})
    (given,) = told.do(GiveBack(JOB, granted.command, ALL))
    assert (given.kind, given.peer, given.tasks) == ("tasks.returned", P, ALL)
    assert given.data == {"grant": granted.command}


def test_every_event_of_the_fold_is_told() -> None:
    """Whoever adds one says here what it is called outside."""
    untold = {event for event in get_args(Event) if not is_public(event)}
    assert untold == OF_STORES


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(COMMANDS, max_size=4), max_size=20))
def test_whatever_happens_places_rise_and_kinds_are_known(entries: list[list[Command]]) -> None:
    told = Told(KNOWN_LEVEL)
    told.do(*SETUP)
    before = At(1, 999)
    for commands in entries:
        for record in told.do(*commands):
            assert before < record.place
            assert record.kind in KINDS
            before = record.place


def test_a_filter_takes_whole_kinds_groups_and_jobs() -> None:
    record = EventRecord(1, 0, 1, 0, 0, "job.ended", job=JOB)
    assert EventFilter().fits(record)
    assert EventFilter(kinds=("peer.up", "job.ended")).fits(record)
    assert EventFilter(kinds=("job.",)).fits(record)
    assert not EventFilter(kinds=("job",)).fits(record)
    assert not EventFilter(kinds=("peer.",)).fits(record)
    assert EventFilter(job=JOB).fits(record)
    assert not EventFilter(job=JobId("other")).fits(record)


@pytest.mark.parametrize("text", ["", "x", "1:", ":1", "-1", "1:2:3", "1.5", "9" * 30, "²"])
def test_a_text_that_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"place|entry"):
        At.parse(text)


def test_a_place_reads_as_it_is_written() -> None:
    assert At.parse("12") == At(12, 0)
    assert At.parse(str(At(12, 3))) == At(12, 3)
    assert At(12, 3).behind == At(12, 4)
    assert At(12, 9) < At(13, 0)
