"""The state machine as people see it: frozen views, made when they are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from p2psched.core.jobs import Job
from p2psched.core.keeping import live_holders
from p2psched.core.machine import Machine
from p2psched.model.commands import PeerInfo
from p2psched.model.errors import NotFound
from p2psched.model.ids import JobId, PeerId, is_id
from p2psched.model.messages import JobView, PeerView
from p2psched.model.raft import Membership
from p2psched.model.taskset import EMPTY

SUSPECT_AFTER_MS: Final = 1000  # silence after which a peer is shown as suspect


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
        note=_why_waiting(job, machine),
        lost=len(job.lost),
        short=short_count(job, machine) if whole else 0,
        pinned=job.pinned,
        keep_ms=keep_ms,
        result_bytes=job.result_bytes,
    )


def short_count(job: Job, machine: Machine) -> int:
    """Large results with fewer copies on live peers than the job asked for."""
    return sum(len(live_holders(machine, blob)) < job.spec.copies for blob in job.blobs.values())


def _why_waiting(job: Job, machine: Machine) -> str:
    if not job.waiting or job.grants:
        return ""
    slots = [row.info.slots for row in machine.peers.values() if row.live]
    if max(slots, default=0) == 0:
        return "no live peer runs tasks: start one with --slots 1 or more"
    if max(slots) < job.spec.cpus:
        return (
            f"a task needs {job.spec.cpus} slots and the largest live peer has {max(slots)}: "
            "start a larger one"
        )
    return "waits for a free slot"


def task_state(job: Job, index: int) -> tuple[str, PeerId | None]:
    """Where a task stands, and who owns it. Raises NotFound."""
    held = job.owner_of(index)
    if held is not None:
        return "owned", held.peer
    for state, tasks in (
        ("succeeded", job.succeeded),
        ("failed", job.failed),
        ("cancelled", job.cancelled),
        ("waiting", job.waiting),
    ):
        if index in tasks:
            return state, None
    raise NotFound(f"job {job.id[:8]} has no task {index}: its tasks are {job.spec.tasks}")


def find_job(machine: Machine, text: str) -> Job:
    """By whole id, prefix of an id, name (the newest of that name), or `last`."""
    jobs = machine.jobs
    if not jobs:
        raise NotFound("there are no jobs yet")
    if text == "last":
        return next(reversed(jobs.values()))
    if is_id(text) and JobId(text) in jobs:
        return jobs[JobId(text)]
    matches = [job for job in jobs if job.startswith(text.lower())] if text else []
    named = next((job for job in reversed(jobs.values()) if job.spec.name == text), None)
    if named is not None and named.id not in matches:
        matches.append(named.id)  # a name that looks like digits must not hit another job
    if len(matches) == 1:
        return jobs[matches[0]]
    if matches:
        shown = ", ".join(job[:12] for job in matches[:5])
        raise NotFound(f"{text!r} fits {len(matches)} jobs: {shown}: type more digits of the id")
    raise NotFound(f"no job {text!r}: `p2psched jobs` lists them")


def peer_views(
    machine: Machine,
    membership: Membership,
    leader: PeerId | None,
    ages_ms: Mapping[PeerId, int],
    reached: frozenset[PeerId] | None = None,
) -> list[PeerView]:
    """All peers that ever came up, by name. `ages_ms` is empty if the leader can't be asked;
    without any leader, `reached` are those that answer this peer."""
    known = {peer: (row.info, row.live, row.owned) for peer, row in machine.peers.items()}
    for member in (*membership.voters, *membership.learners):
        if member.peer not in known:  # in the log, and not applied yet
            info = PeerInfo(member.peer, 0, member.name, member.address, 0, 0, "", "")
            known[member.peer] = (info, True, 0)
    views = []
    for peer, (info, live, owned) in known.items():
        heard_ms = ages_ms.get(peer)
        state = "alive" if live else "dead"
        silent = heard_ms is not None and heard_ms >= SUSPECT_AFTER_MS
        if live and (silent or (reached is not None and peer not in reached)):
            state = "suspect"
        role = "learner" if membership.member(peer) is not None else "follower"
        if membership.is_voter(peer):
            role = "voter"
        if peer == leader and live:
            role = "leader"
        views.append(PeerView(info, role, state, owned, heard_ms))
    return sorted(views, key=lambda view: (view.info.name, view.info.peer))
