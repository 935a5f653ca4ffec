"""What each placement policy promises, whatever the peers and the tasks are (S9 to S15)."""

from __future__ import annotations

import random
from collections import Counter

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2psched.core.placement import Candidate
from p2psched.core.policies.base import EARLY_MAX, PUSH_MAX, Ask, Measured, Notes, Policy, Shares
from p2psched.core.policies.custom import custom
from p2psched.core.policies.registry import ADAPTIVE, POLICIES, with_own
from p2psched.model.errors import UsageError
from p2psched.model.ids import JobId, PeerId
from p2psched.model.load import Liveness, LoadReport, Seen, TypeSpeed

KIND = 7


def notes() -> Notes:
    return Notes(random.Random(1))


def peer(number: int, *, slots: int = 2, owned: int = 0, weight: int = 1_000) -> Candidate:
    return Candidate(*(PeerId(f"{number:032x}"), 1, slots, owned, owned * 10_000), weight=weight)


def seen(candidate: Candidate, report: LoadReport) -> Candidate:
    said = Seen(candidate.peer, 1, Liveness.ALIVE, 0, report)
    return msgspec.structs.replace(candidate, seen=said)


def ask(count: int, *, now_ms: int = 0, measured: dict[PeerId, Measured] | None = None) -> Ask:
    return Ask(JobId("j"), count, 10_000, 1, {}, KIND, now_ms=now_ms, measured=measured or {})


def counted(shares: Shares) -> Counter[PeerId]:
    return Counter({candidate.peer: count for candidate, count in shares})


PEERS = st.lists(st.tuples(st.integers(1, 8), st.integers(0, 60)), min_size=1, max_size=8)


@pytest.mark.parametrize("policy", POLICIES.values(), ids=lambda policy: policy.name)
@given(peers=PEERS, count=st.integers(1, 3_000), limit=st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_no_policy_gives_more_than_there_is_nor_more_than_a_peer_may_own(
    policy: Policy, peers: list[tuple[int, int]], count: int, limit: int
) -> None:
    candidates = [peer(n, slots=s, owned=o) for n, (s, o) in enumerate(peers)]
    limited = candidates[0].peer
    wanted = msgspec.structs.replace(ask(count), most={limited: limit})
    given_ = counted(policy.share(wanted, candidates, notes()))
    assert given_.total() <= count
    assert all(number > 0 for number in given_.values())
    assert given_[limited] <= limit
    assert given_.keys() <= {candidate.peer for candidate in candidates}
    assert all(c.owned + given_[c.peer] <= max(EARLY_MAX, c.owned) for c in candidates)


@given(peers=st.integers(1, 9), turns=st.integers(1, 40), cuts=st.lists(st.integers(1, 60)))
@settings(max_examples=100, deadline=None)
def test_round_robin_gives_each_of_equal_peers_exactly_its_part_however_jobs_are_cut(
    peers: int, turns: int, cuts: list[int]
) -> None:
    policy, remembered, got = POLICIES["round-robin"], notes(), Counter[PeerId]()
    candidates = [peer(number) for number in range(peers)]
    left = peers * turns
    for size in [*cuts, left]:
        got += counted(policy.share(ask(min(size, left)), candidates, remembered)) if left else {}
        left = peers * turns - got.total()
    assert set(got.values()) == {turns}


@given(peers=st.integers(3, 8), before=st.integers(0, 30), after=st.integers(1, 30))
@settings(max_examples=60, deadline=None)
def test_round_robin_goes_on_behind_a_peer_that_died_without_favouring_anybody(
    peers: int, before: int, after: int
) -> None:
    policy, remembered = POLICIES["round-robin"], notes()
    candidates = [peer(number) for number in range(peers)]
    for _ in range(before):
        policy.share(ask(1), candidates, remembered)
    left = [c for c in candidates if c.peer != remembered.last] if before else candidates[1:]
    got = Counter[PeerId]()
    for _ in range(after * len(left)):
        got += counted(policy.share(ask(1), left, remembered))
    assert set(got.values()) == {after}
    assert len(got) == len(left)


@given(peers=PEERS, count=st.integers(1, PUSH_MAX))
@settings(max_examples=100, deadline=None)
def test_least_connections_never_goes_where_more_is_in_flight_than_elsewhere(
    peers: list[tuple[int, int]], count: int
) -> None:
    candidates = [peer(n, slots=s, owned=o) for n, (s, o) in enumerate(peers)]
    got = counted(POLICIES["least-connections"].share(ask(count), candidates, notes()))
    least_now = min(c.owned + got[c.peer] for c in candidates)
    assert got.total() == count
    assert all(c.owned + got[c.peer] - 1 <= least_now for c in candidates if got[c.peer])


def test_response_time_leaves_a_slow_peer_and_comes_back_once_it_is_quick_again() -> None:
    policy, remembered = POLICIES["response-time"], notes()
    candidates = [peer(number) for number in range(4)]
    slow = candidates[0].peer
    measured: dict[PeerId, Measured] = {}
    rng, now_ms = random.Random(5), 0

    def shares_of_slow(tasks: int, slow_ms: int) -> float:
        nonlocal now_ms
        got = Counter[PeerId]()
        for _ in range(tasks):
            now_ms += 60
            for name in (
                one := counted(
                    policy.share(ask(1, now_ms=now_ms, measured=measured), candidates, remembered)
                )
            ):
                took = 20 + rng.random() + (slow_ms if name == slow else 0)
                known = measured.get(name)
                mean = took if known is None else known.response_ms * 0.8 + took * 0.2
                measured[name] = Measured(mean, now_ms)
            got += one
        return got[slow] / tasks

    shares_of_slow(50, 300)
    assert shares_of_slow(200, 300) < 0.5 / 4
    shares_of_slow(600, 0)
    assert shares_of_slow(200, 0) > 0.5 / 4


@given(peers=PEERS, count=st.integers(1, 200))
@settings(max_examples=80, deadline=None)
def test_queue_length_goes_to_the_shortest_queue(peers: list[tuple[int, int]], count: int) -> None:
    candidates = [peer(n, slots=s, owned=o) for n, (s, o) in enumerate(peers)]
    policy = POLICIES["queue-length"]
    got = counted(policy.share(ask(count), candidates, notes()))

    def waiting(c: Candidate, more: int) -> float:
        return max(0, c.owned + got[c.peer] + more - c.slots) / c.slots

    shortest = min(waiting(c, 0) for c in candidates)
    assert all(waiting(c, -1) <= shortest for c in candidates if got[c.peer])


def test_two_choices_keep_the_longest_queue_below_twice_the_mean() -> None:
    """Also by a view that is old: of one, a hundred tasks are placed each time."""
    rng, policy = random.Random(3), POLICIES["power-of-two"]
    owned = [0] * 10
    for _ in range(40):
        candidates = [peer(n, slots=1, owned=o) for n, o in enumerate(owned)]
        for candidate, count in policy.share(ask(100), candidates, Notes(rng)):
            owned[int(candidate.peer, 16)] += count
        if sum(owned) > 300:
            assert max(owned) <= 2 * sum(owned) / len(owned)
        for number in range(10):
            owned[number] = max(0, owned[number] - rng.randint(5, 12))


def test_node_load_goes_where_no_other_program_keeps_the_machine_busy() -> None:
    busy = seen(peer(0), LoadReport(number=1, cores=4, foreign_cpu=900))
    full = seen(peer(1), LoadReport(number=1, memory=1_000, memory_free=20))
    idle = seen(peer(2), LoadReport(number=1, cores=4, foreign_cpu=50))
    policy = POLICIES["node-load"]
    got = counted(policy.share(ask(50), [busy, full, idle, peer(3)], notes()))
    assert got.keys() == {idle.peer, peer(3).peer}
    assert counted(policy.share(ask(2), [busy, full], notes())).total() == 2, "better than nowhere"


def test_a_new_kind_of_task_is_tried_on_every_peer_and_then_goes_to_the_best() -> None:
    policy, remembered = POLICIES["task-type"], notes()
    fresh = [peer(number) for number in range(5)]
    first = Counter[PeerId]()
    for _ in range(5):
        first += counted(policy.share(ask(1), fresh, remembered))
    assert set(first.values()) == {1}
    assert len(first) == 5

    known = [
        seen(c, LoadReport(number=1, speeds=(TypeSpeed(KIND, 100 if n < 2 else 400, 1, 9),)))
        for n, c in enumerate(fresh)
    ]
    got = Counter[PeerId]()
    for _ in range(100):
        got += counted(policy.share(ask(1), known, remembered))
    assert got[fresh[0].peer] + got[fresh[1].peer] >= 90


def test_shares_follow_the_weights() -> None:
    policy, remembered = POLICIES["weighted"], notes()
    candidates = [peer(n, weight=w) for n, w in enumerate((1_000, 2_000, 4_000))]
    got, rng = Counter[PeerId](), random.Random(2)
    while got.total() < 7_000:
        size = min(rng.choice((1, 1, 3, 40)), 7_000 - got.total())
        got += counted(policy.share(ask(size), candidates, remembered))
    for candidate, part in zip(candidates, (1, 2, 4), strict=True):
        assert got[candidate.peer] == pytest.approx(7_000 * part / 7, rel=0.05)


def test_a_peer_that_comes_is_not_given_all_that_it_has_missed() -> None:
    policy, remembered = POLICIES["weighted"], notes()
    two = [peer(0), peer(1)]
    policy.share(ask(1_000), two, remembered)
    got = counted(policy.share(ask(30), [*two, peer(2)], remembered))
    assert set(got.values()) == {10}


@given(st.integers(1, 400), st.integers(50, 20_000), st.integers(0, 1_000))
@settings(max_examples=80, deadline=None)
def test_adaptive_gives_quick_peers_more_and_always_somebody_something(
    count: int, slow_us: int, foreign: int
) -> None:
    quick = seen(peer(0), LoadReport(number=1, speeds=(TypeSpeed(KIND, 1_000, 0, 9),)))
    other = seen(
        peer(1),
        LoadReport(
            number=1,
            cores=2,
            foreign_cpu=foreign,
            speeds=(TypeSpeed(KIND, 1_000 + slow_us, 0, 9),),
        ),
    )
    got = counted(ADAPTIVE.share(ask(count), [quick, other], notes()))
    assert got.total() > 0
    assert got[quick.peer] >= got[other.peer]


def test_adaptive_goes_where_the_data_is_unless_the_queue_there_is_longer_than_the_way() -> None:
    blob = ((99, 50_000_000),)  # half a second
    warm = seen(peer(0, owned=2), LoadReport(number=1, warm=(99,)))
    cold = seen(peer(1), LoadReport(number=1))
    wanted = msgspec.structs.replace(ask(1), blobs=blob)
    assert counted(ADAPTIVE.share(wanted, [warm, cold], notes())).keys() == {warm.peer}
    long = msgspec.structs.replace(warm, load_us=1_900_000, owned=190)
    assert counted(ADAPTIVE.share(wanted, [long, cold], notes())).keys() == {cold.peer}


def test_a_difference_that_may_be_chance_is_none() -> None:
    one = seen(peer(0), LoadReport(number=1, speeds=(TypeSpeed(KIND, 90_000, 60_000, 50),)))
    two = seen(peer(1), LoadReport(number=1, speeds=(TypeSpeed(KIND, 110_000, 60_000, 50),)))
    got = counted(ADAPTIVE.share(ask(40), [one, two], notes()))
    assert got[one.peer] == got[two.peer]


def test_a_policy_of_a_user_goes_by_its_score_and_what_is_none_is_refused() -> None:
    def score(_ask: Ask, candidate: Candidate) -> float | None:
        return None if candidate.weight < 1_000 else candidate.owned

    own = custom({"NAME": "mine", "score": score, "LATE": False}, "mine.py")
    got = counted(own.share(ask(6), [peer(0, weight=1), peer(1, owned=2), peer(2)], notes()))
    assert got == {peer(1).peer: 2, peer(2).peer: 4}
    assert with_own([own])["mine"] is own
    for values in ({}, {"NAME": "x"}, {"NAME": "No Name", "score": score}):
        with pytest.raises(UsageError):
            custom(values, "mine.py")
    with pytest.raises(UsageError, match="already"):
        with_own([custom({"NAME": "weighted", "score": score}, "mine.py")])
