"""The naive reading of what moves tasks from one peer to another, a part of `shadow`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from p2psched.model.commands import DrainMode
from p2psched.model.ids import PeerId
from p2psched.model.moves import Transfer
from p2psched.model.needs import Needs
from p2psched.testing import shadow_backups, shadow_needs
from p2psched.testing.shadow_job import ENDED

if TYPE_CHECKING:
    from p2psched.testing.shadow import Shadow

LEVEL: Final = 5  # that knows of it
MOVES_MAX: Final = 16
SUSPECT: Final = 2


def transfer(s: Shadow, command: Transfer, proposal: tuple[PeerId, int] | None) -> None:
    """Only the owner gives, while both are up, and what is neither locked nor suspected."""
    job, old, new = s.jobs.get(command.job), command.grant, s.index
    if job is None or job.spec.hold is not None or s.level < LEVEL or old not in s.holders:
        return
    giver, taker = s.holders[old][0], command.peer
    if proposal is None or proposal[0] != giver or giver == taker or not s.is_live(old):
        return
    is_open = s.drains.get(taker, DrainMode.OFF) is DrainMode.OFF
    if s.live.get(taker) != (command.incarnation, True) or not is_open:
        return
    if s.holds_suspects(taker) or s.moves.get(old, 0) >= MOVES_MAX or old in s.stays:
        return
    needs = job.spec.needs or Needs()
    if not needs.steal or shadow_backups.replicas_of(job.spec) > 1:
        return
    held = [index for index in command.tasks if job.owner.get(index, ENDED) == old]
    held = [index for index in held if job.begun.get(index) != old]  # it may run there
    held = [index for index in held if (index, taker) not in job.avoids]
    held = [index for index in held if index not in job.copies]
    if needs.spread:
        held = shadow_needs.evened(s, command.job, giver, taker, held)
    held = shadow_needs.may_own(s, command.job, taker, held)
    moved = [index for index in held if job.deaths[index] < SUSPECT]
    if not moved:
        return
    s.moves[new] = s.moves.get(old, 0) + 1
    s.holders[new] = (taker, command.incarnation)
    s.granted_tasks[new] = (command.job, frozenset(moved))
    for index in moved:
        job.owner[index] = new
        s.say("moved", command.job, index, old)
        s.say("granted", command.job, index, new)
