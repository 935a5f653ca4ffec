"""Bugs in draining, planted on purpose: see `mutants`."""

from __future__ import annotations

from typing import Final
from unittest.mock import PropertyMock, patch

from p2psched.core import copies, peering
from p2psched.core.scheduler import Scheduler
from p2psched.core.state import LedgerState, PeerRow
from p2psched.model.commands import DrainMode, Outcome, PeerUp
from p2psched.model.ids import PeerId
from p2psched.testing.faults import Faults
from tests.sim.mutants import Mutant, Planted


def _grants_all_the_same() -> Planted:
    return patch.object(PeerRow, "takes_tasks", property(lambda row: row.live))


def forgets_at_restart() -> Planted:
    peer_up = peering.peer_up

    def forgetful(s: LedgerState, command: PeerUp) -> Outcome:
        outcome = peer_up(s, command)
        row = s.peers.get(command.info.peer)
        if row is not None:
            row.drain = DrainMode.OFF
        return outcome

    return patch.object(peering, "peer_up", forgetful)


def _starts_what_waits() -> Planted:
    """And gives back what is left then."""
    return patch.object(Scheduler, "starts_nothing", PropertyMock(return_value=False))


def _counts_what_may_go() -> Planted:
    def anybody(s: LedgerState) -> list[PeerId]:
        return copies.live_peers(s)

    return patch.object(copies, "staying_peers", anybody)


# Peers come and go, and are drained all the time.
BUSY: Final = Faults(
    drain_every_ms=200,
    crash_every_ms=2_000,
    restart_ms_max=200,
    power_loss=0.0,
    tail=0.05,
)

DRAIN_MUTANTS: Final = tuple(
    Mutant(
        name=name,
        plant=plant,
        faults=BUSY,
        broken=broken,
        events=4_000,
        jobs_max=20,
        keeping=keeping,
    )
    for name, plant, broken, keeping in (
        ("a drained peer is granted tasks", _grants_all_the_same, "P6", False),
        ("a restart ends a drain", forgets_at_restart, "P6", False),
        ("a drained peer starts what waits there", _starts_what_waits, "E5", False),
        ("copies on drained peers count", _counts_what_may_go, "L5", True),
    )
)
