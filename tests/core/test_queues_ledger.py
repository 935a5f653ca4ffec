"""Queues as a part of the ledger: leases, time, repeats, generations, snapshots."""

from __future__ import annotations

from p2psched.core.capture import SLICE_BYTES, Capture
from p2psched.core.generation import first_index
from p2psched.core.levels import KNOWN_LEVEL
from p2psched.core.snapshot import encode_machine
from p2psched.model.commands import Acknowledged, NewGeneration, RaiseLevel
from p2psched.model.ids import PeerId
from p2psched.model.lease_actions import TakeLease
from p2psched.model.queue_actions import (
    AckItems,
    ItemsSettled,
    ItemsTaken,
    NewItem,
    PurgeQueue,
    PutItems,
    StopTaking,
    TakeItems,
)
from p2psched.model.queue_events import ItemsGiven
from tests.core.acts_rig import LEASES, Client, Ledger
from tests.core.queue_rig import Q, claim


def test_a_lease_that_ends_in_ledger_time_gives_its_items_to_who_waits() -> None:
    ledger = Ledger()
    client = Client(ledger)
    client.do(TakeLease(LEASES[0], 5_000))
    client.do(PutItems(Q, (NewItem(b"x"),)))
    assert client.do(TakeItems(Q, claim(1), lease=LEASES[0])) == ItemsTaken((1,), waits=False)
    waiting = TakeItems(Q, claim(2), visibility_ms=1_000, wait_ms=60_000)
    assert client.do(waiting) == ItemsTaken((), waits=True)
    ledger.restart()
    ledger.now_ms += 4_999
    assert ledger.elapse() == []
    ledger.now_ms += 1
    given = [event for event in ledger.elapse() if isinstance(event, ItemsGiven)]
    assert [event.claim for event in given] == [claim(2)]
    ledger.restart()
    ledger.now_ms += 1_000
    ledger.elapse()
    assert ledger.machine.queue_items[(Q, 1)].receipt == 0
    assert ledger.machine.queue_items[(Q, 1)].deliveries == 2


def test_a_visibility_that_has_passed_ends_nothing_before_the_ledger_says_so() -> None:
    ledger = Ledger()
    client = Client(ledger)
    client.do(PutItems(Q, (NewItem(b"x"),)))
    client.do(TakeItems(Q, claim(1), visibility_ms=1_000))
    receipt = ledger.machine.queue_items[(Q, 1)].receipt
    ledger.now_ms += 50_000
    assert client.do(AckItems(Q, ((1, receipt),))) == ItemsSettled()


def test_queues_live_on_in_a_new_generation_and_old_receipts_still_count_there() -> None:
    ledger = Ledger()
    client = Client(ledger)
    client.do(PutItems(Q, (NewItem(b"x"), NewItem(b"y"))))
    client.do(TakeItems(Q, claim(1)))
    old = ledger.machine.queue_items[(Q, 1)].receipt
    assert ledger.do(NewGeneration(7, PeerId("p"))) == Acknowledged()
    ledger.do(RaiseLevel(KNOWN_LEVEL))
    client.do(TakeItems(Q, claim(2)))
    assert ledger.machine.queue_items[(Q, 2)].receipt > first_index(7)
    assert client.do(AckItems(Q, ((1, old),))) == ItemsSettled()


def test_a_capture_of_queues_is_of_its_moment() -> None:
    ledger = Ledger()
    client = Client(ledger)
    for number in range(700):  # more than one slice
        client.do(PutItems(Q, (NewItem(bytes(1_000), key=f"k{number % 7}"),)))
    client.do(TakeItems(Q, claim(1), count=3))
    client.do(TakeItems("empty", claim(2), wait_ms=9_000))
    capture, whole = Capture(ledger.machine), encode_machine(ledger.machine)
    client.do(StopTaking(claim(1)))
    client.do(StopTaking(claim(2)))
    client.do(PurgeQueue(Q))
    pieces = list(capture.pieces())
    assert b"".join(pieces) == whole
    assert max(map(len, pieces)) < 2 * SLICE_BYTES


def test_a_repeated_put_is_one_put() -> None:
    ledger = Ledger()
    client = Client(ledger)
    put = PutItems(Q, (NewItem(b"x"), NewItem(b"y")))
    first = client.act(put)
    ledger.restart()
    assert client.act(put, number=client.number) == first
    assert list(ledger.machine.queue_items) == [(Q, 1), (Q, 2)]
