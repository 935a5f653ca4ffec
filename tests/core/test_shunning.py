"""Whom gossip doubts gets nothing new, unless it doubts everybody."""

from __future__ import annotations

from collections.abc import Callable
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2psched.core import coordinator as module
from p2psched.core.coordinator import Coordinator
from p2psched.core.machine import Machine
from p2psched.core.shunning import UNHEARD_MS, to_shun
from p2psched.model.commands import Envelope, Place, SubmitJob
from p2psched.model.ids import JobId, PeerId
from p2psched.model.taskset import TaskSet
from tests.core.test_coordinator import WINDOW_MS, apply
from tests.core.test_machine import P, Q, spec, up

PEERS = [PeerId(f"{number:032x}") for number in range(9)]
SETS = st.frozensets(st.sampled_from(PEERS))
NOW_MS = 50_000


@given(SETS, SETS, st.dictionaries(st.sampled_from(PEERS), st.integers(0, NOW_MS)))
def test_some_that_are_doubted_get_nothing_whoever_hears_them(
    said: frozenset[PeerId], others: frozenset[PeerId], heard_ms: dict[PeerId, int]
) -> None:
    shunned = to_shun(said, others, now_ms=NOW_MS, heard_ms=heard_ms)
    assert shunned <= said & others
    if len(said & others) <= len(others) - len(said & others):
        assert shunned == said & others


@given(SETS, SETS)
def test_who_is_heard_is_not_shunned_only_because_everybody_is(
    said: frozenset[PeerId], others: frozenset[PeerId]
) -> None:
    all_heard = dict.fromkeys(PEERS, NOW_MS - UNHEARD_MS + 1)
    shunned = to_shun(said, others, now_ms=NOW_MS, heard_ms=all_heard)
    assert 2 * len(shunned) <= len(others)


def test_of_two_peers_the_other_is_shunned_once_it_is_silent_on_its_link_too() -> None:
    doubts = frozenset({Q})
    assert not to_shun(doubts, {Q}, now_ms=NOW_MS, heard_ms={Q: NOW_MS - 100})
    assert to_shun(doubts, {Q}, now_ms=NOW_MS, heard_ms={Q: NOW_MS - 1_000}) == doubts
    assert to_shun(doubts, {Q}, now_ms=NOW_MS, heard_ms={}) == doubts


def cluster(peers: int, jobs: int) -> Coordinator:
    machine = Machine()
    apply(machine, *(up(peer) for peer in PEERS[:peers]))
    apply(machine, *(SubmitJob(JobId(f"{n:032x}"), spec(TaskSet.of(0, 50))) for n in range(jobs)))
    made = Coordinator(PEERS[0], machine, window_ms=WINDOW_MS)
    made.on_coordinator(10_000, is_self=True)
    return made


def places_none_on_the_doubted(peers: int, said: frozenset[PeerId]) -> None:
    coordinator = cluster(peers, 3)
    coordinator.on_shun(said, NOW_MS, {})
    submit = SubmitJob(JobId("f" * 32), spec(TaskSet.of(0, 50)))
    envelopes = [Envelope(P, 1, submit)]
    places = [*coordinator.place(), *coordinator.first_placements(envelopes)]
    assert all(isinstance(place, Place) and place.peer not in said - {PEERS[0]} for place in places)
    assert any(place.peer == PEERS[0] for place in places if isinstance(place, Place))


@given(st.integers(1, 9), SETS)
def test_nothing_new_is_placed_on_whom_gossip_doubts(peers: int, said: frozenset[PeerId]) -> None:
    places_none_on_the_doubted(peers, said)


def nobody(*_: object, **__: object) -> frozenset[PeerId]:
    return frozenset()


def the_dead_alone(said: frozenset[PeerId], *_: object, **__: object) -> frozenset[PeerId]:
    return frozenset(sorted(said)[1:])


@pytest.mark.parametrize("bug", [nobody, the_dead_alone])
def test_a_coordinator_that_does_not_ask_gossip_is_found_out(
    bug: Callable[..., frozenset[PeerId]],
) -> None:
    with patch.object(module, "to_shun", bug), pytest.raises(AssertionError):
        places_none_on_the_doubted(6, frozenset(PEERS[2:4]))


def test_who_is_not_doubted_any_more_gets_tasks_again() -> None:
    coordinator = cluster(2, 1)
    coordinator.on_shun(frozenset({PEERS[1]}), NOW_MS, {})
    coordinator.on_shun(frozenset(), NOW_MS + 100, {})
    assert PEERS[1] in {place.peer for place in coordinator.place() if isinstance(place, Place)}
