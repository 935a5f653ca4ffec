"""Bugs in what a damaged log costs, planted on purpose: see `mutants`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final
from unittest.mock import patch

from p2psched.core.raft import election, regain
from p2psched.core.raft.state import RaftState
from p2psched.model.ids import PeerId
from p2psched.model.raft import VoteRequest
from p2psched.store import recovery
from p2psched.store.marker import MarkerState
from tests.sim.mutants import RESTLESS, Mutant, Planted


@contextmanager
def _ignores_the_marker() -> Iterator[None]:
    """As if there had never been one: what ends early was never longer."""
    with (
        patch.object(recovery, "read_marked", lambda disk: (None, MarkerState.NONE)),
        patch.object(recovery, "MARKED", 99),
    ):
        yield


def _votes_before_it_is_whole() -> Planted:
    """It campaigns for nobody, and gives its vote to whoever asks."""
    on_vote_request = election.on_vote_request

    def careless(state: RaftState, sender: PeerId, request: VoteRequest) -> None:
        held, state.regain = state.regain, None
        on_vote_request(state, sender, request)
        state.regain = held

    return patch.object(election, "on_vote_request", careless)


def _is_whole_with_the_first_entry() -> Planted:
    def hasty(state: RaftState) -> None:
        held = state.regain
        if held is not None and not held.ends and held.agreed:
            held.ends = True
            state.end_regain()

    return patch.object(regain, "end_if_whole", hasty)


# Every second start finds a part of its log damaged.
HURTING: Final = replace(RESTLESS, hurt=0.5)

HURT_MUTANTS: Final = (
    Mutant(
        name="the marker of the synced end is ignored",
        plant=_ignores_the_marker,
        faults=HURTING,
        broken="P3",
    ),
    Mutant(
        name="a peer votes though it lacks what it had",
        plant=_votes_before_it_is_whole,
        faults=HURTING,
        broken="P4",
    ),
    Mutant(
        name="a peer calls its log whole too early",
        plant=_is_whole_with_the_first_entry,
        faults=HURTING,
        broken="P4",
    ),
)
