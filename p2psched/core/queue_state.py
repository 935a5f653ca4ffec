"""The queues of a ledger as data, and the moves of items that the fold makes of them.

The ledger's state is heads, items and claims; rows, timers and counts follow from those, and are
made anew where it was restored. Heads, items and claims are values: a change puts another one in
the old place, so who has copied the tables between two entries may read them at leisure.
"""

from __future__ import annotations

import heapq
from collections import deque
from typing import Final

import msgspec

from p2psched.core.deadlines import Deadlines
from p2psched.model.queue_actions import DELIVERIES_UNTOLD

LITTER_MAX: Final = 1_024  # places in a row that stand for nothing any more: more are swept
_replace = msgspec.structs.replace

ItemKey = tuple[str, int]  # name of its queue, id


class QueueHead(msgspec.Struct, frozen=True, array_like=True, gc=False):
    next_id: int = 1
    max_deliveries: int = DELIVERIES_UNTOLD


class Item(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """It is in flight if it has a receipt. `due_ms`, in ledger time: in flight when it is visible
    again, 0 if only its claim's lease decides; else before when nobody gets it."""

    id: int
    value: bytes
    priority: int = 0
    key: str = ""
    put_wall_ms: int = 0  # for people
    deliveries: int = 0
    receipt: int = 0
    claim: str = ""
    due_ms: int = 0
    origin: int = 0  # of a dead letter: its id in the queue where it died
    died_after: int = 0  # deliveries there

    @property
    def size(self) -> int:
        return len(self.value) + len(self.key)


class QueueClaim(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Somebody who has items, or else waits for some."""

    queue: str
    lease: str
    visibility_ms: int
    count: int
    due_ms: int  # it waits no longer
    held: tuple[int, ...] = ()  # ids


class Queue:
    """One of them, as it follows from the state. Only the moves of `Queues` change it."""

    __slots__ = ("bytes", "head", "in_flight", "items", "keys", "name", "row", "takers")

    def __init__(self, name: str, head: QueueHead) -> None:
        self.name: Final = name
        self.head = head
        self.items: dict[int, Item] = {}  # in the order of their ids
        self.row: list[tuple[int, int]] = []  # heap of (-priority, id); some are over
        self.keys: dict[str, deque[int]] = {}  # key -> all of its items; only the first is given
        self.takers: dict[str, None] = {}  # claims that wait, in the order in which they came
        self.in_flight = 0
        self.bytes = 0

    def is_ready(self, item: Item) -> bool:
        """Whoever comes next may have it."""
        if item.receipt or item.due_ms:
            return False
        return not item.key or self.keys[item.key][0] == item.id

    def is_free(self, item: Item) -> bool:
        """Nobody has it, nor an earlier one of its key."""
        first = self.items[self.keys[item.key][0]] if item.key else item
        return not first.receipt

    def best(self) -> Item | None:
        """The one that is given next."""
        row = self.row
        while row:
            item = self.items.get(row[0][1])
            if item is not None and self.is_ready(item):
                return item
            heapq.heappop(row)
        return None

    def line_up(self, item: Item) -> None:
        if self.is_ready(item):
            heapq.heappush(self.row, (-item.priority, item.id))
            if len(self.row) > 2 * len(self.items) + LITTER_MAX:
                self.row = [(-i.priority, i.id) for i in self.items.values() if self.is_ready(i)]
                heapq.heapify(self.row)


class Queues:
    """All of a ledger, over the three tables of its state."""

    __slots__ = (
        *("_claims", "_heads", "_items", "_visible", "_waits", "by_lease", "bytes", "queues"),
        "waiting",
    )

    def __init__(
        self, heads: dict[str, QueueHead], items: dict[ItemKey, Item], claims: dict[str, QueueClaim]
    ) -> None:
        self._heads = heads
        self._items = items
        self._claims = claims
        self.queues: dict[str, Queue] = {name: Queue(name, head) for name, head in heads.items()}
        self.bytes = 0
        self.waiting = 0  # claims
        self.by_lease: dict[str, dict[str, None]] = {}  # lease -> its claims
        self._visible: Deadlines[ItemKey] = Deadlines()
        self._waits: Deadlines[str] = Deadlines()
        for (name, _), item in items.items():
            self._note(self.queues[name], item)
        for (name, _), item in items.items():
            self.queues[name].line_up(item)
        for name, claim in claims.items():
            self._note_claim(name, claim)

    def _note(self, queue: Queue, item: Item) -> None:
        queue.items[item.id] = item
        if item.key:
            queue.keys.setdefault(item.key, deque()).append(item.id)
        queue.in_flight += item.receipt > 0
        queue.bytes += item.size
        self.bytes += item.size
        if item.due_ms:
            self._visible.set((queue.name, item.id), item.due_ms)

    def _note_claim(self, name: str, claim: QueueClaim) -> None:
        if claim.lease:
            self.by_lease.setdefault(claim.lease, {})[name] = None
        if not claim.held:
            self.queues[claim.queue].takers[name] = None
            self.waiting += 1
            self._waits.set(name, claim.due_ms)

    def __len__(self) -> int:
        return len(self._items)

    def claim(self, name: str) -> QueueClaim | None:
        return self._claims.get(name)

    # --- queues ---

    def open(self, name: str, head: QueueHead) -> Queue:
        self._heads[name] = head
        queue = self.queues[name] = Queue(name, head)
        return queue

    def configure(self, queue: Queue, max_deliveries: int) -> None:
        self._set_head(queue, _replace(queue.head, max_deliveries=max_deliveries))

    def delete(self, queue: Queue) -> None:
        assert not queue.items
        assert not queue.takers
        del self._heads[queue.name], self.queues[queue.name]

    def _set_head(self, queue: Queue, head: QueueHead) -> None:
        self._heads[queue.name] = queue.head = head

    # --- items ---

    def add(self, queue: Queue, item: Item) -> None:
        """At the end of its queue."""
        assert item.id == queue.head.next_id
        assert not item.receipt
        self._set_head(queue, _replace(queue.head, next_id=item.id + 1))
        self._items[(queue.name, item.id)] = item
        self._note(queue, item)
        queue.line_up(item)

    def remove(self, queue: Queue, item: Item) -> None:
        """It leaves its queue, and the next of its key takes its place."""
        if item.receipt:
            self._leave_claim(queue, item)
        del queue.items[item.id], self._items[(queue.name, item.id)]
        self._visible.drop((queue.name, item.id))
        queue.bytes -= item.size
        self.bytes -= item.size
        if item.key:
            self._leave_key(queue, item)

    def _leave_key(self, queue: Queue, item: Item) -> None:
        ids = queue.keys[item.key]
        if ids[0] == item.id:
            ids.popleft()
            if ids:
                queue.line_up(queue.items[ids[0]])
        else:
            assert ids[-1] == item.id, "only the first or the last of a key leaves"
            ids.pop()
        if not ids:
            del queue.keys[item.key]

    def give(self, queue: Queue, item: Item, claim: str, *, receipt: int, due_ms: int) -> None:
        assert queue.is_ready(item)
        count = item.deliveries + 1
        given = _replace(item, deliveries=count, receipt=receipt, claim=claim, due_ms=due_ms)
        self._put_back(queue, given)
        queue.in_flight += 1
        held = self._claims[claim]
        self._claims[claim] = _replace(held, held=(*held.held, item.id), due_ms=0)

    def extend(self, queue: Queue, item: Item, due_ms: int) -> None:
        assert item.receipt
        self._put_back(queue, _replace(item, due_ms=due_ms))

    def take_back(self, queue: Queue, item: Item, *, due_ms: int, counts: bool) -> None:
        """From its claim, to its old place, for others from `due_ms` on."""
        self._leave_claim(queue, item)
        count = item.deliveries - (not counts)
        back = _replace(item, deliveries=count, receipt=0, claim="", due_ms=due_ms)
        self._put_back(queue, back)
        queue.line_up(back)

    def appear(self, queue: Queue, item: Item) -> None:
        """Its delay is over."""
        assert not item.receipt
        back = _replace(item, due_ms=0)
        self._put_back(queue, back)
        queue.line_up(back)

    def _put_back(self, queue: Queue, item: Item) -> None:
        """In the place that it has."""
        queue.items[item.id] = self._items[(queue.name, item.id)] = item
        if item.due_ms:
            self._visible.set((queue.name, item.id), item.due_ms)
        else:
            self._visible.drop((queue.name, item.id))

    # --- claims ---

    def wait(self, name: str, claim: QueueClaim) -> None:
        """A claim joins the end of the row of its queue."""
        assert name not in self._claims
        self._claims[name] = claim
        self._note_claim(name, claim)

    def wait_no_more(self, name: str) -> None:
        """It has got what it waited for, or goes."""
        del self.queues[self._claims[name].queue].takers[name]
        self.waiting -= 1
        self._waits.drop(name)
        if not self._claims[name].held:
            self._forget_claim(name)

    def _leave_claim(self, queue: Queue, item: Item) -> None:
        assert item.receipt
        queue.in_flight -= 1
        claim = self._claims[item.claim]
        held = tuple(other for other in claim.held if other != item.id)
        if held:
            self._claims[item.claim] = _replace(claim, held=held)
        else:
            self._forget_claim(item.claim)

    def _forget_claim(self, name: str) -> None:
        claim = self._claims.pop(name)
        if claim.lease:
            names = self.by_lease[claim.lease]
            del names[name]
            if not names:
                del self.by_lease[claim.lease]

    # --- time ---

    def next_due_ms(self) -> int | None:
        """When something is to happen, in ledger time."""
        visible_ms, waits_ms = self._visible.next_ms(), self._waits.next_ms()
        if visible_ms is None or waits_ms is None:
            return waits_ms if visible_ms is None else visible_ms
        return min(visible_ms, waits_ms)

    def take_visible(self, upto_ms: int) -> ItemKey | None:
        """The first item whose time has come."""
        return self._visible.take(upto_ms)

    def take_wait(self, upto_ms: int) -> str | None:
        """The first claim that has waited long enough."""
        return self._waits.take(upto_ms)
