"""Where tasks go: what holds for every view of the load."""

from __future__ import annotations

import random

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from p2psched.core.placement import BACKLOG_US, GRANT_US_MIN, Candidate, has_room, share_out
from p2psched.model.ids import PeerId
from p2psched.model.taskset import EMPTY, TaskSet


@st.composite
def views(draw: st.DrawFn) -> list[Candidate]:
    count = draw(st.integers(0, 6))
    return [
        Candidate(
            PeerId(f"peer-{number}"),
            1,
            draw(st.integers(1, 8)),
            draw(st.integers(0, 20)),
            draw(st.integers(0, 10_000_000)),
        )
        for number in range(count)
    ]


TASKS = st.frozensets(st.integers(0, 200), max_size=80).map(TaskSet.from_indices)
ESTIMATES = st.integers(1, 5_000_000)
CPUS = st.integers(1, 4)


@given(TASKS, views(), ESTIMATES, CPUS)
def test_no_task_goes_to_two_peers_and_none_is_invented(
    tasks: TaskSet, view: list[Candidate], estimate_us: int, cpus: int
) -> None:
    shares = share_out(tasks, view, estimate_us=estimate_us, cpus=cpus, owned_here={})
    union = EMPTY
    for candidate, share in shares:
        assert share
        assert candidate.slots >= cpus
        assert not union & share
        union = union | share
    assert not union - tasks
    assert len({candidate.peer for candidate, _ in shares}) == len(shares)


@given(TASKS, views(), ESTIMATES, CPUS)
def test_a_share_fits_the_room_of_its_peer(
    tasks: TaskSet, view: list[Candidate], estimate_us: int, cpus: int
) -> None:
    for c, share in share_out(tasks, view, estimate_us=estimate_us, cpus=cpus, owned_here={}):
        ahead = (c.slots * BACKLOG_US - c.load_us) // estimate_us
        assert len(share) <= max(ahead, c.slots // cpus - c.owned)


@given(st.integers(1, 8), st.integers(1, 6), ESTIMATES)
def test_every_free_slot_gets_a_task_when_there_are_enough(
    slots: int, peers: int, estimate_us: int
) -> None:
    view = [Candidate(PeerId(f"peer-{n}"), 1, slots, 0, 0) for n in range(peers)]
    tasks = TaskSet.of(0, 4 * slots * peers)
    shares = dict(share_out(tasks, view, estimate_us=estimate_us, cpus=1, owned_here={}))
    assert all(len(shares[candidate]) >= slots for candidate in view)


@given(TASKS, views(), ESTIMATES, CPUS, st.integers())
def test_equal_views_give_equal_shares(
    tasks: TaskSet, view: list[Candidate], estimate_us: int, cpus: int, seed: int
) -> None:
    mixed = list(view)
    random.Random(seed).shuffle(mixed)
    counts = [
        {
            c.peer: len(s)
            for c, s in share_out(tasks, v, estimate_us=estimate_us, cpus=cpus, owned_here={})
        }
        for v in (view, mixed)
    ]
    assert counts[0] == counts[1]


def test_a_peer_that_owns_its_share_of_a_job_is_given_no_more_of_it() -> None:
    view = [Candidate(PeerId(f"peer-{n}"), 1, 1, 0, 0) for n in range(2)]
    shares = share_out(
        TaskSet.of(0, 8), view, estimate_us=1, cpus=1, owned_here={PeerId("peer-0"): 100}
    )
    assert [candidate.peer for candidate, _ in shares] == ["peer-1"]


def test_what_is_not_worth_another_round_goes_to_whoever_is_free_now() -> None:
    task_us = GRANT_US_MIN // 16
    idle = Candidate(PeerId("a"), 1, 1, 0, 0)
    other = Candidate(PeerId("b"), 1, 1, 0, 0)
    busy = Candidate(PeerId("b"), 1, 1, 14, 14 * task_us)
    tasks = TaskSet.of(0, 16)
    owned = {busy.peer: 14}
    shares = share_out(tasks, [idle, busy], estimate_us=task_us, cpus=1, owned_here=owned)
    assert shares == [(idle, tasks)]
    shares = share_out(tasks, [idle, other], estimate_us=task_us, cpus=1, owned_here={})
    assert [len(share) for _, share in shares] == [8, 8]


@given(views(), ESTIMATES, CPUS, st.lists(st.integers(0, 20), min_size=6, max_size=6))
def test_a_single_task_goes_to_the_least_busy_peer_that_has_room(
    view: list[Candidate], estimate_us: int, cpus: int, owned: list[int]
) -> None:
    task = TaskSet.of(3, 4)
    view[:1] = [msgspec.structs.replace(c, is_self=True) for c in view[:1]]
    owned_here = {c.peer: count for c, count in zip(view, owned, strict=False)}
    taken = [
        share_out(task, [c], estimate_us=estimate_us, cpus=cpus, owned_here=owned_here)
        for c in view
    ]
    roomy = [c for c, alone in zip(view, taken, strict=True) if alone == [(c, task)]]
    best = sorted(roomy, key=lambda c: (c.load_us / c.slots, not c.is_self, c.peer))[:1]
    shares = share_out(task, view, estimate_us=estimate_us, cpus=cpus, owned_here=owned_here)
    assert shares == [(c, task) for c in best]


def test_nobody_with_enough_slots_means_nobody() -> None:
    view = [Candidate(PeerId("peer-0"), 1, 1, 0, 0)]
    assert share_out(TaskSet.of(0, 3), view, estimate_us=1, cpus=2, owned_here={}) == []


def test_a_full_peer_has_no_room() -> None:
    assert not has_room(Candidate(PeerId("p"), 1, 2, 2, 2 * BACKLOG_US))
    assert has_room(Candidate(PeerId("p"), 1, 2, 1, 9 * BACKLOG_US))
