"""`p2psched explain`: why a task is where it is, and why it waits."""

from __future__ import annotations

from typing import Final

from p2psched.cli.connect import talk
from p2psched.cli.describe import Names
from p2psched.cli.jobs import JobArgument
from p2psched.cli.options import Target, talks_to_peers
from p2psched.cli.output import (
    Column,
    Output,
    count,
    moment,
    note,
    print_json,
    print_table,
    span,
    write_line,
)
from p2psched.cli.resumed import from_where
from p2psched.cli.tasks import split_task
from p2psched.client.after import reason_of
from p2psched.client.client import Client
from p2psched.client.story import read_history
from p2psched.model.after import AfterEvent, JobAborted, JobReleased
from p2psched.model.backing import BackedUp, Promoted
from p2psched.model.commands import (
    GivenBack,
    Granted,
    Recorded,
    Retried,
    Revoked,
    Stamped,
)
from p2psched.model.errors import UsageError
from p2psched.model.explain_messages import Considered, Decision, Explained, ExplainTask
from p2psched.model.ids import PeerId, short
from p2psched.model.moves import Moved
from p2psched.model.once import Decided, Doubted, word_of
from p2psched.model.precedence import Preempted
from p2psched.model.resumed import Resumed
from p2psched.model.stalls import Stalled

EXAMPLES: Final = """\b
Examples:
  p2psched explain last/0
  p2psched explain 1a2b/17 -o json
"""

_COLUMNS: Final = (
    Column(title="peer", shrink_to=6),
    Column(title="given", right=True),
    Column(title="score", right=True),
    Column(title="slots", right=True),
    Column(title="owned", right=True),
    Column(title="load", right=True),
    Column(title="age of view", right=True),
)


@talks_to_peers
def explain(target: Target, job: JobArgument) -> None:
    """Tell why a task was placed or moved where it is, or why it waits. ID/INDEX is a task.

    Who decided tells what it saw of each peer, as long as it remembers: the score is the policy's,
    the least is best. The history in the ledger tells the rest.
    """
    text, index = split_task(job)

    async def work(client: Client) -> tuple[Explained, list[Stamped], Names]:
        found = await client.job(text)
        view = await found.show()
        chosen = index
        if chosen is None:
            if view.tasks != 1 or view.task_set.first is None:
                raise UsageError(f"which task of it? write {text}/INDEX: {view.task_set}")
            chosen = view.task_set.first
        explained = await client.session.call(ExplainTask(found.id, chosen), Explained)
        read = await read_history(client.session, found.id)
        events = [stamped for stamped in read.events if _concerns(stamped, chosen)]
        names = {peer.info.peer: peer.info.name for peer in await client.peers()}
        return explained, events, names

    explained, events, names = talk(target, work)
    match target.output:
        case Output.JSON:
            print_json(**_fields(explained, events))
        case Output.QUIET:
            write_line(explained.owner or "")
        case Output.TABLE:
            _print(explained, events, names)


def _concerns(stamped: Stamped, index: int) -> bool:
    match stamped.event:
        case Granted(tasks=tasks) | Moved(tasks=tasks) | GivenBack(tasks=tasks):
            return index in tasks
        case Revoked(tasks=tasks) | Resumed(tasks=tasks) | Stalled(tasks=tasks):
            return index in tasks
        case Doubted(tasks=tasks) | Decided(tasks=tasks):
            return index in tasks
        case BackedUp(tasks=tasks) | Promoted(tasks=tasks) | Preempted(tasks=tasks):
            return index in tasks
        case Recorded(segment=segment) | Retried(segment=segment):
            return segment.start <= index < segment.stop
        case JobReleased() | JobAborted():
            return True
        case _:
            return False


def _print(explained: Explained, events: list[Stamped], names: Names) -> None:
    where = f", owned by {_name(explained.owner, names)}" if explained.owner else ""
    write_line(f"task {short(explained.job)}/{explained.index}: {explained.state}{where}")
    if explained.waits:
        write_line(f"waits: {explained.waits}")
    if explained.steps_sunk:
        write_line(
            f"priority: {explained.steps_sunk} of at most {explained.steps_max} steps down: behind "
            f"all that was submitted before command {explained.stands_behind}"
        )
    for decision in explained.decisions:
        write_line("")
        _print_decision(decision, names)
    if events:
        write_line("")
        write_line("In the ledger:")
    for stamped in events:
        write_line(f"  {_time(stamped.wall_ms)}  {_what(stamped, names)}")
    if not explained.decisions and any(isinstance(each.event, Granted) for each in events):
        note(
            "nobody remembers what was seen then: whoever led has placed it, and its memory is "
            "short, or it was started again since"
        )
    for peer in explained.silent:
        note(f"{_name(peer, names)} did not say what it remembers")


def _print_decision(decision: Decision, names: Names) -> None:
    write_line(_headline(decision, _name(decision.by, names), _name(decision.chosen, names)))
    if decision.note:
        write_line(f"  {decision.note}")
    if decision.considered:
        rows = [_row(each, _name(each.peer, names)) for each in decision.considered]
        print_table(_COLUMNS, rows)
    if decision.left_out:
        note(f"and {decision.left_out:,} more")


def _name(peer: PeerId, names: Names) -> str:
    return names.get(peer, short(peer))


def _time(wall_ms: int) -> str:
    return (moment(wall_ms) or "")[11:-1] if wall_ms else ""


def _headline(decision: Decision, by: str, chosen: str) -> str:
    tasks = count(len(decision.tasks), "task")
    when = f"{_time(decision.wall_ms)} " if decision.wall_ms else ""
    if decision.kind == "stalled":
        return f"{when}{by} found that it could run and did not, {tasks} together"
    if decision.kind == "moved":
        return f"{when}{by} gave it to {chosen}, {tasks} together"
    each = span(decision.estimate_us / 1_000_000)
    if decision.kind == "backed up":
        return f"{when}{by} had it begun on {chosen}, too, {tasks} together"
    return (
        f"{when}{by} placed it on {chosen}, {tasks} together, by policy {decision.policy}; one is "
        f"expected to take {each}"
    )


def _row(each: Considered, name: str) -> tuple[object, ...]:
    age = "-" if each.age_ms is None else span(each.age_ms / 1000)
    score = f"{each.score:,.1f}" if each.fits else "too small"
    load = span(each.load_ms / 1000)
    return name, each.given or "-", score, each.slots, each.owned, load, age


def _doubt(event: Doubted | Decided, names: Names) -> str:
    if isinstance(event, Doubted):
        return f"unknown: {_name(event.peer, names)} was lost, and may have run it, or runs it"
    why = f" ({event.reason})" if event.reason else ""
    return f"decided by {event.by or 'somebody'}: {word_of(event.verdict)}{why}"


def _rare(
    event: Doubted | Decided | BackedUp | Promoted | Preempted | AfterEvent, names: Names
) -> str:
    if isinstance(event, AfterEvent):
        return f"{'released' if isinstance(event, JobReleased) else 'aborted'}: {reason_of(event)}"
    if isinstance(event, Doubted | Decided):
        return _doubt(event, names)
    name = _name(event.peer, names)
    if isinstance(event, Preempted):
        return f"preempted on {name}: job {short(event.by)} goes first"
    if isinstance(event, Promoted):
        return f"left to {name}, which runs it, too (grant {event.grant})"
    why = "for it is late" if event.speculates else "as a replica"
    return f"backed up on {name}, {why} (grant {event.grant})"


def _what(stamped: Stamped, names: Names) -> str:
    match stamped.event:
        case Granted(peer=peer, grant=grant):
            return f"granted to {_name(peer, names)} (grant {grant})"
        case Moved(peer=peer, taker=taker):
            return (
                f"moved from {_name(peer, names)}, which had not begun it, to {_name(taker, names)}"
            )
        case GivenBack(peer=peer):
            return f"given back by {_name(peer, names)}"
        case Resumed(peer=peer):
            where = from_where(stamped.event, lambda one: _name(one, names))
            return f"begins on {_name(peer, names)} from {where}"
        case Revoked(peer=peer, cause=cause):
            return f"taken from {_name(peer, names)}: {cause}"
        case Stalled(peer=peer, note=text):
            return f"{_name(peer, names)} found: {text}"
        case Retried(peer=peer, segment=segment):
            return f"failed on {_name(peer, names)} ({segment.cause}), to be tried again"
        case (
            Doubted()
            | Decided()
            | BackedUp()
            | Promoted()
            | Preempted()
            | JobReleased()
            | JobAborted()
        ):
            return _rare(stamped.event, names)
        case Recorded(peer=peer, segment=segment):
            return f"ended on {_name(peer, names)}: {segment.cause}"
        case _:
            return type(stamped.event).__name__


def _fields(explained: Explained, events: list[Stamped]) -> dict[str, object]:
    return {
        "job": explained.job,
        "index": explained.index,
        "state": explained.state,
        "owner": explained.owner,
        "waits": explained.waits or None,
        "priority": {
            "steps_down": explained.steps_sunk,
            "steps_max": explained.steps_max,
            "behind_command": explained.stands_behind or None,
        },
        "policy": explained.policy or "adaptive",
        "decisions": [_decision_fields(each) for each in explained.decisions],
        "history": [
            {"index": each.index, "time": moment(each.wall_ms), "what": _what(each, {})}
            for each in events
        ],
        "silent": list(explained.silent),
    }


def _decision_fields(decision: Decision) -> dict[str, object]:
    return {
        "kind": decision.kind,
        "by": decision.by,
        "chosen": decision.chosen,
        "tasks": str(decision.tasks),
        "policy": decision.policy or None,
        "note": decision.note or None,
        "time": moment(decision.wall_ms) if decision.wall_ms else None,
        "estimate_ms": decision.estimate_us / 1000 if decision.estimate_us else None,
        "considered": [
            {
                "peer": each.peer,
                "given": each.given,
                "score": each.score,
                "slots": each.slots,
                "owned": each.owned,
                "load_ms": each.load_ms,
                "age_ms": each.age_ms,
                "fits": each.fits,
            }
            for each in decision.considered
        ],
        "left_out": decision.left_out,
    }
