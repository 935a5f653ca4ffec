"""Bugs in new generations, planted on purpose: see `planted`."""

from __future__ import annotations

from typing import Final

from tests.scenarios.planted import Bug
from tests.sim.disaster_mutants import counts_on, keeps_the_grants

GENERATION_BUGS: Final = (
    Bug("ledger_new_generation", "it keeps the grants", keeps_the_grants, "b/1 has 1 by 7"),
    Bug("ledger_new_generation", "it counts on", counts_on, "place J 0 on a/2: grant 13"),
)
