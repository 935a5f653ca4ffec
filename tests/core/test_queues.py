"""Queues in the ledger: who gets which item, what comes back, what dies."""

from __future__ import annotations

import pytest

from p2psched.core import queues
from p2psched.model.commands import Rejected
from p2psched.model.queue_actions import (
    ITEM_BYTES_MAX,
    AckItems,
    ConfigureQueue,
    DeleteQueue,
    ExtendItems,
    ItemsSettled,
    ItemsTaken,
    NackItems,
    NewItem,
    PurgeQueue,
    PutItems,
    QueueChanged,
    RedriveItems,
    StopTaking,
    TakeItems,
)
from p2psched.model.queue_events import ItemDied, ItemsGiven, QueueHandled, WaitEnded
from tests.core.queue_rig import Q, Rig, claim

LEASE = f"{7:032x}"
OTHER = f"{8:032x}"


def test_ids_are_counted_by_queue_without_gaps() -> None:
    rig = Rig()
    assert rig.put(b"x", b"y", b"z") == 1
    rig.do(PutItems("other", (NewItem(b"o"),)))
    too_large = NewItem(bytes(ITEM_BYTES_MAX + 1))
    for bad in (too_large, NewItem(b"b", key="k\udcff")):
        assert isinstance(rig.do(PutItems(Q, (NewItem(b"a"), bad))), Rejected)
    assert isinstance(rig.do(PutItems("q\udcff", (NewItem(b"a"),))), Rejected)
    rig.take(1, count=3)
    rig.ack(1, 2, 3)
    assert rig.put(b"w") == 4


def test_an_item_is_given_to_one_claim_and_gone_once_acked() -> None:
    rig = Rig()
    rig.put(b"x")
    assert rig.take(1) == [1]
    assert rig.take(2) == []
    rig.ack(1)
    assert rig.ids() == []
    assert rig.s.queue_claims == {}


def test_higher_priorities_come_first_and_equal_ones_in_the_order_of_their_ids() -> None:
    rig = Rig()
    rig.put(b"low", priority=-1)
    rig.put(b"a", b"b")
    rig.put(b"high", priority=9)
    assert [rig.take(n)[0] for n in range(1, 5)] == [4, 2, 3, 1]


def test_who_waits_is_given_an_item_by_the_put_itself_and_who_came_first_first() -> None:
    rig = Rig()
    for taker in (1, 2, 3):
        assert rig.take(taker, wait_ms=60_000) == []
    rig.put(b"x", b"y")
    assert (rig.held(1), rig.held(2), rig.held(3)) == ([1], [2], [])
    woken = [event.claim for event in rig.events if isinstance(event, ItemsGiven)]
    assert woken == [claim(1), claim(2)]


def test_who_waits_is_given_what_comes_back() -> None:
    rig = Rig()
    rig.put(b"x")
    rig.take(1)
    rig.take(2, wait_ms=60_000)
    assert rig.do(NackItems(Q, (rig.receipt(1),))) == ItemsSettled()
    assert rig.held(2) == [1]


def test_a_wait_ends_in_ledger_time_and_is_told() -> None:
    rig = Rig()
    rig.take(1, wait_ms=500)
    rig.pass_time(499)
    assert rig.queues.waiting == 1
    rig.pass_time(1)
    assert rig.events == [WaitEnded(claim(1))]
    rig.put(b"x")
    assert rig.held(1) == []


def test_an_item_is_visible_again_once_its_visibility_has_passed() -> None:
    rig = Rig()
    rig.put(b"x")
    rig.take(1, visibility_ms=1_000)
    old = rig.receipt(1)
    rig.pass_time(999)
    assert rig.take(2) == []
    rig.pass_time(1)
    assert rig.take(2) == [1]
    assert rig.receipt(1)[1] > old[1]
    assert rig.queues.queues[Q].items[1].deliveries == 2
    assert rig.do(AckItems(Q, (old,))) == ItemsSettled(stale=(1,))
    assert rig.do(NackItems(Q, (old,))) == ItemsSettled(stale=(1,))
    assert rig.do(ExtendItems(Q, (old,), 900)) == ItemsSettled(stale=(1,))
    rig.ack(1)


def test_no_two_items_have_one_receipt_though_one_command_gave_them() -> None:
    rig = Rig()
    rig.put(*[b"x"] * 5)
    rig.take(1, count=5)
    receipts = [rig.receipt(number)[1] for number in range(1, 6)]
    assert len(set(receipts)) == 5
    rig.put(b"y")
    rig.take(2)
    assert rig.receipt(6)[1] > max(receipts)


def test_an_extended_item_stays_for_so_long_from_then_on() -> None:
    rig = Rig()
    rig.put(b"x")
    rig.take(1, visibility_ms=1_000)
    rig.pass_time(900)
    assert rig.do(ExtendItems(Q, (rig.receipt(1),), 1_000)) == ItemsSettled()
    rig.pass_time(999)
    assert rig.held(1) == [1]
    rig.pass_time(1)
    assert rig.held(1) == []


def test_a_nacked_item_stays_away_for_its_delay_and_comes_before_later_ones() -> None:
    rig = Rig()
    rig.put(b"x", b"y")
    rig.take(1)
    rig.do(NackItems(Q, (rig.receipt(1),), delay_ms=300))
    assert rig.take(2) == [2]
    rig.do(NackItems(Q, (rig.receipt(2),)))
    rig.pass_time(300)
    assert rig.take(3) == [1]


def test_a_delayed_put_is_given_when_it_is_due_and_to_who_waits() -> None:
    rig = Rig()
    rig.put(b"x", delay_ms=400)
    assert rig.take(1, wait_ms=60_000) == []
    rig.pass_time(400)
    assert rig.held(1) == [1]


def test_items_of_a_key_come_one_after_another_and_others_pass_them() -> None:
    rig = Rig()
    rig.put(b"k1", b"k2", key="k")
    rig.put(b"m1", key="m")
    rig.put(b"free")
    assert rig.take(1, count=10) == [1, 3, 4]
    assert rig.take(2, wait_ms=60_000) == []
    rig.ack(1)
    assert rig.held(2) == [2]


def test_a_higher_priority_does_not_pass_an_earlier_item_of_its_key() -> None:
    rig = Rig()
    rig.put(b"first", key="k")
    rig.put(b"urgent", key="k", priority=9)
    assert rig.take(1) == [1]
    assert rig.take(2) == []


@pytest.mark.parametrize("how", ["nack", "visibility", "lease"])
def test_a_redelivered_item_comes_before_later_ones_of_its_key(how: str) -> None:
    rig = Rig()
    rig.lend(LEASE)
    rig.put(b"k1", b"k2", key="k")
    rig.take(1, visibility_ms=1_000, lease=LEASE)
    if how == "nack":
        rig.do(NackItems(Q, (rig.receipt(1),)))
    elif how == "visibility":
        rig.pass_time(1_000)
    else:
        rig.end_lease(LEASE)
    assert rig.take(2, count=5) == [1]
    rig.ack(1)
    assert rig.take(3) == [2]


def test_a_lease_that_ends_gives_its_items_back_and_ends_its_waits() -> None:
    rig = Rig()
    rig.lend(LEASE, OTHER)
    rig.put(b"x", b"y")
    rig.take(1, count=2, visibility_ms=0, lease=LEASE)
    rig.take(2, wait_ms=60_000, lease=LEASE)
    rig.take(3, wait_ms=60_000, lease=OTHER)
    rig.end_lease(LEASE)
    assert rig.held(3) == [1]
    assert list(rig.s.queue_claims) == [claim(3)]
    assert rig.take(4) == [2]


def test_without_a_visibility_only_the_lease_counts() -> None:
    rig = Rig()
    rig.lend(LEASE)
    rig.put(b"x")
    rig.take(1, visibility_ms=0, lease=LEASE)
    rig.pass_time(10_000_000)
    assert rig.held(1) == [1]
    assert rig.queues.next_due_ms() is None


def test_an_unknown_lease_takes_nothing() -> None:
    answer = Rig().do(TakeItems(Q, claim(1), lease=LEASE))
    assert isinstance(answer, Rejected)
    assert answer.code == "not-found"


def test_after_too_many_deliveries_an_item_is_a_dead_letter() -> None:
    rig = Rig()
    rig.do(ConfigureQueue(Q, 2))
    rig.put(b"bad", b"next", key="k")
    for taker in (1, 2):
        assert rig.take(taker) == [1]
        rig.do(NackItems(Q, (rig.receipt(1),)))
    assert rig.take(3) == [2]
    assert ItemDied(Q, 1, 1, 2) in rig.events
    assert rig.take(4, queue=f"{Q}.dead") == [1]
    letter = rig.queues.queues[f"{Q}.dead"].items[1]
    assert (letter.value, letter.origin, letter.died_after) == (b"bad", 1, 2)


def test_dead_letters_never_die_and_no_bound_keeps_them_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = Rig()
    rig.do(ConfigureQueue(Q, 1))
    rig.put(b"bad")
    monkeypatch.setattr(queues, "QUEUES_MAX", 1)
    monkeypatch.setattr(queues, "QUEUE_ITEMS_MAX", 1)
    rig.take(1)
    rig.do(NackItems(Q, (rig.receipt(1),)))
    for taker in range(2, 40):
        assert rig.take(taker, queue=f"{Q}.dead") == [1]
        rig.pass_time(30_000)
    assert rig.ids(f"{Q}.dead") == [1]


def test_who_waits_for_dead_letters_gets_them() -> None:
    rig = Rig()
    rig.do(ConfigureQueue(Q, 1))
    rig.take(9, wait_ms=60_000, queue=f"{Q}.dead")
    rig.put(b"bad")
    rig.take(1, visibility_ms=500)
    rig.pass_time(500)
    assert rig.held(9) == [1]


def test_dead_letters_go_back_in_order_with_new_ids_and_count_anew() -> None:
    rig = Rig()
    rig.do(ConfigureQueue(Q, 1))
    rig.put(b"a", b"b", key="k")
    for number in (1, 2):
        rig.take(number)
        rig.do(NackItems(Q, (rig.receipt(number),)))
    assert rig.do(RedriveItems(Q, 10)) == QueueChanged(2)
    assert QueueHandled(Q, "redriven", 2) in rig.events
    assert rig.ids(f"{Q}.dead") == []
    assert rig.take(3, count=5) == [3]
    assert rig.queues.queues[Q].items[3].value == b"a"
    assert rig.queues.queues[Q].items[3].deliveries == 1


def test_who_stops_taking_gives_back_what_it_has_not_seen() -> None:
    rig = Rig()
    rig.do(ConfigureQueue(Q, 1))
    rig.take(1, wait_ms=60_000)
    rig.put(b"x")
    assert rig.do(StopTaking(claim(1))) == QueueChanged(1)
    assert rig.queues.queues[Q].items[1].deliveries == 0
    rig.take(2, wait_ms=60_000)
    assert rig.do(StopTaking(claim(2))) == QueueChanged(1)
    rig.take(3)
    rig.take(4, wait_ms=60_000)
    assert rig.do(StopTaking(claim(4))) == QueueChanged()
    assert rig.do(StopTaking(claim(9))) == QueueChanged()


def test_a_repeated_take_is_told_the_same() -> None:
    rig = Rig()
    rig.put(b"x", b"y")
    assert rig.take(1) == rig.take(1) == [1]
    assert rig.take(2) == [2]
    assert rig.do(TakeItems(Q, claim(3), wait_ms=9_000)) == ItemsTaken((), waits=True)
    assert rig.do(TakeItems(Q, claim(3), wait_ms=9_000)) == ItemsTaken((), waits=True)
    assert rig.queues.waiting == 1


def test_a_purge_drops_all_that_nobody_has() -> None:
    rig = Rig()
    rig.put(b"k1", b"k2", b"k3", key="k")
    rig.put(b"x", delay_ms=500)
    rig.take(1)
    assert rig.do(PurgeQueue(Q)) == QueueChanged(3)
    assert rig.ids() == [1]
    rig.ack(1)
    assert rig.queues.bytes == 0
    assert rig.put(b"y") == 5


def test_only_an_empty_queue_that_nobody_waits_at_is_deleted() -> None:
    rig = Rig()
    rig.put(b"x")
    assert isinstance(rig.do(DeleteQueue(Q)), Rejected)
    rig.take(1)
    rig.ack(1)
    rig.take(2, wait_ms=500)
    assert isinstance(rig.do(DeleteQueue(Q)), Rejected)
    rig.pass_time(500)
    assert rig.do(DeleteQueue(Q)) == QueueChanged()
    assert rig.queues.queues == {}
    assert isinstance(rig.do(PurgeQueue(Q)), Rejected)
    assert rig.put(b"x") == 1


def test_what_is_over_is_swept_out_of_the_rows_and_timers() -> None:
    rig = Rig()
    for taker in range(5_000):
        rig.s.command_index += 1
        queues.decide(rig.s, PutItems(Q, (NewItem(b"x"),)))
        taken = queues.decide(rig.s, TakeItems(Q, claim(taker), visibility_ms=9_000_000))
        assert isinstance(taken, ItemsTaken)
        queues.decide(rig.s, AckItems(Q, (rig.receipt(taken.ids[0]),)))
    assert len(rig.queues.queues[Q].row) < 1_100
    assert rig.queues.next_due_ms() is None
