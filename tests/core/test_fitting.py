"""Jobs that need something of their peers: labels, GPUs, memory, company."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2psched.core import fitting
from p2psched.core.machine import Machine
from p2psched.core.owner import Owner, StartBatch
from p2psched.core.snapshot import encode_machine, restore_machine
from p2psched.model.commands import (
    Acknowledged,
    Cancel,
    PeerUp,
    Place,
    Placed,
    Rejected,
    Submitted,
)
from p2psched.model.execution import Ended
from p2psched.model.ids import PeerId
from p2psched.model.job import Cause
from p2psched.model.moves import Transfer
from p2psched.model.needs import NOTHING, Needs, Offer, Offers, parse_labels
from p2psched.model.taskset import TaskSet
from p2psched.peer.views import job_view
from tests.core.choosy_rig import A, B, C, Cluster, job_id, spec

ARM = (("arch", "arm"),)
TWO_GPUS = Offers(gpus=2, memory_mib=1_000)
PLAIN = Offers(memory_mib=1_000)


def test_tasks_go_only_to_peers_with_the_labels_that_they_require() -> None:
    cluster = Cluster({A: PLAIN, B: Offers(labels=ARM), C: PLAIN})
    cluster.submit(1, spec(8, Needs(require=ARM)))
    assert {place.peer for place in cluster.place()} == {B}


def test_the_fold_grants_nothing_to_a_peer_that_does_not_fit_whoever_asks() -> None:
    cluster = Cluster({A: PLAIN, B: Offers(labels=ARM)})
    cluster.submit(1, spec(2, Needs(require=ARM)))
    outcome = cluster.do(Place(job_id(1), TaskSet.of(0, 2), A, 1))
    assert isinstance(outcome, Placed)
    assert not outcome.tasks
    assert len(cluster.job(1).waiting) == 2


@pytest.mark.parametrize("needs", [Needs(gpus=1), Needs(memory_mib=500), Needs(gpus=2)])
def test_a_peer_owns_no_more_than_its_gpus_and_memory_are_enough_for(needs: Needs) -> None:
    cluster = Cluster({A: TWO_GPUS})
    cluster.submit(1, spec(10, needs))
    most = 2 // needs.gpus if needs.gpus else 2
    done = 0
    while not cluster.job(1).ended:
        cluster.place()
        assert cluster.owned(A) == min(most, 10 - done)
        done += cluster.owned(A)
        cluster.end(cluster.job(1))


def test_two_jobs_share_what_a_peer_has_also_within_one_round() -> None:
    cluster = Cluster({A: Offers(memory_mib=1_000), B: Offers(memory_mib=300)})
    for number in range(6):
        cluster.submit(number, spec(1, Needs(memory_mib=300)))
    assert len(cluster.place()) == 4, "and no proposal in vain"


def test_what_no_peer_can_ever_run_is_refused_with_the_nearest_miss() -> None:
    cluster = Cluster({A: Offers(gpus=1), B: Offers(labels=ARM, gpus=4)})
    outcome = cluster.submit(1, spec(1, Needs(require=ARM, gpus=8)))
    assert isinstance(outcome, Rejected)
    assert outcome.code == "refused"
    assert "peer-b, which has 4 of 8 GPUs" in outcome.message
    assert job_id(1) not in cluster.machine.jobs


def test_a_refused_submit_that_is_committed_again_later_stays_refused() -> None:
    from p2psched.model.commands import SubmitJob  # noqa: PLC0415

    cluster = Cluster({A: Offers(gpus=1)})
    wanted = SubmitJob(job_id(1), spec(1, Needs(gpus=2)))
    first = cluster.do(wanted, request=77)
    cluster.offers[A] = Offers(gpus=2)
    cluster.offer(A)
    assert cluster.do(wanted, request=77) == first
    assert cluster.do(wanted, request=78) == Submitted(job_id(1), duplicate=False)


def test_while_a_peer_is_still_to_say_what_it_has_a_caller_is_told_to_come_again() -> None:
    cluster = Cluster({A: Offers(gpus=2)})
    cluster.restart(A)
    outcome = cluster.submit(1, spec(1, Needs(gpus=1)))
    assert isinstance(outcome, Rejected)
    assert outcome.code == "unavailable"
    cluster.offer(A)
    assert isinstance(cluster.submit(1, spec(1, Needs(gpus=1))), Submitted)


def test_what_fits_only_a_peer_that_is_down_waits_and_says_so() -> None:
    cluster = Cluster({A: PLAIN, B: Offers(gpus=2)})
    cluster.lose(B)
    assert isinstance(cluster.submit(1, spec(1, Needs(gpus=2))), Submitted)
    assert cluster.place() == []
    assert "fits only on peer-b, which is down" in job_view(cluster.job(1), cluster.machine).note
    cluster.restart(B)
    assert cluster.place() == [], "it has not said what it has"
    cluster.offer(B)
    assert [place.peer for place in cluster.place()] == [B]


def test_a_new_process_has_nothing_before_it_says_so_and_the_same_one_keeps_it() -> None:
    cluster = Cluster({A: Offers(gpus=2)})
    cluster.lose(A)
    cluster.incarnations[A] = 2
    cluster.do(PeerUp(cluster.info(A), (), continues=1))
    assert cluster.machine.peers[A].offers.gpus == 2
    cluster.restart(A)
    assert cluster.machine.peers[A].offers == NOTHING


def test_an_offer_of_a_process_that_is_over_changes_nothing() -> None:
    cluster = Cluster({A: Offers(gpus=2)})
    cluster.restart(A)
    assert isinstance(cluster.do(Offer(A, 1, Offers(gpus=9))), Rejected)
    assert cluster.machine.peers[A].offers == NOTHING
    assert cluster.offer(A) == Acknowledged()


def test_needs_a_policy_and_offers_need_a_level_of_their_own() -> None:
    cluster = Cluster({A: PLAIN}, level=4)
    for wanted in (spec(1, Needs(gpus=1)), spec(1, policy="round-robin")):
        outcome = cluster.submit(1, wanted)
        assert isinstance(outcome, Rejected)
        assert "level 5" in outcome.message
    assert isinstance(cluster.offer(A), Rejected)
    assert cluster.machine.peers[A].offers == NOTHING


def test_jobs_that_stay_apart_share_no_peer_whichever_says_so() -> None:
    cluster = Cluster({A: PLAIN, B: PLAIN})
    cluster.submit(1, spec(1))
    cluster.do(Place(job_id(1), TaskSet.of(0, 1), A, 1))
    cluster.submit(2, spec(4, Needs(apart=(job_id(1),))))
    assert {place.peer for place in cluster.place()} == {B}
    cluster.submit(3, spec(4))
    cluster.place()
    cluster.end(cluster.job(1))
    cluster.submit(4, spec(1, Needs(apart=(job_id(3),))))
    shunned = cluster.machine.peers[A if fitting.owned_by(cluster.job(3), A) else B]
    outcome = cluster.do(Place(job_id(4), TaskSet.of(0, 1), shunned.info.peer, 1))
    assert isinstance(outcome, Placed)
    assert not outcome.tasks


def test_a_job_that_did_not_ask_for_it_is_kept_off_peers_of_one_that_stays_apart_from_it() -> None:
    cluster = Cluster({A: PLAIN, B: PLAIN})
    cluster.submit(1, spec(1))
    cluster.submit(2, spec(1, Needs(apart=(job_id(1),))))
    cluster.do(Place(job_id(2), TaskSet.of(0, 1), A, 1))
    assert [place.peer for place in cluster.place()] == [B]
    cluster.end(cluster.job(2))
    assert cluster.machine.apart == {}


def test_a_job_apart_from_itself_has_one_task_a_peer() -> None:
    cluster = Cluster({A: PLAIN, B: PLAIN})
    cluster.submit(1, spec(5, Needs(apart=(job_id(1),))))
    cluster.place()
    assert [cluster.owned(peer) for peer in (A, B)] == [1, 1]
    assert "stays apart" in fitting.story(cluster.machine, cluster.job(1))


def test_preferred_labels_come_first_and_the_others_take_what_is_left() -> None:
    cluster = Cluster({A: PLAIN, B: Offers(labels=ARM)}, slots=2)
    wanted = spec(1, Needs(prefer=ARM))
    for number in range(2):
        cluster.submit(number, wanted)
        assert [place.peer for place in cluster.place()] == [B]
    cluster.submit(2, spec(40, Needs(prefer=ARM)))
    assert {place.peer for place in cluster.place()} == {A, B}


@given(
    zones=st.lists(st.sampled_from("xyz"), min_size=2, max_size=6),
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=4),
)
@settings(max_examples=60, deadline=None)
def test_tasks_are_spread_as_evenly_as_there_is_room(zones: list[str], sizes: list[int]) -> None:
    peers = [type(A)(f"{number:032x}") for number in range(len(zones))]
    offers = {p: Offers(labels=(("zone", z),)) for p, z in zip(peers, zones, strict=True)}
    cluster = Cluster(offers, slots=16)
    for number, size in enumerate(sizes):
        cluster.submit(number, spec(size, Needs(spread="zone")))
        cluster.place()
        counts = dict.fromkeys(set(zones), 0)
        for held in cluster.job(number).grants.values():
            zone = cluster.machine.peers[held.peer].offers.label("zone")
            counts[zone] += len(held.tasks)
        assert sum(counts.values()) == size
        assert max(counts.values()) - min(counts.values()) <= 1


def test_what_waits_for_gpus_holds_up_nobody_who_needs_none() -> None:
    cluster = Cluster({A: Offers(gpus=1)})
    for number in range(300):
        cluster.submit(number, spec(1, Needs(gpus=1)))
    cluster.place()
    cluster.submit(500, spec(1))
    assert [place.job for place in cluster.place()] == [job_id(500)]
    assert "waits for GPUs or memory" in fitting.story(cluster.machine, cluster.job(299))


def test_small_tasks_do_not_keep_memory_from_a_large_one_for_ever() -> None:
    cluster = Cluster({A: Offers(memory_mib=1_000)})
    cluster.submit(1, spec(1, Needs(memory_mib=100)))
    cluster.place()
    cluster.submit(2, spec(1, Needs(memory_mib=1_000)))
    for number in range(3, 40):
        cluster.submit(number, spec(1, Needs(memory_mib=100)))
    assert cluster.place() == []
    cluster.end(cluster.job(1))
    assert [place.job for place in cluster.place()][:1] == [job_id(2)]


def test_an_owner_starts_nothing_beside_what_was_taken_away_and_still_runs() -> None:
    cluster = Cluster({A: Offers(gpus=1)})
    owner = Owner(cluster.machine, slots=4, offers=Offers(gpus=1))
    for number in (1, 2):
        cluster.submit(number, spec(1, Needs(gpus=1)))
    cluster.place()
    first = cluster.job(1)
    (grant,) = first.grants
    owner.on_granted(first, grant, first.grants[grant].tasks)
    (started,) = owner.start_batches()
    assert isinstance(started, StartBatch)
    cluster.do(Cancel(first.id))
    owner.on_revoked(first.id, grant, started.batch.tasks, Cause.CANCELLED)
    cluster.place()
    second = cluster.job(2)
    (grant,) = second.grants
    owner.on_granted(second, grant, second.grants[grant].tasks)
    assert owner.start_batches() == []
    owner.on_executed(Ended(started.batch.id, TaskSet.of(0, 0)))
    assert len(owner.start_batches()) == 1


@pytest.mark.parametrize(
    ("needs", "moves"),
    [
        (Needs(gpus=1), 1),
        (Needs(memory_mib=300), 2),
        (Needs(require=ARM), 0),
        (Needs(prefer=ARM), 2),
        (Needs(steal=False), 0),
        (Needs(spread="zone"), 2),  # neither is in any
        (Needs(spread="arch"), 1),
        (Needs(apart=(job_id(9),)), 2),
        (Needs(apart=(job_id(1),)), 1),  # a peer has one of them at most
    ],
)
def test_tasks_move_only_to_a_peer_that_they_fit_and_take_up_what_they_need(
    needs: Needs, moves: int
) -> None:
    cluster = Cluster(
        {A: Offers(labels=ARM, gpus=4, memory_mib=900), B: Offers(gpus=1, memory_mib=600)}
    )
    cluster.submit(1, spec(3, needs))
    placed = cluster.do(Place(job_id(1), TaskSet.of(0, 2), A, 1))
    assert isinstance(placed, Placed)
    moved = cluster.do(Transfer(job_id(1), placed.grant, TaskSet.of(0, 2), B, 1))
    assert isinstance(moved, Placed)
    assert len(moved.tasks) == moves


def test_an_owner_offers_a_thief_only_what_that_can_run() -> None:
    cluster = Cluster({A: Offers(labels=ARM, gpus=4)}, slots=1)
    owner = Owner(cluster.machine, slots=1, offers=cluster.offers[A])
    for number, needs in enumerate((None, Needs(gpus=2), Needs(steal=False), Needs(prefer=ARM))):
        cluster.submit(number, spec(1, needs))
        cluster.do(Place(job_id(number), TaskSet.of(0, 1), A, 1))
        job = cluster.job(number)
        owner.on_granted(job, next(iter(job.grants)), job.spec.tasks)
    assert [lot.may_go for lot in owner.lots(B, 2, Offers(gpus=1))] == [True, False, False, True]
    assert [lot.may_go for lot in owner.lots(B, 2, Offers(gpus=2))] == [True, True, False, True]


def test_what_is_spread_is_offered_to_a_peer_of_a_domain_that_has_less_of_it() -> None:
    def zone(name: str) -> Offers:
        return Offers(labels=(("zone", name),))

    cluster = Cluster({A: zone("x"), B: zone("x"), C: zone("y")})
    cluster.submit(1, spec(8, Needs(spread="zone")))
    cluster.do(Place(job_id(1), TaskSet.of(0, 4), A, 1))
    cluster.do(Place(job_id(1), TaskSet.of(4, 6), C, 1))
    job = cluster.job(1)
    owner = Owner(cluster.machine, slots=1)
    for grant in [grant for grant, held in job.grants.items() if held.peer == A]:
        owner.on_granted(job, grant, job.grants[grant].tasks)

    def may_go(taker: PeerId) -> bool:
        return all(lot.may_go for lot in owner.lots(taker, 2, cluster.offers[taker]))

    assert may_go(B), "in the same zone it changes nothing"
    assert may_go(C), "four here, two there"
    cluster.do(Place(job_id(1), TaskSet.of(6, 7), C, 1))
    assert not may_go(C), "four and three are as even as it gets"


STEPS = st.lists(
    st.tuples(st.sampled_from("ssssppppeelroc"), st.integers(0, 5), st.integers(0, 3)), max_size=50
)
NEEDS = (
    None,
    Needs(gpus=1),
    Needs(gpus=2, memory_mib=100),
    Needs(memory_mib=400),
    Needs(require=ARM),
    Needs(apart=(job_id(0), job_id(1))),
)


def step(cluster: Cluster, kind: str, which: int, count: int) -> None:
    peer = (A, B, C)[which % 3]
    jobs = list(cluster.machine.jobs.values())
    if kind == "s":
        cluster.submit(len(jobs), spec(1 + count, NEEDS[which]))
    elif kind == "p":
        cluster.place()
    elif kind == "e" and jobs:
        cluster.end(jobs[which % len(jobs)])
    elif kind == "c" and jobs:
        cluster.do(Cancel(jobs[which % len(jobs)].id))
    elif kind == "l":
        cluster.lose(peer)
    elif kind == "r":
        cluster.restart(peer)
        cluster.offer(peer)
    elif kind == "o":
        cluster.go_on(peer)


@given(STEPS)
@settings(max_examples=150, deadline=None)
def test_whatever_happens_no_peer_owns_more_than_it_has_and_a_copy_goes_on_the_same(
    steps: list[tuple[str, int, int]],
) -> None:
    cluster = Cluster({A: TWO_GPUS, B: Offers(labels=ARM, gpus=1, memory_mib=700), C: PLAIN})
    for each in steps:
        step(cluster, *each)
        for row in cluster.machine.peers.values():
            if row.live and row.offers != NOTHING:
                assert row.gpus <= row.offers.gpus
                assert row.memory_mib <= row.offers.memory_mib
    copy = Machine()
    restore_machine(copy, encode_machine(cluster.machine))
    assert copy.dump() == cluster.machine.dump()
    assert (copy.choosy, copy.apart) == (cluster.machine.choosy, cluster.machine.apart)


def test_what_is_no_label_and_no_need_is_refused() -> None:
    for texts in (["a"], ["=x"], ["a=b", "a=c"], ["a=" + "x" * 64], ["ä=b"]):
        with pytest.raises(ValueError, match="label"):
            parse_labels(texts)
    for make in (
        lambda: Needs(gpus=-1),
        lambda: Needs(memory_mib=1 << 40),
        lambda: Needs(apart=(job_id(1)[:4],)),  # type: ignore[arg-type]
        lambda: Offers(weight=0),
    ):
        with pytest.raises(ValueError, match=r"needs|apart|weight"):
            make()


def test_a_label_that_is_none_and_one_with_two_values_are_told_apart() -> None:
    assert parse_labels(["disk=ssd", "disk=ssd"]) == (("disk", "ssd"),)
    with pytest.raises(ValueError, match="'disk' is no label: write KEY=VALUE"):
        parse_labels(["disk"])
    with pytest.raises(ValueError, match="label 'disk' has one value, not 'ssd' and 'nvme'"):
        parse_labels(["disk=ssd", "disk=nvme"])
