"""What can't be true is dropped and counted; of the rest the newest is known."""

from __future__ import annotations

import random
from itertools import pairwise

import msgspec
import pytest

from p2psched.core.load_view import (
    AHEAD_MAX,
    INCARNATIONS_AHEAD_MAX,
    NUMBER_MAX,
    PEERS_MAX,
    LoadView,
)
from p2psched.model.ids import PeerId
from p2psched.model.load import Liveness, LoadReport, TypeSpeed
from p2psched.model.load_news import FIELDS, LoadDelta, LoadNews, WholeLoad, delta

A, B, C = (PeerId(letter * 32) for letter in "abc")
REPORT = LoadReport(number=5, slots=4, running=1, cores=4, memory=1_000, memory_free=500)


def but(**fields: object) -> LoadReport:
    return msgspec.structs.replace(REPORT, **fields)


def view(*peers: PeerId) -> LoadView:
    made = LoadView(A)
    for peer in peers or (B,):
        made.on_member(0, peer, incarnation=1, liveness=Liveness.ALIVE)
    return made


def load_of(found: LoadView, peer: PeerId = B) -> LoadReport | None:
    return found.seen()[peer].load


def test_of_a_peer_that_has_said_nothing_only_gossip_speaks() -> None:
    found = view(B, C)
    found.on_member(9, C, incarnation=2, liveness=Liveness.SUSPECT)
    assert [(s.peer, s.incarnation, s.liveness, s.load) for s in found.seen().values()] == [
        (B, 1, Liveness.ALIVE, None),
        (C, 2, Liveness.SUSPECT, None),
    ]


def test_what_a_peer_is_itself_is_in_its_view() -> None:
    found = view(B)
    found.on_self(70, 3, REPORT)
    mine = found.seen()[A]
    assert (mine.heard_ms, mine.incarnation, mine.load) == (70, 3, REPORT)


def test_whole_reports_and_deltas_are_known_when_they_come() -> None:
    found = view()
    found.on_news(10, B, 1, WholeLoad(REPORT))
    assert load_of(found) == REPORT
    now = but(number=6, queue=3)
    found.on_news(20, B, 1, delta(REPORT, now, FIELDS))
    assert load_of(found) == now
    assert found.seen()[B].heard_ms == 20
    assert not found.dropped


def test_a_delta_that_comes_before_its_base_waits_for_it() -> None:
    found = view()
    now = but(number=6, queue=3)
    found.on_news(10, B, 1, delta(REPORT, now, FIELDS))
    assert load_of(found) is None
    found.on_news(20, B, 1, WholeLoad(REPORT))
    assert load_of(found) == now
    assert not found.dropped


def test_in_whatever_order_news_come_the_newest_is_known_at_the_end() -> None:
    base, base2 = REPORT, but(number=9, queue=1)
    news: list[LoadNews] = [
        WholeLoad(base),
        delta(base, but(number=6, queue=3), FIELDS),
        delta(base, but(number=8, queue=5), FIELDS),
        WholeLoad(base2),
        delta(base2, but(number=11, queue=8), FIELDS),
    ]
    for seed in range(200):
        found = view()
        for one in random.Random(seed).sample(news, len(news)):
            found.on_news(0, B, 1, one)
        known = load_of(found)
        assert known is not None
        assert (known.number, known.queue) == (11, 8)


def test_a_new_life_begins_anew() -> None:
    found = view()
    found.on_news(0, B, 1, WholeLoad(but(number=100)))
    found.on_news(5, B, 2, WholeLoad(but(number=1, queue=7)))
    known = load_of(found)
    assert known is not None
    assert known.queue == 7
    found.on_news(6, B, 1, WholeLoad(but(number=101)))
    assert load_of(found) == known
    assert found.dropped == {"old": 1}


@pytest.mark.parametrize(
    "wrong",
    [
        {"queue": -1},
        {"memory_free": 1_001},
        {"running": 5},
        {"cpu": 1_001},
        {"foreign_cpu": -3},
        {"battery": 101},
        {"battery": -2},
        {"temperature": 5_000},
        {"queue_us": 1 << 60},
        {"slots": 10_000_000},
        {"gpus_busy": 1},
        {"number": 0},
        {"number": -4},
        {"speeds": (TypeSpeed(1, -5, 0, 1),)},
        {"queued": ((1, -1),)},
        {"warm": tuple(range(1_000))},
    ],
)
def test_a_report_that_cannot_be_true_is_dropped_whole_or_as_a_delta(
    wrong: dict[str, object],
) -> None:
    found = view()
    found.on_news(0, B, 1, WholeLoad(but(**wrong)))
    assert load_of(found) is None
    assert found.dropped == {"impossible": 1}
    found.on_news(0, B, 1, WholeLoad(REPORT))
    found.on_news(0, B, 1, delta(REPORT, but(**{"number": 6, **wrong}), FIELDS))
    assert load_of(found) == REPORT
    assert found.dropped == {"impossible": 2}


@pytest.mark.parametrize("values", [(), (float("nan"),), (float("inf"),), ("x",)])
def test_a_delta_with_no_number_where_one_belongs_is_dropped(values: tuple[object, ...]) -> None:
    found = view()
    found.on_news(0, B, 1, WholeLoad(REPORT))
    found.on_news(0, B, 1, LoadDelta(5, 6, 1 << FIELDS.index("cpu"), values))
    assert load_of(found) == REPORT
    assert found.dropped == {"impossible": 1}


@pytest.mark.parametrize(("base", "number"), [(6, 6), (7, 6), (0, 6), (-1, 6)])
def test_a_delta_that_builds_on_what_comes_after_it_is_dropped(base: int, number: int) -> None:
    found = view()
    found.on_news(0, B, 1, LoadDelta(base, number, 0, ()))
    assert found.dropped == {"impossible": 1}


def test_a_report_of_the_future_keeps_out_none_that_follow() -> None:
    found = view()
    found.on_news(0, B, 1, WholeLoad(REPORT))
    found.on_news(1, B, 1, WholeLoad(but(number=6 + AHEAD_MAX)))
    found.on_news(1, B, 1, WholeLoad(but(number=NUMBER_MAX + 1)))
    found.on_news(1, B, 2 + INCARNATIONS_AHEAD_MAX, WholeLoad(REPORT))
    assert found.dropped == {"future": 3}
    found.on_news(2, B, 1, WholeLoad(but(number=6, queue=1)))
    assert load_of(found) == but(number=6, queue=1)


def test_after_a_long_silence_a_number_may_be_far_ahead() -> None:
    found = view()
    found.on_news(0, B, 1, WholeLoad(REPORT))
    found.on_news(3_600_000, B, 1, WholeLoad(but(number=6 + AHEAD_MAX)))
    assert not found.dropped


def test_of_strangers_and_of_itself_a_peer_believes_nothing() -> None:
    found = view()
    found.on_self(0, 1, REPORT)
    for stranger in (A, C):
        found.on_news(0, stranger, 1, WholeLoad(but(queue=9)))
    assert found.dropped == {"foreign": 2}
    assert load_of(found, A) == REPORT
    assert C not in found.seen()


def test_who_is_forgotten_is_in_no_view() -> None:
    found = view(B, C)
    found.on_news(0, C, 1, WholeLoad(REPORT))
    found.forget(C)
    assert list(found.seen()) == [B]


def test_views_are_bounded() -> None:
    found = LoadView(A)
    for number in range(PEERS_MAX + 5):
        peer = PeerId(f"{number:032x}")
        found.on_member(0, peer, incarnation=1, liveness=Liveness.ALIVE)
    assert len(found.seen()) == PEERS_MAX
    assert found.dropped == {"too many peers": 5}


def test_a_view_that_was_given_away_does_not_change() -> None:
    found = view()
    views = [found.seen(), found.seen()]
    found.on_news(0, B, 1, WholeLoad(REPORT))
    views.append(found.seen())
    assert views[0] is views[1]
    assert all(before is not after for before, after in pairwise(views[1:]))
    assert views[0][B].load is None


# --- who shares processors ------------------------------------------------------------------------


def foreign(*own_and_foreign: tuple[int, int], machines: tuple[int, ...]) -> list[int]:
    """What peers say that they and others use, and what the view makes of it."""
    found = LoadView(A)
    for number, ((own, other), machine) in enumerate(
        zip(own_and_foreign, machines, strict=True), 1
    ):
        peer = PeerId(f"{number:032x}")
        found.on_member(0, peer, incarnation=1, liveness=Liveness.ALIVE)
        report = but(cpu=own + other, foreign_cpu=other, machine=machine)
        found.on_news(0, peer, 1, WholeLoad(report))
    return [one.load.foreign_cpu for one in found.seen().values() if one.load is not None]


def test_peers_on_the_same_processors_are_no_foreigners_to_each_other() -> None:
    assert foreign((600, 100), (100, 600), machines=(7, 7)) == [0, 0]
    assert foreign((300, 600), (100, 800), machines=(7, 7)) == [500, 500]


def test_peers_on_other_processors_explain_nothing() -> None:
    assert foreign((600, 100), (100, 600), machines=(7, 8)) == [100, 600]
    assert foreign((600, 100), (100, 600), machines=(0, 0)) == [100, 600]


def test_the_dead_use_nothing() -> None:
    found = view(B, C)
    for peer in (B, C):
        report = but(cpu=900, foreign_cpu=500, machine=7)
        found.on_news(0, peer, 1, WholeLoad(report))
    found.on_member(0, C, incarnation=1, liveness=Liveness.DEAD)
    known = load_of(found)
    assert known is not None
    assert known.foreign_cpu == 500
