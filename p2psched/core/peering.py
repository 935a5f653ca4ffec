"""The part of the fold that is about peers: they come, go, and keep what is still theirs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from p2psched.core import exclusive, fitting, levels, once, poison
from p2psched.core.jobs import HeldGrant, Job
from p2psched.core.state import LedgerState, PeerRow
from p2psched.model.commands import (
    Acknowledged,
    Command,
    DrainMode,
    ForgetPeer,
    Outcome,
    PeerCameUp,
    PeerDown,
    PeerInfo,
    PeerUp,
    PeerWentDown,
    Rejected,
)
from p2psched.model.ids import PeerId
from p2psched.model.needs import NOTHING, Offer
from p2psched.model.taskset import EMPTY, TaskSet

GONE_MAX: Final = 10_000  # peers that are known to be removed; the oldest are forgotten


def decide(s: LedgerState, command: PeerUp | PeerDown | ForgetPeer | Offer) -> Outcome:
    match command:
        case PeerUp():
            return peer_up(s, command)
        case PeerDown():
            return peer_down(s, command)
        case ForgetPeer():
            return levels.refusal(s, command) or forget(s, command)
        case Offer():
            return levels.refusal(s, command) or fitting.offer(s, command)


def peer_up(s: LedgerState, command: PeerUp) -> Outcome:
    info = command.info
    row = s.peers.get(info.peer)
    if row is not None and row.live and info.incarnation == row.info.incarnation:
        return Acknowledged()
    refusal = _refusal(s, row, info)
    if refusal is not None:
        return refusal
    if row is None:
        row = s.peers[info.peer] = PeerRow(info)
    elif row.live:  # away for so short that nobody has missed it
        poison.note_down(s, row, stopped=False)
    died = command.continues != row.info.incarnation and not row.stopped
    if not died:
        poison.note_back(s, row)
        exclusive.note_back(s, info.peer, row.info.incarnation)
    _begin_life(row, command)
    row.info, row.live, row.down_reason = info, True, ""
    s.touch(info.peer)
    s.events.append(PeerCameUp(info))
    _readmit(s, command)
    for job in s.jobs_with_grants():
        if job.backups:
            _hand_backups_over(s, job, command, died=died)
        for held in list(job.grants.values()):
            if held.peer == info.peer:
                _hand_over(s, job, held, command, died=died)
        s.note_unplaced(job)
        s.end_if_done(job)
    row.alone = row.blamed = None
    row.stopped = False
    return Acknowledged()


def _readmit(s: LedgerState, command: PeerUp) -> None:
    for entry in command.kept:
        job = s.jobs.get(entry.job)
        record = job.unknown.get(entry.grant) if job is not None else None
        if job is not None and record is not None and record.peer == command.info.peer:
            once.readmit(s, job, entry.grant, entry.tasks)


def _begin_life(row: PeerRow, command: PeerUp) -> None:
    if command.continues != row.info.incarnation:
        row.offers = NOTHING  # until this process says what it has
    if row.drain is DrainMode.ONCE and not command.continues:
        row.drain = DrainMode.OFF


def _refusal(s: LedgerState, row: PeerRow | None, info: PeerInfo) -> Rejected | None:
    if info.peer in s.gone:
        return Rejected("refused", f"peer {info.name} was removed, and is nobody's any more")
    known = row.info.incarnation if row is not None else -1
    if info.incarnation <= known:
        state = "down" if info.incarnation == known else "over"
        return Rejected("refused", f"incarnation {info.incarnation} of {info.name} is {state}")
    if info.level < s.level:
        return Rejected("refused", f"{info.name} knows feature level {info.level}, not {s.level}")
    return None


def _hand_over(s: LedgerState, job: Job, held: HeldGrant, command: PeerUp, *, died: bool) -> None:
    """Give a grant to its peer's new incarnation as far as it is kept; the rest waits."""
    gone = held.tasks - _kept(job, held, command)
    job.orphaned = job.orphaned - held.tasks
    if s.level < exclusive.AFRESH_LEVEL:  # as older versions have it
        held.incarnation = command.info.incarnation
    poison.lose(s, job, held, gone, died=died)
    held.incarnation = command.info.incarnation  # of what is left: what it lost was another's


def _hand_backups_over(s: LedgerState, job: Job, command: PeerUp, *, died: bool) -> None:
    for held in list(job.backups.values()):
        if held.peer == command.info.peer:
            gone = held.tasks - _kept(job, held, command)
            held.incarnation = command.info.incarnation
            poison.lose_backup(s, job, held, gone, died=died)


def _kept(job: Job, held: HeldGrant, command: PeerUp) -> TaskSet:
    keeps = EMPTY
    for entry in command.kept:
        if entry.job == job.id and entry.grant == held.grant:
            keeps = keeps | (entry.tasks & held.tasks)
    return keeps


def peer_down(s: LedgerState, command: PeerDown) -> Outcome:
    if not s.is_live(command.peer, command.incarnation):
        return Acknowledged()
    row = s.peers[command.peer]
    row.live, row.down_reason = False, command.reason
    s.touch(command.peer)
    poison.note_down(s, row, stopped=command.stopped)
    s.events.append(PeerWentDown(command.peer, command.incarnation, command.reason))
    for job in s.jobs_with_grants():
        if job.backups:
            poison.leave(s, job, command.peer, died=not command.stopped)
        for held in list(job.grants.values()):
            if held.peer == command.peer:
                if held.started.ranges:
                    once.doubt(s, job, held, held.tasks, died=not command.stopped)
                job.orphaned = job.orphaned | held.tasks
                if held.token:  # others may wait for the lock that they hold
                    poison.lose(s, job, held, held.tasks, died=not command.stopped)
        s.note_unplaced(job)
        s.end_if_done(job)
    return Acknowledged()


def forget(s: LedgerState, command: ForgetPeer) -> Outcome:
    row = s.peers.get(command.peer)
    if row is None:
        return Acknowledged()
    if row.live or row.owned:
        return Rejected("refused", f"{row.info.name} is not down, or owns tasks still")
    del s.peers[command.peer]
    s.touch(command.peer)
    s.gone[command.peer] = row.info.name
    if len(s.gone) > GONE_MAX:
        del s.gone[next(iter(s.gone))]
    return Acknowledged()


def to_forget(s: LedgerState, removed: Iterable[PeerId]) -> list[Command]:
    """What the coordinator should propose for those who are members no more, for good."""
    rows = [(peer, s.peers.get(peer)) for peer in removed]
    done = [ForgetPeer(p) for p, row in rows if row is not None and not row.live and not row.owned]
    return [command for command in done if levels.refusal(s, command) is None]
