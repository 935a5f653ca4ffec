"""When a peer says how busy it is, and how much that costs."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

import msgspec
import pytest

from p2psched.core.load_report import (
    BURST_BYTES,
    ITEM_BYTES,
    LASTING_MS,
    SLOW_MS,
    URGENT_MS,
    WHOLE_MS,
    LoadReporter,
    Said,
    differs,
    is_urgent,
    share_bytes_s,
)
from p2psched.core.load_view import LoadView
from p2psched.model.ids import PeerId
from p2psched.model.load import Liveness, LoadReport, TypeSpeed
from p2psched.model.load_news import FIELDS, LoadNews
from p2psched.testing.sim_load import LOOK_MS, SimPeerLoad, said

MUCH = 1e9  # bytes a second
IDLE = LoadReport(number=0, slots=4, cores=4, memory=8_000, memory_free=6_000, disk_free=90_000)
A, B = PeerId("a" * 32), PeerId("b" * 32)

encode = msgspec.msgpack.Encoder().encode


def decode(data: bytes) -> LoadNews:
    news: LoadNews = msgspec.msgpack.decode(data, type=LoadNews)
    return news


def but(**fields: object) -> LoadReport:
    return msgspec.structs.replace(IDLE, **fields)


class Peer:
    """Looks every LOOK_MS, with all the bytes that it wants."""

    def __init__(self, *, bytes_s: float = MUCH) -> None:
        self.reporter = LoadReporter(encode)
        self.now_ms = 0
        self.said: list[tuple[int, Said]] = []
        self.bytes_s = bytes_s

    def stay(self, report: LoadReport, duration_ms: int) -> list[bool]:
        """How many were said meanwhile, and which of them were whole."""
        return self.follow(lambda _: report, duration_ms)

    def follow(self, found: Callable[[int], LoadReport], duration_ms: int) -> list[bool]:
        before = len(self.said)
        for _ in range(duration_ms // LOOK_MS):
            news = self.reporter.look(self.now_ms, found(self.now_ms), bytes_s=self.bytes_s)
            if news is not None:
                self.said.append((self.now_ms, news))
            self.now_ms += LOOK_MS
        return [news.is_whole for _, news in self.said[before:]]


def test_the_first_report_is_whole_and_then_nothing_is_said_as_long_as_nothing_happens() -> None:
    peer = Peer()
    assert peer.stay(IDLE, WHOLE_MS) == [True]
    assert peer.stay(IDLE, WHOLE_MS) == [True]


def test_an_idle_peer_says_next_to_nothing_whatever_its_sensors_do() -> None:
    """Values that waver below what counts."""
    rng = random.Random(1)

    def found(_: int) -> LoadReport:
        return but(
            cpu=rng.randrange(140),
            foreign_cpu=rng.randrange(90),
            memory_free=6_000 - rng.randrange(500),
            sent=rng.randrange(200),
            load=rng.randrange(90),
        )

    peer = Peer()
    peer.follow(found, 3_600_000)
    assert len(peer.said) <= 3


def test_what_flickers_is_not_said() -> None:
    peer = Peer()
    peer.stay(IDLE, 10_000)
    assert peer.follow(lambda now_ms: but(cpu=900 * (now_ms % 1_000 < 500)), 60_000) == []


@pytest.mark.parametrize(
    "change",
    [
        {"running": 4},  # no free slot any more
        {"queue": 1},
        {"takes": False},
        {"slots": 2},
    ],
)
def test_what_others_act_upon_is_said_at_once(change: dict[str, object]) -> None:
    peer = Peer()
    peer.stay(IDLE, 10_000)
    assert peer.stay(but(**change), LOOK_MS) == [False]
    assert peer.stay(IDLE, LOOK_MS) == []  # but not twice within URGENT_MS
    assert peer.stay(IDLE, URGENT_MS) == [False]


@pytest.mark.parametrize(
    "change",
    [
        {"cpu": 400},
        {"foreign_cpu": 200},
        {"memory_free": 3_000},
        {"disk_free": 50_000},
        {"gpus": 1},
        {"battery": 50},
        {"mains": False},
        {"temperature": 80},
        {"speeds": (TypeSpeed(1, 1_000, 10, 5),)},
        {"warm": (77,)},
        {"machine": 5},
    ],
)
def test_a_slow_change_is_said_once_it_has_lasted(change: dict[str, object]) -> None:
    peer = Peer()
    peer.stay(IDLE, 10_000)
    assert peer.stay(but(**change), LASTING_MS) == []
    assert peer.stay(but(**change), SLOW_MS) == [False]
    assert peer.stay(but(**change), 60_000) == []


def test_a_whole_report_is_said_when_somebody_lacks_it() -> None:
    peer = Peer()
    peer.stay(IDLE, 10_000)
    peer.reporter.ask_whole()
    assert peer.stay(IDLE, 1_000) == [True]


def test_deltas_never_cost_much_more_than_new_bases_would() -> None:
    """Speeds that changed are said again in each delta; a new base ends that."""
    peer = Peer()
    many = tuple(TypeSpeed(1 << 31 | kind, 10_000, 1_000, 50) for kind in range(16))
    peer.stay(IDLE, 10_000)
    whole = len(encode(msgspec.structs.replace(IDLE, speeds=many, number=99)))
    peer.follow(lambda now_ms: but(speeds=many, queue=1 + now_ms // 500 % 2 * 50), 120_000)
    sizes = [len(news.data) for _, news in peer.said]
    assert sum(sizes) < len(sizes) * 30 + 4 * whole


# --- the budget -----------------------------------------------------------------------------------


@pytest.mark.parametrize("bytes_s", [1.0, 12.5, 166.0])
@pytest.mark.parametrize("seed", range(3))
def test_over_any_time_no_more_is_said_than_the_budget_allows(seed: int, bytes_s: float) -> None:
    peer = SimPeerLoad(random.Random(seed), jobs_per_min=60)
    sizes = [
        (now_ms, len(news.data) + ITEM_BYTES)
        for now_ms, _, news in said(peer, encode, seconds=600, bytes_s=bytes_s)
        if news is not None
    ]
    for i, (first_ms, _) in enumerate(sizes):
        total = 0
        for now_ms, size in sizes[i:]:
            total += size
            assert total <= BURST_BYTES + bytes_s * (now_ms - first_ms) / 1000 + 1e-6


def test_what_is_not_urgent_leaves_room_for_what_is() -> None:
    peer = Peer(bytes_s=0.0)
    peer.stay(IDLE, 1_000)
    peer.follow(lambda now_ms: but(cpu=900 * (now_ms // 4_000 % 2)), 600_000)
    assert peer.reporter.held_back
    assert peer.stay(but(running=4), 1_000) == [False]


def test_after_a_dearth_the_report_is_of_now_not_of_then() -> None:
    peer = Peer(bytes_s=0.0)
    peer.follow(lambda now_ms: but(running=now_ms // 300 % 2 * 4, queue=now_ms), 120_000)
    peer.stay(but(running=4, queue=5), 10_000)
    assert peer.reporter.held_back
    peer.bytes_s = 100.0
    peer.stay(but(running=0, queue=6), 10_000)
    view = LoadView(A)
    view.on_member(0, B, incarnation=1, liveness=Liveness.ALIVE)
    for now_ms, news in peer.said:
        view.on_news(now_ms, B, 1, decode(news.data))
    seen = view.seen()[B].load
    assert seen is not None
    assert (seen.running, seen.queue) == (0, 6)


def test_what_a_peer_may_say_falls_with_the_size_of_the_group() -> None:
    """So that nobody sends more, however many there are."""
    for peers, copies in ((3, 2), (20, 4), (1_000, 7)):
        assert share_bytes_s(1_000, peers, copies) * peers * copies == pytest.approx(1_000)


# --- what others know -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_others_know_what_counts_as_long_as_there_is_a_budget(seed: int) -> None:
    """News that a newer one of the same sort has overtaken never arrive."""
    rng = random.Random(seed)
    peer = SimPeerLoad(rng, jobs_per_min=rng.choice((0.0, 2.0, 20.0)))
    view = LoadView(A)
    view.on_member(0, B, incarnation=1, liveness=Liveness.ALIVE)
    on_way: dict[bool, Said] = {}
    stale_ms: dict[str, int] = {}
    for now_ms, found, news in said(peer, encode, seconds=300, bytes_s=MUCH):
        if news is not None:
            on_way[news.is_whole] = news
        for is_whole in sorted(on_way):
            if rng.random() < 0.7:
                view.on_news(now_ms, B, 1, decode(on_way.pop(is_whole).data))
        known = view.seen()[B].load
        for name in FIELDS:
            off = known is None or differs(name, known, found)
            stale_ms[name] = stale_ms.get(name, 0) + LOOK_MS if off else 0
            assert stale_ms[name] <= SLOW_MS + LASTING_MS + 2_000, name
        urgent = known is None or is_urgent(known, found)
        stale_ms[""] = stale_ms.get("", 0) + LOOK_MS if urgent else 0
        assert stale_ms[""] <= 2_000


@pytest.mark.parametrize("name", ["queue_us", "memory_free", "disk_free", "sent"])
def test_what_is_small_beside_the_value_does_not_count(name: str) -> None:
    far = partial(differs, name)
    assert not far(but(**{name: 1_000_000}), but(**{name: 1_050_000}))
    assert far(but(**{name: 1_000_000}), but(**{name: 3_000_000}))
    assert not far(but(**{name: 10}), but(**{name: 20}))
