"""Which peers may run the tasks of a job: what it needs against what they have (ADR 0052).

`faults` and `fits` tell of a peer for ever, `room` and `grantable` of now. GPUs and memory are
shared out like locks: what a peer owns needs no more than it has, so that whatever of it runs at a
time fits. The fold keeps that, whoever proposes; a coordinator, or a thief, that asks before saves
proposals in vain. Nothing here is for jobs without needs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from p2psched.core.jobs import HeldGrant, Job
from p2psched.core.state import LedgerState, PeerRow
from p2psched.model.commands import Acknowledged, Outcome, Rejected
from p2psched.model.ids import JobId, PeerId, short
from p2psched.model.isolation import SANDBOX_LABEL
from p2psched.model.job import JobSpec
from p2psched.model.job_head import JobHead
from p2psched.model.limits import JOB_TASKS_MAX
from p2psched.model.needs import NOTHING, Labels, Offer, Offers
from p2psched.model.taskset import EMPTY, TaskSet

PEERS_TOLD_MAX: Final = 3
SANDBOX_HINT: Final = " (install bubblewrap there, restart it, see `p2psched status`)"

# --- for ever -------------------------------------------------------------------------------------


def faults(spec: JobSpec | JobHead, slots: int, offers: Offers) -> dict[str, float]:
    """What a peer lacks to run a task of the job, all its slots free: for people -> how much of it,
    a label counts 1."""
    found: dict[str, float] = {}
    if slots < spec.cpus:
        found[f"{slots} of {spec.cpus} slots"] = 1 - slots / spec.cpus
    needs = spec.needs
    if needs is not None:
        had = dict(offers.labels)
        for key, value in needs.require:
            if had.get(key) != value:
                other = f" but {had[key]}" if key in had else ""
                hint = SANDBOX_HINT if key == SANDBOX_LABEL else ""
                found[f"no label {key}={value}{other}{hint}"] = 1
        gpus, memory_mib = needs.gpus, needs.memory_mib
        if offers.gpus < gpus:
            found[f"{offers.gpus} of {gpus} GPUs"] = 1 - offers.gpus / gpus
        if offers.memory_mib < memory_mib:
            lack = 1 - offers.memory_mib / memory_mib
            found[f"{offers.memory_mib:,} of {memory_mib:,} MiB of memory"] = lack
    return found


def fits(spec: JobSpec | JobHead, slots: int, offers: Offers) -> bool:
    """True if a peer with so many slots can run a task of the job at all."""
    if slots < spec.cpus:
        return False
    needs = spec.needs
    return needs is None or (
        offers.gpus >= needs.gpus
        and offers.memory_mib >= needs.memory_mib
        and (not needs.require or has_labels(offers, needs.require))
    )


def has_labels(offers: Offers, labels: Labels) -> bool:
    had = dict(offers.labels)
    return all(had.get(key) == value for key, value in labels)


def liking(spec: JobHead, offers: Offers) -> int:
    """How many of the labels that the job prefers a peer has."""
    if spec.needs is None:
        return 0
    had = dict(offers.labels)
    return sum(had.get(key) == value for key, value in spec.needs.prefer)


def may_offer(s: LedgerState, job: Job, grant: int, taker: PeerId) -> bool:
    """Whether the owner of this grant should offer its tasks to a peer. What stands where others of
    its job do not, only who holds the ledger can tell; a follower keeps it."""
    needs, held = job.spec.needs, job.grants.get(grant)
    if needs is None or not needs.steal or held is None:
        return needs is None or needs.steal
    if not (needs.spread or needs.apart):
        return True
    row = s.peers.get(taker)
    return s.applied_index > 0 and row is not None and bool(movable(s, job, held, row, held.tasks))


def movable(s: LedgerState, job: Job, held: HeldGrant, row: PeerRow, tasks: TaskSet) -> TaskSet:
    """What of these tasks, which another peer owns, may go to this one: all that it needs is there,
    who shall be apart stays so, and what is spread is not spread worse."""
    needs = job.spec.needs
    if needs is None or not needs.spread:
        return grantable(s, job, row, tasks)
    if not needs.steal:
        return EMPTY
    there = row.offers.label(needs.spread)
    counts: dict[str, int] = {}
    for other in job.grants.values():
        owner = s.peers.get(other.peer)
        domain = owner.offers.label(needs.spread) if owner is not None else ""
        counts[domain] = counts.get(domain, 0) + len(other.tasks)
    giver = s.peers.get(held.peer)
    here = giver.offers.label(needs.spread) if giver is not None else ""
    if here != there:
        tasks = tasks.take(max(0, (counts.get(here, 0) - counts.get(there, 0)) // 2))
    return grantable(s, job, row, tasks)


def weight_of(job: Job) -> tuple[int, int]:
    """GPUs and memory of one task, for its `HeldGrant`."""
    needs = job.spec.needs
    return (needs.gpus, needs.memory_mib) if needs is not None else (0, 0)


def refusal(s: LedgerState, spec: JobSpec) -> Rejected | None:
    """Why a job can't be accepted: no peer that the ledger knows, up or down, could ever run it."""
    rows = s.peers.values()
    if not rows or any(fits(spec, row.info.slots, row.offers) for row in rows):
        return None
    if any(row.live and row.offers == NOTHING for row in rows):
        return Rejected("unavailable", "a peer that has just come up is still to say what it has")
    return Rejected(
        "refused",
        f"no peer can run this job, now or later: {_nearest(spec, rows)}: start one that has what "
        "it needs (`p2psched start --help`: --label, --gpus, --memory), then submit it again",
    )


# --- now ------------------------------------------------------------------------------------------


def room(s: LedgerState, job: Job, row: PeerRow, *, gpus: int = 0, memory_mib: int = 0) -> int:
    """How many more tasks of the job the peer may own, if so much is promised to others."""
    needs = job.spec.needs
    if needs is None:
        return 0 if s.apart and _is_shunned(s, job, row.info.peer) else JOB_TASKS_MAX
    if not fits(job.spec, row.info.slots, row.offers):
        return 0
    most = JOB_TASKS_MAX
    if needs.gpus:
        most = min(most, (row.offers.gpus - row.gpus - gpus) // needs.gpus)
    if needs.memory_mib:
        left_mib = row.offers.memory_mib - row.memory_mib - memory_mib
        most = min(most, left_mib // needs.memory_mib)
    peer = row.info.peer
    for other in needs.apart:
        if other == job.id:
            most = min(most, 1 - owned_by(job, peer))
        elif other in s.jobs and owned_by(s.jobs[other], peer):
            most = 0
    if s.apart and _is_shunned(s, job, peer):
        most = 0
    return max(0, most)


def grantable(s: LedgerState, job: Job, row: PeerRow, tasks: TaskSet) -> TaskSet:
    """What of these tasks, which it doesn't own, the peer may be granted together."""
    if job.spec.needs is None and not s.apart:
        return tasks
    most = room(s, job, row)
    return tasks.take(most) if most else EMPTY


def _is_shunned(s: LedgerState, job: Job, peer: PeerId) -> bool:
    """A job that wants to be apart from this one has tasks there."""
    for name in s.apart:
        other = s.jobs[name]
        assert other.spec.needs is not None
        if name != job.id and job.id in other.spec.needs.apart and owned_by(other, peer):
            return True
    return False


def owned_by(job: Job, peer: PeerId) -> int:
    every = (*job.grants.values(), *job.backups.values())
    return sum(len(held.tasks) for held in every if held.peer == peer)


def note_running(s: LedgerState, job: Job) -> None:
    """The job runs, for the first time or again."""
    if job.spec.is_choosy:
        s.choosy[job.id] = None
        if job.spec.needs is not None and job.spec.needs.apart:
            s.apart[job.id] = None


def rebuild(s: LedgerState) -> None:
    """After a restore: what follows from the rest."""
    s.choosy.clear()
    s.apart.clear()
    for name in s.running:
        note_running(s, s.jobs[name])


# --- what peers say of themselves -----------------------------------------------------------------


def offer(s: LedgerState, command: Offer) -> Outcome:
    """Its peer says what it has."""
    row = s.peers.get(command.peer)
    if row is None or not row.live or row.info.incarnation != command.incarnation:
        return Rejected("refused", "of a process that is not known to live")
    row.offers = command.offers
    s.touch(command.peer)
    return Acknowledged()


# --- for people -----------------------------------------------------------------------------------


def story(s: LedgerState, job: Job) -> str:
    """Why its tasks wait, if that is for what it needs; empty: no more than for a slot."""
    rows = sorted(s.peers.values(), key=lambda row: row.info.name)
    able = [row for row in rows if fits(job.spec, row.info.slots, row.offers)]
    if not able:
        return f"no peer has what it needs: {_nearest(job.spec, rows)}" if rows else ""
    there = [row for row in able if row.takes_tasks]
    if not there:
        where = "drained" if any(row.live for row in able) else "down"
        return f"fits only on {_names(able)}, which {_is_are(able)} {where}"
    if any(room(s, job, row) for row in there):
        return ""
    needs = job.spec.needs
    if needs is not None and any(_others_at(s, needs.apart, row.info.peer) for row in there):
        jobs = ", ".join(short(name) for name in needs.apart[:PEERS_TOLD_MAX])
        return f"stays apart from job {jobs}, which has tasks on {_names(there)}"
    if any(_is_shunned(s, job, row.info.peer) for row in there):
        return f"another job that runs on {_names(there)} stays apart from it"
    return f"waits for GPUs or memory: all of {_names(there)} is taken"


def _others_at(s: LedgerState, jobs: Iterable[JobId], peer: PeerId) -> bool:
    return any(name in s.jobs and owned_by(s.jobs[name], peer) for name in jobs)


def _nearest(spec: JobSpec | JobHead, rows: Iterable[PeerRow]) -> str:
    missing = [(faults(spec, row.info.slots, row.offers), row.info.name) for row in rows]
    lacks, name = min(missing, key=lambda each: (sum(each[0].values()), each[1]))
    return f"nearest is {name}, which has {', '.join(lacks)}"


def _names(rows: list[PeerRow]) -> str:
    names = ", ".join(row.info.name for row in rows[:PEERS_TOLD_MAX])
    more = len(rows) - PEERS_TOLD_MAX
    return f"{names} and {more} more" if more > 0 else names


def _is_are(rows: list[PeerRow]) -> str:
    return "is" if len(rows) == 1 else "are"
