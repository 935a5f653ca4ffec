"""The parts of gossip, each for itself."""

from __future__ import annotations

import random
from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from p2psched.core.swim.awareness import SCORE_MAX, Awareness
from p2psched.core.swim.members import Members
from p2psched.core.swim.news import News
from p2psched.core.swim.probe import Circle
from p2psched.core.swim.rumours import Rumours
from p2psched.core.swim.settings import EXCHANGE_BYTES_MAX, MEMBERS_MAX, Settings
from p2psched.core.swim.suspicion import Suspicion
from p2psched.model.gossip import Item, Standing, size_of_item, size_of_standing
from p2psched.model.ids import PeerId
from p2psched.model.load import Liveness

PEERS = [PeerId(f"{number:032x}") for number in range(8)]
X = PEERS[0]
SETTINGS = Settings()
SAID = st.builds(
    Standing,
    st.just(X),
    st.integers(1, 3),
    st.integers(0, 3),
    st.sampled_from(Liveness),
    st.just("10.0.0.1:1"),
)


def member(members: Members, peer: PeerId = X) -> tuple[int, int, int]:
    found = members.get(peer)
    assert found is not None
    return found.order


# --- members --------------------------------------------------------------------------------------


@given(st.lists(SAID, min_size=1, max_size=4))
def test_rumours_lead_to_the_same_view_in_any_order_and_however_often(said: list[Standing]) -> None:
    views = set()
    first = Standing(X, 1, 0, Liveness.ALIVE, "10.0.0.1:1")  # else some are not taken up
    for order in permutations(said):
        members = Members()
        for standing in (first, *order, *order):
            members.accept(standing, 0)
        views.add(member(members))
    assert len(views) == 1


@given(st.lists(SAID, max_size=6))
def test_those_present_are_counted(said: list[Standing]) -> None:
    members = Members()
    for standing in said:
        members.accept(standing, 0)
    assert members.present == len(members.sorted_present())


def test_who_is_not_known_is_not_taken_up_as_dead() -> None:
    members = Members()
    assert not members.accept(Standing(X, 1, 1, Liveness.DEAD), 0)
    assert not members.known


def test_a_digest_is_that_of_the_living() -> None:
    me = Standing(PEERS[1], 1, 1, Liveness.ALIVE)
    one, other = Members(), Members()
    one.accept(Standing(X, 1, 1, Liveness.ALIVE, "a:1"), 0)
    assert one.digest(me) != other.digest(me)
    one.accept(Standing(X, 1, 1, Liveness.DEAD), 0)
    assert one.digest(me) == other.digest(me)


def test_no_more_are_taken_up_than_an_answer_holds() -> None:
    longest = Standing(X, 2**31, 2**31, Liveness.ALIVE, "a" * 40 + ":65535", deaf=True)
    assert MEMBERS_MAX * size_of_standing(longest) <= EXCHANGE_BYTES_MAX


# --- suspicion and awareness ----------------------------------------------------------------------


def suspicion(wanted: int = 2) -> Suspicion:
    return Suspicion(b"aaaa", 1_000, shortest_ms=4_000, longest_ms=24_000, wanted=wanted)


def test_a_suspect_has_longest_while_one_alone_suspects_it() -> None:
    assert suspicion().due_ms == 25_000


def test_each_other_accuser_shortens_it_and_no_more_than_were_wanted() -> None:
    one = suspicion()
    assert one.confirm(b"bbbb")
    assert 5_000 < one.due_ms < 25_000
    assert one.confirm(b"cccc")
    assert one.due_ms == 5_000
    assert not one.confirm(b"dddd")
    assert one.due_ms == 5_000


def test_the_same_accuser_counts_once() -> None:
    one = suspicion()
    assert not one.confirm(b"aaaa")
    assert one.confirm(b"bbbb")
    assert not one.confirm(b"bbbb")


def test_where_nobody_could_confirm_it_is_short_at_once() -> None:
    assert suspicion(wanted=0).due_ms == 5_000


def test_a_pause_of_our_own_is_not_the_suspect_s() -> None:
    one = suspicion()
    one.delay(3_000)
    assert one.due_ms == 28_000


def test_the_larger_the_group_the_more_often_it_looks_whether_it_is_behind() -> None:
    assert [Settings().checks(members) for members in (1, 2, 10, 11, 100, 1_000)] == [
        *(1, 1, 1, 2, 2, 3)
    ]


def test_a_suspect_of_a_large_group_has_longer() -> None:
    assert SETTINGS.suspicion_ms(3) == (4_000, 24_000)
    assert SETTINGS.suspicion_ms(1_000) == (12_000, 72_000)


@given(st.lists(st.integers(-3, 3), max_size=50))
def test_the_score_stays_within_its_bounds(deltas: list[int]) -> None:
    awareness = Awareness()
    for delta in deltas:
        awareness.add(delta)
        assert 0 <= awareness.score <= SCORE_MAX
        assert awareness.stretched_ms(500) == 500 * (awareness.score + 1)


# --- probing --------------------------------------------------------------------------------------


def test_each_peer_is_probed_once_a_round() -> None:
    circle = Circle(random.Random(1))
    for peer in PEERS:
        circle.add(peer)
    for _ in range(3):
        found = [circle.next(lambda: list(PEERS), fits=lambda _: True) for _ in PEERS]
        assert sorted(filter(None, found)) == PEERS


def test_who_comes_up_gets_its_turn_in_this_round() -> None:
    circle = Circle(random.Random(2))
    for peer in PEERS[:4]:
        circle.add(peer)
    circle.add(PEERS[7])
    circle.add(PEERS[7])
    found = [circle.next(list, fits=lambda _: True) for _ in range(5)]
    assert found.count(PEERS[7]) == 1


def test_who_is_gone_is_passed_over() -> None:
    circle = Circle(random.Random(3))
    circle.add(PEERS[0])
    assert circle.next(lambda: PEERS[:3], fits=lambda peer: peer == PEERS[2]) == PEERS[2]
    assert circle.next(lambda: PEERS[:3], fits=lambda _: False) is None


# --- rumours --------------------------------------------------------------------------------------


def rumour(peer: PeerId, number: int = 1) -> Standing:
    return Standing(peer, 1, number, Liveness.ALIVE, "10.0.0.1:7430")


def test_a_rumour_is_told_so_many_times_and_no_more() -> None:
    rumours = Rumours()
    rumours.add(rumour(X))
    assert [len(rumours.take(1_000, 3)) for _ in range(5)] == [1, 1, 1, 0, 0]
    assert not rumours


def test_only_the_newest_of_a_peer_is_told() -> None:
    rumours = Rumours()
    rumours.add(rumour(X))
    rumours.take(1_000, 3)
    rumours.add(rumour(X, 2))
    assert [rumours.take(1_000, 3) for _ in range(3)] == [[rumour(X, 2)]] * 3


def test_rumours_fit_their_room_and_those_told_least_go_first() -> None:
    rumours = Rumours()
    for peer in PEERS:
        rumours.add(rumour(peer))
    size = size_of_standing(rumour(X))
    taken = [rumours.take(3 * size + 1, 5) for _ in range(8)]
    assert all(len(some) == 3 for some in taken)
    assert sorted(said.peer for some in taken for said in some) == sorted(PEERS * 3)


def test_what_goes_first_takes_room_and_is_not_told_twice() -> None:
    rumours = Rumours()
    rumours.add(rumour(X))
    rumours.add(rumour(PEERS[1]))
    size = size_of_standing(rumour(X))
    assert rumours.take(size, 5, rumour(X)) == [rumour(X)]
    assert rumours.take(2 * size, 5, rumour(X)) == [rumour(X), rumour(PEERS[1])]


# --- news -----------------------------------------------------------------------------------------


def item(peer: PeerId, number: int, *, life: int = 1, topic: int = 0, size: int = 40) -> Item:
    return Item(peer, life, number, topic, b"x" * size)


def test_the_newest_news_of_a_peer_and_topic_count() -> None:
    news = News(SETTINGS)
    assert news.learn(item(X, 2), None)
    assert not news.learn(item(X, 2), None)
    assert not news.learn(item(X, 1), None)
    assert news.learn(item(X, 1, topic=1), None)
    assert news.learn(item(X, 1, life=2), None)
    assert [(i.life, i.topic, i.number) for i in news.all()] == [(2, 0, 1), (1, 1, 1)]


def test_news_wait_for_their_budget() -> None:
    settings = Settings(news_bytes_per_s=100, news_burst_bytes=300)
    news = News(settings)
    size = size_of_item(item(X, 1))
    told = 0
    for second in range(100):
        now_ms = second * 1_000
        news.learn(item(X, second + 1), None)
        for to in PEERS[1:]:
            told += sum(map(size_of_item, news.take(now_ms, to, 1_000, 10)))
    assert 100 * 99 - size <= told <= 100 * 99 + 300


def test_it_says_when_the_budget_allows_more() -> None:
    news = News(Settings(news_bytes_per_s=100, news_burst_bytes=70))
    news.learn(item(X, 1), None)
    assert news.take(0, PEERS[1], 1_000, 9)
    ready_ms = news.ready_ms
    assert not news.take(ready_ms - 10, PEERS[1], 1_000, 9)
    assert news.take(ready_ms, PEERS[1], 1_000, 9)


def test_who_said_it_or_told_us_is_not_told() -> None:
    news = News(SETTINGS)
    news.learn(item(X, 1), PEERS[1])
    assert not news.take(0, X, 1_000, 9)
    assert not news.take(0, PEERS[1], 1_000, 9)
    assert news.take(0, PEERS[2], 1_000, 9)


def test_news_that_nobody_else_can_hear_are_told_no_longer() -> None:
    news = News(SETTINGS)
    news.learn(item(X, 1), None)
    for _ in range(3):
        news.take(0, X, 1_000, 3)
    assert not news


def test_more_news_of_a_peer_never_look_like_fewer() -> None:
    news = News(SETTINGS)
    numbers = []
    for number, topic in ((1, 0), (2, 1), (3, 0), (4, 3), (5, 1)):
        news.learn(item(X, number, topic=topic), None)
        numbers.append(news.number(X, 1))
    assert numbers == sorted(set(numbers))
