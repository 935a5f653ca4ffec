"""Entries as what is in them, and what their maker need not decode."""

from __future__ import annotations

import msgspec

from p2psched.core.raft.made import Made, open_entry
from p2psched.model.commands import Cancel, Command, Complete, Envelope, Grant, Place, SubmitJob
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause, JobSpec, ProgramWork, Segment
from p2psched.model.raft import Entry, EntryKind
from p2psched.model.taskset import TaskSet

JOB = JobId("0" * 32)
TASKS = TaskSet.of(0, 3)
SPEC = JobSpec("job", TASKS, ProgramWork(("true",)))
USUAL = (
    SubmitJob(JOB, SPEC),
    Place(JOB, TASKS, PeerId("b"), 1),
    Complete(JOB, Grant(7), (Segment(0, 3, Cause.OK, b"results", 9),)),
)


def envelopes(*commands: Command) -> tuple[Envelope, ...]:
    return tuple(Envelope(PeerId("a"), n, command) for n, command in enumerate(commands))


def entry(index: int, made_of: tuple[Envelope, ...]) -> Entry:
    return Entry(index, 1, EntryKind.COMMANDS, 5, 6, msgspec.msgpack.encode(made_of))


def test_what_an_entry_was_made_of_is_what_others_decode() -> None:
    made, wanted = Made(), envelopes(*USUAL)
    ours = entry(3, wanted)
    made.note(ours, wanted)
    opened = made.open(ours)
    assert opened.envelopes is wanted
    assert opened == open_entry(ours)


def test_once_opened_nothing_of_it_is_kept() -> None:
    made, wanted = Made(), envelopes(*USUAL)
    ours = entry(3, wanted)
    made.note(ours, wanted)
    made.open(ours)
    again = made.open(ours)
    assert again == open_entry(ours)
    assert again.envelopes is not wanted


def test_what_another_leader_put_in_its_place_is_decoded() -> None:
    made, wanted = Made(), envelopes(*USUAL)
    made.note(entry(3, wanted), wanted)
    theirs = entry(3, envelopes(Place(JOB, TASKS, PeerId("c"), 2)))
    assert made.open(theirs) == open_entry(theirs)


def test_of_other_commands_nothing_is_kept() -> None:
    made, wanted = Made(), envelopes(USUAL[0], Cancel(JOB))
    ours = entry(3, wanted)
    made.note(ours, wanted)
    assert made.open(ours).envelopes is not wanted
    assert made.open(ours) == open_entry(ours)


def test_who_leads_no_more_keeps_nothing() -> None:
    made, wanted = Made(), envelopes(*USUAL)
    ours = entry(3, wanted)
    made.note(ours, wanted)
    made.clear()
    assert made.open(ours).envelopes is not wanted
