"""Gossip under virtual time: who is gone is found, who is there is not given up, whatever the
network does; and planted bugs are noticed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from unittest.mock import patch

import pytest

from p2psched.core.swim import swim
from p2psched.core.swim.opinion import Opinion
from p2psched.core.swim.prober import Prober
from p2psched.core.swim.rumours import Rumours
from p2psched.core.swim.settings import Settings
from p2psched.core.swim.suspicion import Suspicion
from p2psched.core.swim.swim import Swim
from p2psched.model.load import Liveness
from p2psched.testing import gossip_sim
from p2psched.testing.gossip_sim import GossipSim, Link

HOUR_MS = 3_600_000
SETTINGS = Settings()


def started(peers: int, *, seed: int, loss: float = 0.0) -> GossipSim:
    sim = GossipSim(peers, seed=seed, loss=loss)
    sim.start_all()
    sim.run_until(sim.agree, within_ms=20_000)
    sim.run(2_000)
    return sim


def found_within_ms(peers: int) -> int:
    """The first probe, one that fails, the longest suspicion, and until all have heard."""
    return 3 * SETTINGS.probe_ms + SETTINGS.suspicion_ms(peers)[1] + 5_000


# --- who is gone ----------------------------------------------------------------------------------


def the_dead_are_found(seed: int, peers: int = 12) -> None:
    sim = started(peers, seed=seed)
    sim.kill(3)
    sim.run_until(lambda: sim.all_see(3, Liveness.DEAD), within_ms=found_within_ms(peers))
    by_suspicion = [seen.liveness for seen in sim.seen if seen.of == 3 and seen.by == 5][-2:]
    assert by_suspicion == [Liveness.SUSPECT, Liveness.DEAD]
    assert not sim.false_deaths()


@pytest.mark.parametrize("seed", range(6))
def test_the_dead_are_suspect_first_and_then_dead_to_all(seed: int) -> None:
    the_dead_are_found(seed)


@pytest.mark.parametrize("seed", range(3))
def test_who_leaves_is_gone_at_once_and_suspected_by_nobody(seed: int) -> None:
    sim = started(20, seed=seed)
    sim.leave(4)
    sim.run_until(lambda: sim.all_see(4, Liveness.LEFT), within_ms=3_000)
    assert Liveness.SUSPECT not in {seen.liveness for seen in sim.seen if seen.of == 4}


@pytest.mark.parametrize("seed", range(3))
def test_who_was_stopped_is_back_within_two_probes_and_calls_nobody_dead(seed: int) -> None:
    sim = started(8, seed=seed)
    sim.stop(2, sim.now_ms + 60_000)
    sim.run_until(lambda: sim.all_see(2, Liveness.DEAD), within_ms=found_within_ms(8))
    sim.run(sim.peers[2].asleep_until_ms - sim.now_ms)
    sim.run_until(
        lambda: sim.all_see(2, Liveness.ALIVE), within_ms=2 * SETTINGS.probe_ms + 1, step_ms=20
    )
    sim.run(60_000)
    assert not [seen for seen in sim.false_deaths() if seen.of != 2]


def test_who_starts_again_needs_no_word_of_its_death() -> None:
    sim = started(8, seed=1)
    sim.kill(2)
    sim.run_until(lambda: sim.all_see(2, Liveness.DEAD), within_ms=found_within_ms(8))
    sim.start(2, 7)
    sim.run_until(lambda: sim.all_see(2, Liveness.ALIVE), within_ms=2_000)
    sim.run_until(sim.agree, within_ms=5_000)


# --- who is there ---------------------------------------------------------------------------------


@pytest.mark.parametrize("knows", [0, 3, 6])
def test_any_one_address_is_enough_to_join(knows: int) -> None:
    sim = GossipSim(8, seed=knows)
    for index in range(7):
        sim.start(index, *([index - 1] if index else []))
    sim.run_until(
        lambda: all(
            sim.opinion(peer.index, of.index) is Liveness.ALIVE
            for peer in sim.living()
            for of in sim.living(but=peer.index)
        ),
        within_ms=20_000,
    )
    sim.start(7, knows)
    sim.run_until(sim.agree, within_ms=5_000)


def nobody_is_given_up(
    seed: int, peers: int, ms: int, loss: float = 0.05, *, links: bool = True
) -> GossipSim:
    sim = started(peers, seed=seed, loss=loss)
    lossy = Link(loss, calls=links)
    sim.link = lambda _a, _b: lossy
    sim.run(ms)
    assert not sim.false_deaths()
    return sim


@pytest.mark.wide
@pytest.mark.parametrize("seed", range(2))
def test_no_peer_is_given_up_in_a_day_of_peers_at_a_twentieth_lost(seed: int) -> None:
    """L3: 24 peer-hours over both."""
    sim = nobody_is_given_up(seed, 12, HOUR_MS)
    assert sum(peer.swim.prober.indirect for peer in sim.living() if peer.swim) > 1_000


def a_starving_one_gives_up_none(seed: int, ms: int) -> None:
    """It runs for 50 ms, then not for 0.5 to 3 s, again and again."""
    sim = started(15, seed=seed, loss=0.01)
    sim.starve(6, (500, 3_000), 50)
    sim.run(ms)
    starving = sim.peers[6].swim
    assert starving is not None
    assert starving.health > 0, "it doubts itself"
    assert len({(seen.of, seen.at_ms) for seen in sim.false_deaths() if seen.of != 6}) <= 1


@pytest.mark.parametrize(
    ("seed", "ms"),
    [
        (0, HOUR_MS // 4),
        pytest.param(0, HOUR_MS, marks=pytest.mark.wide),
        pytest.param(1, HOUR_MS, marks=pytest.mark.long),
    ],
)
def test_one_that_starves_gives_up_no_healthy_one(seed: int, ms: int) -> None:
    """L3: at most one an hour."""
    a_starving_one_gives_up_none(seed, ms)


def who_sleeps_suspects_nobody() -> None:
    """What came meanwhile found no room in its socket."""
    sim = started(6, seed=1)
    with patch.object(gossip_sim, "INBOX_MAX", 0):
        for _ in range(20):
            sim.stop(2, sim.now_ms + 5_000)
            sim.run(5_000)
            sim.run(10_000)
    assert not [seen for seen in sim.seen if seen.by == 2 and seen.liveness is Liveness.SUSPECT]


def test_who_sleeps_suspects_nobody_when_it_wakes() -> None:
    who_sleeps_suspects_nobody()


def without_links() -> None:
    nobody_is_given_up(1, 10, 600_000, loss=0.1, links=False)


def test_suspects_have_time_to_refute_where_links_do_not_help() -> None:
    without_links()


def one_way() -> None:
    sim = started(10, seed=2)
    good, cut = Link(), Link(cut=True)
    sim.link = lambda a, b: cut if (a, b) == (1, 2) else good
    sim.run(10 * 60_000)
    assert Liveness.SUSPECT not in {seen.liveness for seen in sim.seen}


def test_a_link_that_works_one_way_makes_nobody_suspect() -> None:
    """Nor one that does not work at all: links need both ways."""
    one_way()


def test_peers_that_get_no_datagrams_are_reached_over_links() -> None:
    sim = GossipSim(6, seed=3)
    sim.start(0)
    sim.start(1, 0, deaf=True)
    for index in range(2, 6):
        sim.start(index, 0)
    sim.run_until(sim.agree, within_ms=20_000)
    blocked, good = Link(loss=1.0), Link()
    sim.link = lambda a, b: blocked if 4 in (a, b) else good  # and one behind a firewall
    sim.run(10 * 60_000)
    assert not sim.false_deaths()
    assert sim.peers[1].sent_bytes > 0


@pytest.mark.parametrize("seed", range(3))
def test_a_split_heals_by_itself(seed: int) -> None:
    sim = started(12, seed=seed)
    good, cut = Link(), Link(cut=True)
    sim.link = lambda a, b: good if (a < 5) == (b < 5) else cut
    sim.run(found_within_ms(12) + 20_000)
    assert all(sim.opinion(1, of) is Liveness.DEAD for of in range(5, 12))
    assert all(sim.opinion(7, of) is Liveness.DEAD for of in range(5))
    sim.link = lambda _a, _b: good
    sim.run_until(sim.agree, within_ms=30_000)
    healed_ms = sim.now_ms
    sim.run(60_000)
    assert not [seen for seen in sim.false_deaths() if seen.at_ms > healed_ms]


def test_an_idle_group_of_twenty_costs_less_than_two_hundred_bytes_a_second() -> None:
    sim = started(20, seed=1)
    sim.run(60_000)
    assert sim.bytes_per_s(5 * 60_000) < 200


@pytest.mark.parametrize(
    "peers", [1, 3, 10, 50, pytest.param(200, marks=pytest.mark.wide)], ids=str
)
def test_what_gossip_costs_a_peer_does_not_grow_with_the_group(peers: int) -> None:
    """S4 allows the logarithm of it. With the same settings whatever the size."""
    sim = started(peers, seed=2)
    sim.run(20_000)
    assert (sim.bytes_per_s(30_000) > 0) == (peers > 1)
    assert sim.bytes_per_s(30_000) < 200


def test_no_datagram_is_too_long_however_much_there_is_to_say() -> None:
    sim = GossipSim(60, seed=1)
    sim.start_all()
    for peer in sim.peers:
        sim.publish(peer.index, b"x" * 300)
    sim.run_until(sim.agree, within_ms=20_000)
    assert 1_000 < sim.largest_datagram <= 1_400 - 13


def many_come_at_once(peers: int = 100, seed: int = 1) -> tuple[int, float]:
    """In ms, until all know all; and bytes of datagrams until what is to tell is told, each."""
    sim = GossipSim(peers, seed=seed, loss=0.01)
    sim.start_all()
    took_ms = sim.run_until(sim.agree, within_ms=1_000, step_ms=20)
    sim.run(3_000)
    return took_ms, sum(peer.sent_bytes for peer in sim.peers) / peers


@pytest.mark.parametrize("seed", range(4))
def test_many_that_come_at_once_know_all_after_a_few_rounds(seed: int) -> None:
    """The logarithm: a round more for three times as many. Told as rumours they take three times
    the datagrams."""
    for peers, most_ms in ((10, 300), (30, 500), (100, 700)):
        took_ms, sent = many_come_at_once(peers, seed)
        assert took_ms <= most_ms
        assert sent <= 20_000


@pytest.mark.parametrize("seed", [7, 8, 9])
def test_nobody_of_many_is_left_behind_with_others_that_lack_the_same(seed: int) -> None:
    """Rumours, which would end it, go every 200 ms: the last one is not to wait for them."""
    assert many_come_at_once(100, seed)[0] <= 300


# --- planted bugs ---------------------------------------------------------------------------------

Story = Callable[[], object]


def refutes(seed: int = 1) -> None:
    sim = started(8, seed=seed)
    sim.stop(2, sim.now_ms + 60_000)
    sim.run_until(lambda: sim.all_see(2, Liveness.DEAD), within_ms=found_within_ms(8))
    sim.run(sim.peers[2].asleep_until_ms - sim.now_ms)
    sim.run_until(lambda: sim.all_see(2, Liveness.ALIVE), within_ms=10_000)


def leaves_quickly() -> None:
    test_who_leaves_is_gone_at_once_and_suspected_by_nobody(0)


def _does_not_refute() -> AbstractContextManager[object]:
    return patch.object(Opinion, "_on_self", lambda _self, _said: None)


def _suspicion_never_ends() -> AbstractContextManager[object]:
    return patch.object(Suspicion, "due_ms", property(lambda _self: 1 << 40))


def _tells_no_rumour_on() -> AbstractContextManager[object]:
    return patch.object(Rumours, "add", lambda _self, _standing: None)


def _asks_nobody_else() -> AbstractContextManager[object]:
    def alone(_self: Prober, probe: object, _now_ms: int) -> None:
        vars(type(probe))["widened"].__set__(probe, True)

    return patch.object(Prober, "_widen", alone)


def _dead_at_once() -> AbstractContextManager[object]:
    return patch.object(Settings, "suspicion_ms", lambda _self, _members: (1, 1))


def _does_not_notice_its_own_pause() -> AbstractContextManager[object]:
    return patch.object(Swim, "_notice_pause", lambda _self, _now_ms: None)


def _forgets_the_dead() -> AbstractContextManager[object]:
    return patch.object(Prober, "_ask_a_dead_one", lambda _self, _now_ms: None)


def _does_not_compare_again() -> AbstractContextManager[object]:
    return patch.object(Swim, "_hurry", lambda _self, _now_ms, **_found: None)


def _tells_all_strangers_on() -> AbstractContextManager[object]:
    return patch.object(swim, "STRANGERS_TOLD", 1 << 20)


def many_come_for_few_datagrams() -> None:
    assert many_come_at_once()[1] <= 20_000


@pytest.mark.parametrize(
    ("bug", "story"),
    [
        (_does_not_refute, refutes),
        (_suspicion_never_ends, lambda: the_dead_are_found(0)),
        (_tells_no_rumour_on, leaves_quickly),
        (_asks_nobody_else, one_way),
        (_dead_at_once, without_links),
        (_does_not_notice_its_own_pause, who_sleeps_suspects_nobody),
        (_does_not_compare_again, many_come_at_once),
        (_tells_all_strangers_on, many_come_for_few_datagrams),
        (_forgets_the_dead, lambda: test_a_split_heals_by_itself(0)),
    ],
    ids=lambda value: getattr(value, "__name__", "story").strip("_"),
)
def test_a_planted_bug_is_noticed(
    bug: Callable[[], AbstractContextManager[object]], story: Story
) -> None:
    with bug(), pytest.raises(AssertionError):
        story()
