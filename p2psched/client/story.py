"""The history of a job as steps that people and programs read: what happened, to which tasks, at
which peer, under which grant, and why. Pure, but for the reads at the end.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from p2psched.client.after import reason_of
from p2psched.client.session import Asker
from p2psched.model.after import AfterEvent, JobAborted, JobReleased
from p2psched.model.backing import BackedUp, Promoted
from p2psched.model.commands import (
    Event,
    GivenBack,
    Granted,
    JobAdded,
    JobEnded,
    JobReopened,
    PeerCameUp,
    PeerWentDown,
    Recorded,
    ResultRefused,
    ResultsLost,
    Retried,
    Revoked,
    Stamped,
)
from p2psched.model.history_events import HistoryCut
from p2psched.model.ids import JobId, PeerId, short
from p2psched.model.job import Cause, JobState
from p2psched.model.messages import FetchHistory, History
from p2psched.model.moves import Moved
from p2psched.model.once import Decided, Doubted, word_of
from p2psched.model.precedence import Preempted
from p2psched.model.resumed import Resumed
from p2psched.model.retry_events import Alerted, Delayed
from p2psched.model.stalls import Stalled
from p2psched.model.taskset import EMPTY, TaskSet

PAGE_EVENTS: Final = 1000
_PEERS: Final = JobId("")  # in whose history stands what happens to peers


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One transition. `tasks` is empty for what concerns the whole job."""

    event: str
    index: int = 0  # of the command
    at_ms: int = 0  # ledger time
    wall_ms: int = 0  # Unix time, for people
    tasks: TaskSet = EMPTY
    peer: PeerId | None = None
    grant: int | None = None
    cause: str = ""
    other: PeerId | None = None  # whom tasks moved from
    found_on: PeerId | None = None  # whose disk had the checkpoint
    busy_us: int | None = None  # what an attempt took, the mean of those told together
    until_ms: int | None = None  # of a delay, in ledger time
    is_bad: bool = False
    is_demoted: bool = False  # behind what was submitted until then

    @property
    def until_wall_ms(self) -> int | None:
        return None if self.until_ms is None else self.wall_ms + self.until_ms - self.at_ms


class _Owners:
    """Whose the tasks are, to know what the loss of a peer means for this job."""

    def __init__(self) -> None:
        self._held: dict[int, tuple[PeerId, TaskSet]] = {}
        self._lost: set[PeerId] = set()

    def take(self, event: Event) -> None:
        match event:
            case Granted(grant=grant, peer=peer, tasks=tasks):
                self._held[grant] = (peer, tasks)
            case (
                GivenBack(grant=grant, tasks=tasks)
                | Moved(grant=grant, tasks=tasks)
                | Revoked(grant=grant, tasks=tasks)
            ):
                self._drop(grant, tasks)
            case Retried(grant=grant, segment=segment) | Recorded(grant=grant, segment=segment):
                self._drop(grant, segment.tasks)
            case _:
                pass

    def _drop(self, grant: int, tasks: TaskSet) -> None:
        if grant in self._held:
            peer, held = self._held.pop(grant)
            if left := held - tasks:
                self._held[grant] = (peer, left)

    def lost(self, event: PeerWentDown | PeerCameUp) -> Step | None:
        """What the news of a peer says of this job."""
        peer = event.peer if isinstance(event, PeerWentDown) else event.info.peer
        tasks = TaskSet.union([held for owner, held in self._held.values() if owner == peer])
        if not tasks:
            return None
        if isinstance(event, PeerWentDown):
            self._lost.add(peer)
            step = Step(event="peer lost", tasks=tasks, peer=peer, cause=event.reason)
            return replace(step, is_bad=True)
        if peer not in self._lost:
            return None
        self._lost.discard(peer)
        return Step(event="peer back", tasks=tasks, peer=peer)


def steps_of(
    events: Iterable[Stamped], of_peers: Iterable[Stamped], demotes: Collection[str] = ()
) -> Iterator[Step]:
    """Both are in order; `demotes`: the causes whose ends put a task behind others."""
    owners = _Owners()
    told = 0  # index of what says already why tasks were given back
    for stamped in sorted([*events, *of_peers], key=lambda one: one.index):
        event = stamped.event
        if isinstance(event, PeerWentDown | PeerCameUp):
            step = owners.lost(event)
        else:
            step = _step(event, demotes)
            owners.take(event)
        if isinstance(event, GivenBack) and stamped.index == told:
            continue
        if isinstance(event, Preempted):
            told = stamped.index
        if step is not None:
            yield replace(step, index=stamped.index, at_ms=stamped.at_ms, wall_ms=stamped.wall_ms)


def _elsewhere(event: BackedUp | Promoted | Preempted) -> Step:
    if isinstance(event, Preempted):
        what, why = "preempted", f"job {short(event.by)} goes first"
    elif isinstance(event, Promoted):
        what, why = "left to", "it runs there, too"
    else:
        what, why = "backed up", "it is late" if event.speculates else "a replica"
    return Step(event=what, tasks=event.tasks, peer=event.peer, grant=event.grant, cause=why)


def _step(event: Event, demotes: Collection[str]) -> Step | None:
    match event:
        case Granted(tasks=tasks, peer=peer, grant=grant):
            return Step(event="granted", tasks=tasks, peer=peer, grant=grant)
        case Revoked(tasks=tasks, peer=peer, grant=grant, cause=cause):
            bad = cause not in {Cause.CANCELLED, Cause.OVERTAKEN}
            step = Step(event="taken away", tasks=tasks, peer=peer, grant=grant, cause=cause)
            return replace(step, is_bad=bad)
        case GivenBack(tasks=tasks, peer=peer, grant=grant):
            why = "the peer is drained"
            return Step(event="given back", tasks=tasks, peer=peer, grant=grant, cause=why)
        case Stalled(tasks=tasks, peer=peer, note=note):
            return Step(event="stood still", tasks=tasks, peer=peer, cause=note, is_bad=True)
        case Moved(tasks=tasks, peer=peer, taker=taker, to=to):
            return Step(event="moved", tasks=tasks, peer=taker, grant=to, other=peer)
        case Resumed():
            return _resumed(event)
        case Recorded() | Retried():
            return _end(event, demotes)
        case Delayed(tasks=tasks, until_ms=until_ms):
            return Step(event="delayed", tasks=tasks, until_ms=until_ms)
        case Alerted(tasks=tasks, peer=peer, cause=cause, severity=severity):
            text = f"{severity}: {cause}"
            return Step(event="alert", tasks=tasks, peer=peer, cause=text, is_bad=True)
        case _:
            return _job_step(event)


def _resumed(event: Resumed) -> Step:
    is_new = not event.number
    said = "no checkpoint could be had" if is_new else f"checkpoint {event.number}"
    step = Step(event="began anew" if is_new else "resumed", cause=said, found_on=event.source)
    return replace(step, tasks=event.tasks, peer=event.peer, grant=event.grant, is_bad=is_new)


def _after(event: AfterEvent) -> Step:
    is_bad = isinstance(event, JobAborted)
    return Step(event="aborted" if is_bad else "released", cause=reason_of(event), is_bad=is_bad)


def _doubt(event: Doubted | Decided) -> Step:
    if isinstance(event, Decided):
        why = f" ({event.reason})" if event.reason else ""
        text = f"{word_of(event.verdict)}, says {event.by or 'somebody'}{why}"
        return Step(event="decided", tasks=event.tasks, cause=text)
    step = Step(event="unknown", tasks=event.tasks, peer=event.peer, grant=event.grant)
    return replace(step, cause="its owner was lost", is_bad=True)


def _end(event: Recorded | Retried, demotes: Collection[str]) -> Step:
    segment = event.segment
    is_last = isinstance(event, Recorded)
    return Step(
        event="ended" if is_last else "to be retried",
        tasks=segment.tasks,
        peer=event.peer,
        grant=event.grant,
        cause=segment.cause,
        busy_us=segment.busy_us // (segment.stop - segment.start),
        is_bad=segment.cause is not Cause.OK,
        is_demoted=not is_last and segment.cause in demotes,
    )


def _job_step(event: Event) -> Step | None:
    """What happened to the job, or to tasks that nobody owns."""
    match event:
        case BackedUp() | Promoted() | Preempted():
            return _elsewhere(event)
        case JobAdded():
            return Step(event="submitted")
        case ResultRefused(tasks=tasks, grant=grant):
            return Step(event="result refused", tasks=tasks, grant=grant, cause="old grant")
        case JobEnded(state=state):
            return Step(event="job ended", cause=state, is_bad=state is JobState.FAILED)
        case JobReopened(tasks=tasks):
            return Step(event="run again", tasks=tasks, cause="asked for")
        case Doubted() | Decided():
            return _doubt(event)
        case JobReleased() | JobAborted():
            return _after(event)
        case ResultsLost(tasks=tasks):
            return Step(event="result lost", tasks=tasks, cause="last copy gone", is_bad=True)
        case HistoryCut(events=events):
            text = f"{events:,} events are let go of"
            return Step(event="cut", cause=text, is_bad=True)
        case _:  # what happens to peers stands in no job's history
            return None


# --- reads ----------------------------------------------------------------------------------------


class Read:
    """A job's history as far as it was read."""

    def __init__(self) -> None:
        self.events: list[Stamped] = []
        self.of_peers: list[Stamped] = []
        self.demotes: tuple[str, ...] = ()

    def steps(self, index: int | None = None, *, failed: bool = False) -> list[Step]:
        """Those of one task, with what concerns the whole job; only what went wrong."""
        return [
            step
            for step in steps_of(self.events, self.of_peers, self.demotes)
            if (index is None or not step.tasks or index in step.tasks)
            and (step.is_bad or not failed)
        ]


async def read_history(session: Asker, job: JobId, limit: int | None = None) -> Read:
    """The first events of a job, or all of them, and what happened to its owners meanwhile."""
    read = Read()
    more, after = True, 0
    while more and (limit is None or len(read.events) < limit):
        page = await session.call(FetchHistory(job, after, PAGE_EVENTS), History)
        read.events += page.events
        read.demotes = page.demotes
        more = page.more and bool(page.events)
        after = page.events[-1].index if page.events else after
    read.events = read.events[:limit]
    granted = [one.index for one in read.events if isinstance(one.event, Granted)]
    ended = [one.index for one in read.events if isinstance(one.event, JobEnded)]
    if granted:
        upto = ended[-1] if ended and not more else after if more else None
        read.of_peers = await _peers(session, granted[0], upto)
    return read


async def _peers(session: Asker, after: int, upto: int | None) -> list[Stamped]:
    found: list[Stamped] = []
    more = True
    while more and (upto is None or after < upto):
        page = await session.call(FetchHistory(_PEERS, after, PAGE_EVENTS), History)
        found += page.events
        more = page.more and bool(page.events)
        after = page.events[-1].index if page.events else after
    return [one for one in found if upto is None or one.index <= upto]
