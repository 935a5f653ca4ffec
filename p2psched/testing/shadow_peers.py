"""The naive reading of peers that come and go, and of what they leave, a part of `shadow`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from p2psched.model.commands import DrainMode, PeerDown, PeerUp
from p2psched.model.ids import JobId
from p2psched.model.job import Cause
from p2psched.testing import shadow_backups, shadow_needs, shadow_once
from p2psched.testing.shadow_job import ENDED, WAITING, Away

if TYPE_CHECKING:
    from p2psched.testing.shadow import Shadow

KILLS: Final = 3  # of its peers, that had nothing else, by one task


def peer_up(s: Shadow, command: PeerUp) -> None:
    peer, incarnation = command.info.peer, command.info.incarnation
    known = s.live.get(peer)
    if known is not None and incarnation <= known[0]:
        return
    if command.info.level < s.level or peer in s.gone:
        return
    s.levels[peer] = command.info.level
    shadow_needs.came_up(s, command, known)
    if s.drains.get(peer) is DrainMode.ONCE and not command.continues:
        s.drains[peer] = DrainMode.OFF
    away = s.away.pop(peer, None) or Away(s.runs_on(peer), stopped=False)
    died = not away.stopped and (known is None or command.continues != known[0])
    if not died:
        shadow_once.note_back(s, away)
    if not died and away.blamed is not None:
        name, index = away.blamed
        suspect = s.jobs.get(name)
        if suspect is not None and peer in suspect.killed.get(index, []):
            suspect.killed[index].remove(peer)
    s.live[peer] = (incarnation, True)
    s.away[peer] = away
    shadow_once.heard(s, command)
    _take_back(s, command, died=died)
    del s.away[peer]
    for grant, (holder, _) in s.holders.items():
        if holder == peer:
            s.holders[grant] = (peer, incarnation)


def _take_back(s: Shadow, command: PeerUp, *, died: bool) -> None:
    """What it has not kept."""
    peer = command.info.peer
    kept = {(k.job, k.grant, index) for k in command.kept for index in k.tasks}
    for name, index, grant in shadow_backups.copies_on(s, peer):
        if (name, grant, index) not in kept:
            shadow_backups.lose(s, name, index, grant, died=died)
    for name, index in s.owned_by(peer):
        grant = s.jobs[name].owner[index]
        if (name, grant, index) not in kept:
            lose(s, name, index, died=died)
            s.end_if_done(name, s.jobs[name])


def peer_down(s: Shadow, command: PeerDown) -> None:
    peer, stopped = command.peer, command.stopped
    s.live[peer] = (command.incarnation, False)
    owned = s.owned_by(peer)
    s.away[peer] = Away(s.runs_on(peer), stopped=stopped)
    for name, index, grant in shadow_backups.copies_on(s, peer):
        shadow_backups.lose(s, name, index, grant, died=not stopped)
    for name, index in owned:  # nobody keeps a lock for who may be back
        job = s.jobs[name]
        is_unknown = shadow_once.doubt(s, name, job, index, None if stopped else s.away[peer])
        if not is_unknown and (job.spec.hold is not None or index in job.copies):
            lose(s, name, index, died=not stopped)
            s.end_if_done(name, s.jobs[name])


def lose(s: Shadow, name: JobId, index: int, *, died: bool) -> None:
    """The task's owner is gone. The third that died of it, and of nothing else, is the last."""
    job = s.jobs[name]
    away = s.away[s.holders[job.owner[index]][0]] if died else None
    if shadow_once.doubt(s, name, job, index, away):
        return
    grant = job.owner[index]
    shadow_backups.let_go(s, name, job, index)
    s.say("revoked", name, index, grant)
    blame(s, name, index, grant, died=died)


def blame(s: Shadow, name: JobId, index: int, grant: int, *, died: bool) -> None:
    if died:
        _blame(s, name, index, grant, s.away[s.holders[grant][0]])


def _blame(s: Shadow, name: JobId, index: int, grant: int, away: Away) -> None:
    job, peer = s.jobs[name], s.holders[grant][0]
    job.deaths[index] += 1
    if away.owned == [(name, index)]:
        away.blamed = name, index
        killed, s.blamed[name] = job.killed.setdefault(index, []), None
        killed.append(peer)
        if len(killed) >= KILLS and job.owner[index] == WAITING:
            job.causes[index] = Cause.PEER_LOST
            job.owner[index] = ENDED
            job.left -= 1
            s.say("recorded", name, index, f"{grant} {Cause.PEER_LOST}")


def blame_lapsed(s: Shadow, name: JobId, index: int, grant: int) -> bool:
    """An exclusive task's lease is over. True if that was the last death that it was there for."""
    job = s.jobs[name]
    away = job.mourned.pop(index, None)
    if away is None:
        return False
    job.owner[index] = WAITING
    _blame(s, name, index, grant, away)
    return index in job.causes
