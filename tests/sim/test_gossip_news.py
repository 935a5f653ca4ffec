"""News reach everybody, within their budget, and nobody takes old ones for new."""

from __future__ import annotations

import pytest

from p2psched.core.swim.settings import Settings
from p2psched.testing.gossip_sim import GossipSim

SIZE = 60


def started(
    peers: int, *, seed: int, loss: float = 0.0, settings: Settings | None = None
) -> GossipSim:
    sim = GossipSim(peers, seed=seed, loss=loss, settings=settings)
    sim.start_all()
    sim.run_until(sim.agree, within_ms=20_000)
    sim.run(5_000)
    return sim


def have(sim: GossipSim, of: int, number: int) -> bool:
    heard = {news.by for news in sim.news if news.of == of and news.number >= number}
    return len(heard) == len(sim.living(but=of))


@pytest.mark.parametrize("seed", range(5))
def test_news_reach_all_in_a_few_rounds(seed: int) -> None:
    sim = started(20, seed=seed)
    sim.publish(3, b"x" * SIZE)
    sim.run_until(lambda: have(sim, 3, 1), within_ms=40_000)
    first_ms = min(news.at_ms for news in sim.news)
    most = sorted(news.at_ms for news in sim.news)[: len(sim.peers) * 8 // 10]
    assert most[-1] - first_ms <= 2_000


@pytest.mark.parametrize("seed", range(5))
def test_what_a_fifth_of_lost_datagrams_swallows_a_comparison_finds(seed: int) -> None:
    sim = started(15, seed=seed, loss=0.2)
    for number in range(1, 4):
        sim.publish(number, b"x" * SIZE)
    # Everybody compares with somebody every 30 s.
    sim.run_until(lambda: all(have(sim, of, 1) for of in range(1, 4)), within_ms=120_000)


def test_news_of_one_life_and_topic_only_rise() -> None:
    sim = started(10, seed=3, loss=0.1)
    for number in range(30):
        sim.publish(number % 4, bytes([number]), topic=0)
        sim.run(300)
    last: dict[tuple[int, int], int] = {}
    for news in sim.news:
        assert news.number > last.get((news.by, news.of), 0)
        last[news.by, news.of] = news.number


def test_who_begins_anew_is_heard_from_its_first_news_on() -> None:
    sim = started(6, seed=4)
    for _ in range(9):
        sim.publish(2, b"before")
    sim.run(5_000)
    sim.kill(2)
    sim.run(1_000)
    sim.start(2, 0)
    sim.run(5_000)
    sim.news.clear()
    sim.publish(2, b"after")
    sim.run_until(lambda: have(sim, 2, 1), within_ms=40_000)


def test_who_joins_is_told_what_was_said_before() -> None:
    sim = GossipSim(8, seed=5)
    for index in range(7):
        sim.start(index, *([0] if index else []))
    sim.run(10_000)
    for index in range(7):
        sim.publish(index, b"old news")
    sim.run(40_000)
    sim.start(7, 0)
    sim.run_until(lambda: len({news.of for news in sim.news if news.by == 7}) == 7, within_ms=5_000)


def test_a_budget_is_kept_however_much_everybody_has_to_say() -> None:
    settings = Settings(news_bytes_per_s=300, news_burst_bytes=2_000)
    quiet = started(20, seed=6, settings=settings).bytes_per_s(60_000)
    sim = started(20, seed=6, settings=settings)
    before = sum(peer.sent_bytes for peer in sim.peers)
    for _ in range(120):
        for peer in sim.peers:
            sim.publish(peer.index, b"y" * SIZE)
        sim.run(500)
    sent = (sum(peer.sent_bytes for peer in sim.peers) - before) / 20 / 60
    assert sent <= quiet + 300 + 2_000 / 60 + 30


def test_the_longest_news_fit_a_datagram() -> None:
    sim = started(4, seed=7)
    sim.publish(1, b"z" * 1_024, topic=3)
    sim.run_until(lambda: have(sim, 1, 1), within_ms=40_000)
