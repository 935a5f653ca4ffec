"""Bugs in draining, planted on purpose: see `planted`."""

from __future__ import annotations

from typing import Final
from unittest.mock import patch

from p2psched.core.coordinator import Coordinator
from p2psched.core.owner import Owner
from p2psched.core.raft import transfer
from p2psched.core.raft.state import RaftState
from p2psched.model.ids import PeerId
from tests.scenarios.planted import Bug
from tests.sim.drain_mutants import forgets_at_restart
from tests.sim.mutants import Planted


def _gives_nothing_back() -> Planted:
    return patch.object(Owner, "give_back", lambda owner: [])


def _leads_on() -> Planted:
    return patch.object(Coordinator, "must_yield", lambda coordinator, now_ms: False)


def _anybody_leads() -> Planted:
    on_hand_over = transfer.on_hand_over

    def careless(s: RaftState, avoid: frozenset[PeerId]) -> None:
        on_hand_over(s, avoid=frozenset({PeerId("b")}) & avoid)

    return patch.object(transfer, "on_hand_over", careless)


DRAIN_BUGS: Final = (
    Bug("ledger_drained_peer_gives_back", "it keeps all", _gives_nothing_back, "b: J 3 under 7"),
    Bug("ledger_drained_peer_gives_back", "a restart ends it", forgets_at_restart, "b: J 3 under"),
    Bug("ledger_drained_leader_hands_over", "it leads on", _leads_on, "a: leader"),
    Bug("ledger_drained_leader_hands_over", "anybody will do", _anybody_leads, "c leads"),
)
