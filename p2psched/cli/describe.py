"""Jobs, tasks and peers in words and as JSON fields. The names of the fields are a promise."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from p2psched.cli.after import after_fields
from p2psched.cli.backups import backup_fields
from p2psched.cli.output import count, moment, one_line, span
from p2psched.cli.precedence import precedence_fields
from p2psched.cli.resumed import resumed_fields
from p2psched.cli.tasks import TaskEnd
from p2psched.client.after import aborted_text
from p2psched.client.attempts import Attempt
from p2psched.client.logs import Log
from p2psched.model import items
from p2psched.model.commands import PeerInfo
from p2psched.model.ids import SHORT_LEN, JobId, PeerId, short
from p2psched.model.job import Cause, JobState
from p2psched.model.load import LoadReport
from p2psched.model.messages import JobView
from p2psched.model.once import Start
from p2psched.model.peer_messages import PeerView

Names = Mapping[PeerId, str]


def short_ids(jobs: Sequence[JobId]) -> dict[JobId, str]:
    """Each id as far as it must be typed among these; at least eight digits."""
    length = SHORT_LEN
    while len({job[:length] for job in jobs}) < len(set(jobs)):
        length += 1
    return {job: job[:length] for job in jobs}


def title(view: JobView) -> str:
    """`job 1a2b3c4d (hello)`."""
    return f"job {short(view.job)} ({view.name})" if view.name else f"job {short(view.job)}"


def ended_tasks(view: JobView) -> int:
    return view.succeeded + view.failed + view.cancelled


def summary(view: JobView) -> str:
    """How a job ended, in one line."""
    took = (
        "" if view.ended_ms is None else f" in {span((view.ended_ms - view.submitted_ms) / 1000)}"
    )
    match view.state:
        case JobState.SUCCEEDED:
            text = f"{count(view.succeeded, 'task')} succeeded{took}"
        case JobState.FAILED:
            text = f"{view.failed:,} of {count(view.tasks, 'task')} failed{took}"
        case JobState.CANCELLED:
            text = f"cancelled; {view.succeeded:,} of {count(view.tasks, 'task')} had succeeded"
        case JobState.ABORTED:
            return f"{title(view)} {aborted_text(view)}"
        case JobState.RUNNING:
            text = f"{ended_tasks(view):,} of {count(view.tasks, 'task')} ended"
    return f"{title(view)}: {text}"


def unknown_text(view: JobView) -> str:
    """What a person has to do about tasks that are unknown; `view` is a whole one."""
    name, first = short(view.job), view.once.tasks.first
    doubts = view.once
    if doubts.start is Start.EXCLUSIVE:
        return (
            f"{count(doubts.unknown, 'task')} of {title(view)} may still run on a peer that was "
            f"lost ({doubts.tasks}): the first lease is over in {span(doubts.lapse_ms / 1000)}, "
            "and then it runs elsewhere by itself"
        )
    lost = "its peer was lost" if doubts.unknown == 1 else "their peers were lost"
    return (
        f"{count(view.once.unknown, 'task')} of {title(view)} may have run, and nobody knows: "
        f"{lost} ({doubts.tasks}). See what was done, then say so: "
        f"`p2psched job resolve {name} {first} --succeeded`, "
        "`--failed REASON`, or `--run-again`"
    )


def reason(cause: str, header: items.Header) -> str:
    """Why a task ended as it did. Opens no value: that could run code."""
    if "type" in header:
        message = one_line(str(header.get("message", "")))
        return f"{header['type']}: {message}" if message else str(header["type"])
    if cause != Cause.TIMEOUT and header.get("exit"):
        return f"exit code {header['exit']}"
    message = one_line(str(header.get("message", "")))
    if cause not in {Cause.TIMEOUT, Cause.OOM} and "signal" in header:
        text = f"signal {header['signal']} ({_signal_name(int(header['signal']))})"
        return f"{text}: {message}" if message else text
    return f"{cause}: {message}" if message else cause


def failure(task: TaskEnd) -> str:
    """A failed task: what happened, and where to look."""
    return (
        f"task {task.name}: {reason(task.cause, task.header)}: see `p2psched job logs {task.name}`"
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"


def per_peer(counts: Iterable[tuple[PeerId, int]], names: Names) -> str:
    return ", ".join(f"{names.get(peer, short(peer))} {number:,}" for peer, number in counts)


def moves_text(view: JobView, names: Names) -> str | None:
    """Who gave tasks to whom; nothing if nobody did."""
    if not view.moved:
        return None

    def name(peer: PeerId) -> str:
        return names.get(peer, short(peer))

    pairs = [f"{name(one)} to {name(other)} {number:,}" for one, other, number in view.moves]
    rest = view.moved - sum(number for *_, number in view.moves)
    if rest:
        pairs.append(f"between others {rest:,}")
    return f"{view.moved:,} ({', '.join(pairs)})"


# --- JSON -----------------------------------------------------------------------------------------


def job_fields(view: JobView) -> dict[str, object]:
    return {
        "id": view.job,
        "name": view.name,
        "kind": view.kind,
        "state": view.state,
        "tasks": view.tasks,
        "waiting": view.waiting,
        "owned": view.owned,
        "succeeded": view.succeeded,
        "failed": view.failed,
        "cancelled": view.cancelled,
        "attempts_lost": view.attempts_lost,
        "attempts_failed": view.attempts_failed,
        "results_refused": view.results_refused,
        "ended_badly_by": dict(view.bad_ends),
        "delayed": view.delayed,
        "next_attempt": moment(view.next_attempt_ms),
        "given_up": view.stopped or None,
        "start": view.once.start.name.lower(),
        "lease_s": view.once.lease_ms / 1000 or None,
        "unknown": view.once.unknown,
        "unknown_tasks": str(view.once.tasks),
        "unknown_at": dict(view.once.at),
        **backup_fields(view.backups),
        **precedence_fields(view.precedence),
        **after_fields(view.after),
        "submitted": moment(view.submitted_ms),
        "ended": moment(view.ended_ms),
        "submitter": view.submitter,
        "task_set": str(view.task_set),
        "command": view.command,
        "note": view.note,
        "lost": view.lost,
        "short_of_copies": view.short,
        "pinned": view.pinned,
        "result_bytes": view.result_bytes,
        "owners": dict(view.owners),
        "finished_by": dict(view.finished_by),
        "moved": view.moved,
        "moves": [
            {"from": giver, "to": taker, "tasks": number} for giver, taker, number in view.moves
        ],
        **resumed_fields(view),
    }


def task_fields(task: TaskEnd) -> dict[str, object]:
    """`value_bytes` counts the packed value of a function, wherever it is, with its files;
    `value_kind` is "plain", "pickle", "large" or null; `outputs` are a program's."""
    return {
        "index": task.index,
        "cause": task.cause,
        "exit": task.header.get("exit"),
        "signal": task.header.get("signal"),
        "type": task.header.get("type"),
        "message": task.header.get("message"),
        "value_kind": task.value_kind or None,
        "value_bytes": task.value_bytes,
        "outputs": [
            {"name": name, "bytes": ref.size, "digest": str(ref)} for name, ref in task.outputs
        ],
        **log_fields(task),
    }


def log_fields(task: TaskEnd) -> dict[str, object]:
    """What a task printed; the totals are larger than the texts if a middle was dropped."""
    return {
        "index": task.index,
        "stdout": task.stdout.decode(errors="replace"),
        "stderr": task.stderr.decode(errors="replace"),
        "stdout_total": task.total("stdout"),
        "stderr_total": task.total("stderr"),
    }


def attempt_line(attempt: Attempt, names: Names) -> str:
    """Which attempt, where and when, and how it ended."""
    peer = names.get(attempt.peer, short(attempt.peer))
    begin = f"attempt {attempt.number} on {peer}, granted {_clock(attempt.granted_ms)}"
    if attempt.cause is None:
        return f"{begin}, has not ended"
    return f"{begin}, ended {_clock(attempt.ended_ms)}: {attempt.cause}"


def _clock(wall_ms: int | None) -> str:
    return (moment(wall_ms) or "")[11:-1] if wall_ms else "?"


def attempt_fields(log: Log, names: Names, cut: Callable[[bytes], bytes]) -> dict[str, object]:
    """One attempt with what it printed; `cut` leaves of a stream what was asked for."""
    attempt = log.attempt
    return {
        "attempt": attempt.number,
        "grant": attempt.grant,
        "peer": names.get(attempt.peer, attempt.peer),
        "granted": moment(attempt.granted_ms),
        "ended": moment(attempt.ended_ms) if attempt.ended_ms else None,
        "cause": attempt.cause,
        "exit": log.header.get("exit"),
        "signal": log.header.get("signal"),
        "message": log.header.get("message"),
        "traceback": log.header.get("traceback"),
        "stdout": cut(log.out.rest()).decode(errors="replace"),
        "stderr": cut(log.err.rest()).decode(errors="replace"),
        "stdout_total": log.out.total,
        "stderr_total": log.err.total,
        "stdout_kept": log.out.kept,
        "stderr_kept": log.err.kept,
        "note": log.note or None,
    }


def info_fields(info: PeerInfo) -> dict[str, object]:
    return {
        "id": info.peer,
        "name": info.name,
        "address": info.address,
        "pid": info.pid,
        "slots": info.slots,
        "incarnation": info.incarnation,
        "software_version": info.version,
        "python": info.python,
    }


def peer_fields(view: PeerView) -> dict[str, object]:
    return {
        **info_fields(view.info),
        "role": view.role,
        "state": view.state,
        "owned": view.owned,
        "heard_ms": view.heard_ms,
        "zone": view.zone,
        "term": view.term,
        "applied": view.applied,
        "lag": view.lag,
        "drain": view.drain or None,
        "copies_left": view.copies_left,
        "quarantine": view.quarantine or None,
        "gossip": view.gossip or None,
        "load": load_fields(view.load),
        "load_age_ms": view.load_age_ms,
    }


def load_fields(load: LoadReport | None) -> dict[str, object] | None:
    """Memory and disk in MiB, rates in KiB/s, shares from 0 to 1."""
    if load is None:
        return None
    fields = msgspec.structs.asdict(load)
    del fields["unused"]
    for name in ("cpu", "foreign_cpu", "duty"):
        fields[name] /= 1000
    for name in ("battery", "temperature"):
        fields[name] = fields[name] if fields[name] >= 0 else None
    fields["load"] /= 100
    fields["queued"] = [{"kind": f"{kind:08x}", "tasks": tasks} for kind, tasks in load.queued]
    fields["speeds"] = [
        {**msgspec.structs.asdict(speed), "kind": f"{speed.kind:08x}"} for speed in load.speeds
    ]
    fields["warm"] = [f"{key:08x}" for key in load.warm]
    fields["machine"] = f"{load.machine:08x}"
    return fields
