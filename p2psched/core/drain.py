"""Peers that are granted nothing more: those that are drained give back what they have not started,
those that are cordoned keep it.

What runs there may end. A drained peer stays a member, keeps its blobs and answers whoever asks; it
may be stopped or removed once nothing rests on it alone, which `standing` says.
"""

from __future__ import annotations

from p2psched.core import backing, levels, once
from p2psched.core.copies import only_on
from p2psched.core.state import LedgerState
from p2psched.model.commands import (
    Acknowledged,
    Drain,
    DrainMode,
    GiveBack,
    GivenBack,
    Outcome,
    PeerDrains,
    Rejected,
)
from p2psched.model.ids import PeerId
from p2psched.model.peer_messages import CORDONED, DRAINED, DRAINING
from p2psched.model.precedence import Preempted
from p2psched.model.reconciled import PeerReconciled, Reconciled
from p2psched.model.stalls import Stalled

# --- the fold -------------------------------------------------------------------------------------


def decide(s: LedgerState, command: Drain | Reconciled) -> Outcome:
    return drain(s, command) if isinstance(command, Drain) else tell(s, command)


def tell(s: LedgerState, command: Reconciled) -> Outcome:
    """It changes nothing here."""
    s.events.append(
        PeerReconciled(
            *(command.peer, command.away_ms),
            committed=command.committed,
            discarded=command.discarded,
            ended=command.ended,
            spooled=command.spooled,
        )
    )
    return Acknowledged()


def drain(s: LedgerState, command: Drain) -> Outcome:
    row = s.peers.get(command.peer)
    if row is None and command.peer in s.gone:
        return Rejected("refused", f"peer {s.gone[command.peer]} was removed")
    if row is None:
        return Rejected("not-found", f"no peer {command.peer}")
    if row.drain is not command.mode:
        row.drain = command.mode
        s.touch(command.peer)
        s.events.append(PeerDrains(command.peer, command.mode))
    return Acknowledged()


def give_back(s: LedgerState, command: GiveBack) -> Outcome:
    refusal = levels.refusal(s, command)
    if refusal is not None:
        return refusal
    if command.stall is not None:
        stall = command.stall
        told = Stalled(command.job, stall.peer, command.tasks, stall.fault, stall.step, stall.note)
        s.events.append(told)
    job = s.jobs.get(command.job)
    if job is not None and job.unknown and command.stall is None:
        once.readmit(s, job, command.grant, command.tasks)
    if job is not None and job.backups:
        backing.give_back(s, job, command)
    held = job.grants.get(command.grant) if job is not None else None
    if job is None or held is None:  # it has ended, or was placed anew
        return Acknowledged()
    tasks = held.tasks & command.tasks
    if command.stall is not None:  # nobody there knows them: they may have begun
        tasks = once.doubt(s, job, held, tasks)
    if tasks:
        s.release(job, held, tasks)
        left = backing.promote(s, job, tasks) if job.backups else tasks
        job.waiting = job.waiting | left
        s.note_unplaced(job)
        if command.by:
            job.preempted = job.preempted.plus(tasks)
            s.events.append(Preempted(job.id, held.grant, held.peer, tasks, command.by))
        s.events.append(GivenBack(job.id, held.grant, held.peer, tasks))
    return Acknowledged()


# --- what follows from it -------------------------------------------------------------------------


def is_draining(s: LedgerState, peer: PeerId) -> bool:
    row = s.peers.get(peer)
    return row is not None and row.drains


def draining(s: LedgerState) -> frozenset[PeerId]:
    return frozenset(peer for peer, row in s.peers.items() if row.drains)


def is_cordoned(s: LedgerState, peer: PeerId) -> bool:
    row = s.peers.get(peer)
    return row is not None and row.drain is DrainMode.CORDON


def standing_without_ledger(s: LedgerState, peer: PeerId) -> str:
    """As far as a peer knows it that holds none."""
    if is_draining(s, peer):
        return DRAINING
    return CORDONED if is_cordoned(s, peer) else ""


def standing(s: LedgerState, peer: PeerId, *, leads: bool) -> tuple[str, int]:
    """`DRAINING`, `DRAINED`, `CORDONED` or nothing; and how many large results of one that drains
    other peers lack still.

    `leads`: it leads, and another could. Cost O(large results)."""
    if not is_draining(s, peer):
        return CORDONED if is_cordoned(s, peer) else "", 0
    left = only_on(s, peer)
    is_empty = not s.peers[peer].owned and not left and not leads
    return DRAINED if is_empty else DRAINING, left
