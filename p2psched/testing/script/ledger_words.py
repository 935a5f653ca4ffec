"""How scripts write what the ledger decides: commands, outcomes, events, one line each."""

from __future__ import annotations

from p2psched.core.machine import Decision
from p2psched.model import chunks
from p2psched.model.actions import Act, Acted, Elapsed
from p2psched.model.after import JobAborted, JobReleased
from p2psched.model.aside import Aside
from p2psched.model.backing import BackedUp, BackUp, Promoted
from p2psched.model.commands import (
    Acknowledged,
    Cancel,
    Command,
    Complete,
    Completed,
    Drain,
    DrainMode,
    Event,
    Forget,
    ForgetPeer,
    GiveBack,
    GivenBack,
    Granted,
    Held,
    JobAdded,
    JobEnded,
    JobEvent,
    JobForgotten,
    JobReopened,
    NewGeneration,
    Outcome,
    PeerCameUp,
    PeerDown,
    PeerDrains,
    PeerUp,
    PeerWentDown,
    Pin,
    Place,
    Placed,
    RaiseLevel,
    Recorded,
    Rejected,
    ResultRefused,
    ResultsLost,
    Retried,
    Retry,
    Revoked,
    SubmitJob,
    Submitted,
)
from p2psched.model.history_events import HistoryCut
from p2psched.model.ids import JobId
from p2psched.model.job import Cause, JobSpec, Segment
from p2psched.model.moves import Moved, Transfer
from p2psched.model.needs import Offer
from p2psched.model.once import Decided, Doubted, Once
from p2psched.model.pace_commands import Warn
from p2psched.model.precedence import Preempted
from p2psched.model.reconciled import Reconciled
from p2psched.model.resumed import NoteResumed, Resumed
from p2psched.model.retry_events import Alerted, Delayed
from p2psched.model.stalls import Stalled
from p2psched.model.taskset import TaskSet
from p2psched.model.webhook import AckWebhook, AddWebhook, RemoveWebhook
from p2psched.testing.script.act_words import act_words, acted_words, struct_words


class Jobs:
    """Names that a script gives to jobs, and the ids that stand for them."""

    def __init__(self) -> None:
        self._ids: dict[str, JobId] = {}
        self._names: dict[JobId, str] = {}
        self.specs: dict[str, JobSpec] = {}

    def id(self, name: str) -> JobId:
        if name not in self._ids:
            job = JobId(f"{len(self._ids) + 1:032x}")
            self._ids[name], self._names[job] = job, name
        return self._ids[name]

    def name(self, job: JobId) -> str:
        return self._names.get(job, job)


def tasks_words(tasks: TaskSet) -> str:
    return str(tasks) or "nothing"


def command_words(command: Command, jobs: Jobs) -> str:
    match command:
        case SubmitJob(job=job, spec=spec):
            return f"submit {jobs.name(job)} {spec.tasks}"
        case Place(job=job, tasks=tasks, peer=peer, incarnation=incarnation):
            return f"place {jobs.name(job)} {tasks} on {peer}/{incarnation}"
        case Complete(job=job, grant=grant, segments=segments):
            ended = " ".join(segment_words(segment) for segment in segments)
            return f"complete {jobs.name(job)} {ended} under {grant}"
        case PeerUp(info=info, kept=kept):
            keeps = ", ".join(f"{jobs.name(k.job)} {k.tasks} under {k.grant}" for k in kept)
            return f"up {info.peer}/{info.incarnation}" + (f" with {keeps}" if keeps else "")
        case PeerDown(peer=peer, incarnation=incarnation, reason=reason, stopped=stopped):
            return f"down {peer}/{incarnation}: " + (reason if stopped else "not heard")
        case Act() | Elapsed():
            return act_words(command)
        case Offer(peer=peer):
            return f"{peer} says what it has"
        case BackUp(job=job, tasks=tasks, peer=peer, incarnation=incarnation):
            return f"back up {jobs.name(job)} {tasks} on {peer}/{incarnation}"
        case _:
            return _decision_words(command, jobs)


def _decision_words(command: Decision | NewGeneration | ForgetPeer | Transfer, jobs: Jobs) -> str:
    match command:
        case Cancel(job=job) | Forget(job=job):
            return f"{type(command).__name__.lower()} {jobs.name(job)}"
        case Pin(job=job, pinned=pinned):
            return f"{'pin' if pinned else 'unpin'} {jobs.name(job)}"
        case Retry(job=job, tasks=tasks):
            return f"retry {jobs.name(job)} {tasks or 'what failed'}"
        case Held(job=job, peer=peer, held=held):
            return f"{peer} {'holds' if held else 'lacks'} results of {jobs.name(job)}"
        case RaiseLevel(level=level):
            return f"raise level to {level}"
        case Drain(peer=peer, mode=mode):
            once = " until it comes up again" if mode is DrainMode.ONCE else ""
            return f"{'undrain' if mode is DrainMode.OFF else 'drain'} {peer}{once}"
        case GiveBack() | Transfer() | NoteResumed() | Warn() | Once():
            return _owner_words(command, jobs)
        case NewGeneration(generation=generation, peer=peer):
            return f"generation {generation} begins with {peer}"
        case ForgetPeer(peer=peer) | Reconciled(peer=peer):
            is_report = isinstance(command, Reconciled)
            return f"{peer} reports" if is_report else f"forget peer {peer}"
        case _:
            return _hook_words(command)


def _owner_words(command: GiveBack | Transfer | NoteResumed | Warn | Once, jobs: Jobs) -> str:
    if isinstance(command, Warn):
        return f"warn of {jobs.name(command.job)}/{command.index}: {command.why}"
    if isinstance(command, NoteResumed):
        return f"{jobs.name(command.job)} {command.task} goes on from {command.number}"
    if isinstance(command, Once):
        step = command.step
        return f"{type(step).__name__.lower()} {jobs.name(command.job)} {step.tasks}"
    what = f"{jobs.name(command.job)} {command.tasks} of {command.grant}"
    if isinstance(command, Transfer):
        return f"move {what} to {command.peer}/{command.incarnation}"
    way = f", for {jobs.name(command.by)}" if command.by else ""
    return f"give back {what}{way}"


def _hook_words(command: AddWebhook | RemoveWebhook | AckWebhook) -> str:
    match command:
        case AddWebhook(name=name):
            return f"add webhook {name}"
        case RemoveWebhook(name=name):
            return f"remove webhook {name}"
        case AckWebhook(name=name, upto=upto):
            return f"webhook {name} has all before {upto}"


def segment_words(segment: Segment) -> str:
    how = "" if segment.cause is Cause.OK else f"({segment.cause})"
    return f"{segment.tasks}{how}"


def outcome_words(outcome: Outcome, jobs: Jobs) -> str:
    match outcome:
        case Submitted(duplicate=duplicate):
            return "known already" if duplicate else "accepted"
        case Placed(grant=grant, tasks=tasks):
            return f"grant {grant} of {tasks}" if tasks else "nothing"
        case Completed():
            parts = [
                f"{what} {tasks}"
                for what, tasks in (
                    ("accepted", outcome.accepted),
                    ("said before", outcome.duplicate),
                    ("stale", outcome.stale),
                )
                if tasks
            ]
            return ", ".join(parts) or "nothing"
        case Acknowledged():
            return "done"
        case Rejected(message=message):
            return f"refused, {_readable(message, jobs)}"
        case Acted():
            return acted_words(outcome)


def _readable(message: str, jobs: Jobs) -> str:
    for name in jobs.specs:
        message = message.replace(jobs.id(name), name)
    return message


def event_words(event: Event, jobs: Jobs) -> str:
    """Empty for what the outcome says already."""
    if isinstance(event, Alerted):
        what = event.why or f"ended by {event.cause}"
        return f"{event.severity}: {jobs.name(event.job)} {event.tasks} {what}"
    if isinstance(event, Stalled):
        return f"{event.peer}: {event.note}"
    if isinstance(event, Delayed):
        return f"{jobs.name(event.job)} {event.tasks} waits until {event.until_ms}"
    if isinstance(event, Doubted | Decided):
        return f"{jobs.name(event.job)} {event.tasks} is {type(event).__name__.lower()}"
    if isinstance(event, BackedUp | Promoted):
        what = "runs on" if isinstance(event, BackedUp) else "is left to"
        return f"{jobs.name(event.job)} {event.tasks} {what} {event.peer}, too, by {event.grant}"
    if isinstance(event, Preempted):
        return f"{jobs.name(event.job)} {event.tasks} makes way for {jobs.name(event.by)}"
    if isinstance(event, JobReleased | JobAborted):
        what = "may begin, after" if isinstance(event, JobReleased) else "is aborted, for"
        return f"{jobs.name(event.job)} {what} {jobs.name(event.by)}"
    return struct_words(event) if isinstance(event, Aside) else _event_words(event, jobs)


def _event_words(event: JobEvent, jobs: Jobs) -> str:
    match event:
        case Revoked(job=job, grant=grant, peer=peer, tasks=tasks, cause=cause):
            return f"{peer} loses {jobs.name(job)} {tasks} of grant {grant} ({cause})"
        case Recorded(job=job, position=position, segment=segment):
            what = f"result {position} of {jobs.name(job)}: {segment_words(segment)}"
            if segment.cause is Cause.PEER_LOST:
                return what  # the machine says why, in words for people
            return f"{what} {' '.join(map(bytes.decode, chunks.unpack(segment.data)))}"
        case Retried(job=job, segment=segment):
            return f"{jobs.name(job)} {segment_words(segment)} is tried again"
        case ResultsLost(job=job, tasks=tasks):
            return f"the last copy of results {tasks} of {jobs.name(job)} is gone"
        case JobReopened(job=job, tasks=tasks, position=position):
            return f"{jobs.name(job)} {tasks} waits again; results before {position} are void"
        case JobEnded(job=job, state=state):
            return f"{jobs.name(job)} has {state}"
        case GivenBack(job=job, tasks=tasks) | Moved(job=job, tasks=tasks):
            where = f"is {event.taker}'s now" if isinstance(event, Moved) else "waits again"
            return f"{jobs.name(job)} {tasks} {where}"
        case (
            JobAdded() | Granted() | ResultRefused() | PeerCameUp() | PeerWentDown()
            | JobForgotten() | PeerDrains() | Alerted() | Delayed() | HistoryCut() | Resumed()
            | Stalled() | Doubted() | Decided() | BackedUp() | Promoted() | Preempted()
            | JobReleased() | JobAborted()
        ):  # fmt: skip
            return ""
