"""Whom a peer with nothing to do asks, and when it asks again."""

from __future__ import annotations

import random

import pytest

from p2psched.core.machine import Machine
from p2psched.core.state import PeerRow
from p2psched.core.thief import (
    ANSWER_MS,
    FAILED_MIN,
    GRANT_MS,
    PAUSE_MS_MAX,
    PAUSE_MS_MIN,
    Busy,
    Thief,
    by_gossip,
    by_rows,
)
from p2psched.model.ids import PeerId
from p2psched.model.load import Liveness, LoadReport, Seen
from p2psched.model.steal_messages import Gives
from tests.core.test_machine import up

A, B, C = PeerId("a"), PeerId("b"), PeerId("c")
LONG = 1_000_000


def thief() -> Thief:
    return Thief(random.Random(7))


def test_one_request_is_under_way_until_it_is_answered_or_lost() -> None:
    one = thief()
    assert one.may_ask(0)
    assert one.ask(0, [Busy(B, LONG)]) == (B, 1)
    assert not one.may_ask(ANSWER_MS - 1)
    assert not one.may_ask(ANSWER_MS), "after a failure it pauses"
    assert one.may_ask(ANSWER_MS + PAUSE_MS_MIN)


def test_tasks_that_were_promised_and_do_not_come_are_waited_for_a_while() -> None:
    one = thief()
    asked = one.ask(0, [Busy(B, LONG)])
    assert asked is not None
    one.on_gives(5, B, Gives(asked[1], 3))
    assert not one.may_ask(GRANT_MS)
    one.may_ask(5 + GRANT_MS)
    assert one.may_ask(5 + GRANT_MS + PAUSE_MS_MIN)
    assert not one.round_trips_ms


def test_who_got_what_it_asked_for_may_ask_again_at_once() -> None:
    one = thief()
    asked = one.ask(0, [Busy(B, LONG)])
    assert asked is not None
    one.on_gives(3, B, Gives(asked[1], 3))
    one.on_granted(7)
    assert list(one.round_trips_ms) == [7]
    assert one.may_ask(7)


def test_who_gave_nothing_is_left_alone_for_as_long_as_it_says() -> None:
    one = thief()
    assert one.ask(0, [Busy(B, LONG)]) == (B, 1)
    one.on_gives(1, B, Gives(1, 0, again_ms=400))
    assert one.ask(100, [Busy(B, LONG)]) is None
    assert one.ask(110, [Busy(B, LONG), Busy(C, LONG)]) == (C, 2)
    one.on_gives(111, C, Gives(2, 0, again_ms=10**9))
    assert one.ask(401, [Busy(B, LONG)]) == (B, 3)
    one.on_gives(402, B, Gives(3, 0))
    assert one.ask(111 + PAUSE_MS_MAX, [Busy(C, LONG)]) == (C, 4)


def test_pauses_double_up_to_a_second_and_news_ends_one() -> None:
    one = thief()
    now_ms, pauses = 0, []
    for _ in range(12):
        asked = one.ask(now_ms, [Busy(B, LONG)])
        assert asked is not None
        one.on_gives(now_ms, B, Gives(asked[1], 0))
        start_ms = now_ms
        while not one.may_ask(now_ms):
            now_ms += 1
        pauses.append(now_ms - start_ms)
    assert all(p <= PAUSE_MS_MAX for p in pauses)
    assert pauses[0] <= PAUSE_MS_MIN
    assert pauses[-1] >= PAUSE_MS_MAX // 2
    asked = one.ask(now_ms, [Busy(B, LONG)])
    assert asked is not None
    one.on_gives(now_ms, B, Gives(asked[1], 0))
    one.on_news(now_ms)
    assert one.may_ask(now_ms + PAUSE_MS_MIN)


def test_an_answer_of_another_or_of_before_changes_nothing() -> None:
    one = thief()
    one.ask(0, [Busy(B, LONG)])
    one.on_gives(1, C, Gives(1, 0))
    one.on_gives(1, B, Gives(7, 0))
    assert not one.may_ask(100)


def test_thieves_spread_over_the_busiest_and_leave_the_others_alone() -> None:
    busiest = [Busy(PeerId(f"{n}"), LONG - n) for n in range(10)]
    little = [Busy(PeerId(f"little {n}"), LONG // 3) for n in range(100)]
    asked = [Thief(random.Random(n)).ask(0, busiest + little) for n in range(200)]
    counts = [sum(found == (peer, 1) for found in asked) for peer, _ in busiest]
    assert sum(counts) == 200
    assert max(counts) <= 60


def test_rows_of_the_ledger_tell_who_has_more_than_it_can_run() -> None:
    machine = Machine()
    for peer, owned, load_us in ((A, 9, LONG), (B, 9, LONG), (C, 2, LONG)):
        row = machine.peers[peer] = PeerRow(up(peer).info)
        row.owned, row.load_us = owned, load_us
    assert by_rows(machine, A, {}) == [Busy(B, LONG // 2), Busy(C, LONG // 2)]
    machine.peers[C].load_us = LONG // 2  # a slot each, most likely
    assert [busy.peer for busy in by_rows(machine, A, {})] == [B]
    shunned = {B: Seen(B, 1, Liveness.SUSPECT, 0)}
    assert by_rows(machine, A, shunned) == []
    machine.peers[B].live = False
    assert by_rows(machine, A, {}) == []


def test_gossip_tells_the_same_of_whom_it_thinks_alive() -> None:
    busy = LoadReport(number=1, slots=2, queue=5, queue_us=LONG)
    seen = {
        A: Seen(A, 1, Liveness.ALIVE, 0, busy),
        B: Seen(B, 1, Liveness.ALIVE, 0, busy),
        C: Seen(C, 1, Liveness.DEAD, 0, busy),
        PeerId("d"): Seen(PeerId("d"), 1, Liveness.ALIVE, 0),
        PeerId("e"): Seen(PeerId("e"), 1, Liveness.ALIVE, 0, LoadReport(number=1, slots=0)),
    }
    assert by_gossip(A, seen) == [Busy(B, LONG // 2)]


def test_who_was_idle_for_long_asks_all_that_have_a_queue_however_short_it_looks() -> None:
    machine = Machine()
    for peer, owned in ((B, 3), (C, 2)):
        row = machine.peers[peer] = PeerRow(up(peer).info)
        row.owned, row.load_us = owned, 100
    assert by_rows(machine, A, {}) == []
    assert [busy.peer for busy in by_rows(machine, A, {}, asks_all=True)] == [B]
    short = LoadReport(number=1, slots=2, queue=1, queue_us=100)
    seen = {B: Seen(B, 1, Liveness.ALIVE, 0, short)}
    assert by_gossip(A, seen) == []
    assert [busy.peer for busy in by_gossip(A, seen, asks_all=True)] == [B]


def asks(count: int, *, seconds: int) -> list[int]:
    """Requests of so many idle peers of one busy one that has nothing worth a move, in each
    second."""
    thieves = [Thief(random.Random(f"thief {number}")) for number in range(count)]
    found = [0] * seconds
    for now_ms in range(0, seconds * 1_000, 10):
        for one in thieves:
            if one.may_ask(now_ms) and (asked := one.ask(now_ms, [Busy(B, LONG)], group=count)):
                found[now_ms // 1_000] += 1
                one.on_gives(now_ms, B, Gives(asked[1], 0, 100))
    return found


@pytest.mark.parametrize(("count", "most"), [(10, 20), (100, 120), (1_000, 120)])
def test_what_is_asked_of_one_busy_peer_does_not_grow_with_the_group(count: int, most: int) -> None:
    settled = asks(count, seconds=60)[20:]
    assert sum(settled) / len(settled) <= most
    assert sum(settled) / len(settled) >= min(count, 50) / 2, "somebody still asks soon"


def test_many_that_see_the_same_do_not_ask_at_once() -> None:
    thieves = [Thief(random.Random(f"thief {number}")) for number in range(1_000)]
    at_once = [one.ask(0, [Busy(B, LONG)], group=len(thieves)) for one in thieves]
    assert at_once == [None] * len(thieves)
    later = [one for one in thieves if one.may_ask(50)]
    assert 0 < len(later) < len(thieves) / 2
    alone = thief()
    assert alone.ask(0, [Busy(B, LONG)], group=10), "in a small group nobody waits"


def fails(one: Thief, now_ms: int, tasks: int) -> None:
    one.on_granted(now_ms)
    one.on_ended(now_ms, failed=tasks, succeeded=0)


def test_a_thief_whose_tasks_fail_asks_for_one_at_a_time_and_ever_more_seldom() -> None:
    one = thief()
    fails(one, 0, FAILED_MIN - 1)
    assert (one.most, one.may_ask(0)) == (0, True)
    eaten, now_ms = FAILED_MIN - 1, 0
    while now_ms < 600_000:
        if one.may_ask(now_ms) and (asked := one.ask(now_ms, [Busy(B, LONG)])):
            count = one.most or 10
            one.on_gives(now_ms, B, Gives(asked[1], count))
            fails(one, now_ms, count)
            eaten += count
        now_ms += 10
    assert eaten <= 30, "in ten minutes, and it is idle all the time"


def test_one_success_makes_it_a_thief_as_any() -> None:
    one = thief()
    for _ in range(3):
        fails(one, 0, FAILED_MIN)
    assert one.most == 1
    one.on_ended(10_000, failed=0, succeeded=1)
    one.on_granted(10_000)
    assert (one.most, one.may_ask(10_000)) == (0, True)
