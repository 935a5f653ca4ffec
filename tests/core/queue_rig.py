"""A ledger of which only the queues are used, and what must hold of it after each command."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from p2psched.core import queues
from p2psched.core.queue_state import Item, ItemKey, QueueClaim, QueueHead, Queues
from p2psched.core.state import LedgerState
from p2psched.model.commands import Event, Rejected
from p2psched.model.lease_actions import Lease
from p2psched.model.queue_actions import (
    AckItems,
    ItemsPut,
    ItemsSettled,
    ItemsTaken,
    NewItem,
    PutItems,
    QueueAction,
    QueueAnswer,
    QueueChanged,
    Receipt,
    TakeItems,
)

T = TypeVar("T")
Q = "orders"


def claim(number: int) -> str:
    return f"{number:032x}"


class Rig:
    def __init__(self) -> None:
        self.s = LedgerState()
        self.s.stamp_ms = 1_000
        self.events: list[Event] = []

    @property
    def queues(self) -> Queues:
        return self.s.queues

    def lend(self, *leases: str) -> None:
        self.s.leases.update(dict.fromkeys(leases, Lease("somebody", 10_000, 10**9)))

    def do(self, action: QueueAction) -> QueueAnswer | Rejected:
        self.s.command_index += 1
        answer = queues.decide(self.s, action)
        self._end_command()
        return answer

    def pass_time(self, span_ms: int) -> None:
        self.s.command_index += 1
        self.s.stamp_ms += span_ms
        while (due_ms := queues.next_due_ms(self.s)) is not None and due_ms <= self.s.stamp_ms:
            queues.elapse(self.s)
        self._end_command()

    def end_lease(self, lease: str) -> None:
        self.s.command_index += 1
        queues.on_lease_ended(self.s, lease)
        self._end_command()

    def _end_command(self) -> None:
        self.events.extend(self.s.events)
        self.s.events.clear()
        check(self.s)

    def state(self) -> object:
        s = self.s
        return [dict(s.queue_heads), dict(s.queue_items), dict(s.queue_claims), s.last_receipt]

    # --- shorter ---

    def put(self, *values: bytes, key: str = "", priority: int = 0, delay_ms: int = 0) -> int:
        items = tuple(NewItem(value, priority, key, delay_ms) for value in values)
        answer = self.do(PutItems(Q, items))
        assert isinstance(answer, ItemsPut)
        return answer.first

    def take(
        self,
        number: int,
        *,
        count: int = 1,
        visibility_ms: int = 30_000,
        wait_ms: int = 0,
        lease: str = "",
        queue: str = Q,
    ) -> list[int]:
        answer = self.do(TakeItems(queue, claim(number), count, visibility_ms, wait_ms, lease))
        assert isinstance(answer, ItemsTaken)
        return list(answer.ids)

    def held(self, number: int) -> list[int]:
        """Ids of what a claim has now."""
        known = self.queues.claim(claim(number))
        return list(known.held) if known is not None else []

    def receipt(self, id: int, queue: str = Q) -> Receipt:  # noqa: A002 -- as items say it
        return id, self.queues.queues[queue].items[id].receipt

    def ack(self, *ids: int) -> None:
        answer = self.do(AckItems(Q, tuple(map(self.receipt, ids))))
        assert answer == ItemsSettled()

    def ids(self, queue: str = Q) -> list[int]:
        known = self.queues.queues.get(queue)
        return list(known.items) if known is not None else []


def restart(rig: Rig) -> None:
    """Go on with what a snapshot holds, and nothing else."""
    s = rig.s
    s.queue_heads = _again(s.queue_heads, dict[str, QueueHead])
    s.queue_items = _again(s.queue_items, dict[ItemKey, Item])
    s.queue_claims = _again(s.queue_claims, dict[str, QueueClaim])
    queues.rebuild(s)


def _again(value: T, kind: type[T]) -> T:
    return msgspec.msgpack.decode(msgspec.msgpack.encode(value), type=kind)


def check(s: LedgerState) -> None:
    """What follows from the state is right, and nobody waits for what there is."""
    now, fresh = s.queues, Queues(s.queue_heads, s.queue_items, s.queue_claims)
    assert list(now.queues) == list(fresh.queues) == list(s.queue_heads)
    for name, queue in now.queues.items():
        other = fresh.queues[name]
        assert queue.head == s.queue_heads[name]
        assert queue.best() == other.best()
        assert not (queue.takers and queue.best())
        assert queue.items == other.items
        assert queue.keys == other.keys
        assert list(queue.takers) == list(other.takers)
        assert (queue.in_flight, queue.bytes) == (other.in_flight, other.bytes)
        assert list(queue.items) == sorted(queue.items)
        for item in queue.items.values():
            assert 0 < item.id < queue.head.next_id
            if item.receipt:
                assert item.receipt <= s.last_receipt
                assert item.id in s.queue_claims[item.claim].held
                assert not item.key or queue.keys[item.key][0] == item.id
    receipts = [item.receipt for item in s.queue_items.values() if item.receipt]
    assert len(set(receipts)) == len(receipts)
    assert now.next_due_ms() == fresh.next_due_ms()
    assert now.by_lease == fresh.by_lease
    assert now.waiting == fresh.waiting
    assert now.bytes == fresh.bytes


def plain(answer: object) -> object:
    """An answer as the naive model gives it."""
    match answer:
        case ItemsPut(first=first):
            return first
        case ItemsTaken(ids=ids, waits=waits):
            return sorted(ids), waits
        case ItemsSettled(stale=stale):
            return list(stale)
        case QueueChanged(count=count):
            return count
        case Rejected(code=code):
            return code
    raise ValueError(f"no answer: {answer!r}")
