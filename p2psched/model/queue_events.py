"""What follows from actions on queues: events of the ledger."""

from __future__ import annotations

from p2psched.model.aside import Aside
from p2psched.model.queue_actions import Receipt


class ItemsGiven(Aside, frozen=True, array_like=True, gc=False, tag=70):
    """A claim has got items, and waits no more if it did."""

    queue: str
    claim: str
    receipts: tuple[Receipt, ...]


class WaitEnded(Aside, frozen=True, array_like=True, gc=False, tag=71):
    """A claim waits no more, and has got nothing."""

    claim: str


class ItemDied(Aside, frozen=True, array_like=True, gc=False, tag=72):
    """It was delivered too often, and is a dead letter, with another id."""

    queue: str
    id: int
    letter: int  # its id among the dead letters
    deliveries: int


class QueueHandled(Aside, frozen=True, array_like=True, gc=False, tag=73):
    """Somebody did something to a queue as a whole. `how`: purged, redriven or deleted."""

    queue: str
    how: str
    count: int = 0  # of items


QueueEvent = ItemsGiven | WaitEnded | ItemDied | QueueHandled
