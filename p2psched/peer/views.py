"""The state machine as people see it: frozen views, made when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final

import msgspec

from p2psched.core import dependencies, exclusive, fitting, holding
from p2psched.core.copies import staying_peers
from p2psched.core.drain import standing
from p2psched.core.jobs import Job
from p2psched.core.keeping import live_holders
from p2psched.core.machine import Machine
from p2psched.core.swim.members import Member
from p2psched.model.commands import PeerInfo
from p2psched.model.errors import NotFound
from p2psched.model.ids import JobId, PeerId, is_id
from p2psched.model.limits import KIB
from p2psched.model.load import Liveness, Seen
from p2psched.model.member_messages import Standing
from p2psched.model.messages import JobView
from p2psched.model.once import OnceView, Start
from p2psched.model.peer_messages import PeerView
from p2psched.model.precedence import PrecedenceView
from p2psched.model.raft import Membership
from p2psched.model.taskset import EMPTY
from p2psched.peer.backup_views import backup_view

JOBS_MAX: Final = 1000
PAGE_BYTES_MAX: Final = 512 * KIB
SUSPECT_AFTER_MS: Final = 1000  # silence after which a peer is shown as suspect

NOTHING_UNKNOWN: Final = OnceView()
USUAL: Final = PrecedenceView()


def job_view(
    job: Job, machine: Machine, *, keep_ms: int | None = None, whole: bool = False
) -> JobView:
    """Cost O(ranges, grants and large results of the job). Only a whole view names the tasks.
    `keep_ms`: how long after its end it is kept."""
    owners: dict[PeerId, int] = {}
    for held in job.grants.values():
        owners[held.peer] = owners.get(held.peer, 0) + len(held.tasks)
    return JobView(
        job=job.id,
        name=job.spec.name,
        kind=job.spec.kind,
        state=job.state,
        tasks=len(job.spec.tasks),
        waiting=len(job.waiting),
        owned=sum(owners.values()),
        succeeded=len(job.succeeded),
        failed=len(job.failed),
        cancelled=len(job.cancelled),
        segments=job.segments,
        attempts_lost=job.attempts_lost,
        attempts_failed=job.attempts_failed,
        results_refused=job.results_refused,
        submitted_ms=job.submitted_wall_ms,
        ended_ms=job.ended_wall_ms,
        submitter=job.spec.submitter,
        owners=tuple(sorted(owners.items())),
        finished_by=tuple(sorted(job.finished_by.items())),
        task_set=job.spec.tasks if whole else EMPTY,
        command=job.spec.command,
        note=_note(job, machine),
        lost=len(job.lost),
        short=short_count(job, machine) if whole else 0,
        pinned=job.pinned,
        keep_ms=keep_ms,
        result_bytes=job.result_bytes,
        moved=job.moved_count,
        moves=job.moved if whole else (),
        resumed=job.resumed_count,
        resumptions=job.resumed if whole else (),
        bad_ends=tuple(sorted(job.bad_ends.items())),
        delayed=len(job.delayed),
        next_attempt_ms=_next_attempt_ms(job, machine),
        stopped=job.stopped,
        once=_once(job, machine, whole=whole),
        backups=backup_view(job, machine, whole=whole),
        precedence=_precedence(job),
        after=dependencies.view(machine, job, whole=whole),
    )


def _precedence(job: Job) -> PrecedenceView:
    found = job.spec.precedence
    if found is None:
        return USUAL
    preempted = sum(map(len, job.preempted.levels))
    return PrecedenceView(found.priority, found.preemptible, found.runs_ms, preempted)


def _once(job: Job, machine: Machine, *, whole: bool) -> OnceView:
    start, lease_ms = job.spec.start, job.spec.lease_ms
    if not job.unknown:
        return OnceView(start, lease_ms=lease_ms) if start else NOTHING_UNKNOWN
    tasks, due_ms = job.doubtful, exclusive.next_lapse_ms(job)
    lapse_ms = max(0, (due_ms or 0) - machine.stamp_ms)
    if not whole:
        return OnceView(start, len(tasks), lease_ms=lease_ms, lapse_ms=lapse_ms)
    at = tuple(sorted((held.peer, len(held.tasks)) for held in job.unknown.values()))
    return OnceView(start, len(tasks), tasks, at, lease_ms, lapse_ms)


def _note(job: Job, machine: Machine) -> str:
    """Why nothing moves, if nothing moves."""
    if job.unknown and not job.grants and not job.waiting:
        if job.spec.start is Start.EXCLUSIVE:
            return "waits until the leases on tasks of lost peers are over"
        return "waits for a person to say what became of its unknown tasks: `p2psched job resolve`"
    return why_waiting(job, machine) if job.waiting and not job.grants else ""


def _next_attempt_ms(job: Job, machine: Machine) -> int | None:
    """As the clock of who leads has it."""
    return machine.wall_ms + min(job.later) - machine.stamp_ms if job.later else None


def short_count(job: Job, machine: Machine) -> int:
    """Large results with fewer copies on live peers than the job asked for."""
    return sum(len(live_holders(machine, blob)) < job.spec.copies for blob in job.blobs.values())


def why_waiting(job: Job, machine: Machine) -> str:
    """What tasks of it wait for."""
    if job.awaits:
        return dependencies.story(machine, job)
    slots = [row.info.slots for row in machine.peers.values() if row.takes_tasks]
    if max(slots, default=0) == 0:
        if any(row.live and row.info.slots for row in machine.peers.values()):
            return (
                "all peers that run tasks are drained or cordoned: start another, or take one back "
                "with `p2psched peer uncordon NAME`"
            )
        return "no live peer runs tasks: start one with --slots 1 or more"
    if max(slots) < job.spec.cpus:
        return (
            f"a task needs {job.spec.cpus} slots and the largest live peer has {max(slots)}: "
            "start a larger one"
        )
    story = fitting.story(machine, job) if job.spec.is_choosy or machine.apart else ""
    if story:
        return story
    if job.delayed == job.waiting:
        return "waits until its next attempts are due"
    if job.spec.hold is not None and job.id not in machine.unplaced:
        return holding.story(machine, job)
    return "waits for a free slot"


def task_state(job: Job, index: int) -> tuple[str, PeerId | None]:
    """Where a task stands, and who owns it. Raises NotFound."""
    held = job.owner_of(index)
    if held is not None:
        return "owned", held.peer
    for record in job.unknown.values():
        if index in record.tasks:
            return "unknown", record.peer
    for state, tasks in (
        ("succeeded", job.succeeded),
        ("failed", job.failed),
        ("cancelled", job.cancelled),
        ("waiting", job.waiting),
    ):
        if index in tasks:
            return state, None
    raise NotFound(f"job {job.id[:8]} has no task {index}: its tasks are {job.spec.tasks}")


def job_of(machine: Machine, job_id: JobId) -> Job:
    """Raises NotFound."""
    job = machine.jobs.get(job_id)
    if job is None and job_id in machine.forgotten:
        raise NotFound(f"job {job_id} was forgotten, and its results with it")
    if job is None:
        raise NotFound(f"no job {job_id}: `p2psched jobs` lists them")
    return job


def newest_views(
    machine: Machine, limit: int, view_of: Callable[[Job], JobView]
) -> Iterator[JobView]:
    """As many as were asked for and fit one answer."""
    size = 0
    newest = islice(machine.jobs.newest(), max(0, min(limit, JOBS_MAX)))
    for view in map(view_of, newest):
        size += len(msgspec.msgpack.encode(view))
        if size > PAGE_BYTES_MAX:
            return
        yield view


def find_job(machine: Machine, text: str) -> Job:
    """By whole id, prefix of an id, name (the newest of that name), or `last`."""
    jobs = machine.jobs
    if not jobs:
        raise NotFound("there are no jobs yet")
    if text == "last":
        return next(jobs.newest())
    if is_id(text) and JobId(text) in jobs:
        return jobs[JobId(text)]
    matches = [job for job in jobs if job.startswith(text.lower())] if text else []
    named = jobs.named(text)
    if named is not None and named.id not in matches:
        matches.append(named.id)  # a name that looks like digits must not hit another job
    if len(matches) == 1:
        return jobs[matches[0]]
    if matches:
        shown = ", ".join(job[:12] for job in matches[:5])
        raise NotFound(f"{text!r} fits {len(matches)} jobs: {shown}: type more digits of the id")
    job, slash, index = text.rpartition("/")
    if slash and index.isdecimal() and job:
        raise NotFound(
            f"no job {text!r}: of one task `p2psched explain {text}` and `job logs {text}` "
            f"tell; of the job, name it without /{index}"
        )
    raise NotFound(f"no job {text!r}: `p2psched jobs` lists them")


def next_leaders(machine: Machine, membership: Membership, leader: PeerId) -> list[PeerId]:
    """Who could lead instead of a leader that is drained."""
    staying = staying_peers(machine)
    return [m.peer for m in membership.voters if m.peer in staying and m.peer != leader]


def peer_views(
    machine: Machine,
    membership: Membership,
    leader: PeerId | None,
    ages_ms: Mapping[PeerId, int],
    reached: frozenset[PeerId] | None = None,
) -> list[PeerView]:
    """All peers that ever came up, by name, but for those that were removed and are gone.
    `ages_ms` is empty if the leader can't be asked; without any leader, `reached` are those that
    answer this peer."""
    known = {peer: (row.info, row.live, row.owned) for peer, row in machine.peers.items()}
    for member in (*membership.voters, *membership.learners):
        if member.peer not in known:  # in the log, and not applied yet
            info = PeerInfo(member.peer, 0, member.name, member.address, 0, 0, "", "")
            known[member.peer] = (info, True, 0)
    views = []
    for peer, (info, live, owned) in known.items():
        if peer in membership.removed and not live:
            continue
        heard_ms = ages_ms.get(peer)
        state = "alive" if live else "dead"
        silent = heard_ms is not None and heard_ms >= SUSPECT_AFTER_MS
        if live and (silent or (reached is not None and peer not in reached)):
            state = "suspect"
        role = "learner" if membership.member(peer) is not None else "follower"
        if membership.is_voter(peer):
            role = "voter"
        if peer in membership.removed:
            role = "removed"
        elif peer == leader and live:
            role = "leader"
        found = membership.member(peer)
        zone = found.zone if found is not None else ""
        leads = peer == leader and bool(next_leaders(machine, membership, peer))
        drain, copies_left = standing(machine, peer, leads=leads)
        view = PeerView(info, role, state, owned, heard_ms, zone)
        views.append(msgspec.structs.replace(view, drain=drain, copies_left=copies_left))
    return sorted(views, key=lambda view: (view.info.name, view.info.peer))


def with_gossip(views: Sequence[PeerView], members: Mapping[PeerId, Member]) -> list[PeerView]:
    """The same, with what this peer hears of each; who is suspect there is so here, too."""
    found = []
    for view in views:
        member = members.get(view.info.peer)
        if member is None or not member.number:  # this peer itself, or one that says nothing
            found.append(view)
            continue
        is_doubted = view.state == "alive" and member.liveness is not Liveness.ALIVE
        found.append(
            msgspec.structs.replace(
                view,
                gossip=member.liveness.name.lower(),
                state="suspect" if is_doubted else view.state,
            )
        )
    return found


def with_loads(
    views: Sequence[PeerView], seen: Mapping[PeerId, Seen], now_ms: int
) -> list[PeerView]:
    """The same, with what each has told of its load."""
    found = []
    for view in views:
        one = seen.get(view.info.peer)
        if one is None or one.load is None:
            found.append(view)
        else:
            age_ms = max(0, now_ms - one.heard_ms)
            found.append(msgspec.structs.replace(view, load=one.load, load_age_ms=age_ms))
    return found


def with_standings(
    views: Sequence[PeerView], standings: Mapping[PeerId, Standing]
) -> Iterator[PeerView]:
    """The same, with how far each is that has said so; the others lag by what nobody knows."""
    newest = max((standing.applied_index for standing in standings.values()), default=0)
    for view in views:
        found = standings.get(view.info.peer)
        if found is not None:
            lag = newest - found.applied_index
            yield msgspec.structs.replace(
                view, term=found.term or None, applied=found.applied_index, lag=lag
            )
        else:
            yield view
