"""What clients do to queues, and what they are answered.

A queue gives its items the ids 1, 2, 3 ... without gaps. Who takes items names a claim, 32 hex
digits that it has drawn. Each delivery of an item has a receipt, a number that only rises, and only
who names the newest one settles the item. Values are opaque to peers. Times are spans of ledger
time.
"""

from __future__ import annotations

from typing import Final

import msgspec

from p2psched.model.ids import is_id
from p2psched.model.lease_actions import LeaseId
from p2psched.model.limits import KIB, MIB
from p2psched.model.text import utf8_bytes

QUEUES_MAX: Final = 4_096  # not counting those of dead letters; a further one is refused
QUEUE_ITEMS_MAX: Final = 100_000  # of all queues; a put beyond it is refused
QUEUE_BYTES_MAX: Final = 64 * MIB  # of values and keys of all queues; likewise
TAKERS_MAX: Final = 16_384  # that wait, at all queues; a further one is refused
ITEM_BYTES_MAX: Final = 256 * KIB
# Of the items of one put, and of those that are handed over together, unless one alone has more.
BATCH_BYTES_MAX: Final = 512 * KIB
BATCH_ITEMS_MAX: Final = 1_000
NAME_BYTES_MAX: Final = 200
KEY_BYTES_MAX: Final = 1 * KIB
PRIORITY_MAX: Final = 2**31 - 1  # and not below the negative of it
VISIBILITY_MS_MIN: Final = 100
SPAN_MS_MAX: Final = 30 * 86_400_000  # of a visibility, a delay, a wait
DELIVERIES_MAX: Final = 1_000_000
DELIVERIES_UNTOLD: Final = 20  # of an item before it is a dead letter, if nobody set it

DEAD: Final = ".dead"  # behind the name of a queue: where its dead letters are

Receipt = tuple[int, int]  # id of an item, and the number of its delivery


class NewItem(msgspec.Struct, frozen=True, array_like=True, gc=False):
    value: bytes
    priority: int = 0  # higher ones first
    key: str = ""  # items of one key are given one after another, in the order of their ids
    delay_ms: int = 0


class OfQueues(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Base of what is done to queues."""


class PutItems(OfQueues, frozen=True, array_like=True, gc=False, tag=30):
    """All of them, or none."""

    queue: str
    items: tuple[NewItem, ...]


class TakeItems(OfQueues, frozen=True, array_like=True, gc=False, tag=31):
    """Up to `count` items, or to be the next in the row for `wait_ms`. They are the claim's until
    they are settled, `visibility_ms` has passed, or the lease has ended. Without a visibility (0)
    only the lease counts. A claim that has items, or waits, is told so again."""

    queue: str
    claim: str
    count: int = 1
    visibility_ms: int = 30_000
    wait_ms: int = 0
    lease: LeaseId = ""


class AckItems(OfQueues, frozen=True, array_like=True, gc=False, tag=32):
    """They are done, and gone."""

    queue: str
    receipts: tuple[Receipt, ...]


class NackItems(OfQueues, frozen=True, array_like=True, gc=False, tag=33):
    """They may be given to others, in their old places."""

    queue: str
    receipts: tuple[Receipt, ...]
    delay_ms: int = 0


class ExtendItems(OfQueues, frozen=True, array_like=True, gc=False, tag=34):
    """They are the claim's for so long from now on."""

    queue: str
    receipts: tuple[Receipt, ...]
    visibility_ms: int


class StopTaking(OfQueues, frozen=True, array_like=True, gc=False, tag=35):
    """The claim waits no more. What it was given meanwhile nobody has seen: it goes back, and that
    delivery isn't counted."""

    claim: str


class ConfigureQueue(OfQueues, frozen=True, array_like=True, gc=False, tag=36):
    """`max_deliveries` of an item before it is a dead letter; 0: as often as it takes."""

    queue: str
    max_deliveries: int


class PurgeQueue(OfQueues, frozen=True, array_like=True, gc=False, tag=37):
    """Drop all items that nobody has."""

    queue: str


class DeleteQueue(OfQueues, frozen=True, array_like=True, gc=False, tag=38):
    """Only an empty one that nobody waits at. One of that name counts from 1 again."""

    queue: str


class RedriveItems(OfQueues, frozen=True, array_like=True, gc=False, tag=39):
    """Put the oldest dead letters of a queue into it again, with new ids."""

    queue: str
    count: int


_AtQueue = (
    PutItems
    | TakeItems
    | AckItems
    | NackItems
    | ExtendItems
    | ConfigureQueue
    | PurgeQueue
    | DeleteQueue
    | RedriveItems
)
QueueAction = _AtQueue | StopTaking


# --- answers --------------------------------------------------------------------------------------


class ItemsPut(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=30):
    first: int  # id; the others follow


class TakenItem(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """As it was delivered. `for_ms`: how long it is its claim's from then on; 0: with the lease."""

    id: int
    receipt: int
    value: bytes
    priority: int
    key: str
    deliveries: int
    put_wall_ms: int
    for_ms: int
    origin: int
    died_after: int


class ItemsTaken(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=31):
    """What was given to the claim. With its answer a peer tells what the claim has by now."""

    ids: tuple[int, ...]
    waits: bool
    items: tuple[TakenItem, ...] = ()  # nothing of this is in the ledger


class ItemsSettled(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=32):
    """`stale`: not under these receipts any more, and left as they are."""

    stale: tuple[int, ...] = ()


class QueueChanged(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=33):
    count: int = 0  # of items that were purged, redriven or given back


QueueAnswer = ItemsPut | ItemsTaken | ItemsSettled | QueueChanged


# --- faults ---------------------------------------------------------------------------------------


def fault_of(action: QueueAction) -> str:
    """Why no peer could do this, whatever its state; empty if one could."""
    if isinstance(action, StopTaking):
        return _claim_fault(action.claim)
    return name_fault(action.queue) or _fault_of(action)


def _fault_of(action: _AtQueue) -> str:
    match action:
        case PutItems():
            return _put_fault(action)
        case TakeItems():
            return _take_fault(action)
        case AckItems():
            return _receipts_fault(action.receipts)
        case NackItems():
            return _receipts_fault(action.receipts) or _span_fault("delay", action.delay_ms, 0)
        case ExtendItems():
            return _receipts_fault(action.receipts) or _span_fault(
                "visibility", action.visibility_ms, VISIBILITY_MS_MIN
            )
        case ConfigureQueue():
            return _configure_fault(action)
        case RedriveItems():
            return _redrive_fault(action)
        case PurgeQueue() | DeleteQueue():
            return ""


def name_fault(name: str) -> str:
    size = utf8_bytes(name)
    if not size or size > NAME_BYTES_MAX + len(DEAD) * name.endswith(DEAD):
        return f"the name of a queue has 1 to {NAME_BYTES_MAX} bytes of UTF-8"
    if not name.isprintable() or name == DEAD:
        return f"{name[:NAME_BYTES_MAX]!r} is no name of a queue"
    return ""


def _put_fault(action: PutItems) -> str:
    if action.queue.endswith(DEAD):
        return f"only dead letters get into {action.queue}: put into {action.queue[: -len(DEAD)]}"
    fault = _count_fault("items", len(action.items))
    for item in action.items:
        if len(item.value) > ITEM_BYTES_MAX:
            fault = f"an item has at most {ITEM_BYTES_MAX} bytes, not {len(item.value)}"
        elif item.key and not 0 < utf8_bytes(item.key) <= KEY_BYTES_MAX:
            fault = f"the key of an item has at most {KEY_BYTES_MAX} bytes of UTF-8"
        elif abs(item.priority) > PRIORITY_MAX:
            fault = f"a priority is a number from -{PRIORITY_MAX} to {PRIORITY_MAX}"
        fault = fault or _span_fault("delay", item.delay_ms, 0)
    size = sum(len(item.value) for item in action.items)
    if size > BATCH_BYTES_MAX:
        fault = fault or f"the items of one put have at most {BATCH_BYTES_MAX} bytes, not {size}"
    return fault


def _take_fault(action: TakeItems) -> str:
    fault = _claim_fault(action.claim) or _count_fault("items", action.count)
    if fault:
        return fault
    if not action.visibility_ms and not action.lease:
        return "without a lease taken items need a visibility"
    least = VISIBILITY_MS_MIN if action.visibility_ms else 0
    return _span_fault("visibility", action.visibility_ms, least) or _span_fault(
        "wait", action.wait_ms, 0
    )


def _configure_fault(action: ConfigureQueue) -> str:
    if action.queue.endswith(DEAD):
        return "dead letters may be delivered as often as it takes"
    if not 0 <= action.max_deliveries <= DELIVERIES_MAX:
        return f"an item is delivered at most 1 to {DELIVERIES_MAX} times; 0: without a bound"
    return ""


def _redrive_fault(action: RedriveItems) -> str:
    if action.queue.endswith(DEAD):
        return f"dead letters go back to their queue: name that, without {DEAD}"
    return _count_fault("items", action.count)


def _receipts_fault(receipts: tuple[Receipt, ...]) -> str:
    return _count_fault("receipts", len(receipts))


def _count_fault(what: str, count: int) -> str:
    return "" if 0 < count <= BATCH_ITEMS_MAX else f"1 to {BATCH_ITEMS_MAX} {what}, not {count}"


def _claim_fault(claim: str) -> str:
    return "" if is_id(claim) else "a claim is 32 hex digits"


def _span_fault(what: str, span_ms: int, least_ms: int) -> str:
    if least_ms <= span_ms <= SPAN_MS_MAX:
        return ""
    return f"a {what} lasts {least_ms} to {SPAN_MS_MAX} ms, not {span_ms}"
