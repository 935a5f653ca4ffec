"""The part of the fold that is about peers: they come, go, and keep what is still theirs."""

from __future__ import annotations

from collections.abc import Iterable

from p2psched.core.jobs import HeldGrant, Job
from p2psched.core.state import LedgerState, PeerRow
from p2psched.model.commands import (
    Acknowledged,
    KeptGrant,
    Outcome,
    PeerCameUp,
    PeerDown,
    PeerUp,
    PeerWentDown,
    Rejected,
)
from p2psched.model.taskset import EMPTY


def peer_up(s: LedgerState, command: PeerUp) -> Outcome:
    info = command.info
    row = s.peers.get(info.peer)
    if row is not None and info.incarnation < row.info.incarnation:
        return Rejected("refused", f"incarnation {info.incarnation} of {info.name} is over")
    if row is not None and info.incarnation == row.info.incarnation:
        if row.live:
            return Acknowledged()
        return Rejected("refused", f"incarnation {info.incarnation} of {info.name} is down")
    if row is None:
        row = s.peers[info.peer] = PeerRow(info)
    row.info, row.live, row.down_reason = info, True, ""
    s.events.append(PeerCameUp(info))
    for job in s.jobs_with_grants():
        for held in list(job.grants.values()):
            if held.peer == info.peer:
                _hand_over(s, job, held, command.kept, info.incarnation)
        s.note_unplaced(job)
    return Acknowledged()


def _hand_over(
    s: LedgerState, job: Job, held: HeldGrant, kept: Iterable[KeptGrant], incarnation: int
) -> None:
    """Give a grant to its peer's new incarnation as far as it is kept; the rest waits."""
    keeps = EMPTY
    for entry in kept:
        if entry.job == job.id and entry.grant == held.grant:
            keeps = keeps | (entry.tasks & held.tasks)
    gone = held.tasks - keeps
    job.orphaned = job.orphaned - held.tasks
    held.incarnation = incarnation
    if gone:
        job.waiting = job.waiting | gone
        s.lose(job, held, gone)


def peer_down(s: LedgerState, command: PeerDown) -> Outcome:
    if not s.is_live(command.peer, command.incarnation):
        return Acknowledged()
    row = s.peers[command.peer]
    row.live, row.down_reason = False, command.reason
    s.events.append(PeerWentDown(command.peer, command.incarnation, command.reason))
    for job in s.jobs_with_grants():
        for held in job.grants.values():
            if held.peer == command.peer:
                job.orphaned = job.orphaned | held.tasks
        s.note_unplaced(job)
    return Acknowledged()
