"""Whether nothing is under way that time would bring forward: for who drives a scheduler, and
would let the machine sleep.

A peer looks at its clock ten times a second. Where this says so, twice is enough, until something
comes. What it is that time ends, a lease or the patience with a silent peer, is not later by that:
shortly before, and as long as there is any doubt, this says no.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from p2psched.core import acts
from p2psched.core.scheduler import Scheduler
from p2psched.model.commands import DrainMode
from p2psched.model.ids import PeerId

SELDOM_MS: Final = 500  # between two looks at the clock while all is quiet
_AHEAD_MS: Final = 2 * SELDOM_MS  # what is due by then is waited for as ever
_PARTS: Final = 4  # of the detection window: whoever was silent for one of them is watched


def is_quiet(
    scheduler: Scheduler, now_ms: int, contacts: Mapping[PeerId, int], *, shuns: bool
) -> bool:
    """As of the last look at the clock: nobody computes, proposes, is missed or about to go.

    `contacts`: peer -> when the coordinator has heard it last. `shuns`: gossip doubts somebody.
    """
    state = scheduler.machine
    if state.running or scheduler.pending_count or shuns or not _is_settled(scheduler):
        return False
    if scheduler.feeding.feeder.followers:
        return False
    return not scheduler.coordinates or not _is_awaited(scheduler, now_ms, contacts)


def _is_settled(scheduler: Scheduler) -> bool:
    """The ledger knows this peer as it is, and it is to stay so."""
    info = scheduler.info
    row = scheduler.machine.peers.get(info.peer)
    return (
        row is not None
        and row.drain is DrainMode.OFF
        and scheduler.machine.is_live(info.peer, info.incarnation)
        and scheduler.feeding.coordinator is not None
        and scheduler.separation.is_calm
        and not scheduler.watching.shut
        and not scheduler.owner.batches
    )


def _is_awaited(scheduler: Scheduler, now_ms: int, contacts: Mapping[PeerId, int]) -> bool:
    """Time ends something soon, or may have ended a peer."""
    due_ms = acts.next_due_ms(scheduler.machine)
    if due_ms is not None and due_ms - scheduler.ledger_ms(now_ms) < _AHEAD_MS:
        return True
    most_ms = scheduler.deciding.window_ms // _PARTS
    if most_ms < SELDOM_MS:
        return True
    me = scheduler.info.peer
    others = (peer for peer, row in scheduler.machine.peers.items() if row.live and peer != me)
    return any(now_ms - contacts.get(peer, 0) > most_ms for peer in others)
