"""The part of the fold that is about queues: who gets which item, and what becomes of it.

An item is given to one claim at a time. It comes back, into its old place, when its receipt is
handed in, its visibility has passed or the lease of its claim has ended, each in ledger time; after
too many deliveries it is put among the dead letters of its queue instead, which nothing drops but
a purge. Whoever waits gets it in the same command.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from p2psched.core.queue_state import Item, Queue, QueueClaim, QueueHead, Queues
from p2psched.core.state import LedgerState
from p2psched.model.commands import Rejected
from p2psched.model.lease_actions import LeaseId
from p2psched.model.queue_actions import (
    BATCH_BYTES_MAX,
    DEAD,
    QUEUE_BYTES_MAX,
    QUEUE_ITEMS_MAX,
    QUEUES_MAX,
    TAKERS_MAX,
    AckItems,
    ConfigureQueue,
    DeleteQueue,
    ExtendItems,
    ItemsPut,
    ItemsSettled,
    ItemsTaken,
    NackItems,
    PurgeQueue,
    PutItems,
    QueueAction,
    QueueAnswer,
    QueueChanged,
    Receipt,
    RedriveItems,
    StopTaking,
    TakeItems,
    fault_of,
)
from p2psched.model.queue_events import ItemDied, ItemsGiven, QueueHandled, WaitEnded


def decide(s: LedgerState, action: QueueAction) -> QueueAnswer | Rejected:
    fault = fault_of(action)
    if fault:
        return Rejected("usage", fault)
    match action:
        case PutItems():
            return _put(s, action)
        case TakeItems():
            return _take(s, action)
        case AckItems() | NackItems() | ExtendItems():
            return _settle(s, action)
        case StopTaking():
            return _stop(s, action.claim)
        case ConfigureQueue():
            return _configure(s, action)
        case PurgeQueue() | DeleteQueue():
            return _change(s, action)
        case RedriveItems():
            return _redrive(s, action)


def next_due_ms(s: LedgerState) -> int | None:
    return s.queues.next_due_ms()


def elapse(s: LedgerState) -> None:
    """The first thing that is due happens."""
    due_ms = s.queues.next_due_ms()
    assert due_ms is not None
    key = s.queues.take_visible(due_ms)
    if key is None:
        claim = s.queues.take_wait(due_ms)
        assert claim is not None
        _end_wait(s, claim)
        return
    name, number = key
    queue = s.queues.queues[name]
    item = queue.items[number]
    if item.receipt:
        _take_back(s, queue, item)
    else:
        s.queues.appear(queue, item)
    _hand_out(s, (name,))


def on_lease_ended(s: LedgerState, lease: LeaseId) -> None:
    """Its claims are over: what they had is for others at once."""
    claims = {name: s.queue_claims[name] for name in s.queues.by_lease.get(lease, ())}
    for name, claim in claims.items():
        if not claim.held:
            _end_wait(s, name)
    for name, claim in claims.items():
        if claim.held:
            _return_all(s, name, counts=True)
    _hand_out(s, dict.fromkeys(claim.queue for claim in claims.values()))


def rebuild(s: LedgerState) -> None:
    """What follows from the rest, after a state was restored."""
    s.queues = Queues(s.queue_heads, s.queue_items, s.queue_claims)


# --- putting and taking ---------------------------------------------------------------------------


def _put(s: LedgerState, action: PutItems) -> QueueAnswer | Rejected:
    size = sum(len(item.value) + len(item.key) for item in action.items)
    if len(s.queues) + len(action.items) > QUEUE_ITEMS_MAX:
        return Rejected(
            "refused",
            f"the queues of the cluster hold {len(s.queues):,} items, and no more than "
            f"{QUEUE_ITEMS_MAX:,}: ack some, or purge a queue",
        )
    if s.queues.bytes + size > QUEUE_BYTES_MAX:
        return Rejected(
            "refused",
            f"the queues of the cluster hold {s.queues.bytes:,} bytes, and no more than "
            f"{QUEUE_BYTES_MAX:,}: ack some items, or purge a queue",
        )
    queue = _open(s, action.queue)
    if isinstance(queue, Rejected):
        return queue
    first = queue.head.next_id
    for number, new in enumerate(action.items, start=first):
        due_ms = s.stamp_ms + new.delay_ms if new.delay_ms else 0
        item = Item(number, new.value, new.priority, new.key, put_wall_ms=s.wall_ms, due_ms=due_ms)
        s.queues.add(queue, item)
    _hand_out(s, (action.queue,))
    return ItemsPut(first)


def _open(s: LedgerState, name: str) -> Queue | Rejected:
    """The queue of that name, made if need be."""
    queues = s.queues.queues
    queue = queues.get(name)
    if queue is not None:
        return queue
    is_dead = name.endswith(DEAD)
    if len(queues) >= QUEUES_MAX and not is_dead:
        of_letters = sum(known.endswith(DEAD) for known in queues)
        if len(queues) - of_letters >= QUEUES_MAX:
            return Rejected(
                "refused",
                f"there are {QUEUES_MAX:,} queues already: delete empty ones "
                "(`p2psched queue list` shows them)",
            )
    return s.queues.open(name, QueueHead(max_deliveries=0) if is_dead else QueueHead())


def _take(s: LedgerState, action: TakeItems) -> QueueAnswer | Rejected:
    known = s.queue_claims.get(action.claim)
    if known is not None:
        if known.queue != action.queue:
            return Rejected("usage", f"this claim is one at the queue {known.queue}")
        return ItemsTaken(known.held, waits=not known.held)
    if action.lease and action.lease not in s.leases:
        return Rejected("not-found", "the lease has ended, or was never taken: take a new one")
    queue = s.queues.queues.get(action.queue)
    if queue is None or queue.best() is None:
        if not action.wait_ms:
            return ItemsTaken((), waits=False)
        if s.queues.waiting >= TAKERS_MAX:
            return Rejected(
                "refused",
                f"{TAKERS_MAX:,} takers wait at queues already: ask again, without waiting",
            )
    opened = _open(s, action.queue)
    if isinstance(opened, Rejected):
        return opened
    due_ms = s.stamp_ms + max(1, action.wait_ms)
    claim = QueueClaim(action.queue, action.lease, action.visibility_ms, action.count, due_ms)
    s.queues.wait(action.claim, claim)
    _hand_out(s, (action.queue,))
    held = s.queue_claims[action.claim].held
    return ItemsTaken(held, waits=not held)


def _hand_out(s: LedgerState, names: Iterable[str]) -> None:
    """Whoever waits at these queues, and their dead letters, gets what there is: who came first
    the best items."""
    for of in names:
        for name in (of, of + DEAD):
            queue = s.queues.queues.get(name)
            while queue is not None and queue.takers and queue.best() is not None:
                _give(s, queue, next(iter(queue.takers)))


def _give(s: LedgerState, queue: Queue, taker: str) -> None:
    claim = s.queue_claims[taker]
    due_ms = s.stamp_ms + claim.visibility_ms if claim.visibility_ms else 0
    receipts: list[Receipt] = []
    size = 0
    while len(receipts) < claim.count and (item := queue.best()) is not None:
        size += item.size
        if receipts and size > BATCH_BYTES_MAX:
            break
        # One command may give several, and one item twice; those of a new generation lie far
        # higher, as its commands do.
        receipt = s.last_receipt = max(s.last_receipt + 1, s.command_index)
        s.queues.give(queue, item, taker, receipt=receipt, due_ms=due_ms)
        receipts.append((item.id, receipt))
    s.queues.wait_no_more(taker)
    s.events.append(ItemsGiven(queue.name, taker, tuple(receipts)))


# --- what becomes of it ---------------------------------------------------------------------------


def _settle(s: LedgerState, action: AckItems | NackItems | ExtendItems) -> QueueAnswer:
    queue = s.queues.queues.get(action.queue)
    stale: list[int] = []
    for number, receipt in action.receipts:
        item = queue.items.get(number) if queue is not None else None
        if queue is None or item is None or not receipt or item.receipt != receipt:
            stale.append(number)
            continue
        match action:
            case AckItems():
                s.queues.remove(queue, item)
            case NackItems(delay_ms=delay_ms):
                _take_back(s, queue, item, due_ms=s.stamp_ms + delay_ms if delay_ms else 0)
            case ExtendItems(visibility_ms=visibility_ms):
                s.queues.extend(queue, item, s.stamp_ms + visibility_ms)
    _hand_out(s, (action.queue,))
    return ItemsSettled(tuple(stale))


def _take_back(
    s: LedgerState, queue: Queue, item: Item, *, due_ms: int = 0, counts: bool = True
) -> None:
    """An item that is in flight comes back, or has been delivered too often."""
    if counts and 0 < queue.head.max_deliveries <= item.deliveries:
        s.queues.remove(queue, item)
        _bury(s, queue, item)
    else:
        s.queues.take_back(queue, item, due_ms=due_ms, counts=counts)


def _bury(s: LedgerState, queue: Queue, item: Item) -> None:
    """No bound keeps a dead letter out: it was counted before."""
    letters = _open(s, queue.name + DEAD)
    assert isinstance(letters, Queue)
    letter = Item(
        *(letters.head.next_id, item.value, item.priority, item.key, item.put_wall_ms),
        origin=item.id,
        died_after=item.deliveries,
    )
    s.queues.add(letters, letter)
    s.events.append(ItemDied(queue.name, item.id, letter.id, item.deliveries))


def _stop(s: LedgerState, name: str) -> QueueAnswer:
    claim = s.queue_claims.get(name)
    if claim is None:
        return QueueChanged()
    if not claim.held:
        _end_wait(s, name)
        return QueueChanged()
    _return_all(s, name, counts=False)
    _hand_out(s, (claim.queue,))
    return QueueChanged(len(claim.held))


def _return_all(s: LedgerState, name: str, *, counts: bool) -> None:
    """What a claim has."""
    claim = s.queue_claims[name]
    queue = s.queues.queues[claim.queue]
    for number in claim.held:
        _take_back(s, queue, queue.items[number], counts=counts)


def _end_wait(s: LedgerState, name: str) -> None:
    s.queues.wait_no_more(name)
    s.events.append(WaitEnded(name))


# --- queues as wholes -----------------------------------------------------------------------------


def _configure(s: LedgerState, action: ConfigureQueue) -> QueueAnswer | Rejected:
    queue = _open(s, action.queue)
    if isinstance(queue, Rejected):
        return queue
    s.queues.configure(queue, action.max_deliveries)
    return QueueChanged()


def _change(s: LedgerState, action: PurgeQueue | DeleteQueue) -> QueueAnswer | Rejected:
    name = action.queue
    queue = s.queues.queues.get(name)
    if queue is None:
        return Rejected("not-found", f"no queue {name}: `p2psched queue list` names them")
    if isinstance(action, PurgeQueue):
        return _purge(s, queue)
    if queue.items or queue.takers:
        return Rejected(
            "refused",
            f"the queue {name} has {len(queue.items):,} items, and {len(queue.takers):,} wait at "
            "it: only an empty one is deleted",
        )
    s.queues.delete(queue)
    s.events.append(QueueHandled(name, "deleted"))
    return QueueChanged()


def _purge(s: LedgerState, queue: Queue) -> QueueAnswer:
    # The youngest first: none of a key gets a turn that is purged next.
    gone = [item for item in reversed(queue.items.values()) if not item.receipt]
    for item in gone:
        s.queues.remove(queue, item)
    if gone:
        s.events.append(QueueHandled(queue.name, "purged", len(gone)))
    return QueueChanged(len(gone))


def _redrive(s: LedgerState, action: RedriveItems) -> QueueAnswer | Rejected:
    letters = s.queues.queues.get(action.queue + DEAD)
    if letters is None:
        return QueueChanged()
    # Not before an earlier one of its key, which somebody has.
    moved = list(islice(filter(letters.is_free, letters.items.values()), action.count))
    if not moved:
        return QueueChanged()
    queue = _open(s, action.queue)
    if isinstance(queue, Rejected):
        return queue
    for item in moved:
        s.queues.remove(letters, item)
        number = queue.head.next_id
        again = Item(number, item.value, item.priority, item.key, item.put_wall_ms)
        s.queues.add(queue, again)
    s.events.append(QueueHandled(queue.name, "redriven", len(moved)))
    _hand_out(s, (queue.name,))
    return QueueChanged(len(moved))
