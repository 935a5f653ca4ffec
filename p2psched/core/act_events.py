"""What happens to leases, and to what hangs on them, as public events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from p2psched.model.commands import Event
from p2psched.model.event_messages import Value
from p2psched.model.ids import JobId, PeerId
from p2psched.model.key_actions import KeyChanged
from p2psched.model.lease_actions import LeaseBegan, LeaseEnded
from p2psched.model.lock_actions import LockEnded, LockGranted
from p2psched.model.queue_events import ItemDied, ItemsGiven, QueueHandled, WaitEnded
from p2psched.model.taskset import EMPTY, TaskSet

# What a maker gives: kind, job, peer, tasks, further fields.
Said = tuple[str, JobId | None, PeerId | None, TaskSet, dict[str, Value]]
Make = Callable[[Event], Said]

ACT_KINDS: Final = (
    "key.put",
    "key.deleted",
    "lease.began",
    "lease.ended",
    "lock.granted",
    "lock.released",
    "lock.withdrawn",
    "queue.given",
    "queue.wait-ended",
    "queue.item-died",
    "queue.purged",
    "queue.redriven",
    "queue.deleted",
)


def _said(kind: str, **data: Value) -> Said:
    return kind, None, None, EMPTY, data


def _lease_began(event: Event) -> Said:
    assert isinstance(event, LeaseBegan)
    return _said("lease.began", lease=event.lease, ttl_ms=event.ttl_ms, owner=event.owner)


def _lease_ended(event: Event) -> Said:
    assert isinstance(event, LeaseEnded)
    return _said("lease.ended", lease=event.lease, expired=event.expired)


def _lock_granted(event: Event) -> Said:
    assert isinstance(event, LockGranted)
    return _said(
        "lock.granted",
        lock=event.name,
        claim=event.claim,
        token=event.token,
        by=event.label,
        shared=event.shared,
    )


def _lock_ended(event: Event) -> Said:
    """Of one that only waited: withdrawn."""
    assert isinstance(event, LockEnded)
    data: dict[str, Value] = {"lock": event.name, "claim": event.claim, "by": event.label}
    if not event.token:
        return _said("lock.withdrawn", **data, lease_over=event.lease_over)
    return _said("lock.released", **data, token=event.token, lease_over=event.lease_over)


def _lock_claims(event: Event) -> tuple[str, ...]:
    assert isinstance(event, LockGranted | LockEnded)
    return (event.claim,)


def _given(event: Event) -> Said:
    assert isinstance(event, ItemsGiven)
    items = [str(number) for number, _ in event.receipts]
    return _said("queue.given", queue=event.queue, claim=event.claim, items=items)


def _wait_ended(event: Event) -> Said:
    assert isinstance(event, WaitEnded)
    return _said("queue.wait-ended", claim=event.claim)


def _item_died(event: Event) -> Said:
    assert isinstance(event, ItemDied)
    return _said(
        "queue.item-died",
        queue=event.queue,
        item=event.id,
        letter=event.letter,
        deliveries=event.deliveries,
    )


def _queue_handled(event: Event) -> Said:
    assert isinstance(event, QueueHandled)
    return _said(f"queue.{event.how}", queue=event.queue, items=event.count)


def _claims_given(event: Event) -> tuple[str, ...]:
    assert isinstance(event, ItemsGiven | WaitEnded)
    return (event.claim,)


# Who waits for a claim hears of these events of it.
CLAIMS: Final[dict[type[Event], Callable[[Event], tuple[str, ...]]]] = {
    LockGranted: _lock_claims,
    LockEnded: _lock_claims,
    ItemsGiven: _claims_given,
    WaitEnded: _claims_given,
}


def _key_changed(event: Event) -> Said:
    assert isinstance(event, KeyChanged)
    kind = "key.deleted" if event.value is None else "key.put"
    lease = event.lease or ""
    return _said(kind, key=event.key, created=event.created, lease=lease)


ACT_EVENTS: Final[dict[type[Event], Make]] = {
    KeyChanged: _key_changed,
    LeaseBegan: _lease_began,
    LeaseEnded: _lease_ended,
    LockGranted: _lock_granted,
    LockEnded: _lock_ended,
    ItemsGiven: _given,
    WaitEnded: _wait_ended,
    ItemDied: _item_died,
    QueueHandled: _queue_handled,
}
