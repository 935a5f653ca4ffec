"""How the coordinator uses policies: per job, early or late, and what stands in for one that is
unknown, or fails."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from p2psched.core.choosing import SPARED_MS
from p2psched.core.placement import BACKLOG_US, Candidate
from p2psched.core.policies.base import Ask, Notes, Shares
from p2psched.core.policies.custom import custom
from p2psched.core.policies.registry import with_own
from p2psched.model.ids import PeerId
from p2psched.model.needs import NOTHING, Needs, Offers
from tests.core.choosy_rig import A, B, C, Cluster, job_id, spec


def test_each_job_goes_by_its_own_policy() -> None:
    cluster = Cluster({A: NOTHING, B: NOTHING, C: Offers(weight=4_000)}, slots=2)
    cluster.submit(1, spec(9, policy="round-robin"))
    cluster.submit(2, spec(12, policy="weighted"))
    cluster.place()
    owned = [
        {held.peer: len(held.tasks) for held in cluster.job(n).grants.values()} for n in (1, 2)
    ]
    assert owned == [{A: 3, B: 3, C: 3}, {A: 2, B: 2, C: 8}]


def test_a_classic_policy_pushes_all_at_once_and_adaptive_keeps_most_back() -> None:
    for policy, waiting in (("least-connections", 0), ("", 200 - 2 * 2 * BACKLOG_US // 500_000)):
        cluster = Cluster({A: NOTHING, B: NOTHING}, slots=2)
        cluster.submit(1, spec(200, policy=policy))
        cluster.place()
        assert len(cluster.job(1).waiting) == waiting


def test_a_job_that_pushes_is_placed_while_all_peers_have_enough_to_do() -> None:
    cluster = Cluster({A: NOTHING}, slots=1)
    cluster.submit(1, spec(50))
    while cluster.place():
        pass
    cluster.submit(2, spec(1, policy="round-robin"))
    cluster.submit(3, spec(1))
    assert [place.job for place in cluster.place()] == [job_id(2)]


def test_what_the_coordinator_does_not_know_goes_by_adaptive_and_that_is_noted() -> None:
    cluster = Cluster({A: NOTHING, B: NOTHING})
    cluster.submit(1, spec(1, policy="mine"))
    assert len(cluster.place()) == 1
    (record,) = cluster.coordinator.chooser.decisions.find(job_id(1), 0)
    assert record.policy == "adaptive"
    assert "no policy 'mine'" in record.note


@pytest.mark.parametrize(("count", "policy"), [(3, "adaptive"), (4, "mine")])
def test_nobody_is_waited_for_long_because_it_is_quicker(count: int, policy: str) -> None:
    """It should have been free by then (seed 7731017)."""
    cluster = Cluster({A: NOTHING, B: NOTHING, C: Offers(weight=3_000)}, slots=1)
    cluster.submit(1, spec(count, policy=policy))

    def place_after(wait_ms: int) -> list[PeerId]:
        cluster.now_ms += wait_ms
        contacts = dict.fromkeys((A, B, C), cluster.now_ms)
        cluster.coordinator.find_dead(cluster.now_ms, contacts)
        return [place.peer for place in cluster.place()]

    assert place_after(0) == [C]
    assert place_after(0) == place_after(SPARED_MS - 1) == []
    assert place_after(1) == [A, B]
    assert place_after(SPARED_MS) == [], "who is busy gets no more than before"


def test_a_policy_that_fails_holds_up_nothing() -> None:
    def score(_ask: Ask, _peer: Candidate) -> float:
        raise ZeroDivisionError

    own = custom({"NAME": "mine", "score": score}, "mine.py")
    cluster = Cluster({A: NOTHING, B: NOTHING}, policies=with_own([own]))
    cluster.submit(1, spec(2, policy="mine"))
    assert cluster.place()
    (record,) = cluster.coordinator.chooser.decisions.find(job_id(1), 0)
    assert "ZeroDivisionError" in record.note


def test_what_a_policy_says_is_bounded_by_what_fits() -> None:
    class Greedy:
        name = "greedy"
        summary = "all to the first"
        is_late = False

        def share(self, ask: Ask, peers: Sequence[Candidate], _notes: Notes) -> Shares:
            return [(peers[0], ask.count)]

        def score(self, _ask: Ask, _peer: Candidate) -> float:
            return 0.0

    cluster = Cluster({A: Offers(gpus=1), B: Offers(gpus=1)}, policies=with_own([Greedy()]))
    cluster.submit(1, spec(5, Needs(gpus=1), policy="greedy"))
    cluster.place()
    assert cluster.machine.peers[A].gpus == 1, "the fold grants no more"


def test_a_decision_tells_what_was_seen_and_the_chosen_was_the_least() -> None:
    cluster = Cluster({A: NOTHING, B: NOTHING, C: NOTHING})
    for number in range(12):
        cluster.submit(number, spec(1, policy="least-connections"))
        cluster.place()
        (record,) = cluster.coordinator.chooser.decisions.find(job_id(number), 0)
        ((chosen, _),) = record.shares
        assert chosen.owned == min(candidate.owned for candidate in record.candidates)
