"""The part of the fold that remembers from where tasks went on, for people. Nothing rests on it."""

from __future__ import annotations

from typing import Final

from p2psched.core.drain import give_back
from p2psched.core.retrying import warn
from p2psched.core.state import LedgerState
from p2psched.model.commands import Acknowledged, GiveBack, Outcome
from p2psched.model.pace_commands import Warn
from p2psched.model.resumed import NoteResumed, Resumed, Resumption
from p2psched.model.taskset import TaskSet

TASKS_MAX: Final = 16  # of a job, the newest; of others only the number


def decide(s: LedgerState, command: GiveBack | NoteResumed | Warn) -> Outcome:
    """What an owner says of its tasks."""
    if isinstance(command, Warn):
        return warn(s, command)
    if isinstance(command, GiveBack):
        return give_back(s, command)
    return note(s, command)


def note(s: LedgerState, command: NoteResumed) -> Outcome:
    job = s.jobs.get(command.job)
    held = job.grants.get(command.grant) if job is not None else None
    if job is None or held is None or command.task not in held.tasks:
        return Acknowledged()  # it has ended, or is another's by now
    number, saved_ms, source = command.number, command.saved_wall_ms, command.source
    tasks = TaskSet.of(command.task, command.task + 1)
    found = Resumption(command.task, held.peer, source, number, saved_ms, s.wall_ms)
    others = [known for known in job.resumed if known.task != command.task]
    job.resumed = (*others, found)[-TASKS_MAX:]
    job.resumed_count += 1
    event = Resumed(
        *(job.id, held.grant, held.peer, tasks, command.attempt), number, saved_ms, source
    )
    s.events.append(event)
    return Acknowledged()
