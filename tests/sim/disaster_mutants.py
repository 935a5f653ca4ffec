"""Bugs in what goes on after a disaster, planted on purpose: see `mutants`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final
from unittest.mock import patch

from p2psched.core import exclusive, generation
from p2psched.core.state import LedgerState
from p2psched.model.commands import NewGeneration, Outcome
from p2psched.peer import new_generation
from p2psched.store.log import LogStore
from p2psched.store.recovered import Recovered
from p2psched.testing import shadow_once, sim_disaster
from p2psched.testing.sim_peer import SimPeer
from tests.sim.mutants import Planted

LOST: Final = 3  # entries


@dataclass(frozen=True, slots=True, kw_only=True)
class DisasterMutant:
    name: str
    plant: Callable[[], Planted]
    broken: str  # what the referees say
    seed: int = 0  # one that is known to show it


def keeps_its_identity() -> Planted:
    def identify(founder: SimPeer, before: SimPeer) -> None:
        founder.member = before.member
        founder.blobs = before.blobs

    return patch.object(sim_disaster, "identify", identify)


def drops_the_end() -> Planted:
    begin = new_generation.begin

    def shortened(store: LogStore, found: Recovered, **words: Any) -> None:
        kept = found.entries[:-LOST]
        if kept:
            store.write(hard_state=None, truncate_from=kept[-1].index + 1, entries=[])
            found = replace(found, entries=kept)
        begin(store, found, **words)

    return patch.object(new_generation, "begin", shortened)


class _Unsynced:
    """A log that says that it is on disk, and isn't."""

    def __init__(self, store: LogStore) -> None:
        self.write = store.write

    def sync(self) -> None:
        pass

    def mark_end(self) -> None:
        pass


def is_not_on_disk() -> Planted:
    begin = new_generation.begin

    def hasty(store: LogStore, found: Recovered, **words: Any) -> None:
        begin(_Unsynced(store), found, **words)  # type: ignore[arg-type]  # as far as it is used

    return patch.object(new_generation, "begin", hasty)


def always_starts_at_zero() -> Planted:
    return patch.object(new_generation, "STARTS_MAX", 1)


def keeps_the_grants() -> Planted:
    return _begins(_without_grants)


def _without_grants(s: LedgerState, command: NewGeneration, begin: Begin) -> Outcome:
    held = {name: job.grants for name, job in s.jobs.items()}
    peers = dict(s.peers)
    for job in s.jobs.values():
        job.grants = {}
    outcome = begin(s, command)
    for name, grants in held.items():
        s.jobs[name].grants = grants
    s.peers.update(peers)
    return outcome


def counts_on() -> Planted:
    def low(s: LedgerState, command: NewGeneration, begin: Begin) -> Outcome:
        index = s.command_index
        outcome = begin(s, command)
        s.command_index = index
        return outcome

    return _begins(low)


@contextmanager
def waits_for_no_lease() -> Iterator[None]:
    """In both readings: what is exclusive is granted as soon as the ledger goes on."""
    with (
        patch.object(exclusive, "hold_all", lambda s, job: None),
        patch.object(shadow_once, "begin_generation", lambda s, name, job: None),
    ):
        yield


Begin = Callable[[LedgerState, NewGeneration], Outcome]


def _begins(rule: Callable[[LedgerState, NewGeneration, Begin], Outcome]) -> Planted:
    begin = generation.begin
    return patch.object(generation, "begin", lambda s, command: rule(s, command, begin))


DISASTER_MUTANTS: Final[Sequence[DisasterMutant]] = (
    DisasterMutant(
        name="a peer that goes on keeps its identity",
        plant=keeps_its_identity,
        broken="P4",
        seed=13,
    ),
    DisasterMutant(
        name="a recovery leaves out the end of the log",
        plant=drops_the_end,
        broken="P1",
        seed=7,
    ),
    DisasterMutant(
        name="a new generation is told before it is on disk",
        plant=is_not_on_disk,
        broken="P3",
    ),
    DisasterMutant(
        name="two restores of one backup count from the same start",
        plant=always_starts_at_zero,
        broken="P5",
        seed=1,
    ),
    DisasterMutant(
        name="grants of the generation before stay",
        plant=keeps_the_grants,
        broken="P6",
    ),
    DisasterMutant(
        name="a new generation counts on from the copy",
        plant=counts_on,
        broken="P6",
    ),
    DisasterMutant(
        name="exclusive tasks wait for no lease of before",
        plant=waits_for_no_lease,
        broken="E9",
    ),
)
