"""What a peer tells of queues: what claims have, and what is where.

Nobody polls for items: who waits is in the ledger, and here is woken by the entry that gives it
something.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from p2psched.core.queue_state import Item, Queue
from p2psched.core.state import LedgerState
from p2psched.model.act_messages import DidSo
from p2psched.model.actions import ActionAnswer
from p2psched.model.errors import NotFound
from p2psched.model.queue_actions import ItemsTaken, TakeItems, TakenItem
from p2psched.model.queue_messages import (
    ITEMS_LISTED_MAX,
    QUEUES_LISTED_MAX,
    SHOWN_BYTES_MAX,
    AwaitItems,
    ItemList,
    ItemView,
    ListItems,
    ListQueues,
    QueueCall,
    QueueList,
    QueueView,
)
from p2psched.peer.scheduler_loop import SchedulerLoop

WAIT_MS_MAX: Final = 20_000  # in one call: a peer that is cut off says so then


class QueuesApi:
    """A part of the API, see `peer.api`."""

    def __init__(self, scheduling: SchedulerLoop, linearize: Callable[[], Awaitable[None]]) -> None:
        self._wakes = scheduling.wakes
        self._machine = scheduling.scheduler.machine
        self._linearize = linearize

    async def answer(self, body: QueueCall) -> DidSo | QueueList | ItemList:
        """Raises a P2PSchedError for the caller."""
        await self._linearize()
        match body:
            case AwaitItems():
                return DidSo(await self._await(body))
            case ListQueues(after=after, limit=limit):
                return list_queues(self._machine, after, max(1, min(limit, QUEUES_LISTED_MAX)))
            case ListItems(queue=name, after=number, limit=limit):
                return list_items(self._machine, name, number, max(1, min(limit, ITEMS_LISTED_MAX)))

    async def _await(self, body: AwaitItems) -> ItemsTaken:
        try:
            async with asyncio.timeout(min(body.wait_ms, WAIT_MS_MAX) / 1000):
                while (held := held_by(self._machine, body.claim)).waits:
                    await self._wakes.wait(body.claim)
        except TimeoutError:
            # Cut off from the others it would not hear of it: then another peer is asked.
            await self._linearize()
            held = held_by(self._machine, body.claim)
        return held


def told(s: LedgerState, take: TakeItems | None, answer: ActionAnswer) -> ActionAnswer:
    """What a client is told of an act: with the items that it was given. Values are in the state,
    and in no outcome."""
    if take is None or not isinstance(answer, ItemsTaken) or answer.waits:
        return answer
    return held_by(s, take.claim)


def held_by(s: LedgerState, name: str) -> ItemsTaken:
    claim = s.queue_claims.get(name)
    if claim is None:
        return ItemsTaken((), waits=False)
    items = [s.queue_items[(claim.queue, number)] for number in claim.held]
    taken = tuple(_taken(item, claim.visibility_ms) for item in items)
    return ItemsTaken(claim.held, waits=not claim.held, items=taken)


def _taken(item: Item, for_ms: int) -> TakenItem:
    return TakenItem(
        *(item.id, item.receipt, item.value, item.priority, item.key, item.deliveries),
        *(item.put_wall_ms, for_ms, item.origin, item.died_after),
    )


def list_queues(s: LedgerState, after: str, limit: int) -> QueueList:
    names = sorted(name for name in s.queues.queues if name > after)
    views = tuple(_view(s.queues.queues[name]) for name in names[:limit])
    return QueueList(views, more=len(names) > limit)


def _view(queue: Queue) -> QueueView:
    return QueueView(
        *(queue.name, len(queue.items), queue.in_flight, len(queue.takers), queue.bytes),
        *(queue.head.next_id - 1, queue.head.max_deliveries),
    )


def list_items(s: LedgerState, name: str, after: int, limit: int) -> ItemList:
    queue = s.queues.queues.get(name)
    if queue is None:
        raise NotFound(f"no queue {name}: `p2psched queue list` names them")
    found = [item for number, item in queue.items.items() if number > after]
    views = tuple(_item_view(queue, item) for item in found[:limit])
    return ItemList(views, more=len(found) > limit)


def _item_view(queue: Queue, item: Item) -> ItemView:
    state = "ready" if queue.is_ready(item) else "behind"
    if item.receipt:
        state = "in flight"
    elif item.due_ms:
        state = "delayed"
    return ItemView(
        *(item.id, state, item.priority, item.key, item.deliveries, item.receipt),
        *(item.put_wall_ms, len(item.value), item.value[:SHOWN_BYTES_MAX]),
        *(item.origin, item.died_after),
    )
