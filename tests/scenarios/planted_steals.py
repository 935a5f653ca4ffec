"""Bugs in stealing, planted on purpose: see `planted`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from unittest.mock import patch

from p2psched.core import stealing
from p2psched.core.giving import Lot
from p2psched.core.machine import Machine
from p2psched.core.thief import Thief
from p2psched.model.commands import Envelope
from p2psched.model.moves import Transfer
from tests.scenarios.planted import Bug
from tests.scenarios.planted_ledger import places_only_what_waits
from tests.sim.mutants import Planted
from tests.sim.steal_mutants import forgets_what_stays, takes_all_back


def _repeats_act() -> Planted:
    is_repeat = Machine._is_repeat

    def forgetful(machine: Machine, envelope: Envelope) -> bool:
        return not isinstance(envelope.command, Transfer) and is_repeat(machine, envelope)

    return patch.object(Machine, "_is_repeat", forgetful)


def _gives_everything() -> Planted:
    def everything(lots: Sequence[Lot], **_: int) -> list[tuple[int, int]]:
        return [(place, lot.tasks) for place, lot in enumerate(lots)]

    return patch.object(stealing, "choose", everything)


def _asks_nobody() -> Planted:
    return patch.object(Thief, "may_ask", lambda *_: False)


STEAL_BUGS: Final = (
    Bug("ledger_steal_race_5370", "it is forgotten", forgets_what_stays, "b: J 2-3 under 9"),
    Bug("ledger_steal_race_5370", "a repeat moves it", _repeats_act, "J 4-5 is c's now"),
    Bug("ledger_steal_leader_change", "it is taken back", takes_all_back, "J 2-5 under 9"),
    Bug("ledger_steal_owner_dies", "it stays", places_only_what_waits, "b/1 (down) has 0-1"),
    Bug("ledger_steal_one_worker_6573", "all of it goes", _gives_everything, "J 2-5 is c's"),
    Bug("ledger_steal_after_a_pause_7742", "it never asks", _asks_nobody, "J 2-5 under 9"),
)
