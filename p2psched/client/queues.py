"""Queues of the ledger for a program: `client.queue("orders")`.

Values are what MessagePack can hold (None, bool, numbers, str, bytes, lists, dicts), up to 256 KiB;
a tuple comes back as a list. An item that was put is not lost, and is somebody's until it is acked:
delivery is at least once. Whose receipt is over hears so (`Redelivered`) and has changed nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Final, overload

import msgspec

from p2psched.client.durations import Duration, duration_ms
from p2psched.client.session import Session
from p2psched.model.act_messages import DidSo
from p2psched.model.errors import (
    Forgotten,
    NotFound,
    P2PSchedError,
    Redelivered,
    UsageError,
)
from p2psched.model.ids import new_id
from p2psched.model.queue_actions import (
    DEAD,
    AckItems,
    ConfigureQueue,
    DeleteQueue,
    ExtendItems,
    ItemsPut,
    ItemsSettled,
    ItemsTaken,
    NackItems,
    NewItem,
    PurgeQueue,
    PutItems,
    QueueChanged,
    Receipt,
    RedriveItems,
    StopTaking,
    TakeItems,
    TakenItem,
)
from p2psched.model.queue_messages import (
    AwaitItems,
    ItemList,
    ItemView,
    ListItems,
    ListQueues,
    QueueList,
    QueueView,
)

WAIT_MS: Final = 10_000  # in one call: a peer that is cut off says so then
ROW_MS: Final = 3_600_000  # in the ledger, before a consumer takes its place anew
STOP_S: Final = 2.0  # for a consumer that goes to say so; else its lease or its time ends
REDRIVE_MAX: Final = 1_000  # in one act


class Item:
    """One delivery. As a context manager it is acked at the end, or nacked if an error leaves."""

    def __init__(self, queue: Queue, taken: TakenItem) -> None:
        self._queue = queue
        self._taken = taken

    def __repr__(self) -> str:
        return f"<Item {self.id} of {self._queue.name}, delivery {self.deliveries}>"

    @property
    def id(self) -> int:
        return self._taken.id

    @property
    def receipt(self) -> int:
        """Of this delivery: it only rises, so it is a fence."""
        return self._taken.receipt

    @property
    def value(self) -> object:
        return value_of(self._taken.value)

    @property
    def key(self) -> str | None:
        return self._taken.key or None

    @property
    def priority(self) -> int:
        return self._taken.priority

    @property
    def deliveries(self) -> int:
        """With this one."""
        return self._taken.deliveries

    @property
    def put_wall_ms(self) -> int:
        """Unix time at which it was put, for people."""
        return self._taken.put_wall_ms

    @property
    def origin(self) -> int | None:
        """Of a dead letter: its id in the queue where it died."""
        return self._taken.origin or None

    @property
    def died_after(self) -> int | None:
        """Of a dead letter: how often it was delivered before."""
        return self._taken.died_after or None

    async def ack(self) -> None:
        """It is done, and gone. Raises Redelivered."""
        await self._queue.ack(self)

    async def nack(self, delay: Duration | None = None) -> None:
        """Others may have it, at once or after a while. Raises Redelivered."""
        await self._queue.nack(self, delay=delay)

    async def extend(self, visibility: Duration | None = None) -> None:
        """It is ours for so long from now on. Raises Redelivered."""
        await self._queue.extend(self, visibility=visibility)

    async def __aenter__(self) -> Item:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            await self.ack()
        else:
            with contextlib.suppress(P2PSchedError):  # the error that leaves says more
                await self.nack()


class Queue:
    """A name, and what is done with it: made without asking anybody."""

    def __init__(self, session: Session, name: str, *, visibility: Duration | None) -> None:
        self.name: Final = name
        self._session = session
        self._visibility = visibility
        self._rng = random.SystemRandom()

    # --- putting ----------------------------------------------------------------------------------

    async def put(
        self,
        value: object,
        *,
        priority: int = 0,
        key: str | None = None,
        delay: Duration | None = None,
    ) -> int:
        """Its id: 1, 2, 3 ... without gaps. Higher priorities are given first. Items of one `key`
        are given one at a time, in the order of their ids. With a `delay` nobody gets it before."""
        return (await self.put_many([value], priority=priority, key=key, delay=delay))[0]

    async def put_many(
        self,
        values: Sequence[object],
        *,
        priority: int = 0,
        key: str | None = None,
        delay: Duration | None = None,
    ) -> range:
        """All of them, or none, as one; their ids. Up to 1,000 with 512 KiB."""
        delay_ms = duration_ms(delay) if delay is not None else 0
        items = [NewItem(_packed(value), priority, key or "", delay_ms) for value in values]
        done = await self._session.acting.act(PutItems(self.name, tuple(items)), ItemsPut)
        return range(done.first, done.first + len(items))

    # --- taking -----------------------------------------------------------------------------------

    @overload
    async def get(
        self, *, wait: None = None, visibility: Duration | None = ..., outlives: bool = ...
    ) -> Item: ...

    @overload
    async def get(
        self, *, wait: Duration, visibility: Duration | None = ..., outlives: bool = ...
    ) -> Item | None: ...

    async def get(
        self,
        *,
        wait: Duration | None = None,
        visibility: Duration | None = "",
        outlives: bool = False,
    ) -> Item | None:
        """The next item, as soon as there is one; with `wait` None after so long, with `wait=0` at
        once. It is ours for `visibility`, and not longer than this client lives (unless it
        `outlives` that); None: as long as this client lives."""
        items = await self.get_many(1, wait=wait, visibility=visibility, outlives=outlives)
        return items[0] if items else None

    async def get_many(
        self,
        count: int,
        *,
        wait: Duration | None = None,
        visibility: Duration | None = "",
        outlives: bool = False,
    ) -> list[Item]:
        """As `get`, up to `count` items (and 512 KiB) as soon as there is one."""
        visible = self._visibility if visibility == "" else visibility
        visible_ms = duration_ms(visible) if visible is not None else 0
        loop = asyncio.get_running_loop()
        until_s = loop.time() + duration_ms(wait) / 1_000 if wait is not None else None
        while True:
            left_ms = ROW_MS
            if until_s is not None:
                left_ms = max(0, min(ROW_MS, round((until_s - loop.time()) * 1_000)))
            claim = new_id(self._rng)
            taken = await self._take(
                TakeItems(self.name, claim, count, visible_ms, left_ms), leased=not outlives
            )
            is_over = until_s is not None and loop.time() >= until_s
            if taken or (is_over and taken is not None):
                return [Item(self, one) for one in taken]

    async def _take(self, action: TakeItems, *, leased: bool) -> tuple[TakenItem, ...] | None:
        """What a claim of ours was given, nothing if its wait has ended; None: ask anew."""
        consumer = self._session.consumer
        try:
            if leased:
                action = msgspec.structs.replace(action, lease=await consumer.lease())
            taken = await self._session.acting.act(action, ItemsTaken)
            while taken.waits:
                wait = AwaitItems(action.claim, WAIT_MS)
                answer = (await self._session.call(wait, DidSo)).answer
                assert isinstance(answer, ItemsTaken)
                taken = answer
        except NotFound:  # the lease has ended: we were cut off, or asleep
            consumer.drop_lease()
            return None
        except Forgotten:
            await self._stop(action.claim)
            return None
        except BaseException:
            await self._stop(action.claim)
            raise
        return taken.items

    async def _stop(self, claim: str) -> None:
        """What it was given meanwhile is for others at once."""
        with contextlib.suppress(P2PSchedError, TimeoutError):
            async with asyncio.timeout(STOP_S):
                await self._session.acting.act(StopTaking(claim), QueueChanged)

    async def __aiter__(self) -> AsyncIterator[Item]:
        """One item after another, for ever. Ack each, or use it as a context manager."""
        while True:
            yield await self.get()

    # --- settling ---------------------------------------------------------------------------------

    async def ack(self, *items: Item | Receipt) -> None:
        """They are done, and gone. Raises Redelivered if one is not ours any more; the others are
        acked all the same."""
        receipts = tuple(map(_receipt, items))
        await self._settle(AckItems(self.name, receipts))

    async def nack(self, *items: Item | Receipt, delay: Duration | None = None) -> None:
        """Others may have them, in their old places. Each delivery counts: after too many an item
        is a dead letter. Raises as `ack`."""
        delay_ms = duration_ms(delay) if delay is not None else 0
        await self._settle(NackItems(self.name, tuple(map(_receipt, items)), delay_ms))

    async def extend(self, *items: Item | Receipt, visibility: Duration | None = None) -> None:
        """They are ours for so long from now on. Raises as `ack`."""
        visible = self._visibility if visibility is None else visibility
        if visible is None:
            raise UsageError('say for how long: visibility="30s"')
        receipts = tuple(map(_receipt, items))
        await self._settle(ExtendItems(self.name, receipts, duration_ms(visible)))

    async def _settle(self, action: AckItems | NackItems | ExtendItems) -> None:
        settled = await self._session.acting.act(action, ItemsSettled)
        if settled.stale:
            numbers = ", ".join(map(str, settled.stale))
            raise Redelivered(
                f"item {numbers} of queue {self.name} is not ours any more: its time had passed, "
                "and it is with somebody else, waits again, or is done",
                items=settled.stale,
            )

    # --- the whole --------------------------------------------------------------------------------

    @property
    def dead(self) -> Queue:
        """Its dead letters: take and ack them as other items; `redrive` puts them back."""
        return Queue(self._session, self.name + DEAD, visibility=self._visibility)

    async def configure(self, *, max_deliveries: int) -> None:
        """After so many deliveries an item that comes back is a dead letter; 0: never. 20, if
        nobody says so."""
        await self._change(ConfigureQueue(self.name, max_deliveries))

    async def purge(self) -> int:
        """Drop all items that nobody has; how many."""
        return await self._change(PurgeQueue(self.name))

    async def delete(self) -> None:
        """Only an empty one that nobody waits at."""
        await self._change(DeleteQueue(self.name))

    async def redrive(self, count: int | None = None) -> int:
        """Put dead letters back, the oldest first, with new ids; how many."""
        moved = 0
        while count is None or moved < count:
            some = REDRIVE_MAX if count is None else min(REDRIVE_MAX, count - moved)
            now = await self._change(RedriveItems(self.name, some))
            moved += now
            if now < some:
                break
        return moved

    async def _change(
        self, action: ConfigureQueue | PurgeQueue | DeleteQueue | RedriveItems
    ) -> int:
        return (await self._session.acting.act(action, QueueChanged)).count

    async def items(self, *, after: int = 0, limit: int = 100) -> list[ItemView]:
        """What is in it, by id, taking nothing."""
        answer = await self._session.call(ListItems(self.name, after, limit), ItemList)
        return list(answer.items)


async def list_queues(session: Session) -> list[QueueView]:
    """By name."""
    found: list[QueueView] = []
    while True:
        after = found[-1].name if found else ""
        page = await session.call(ListQueues(after), QueueList)
        found.extend(page.queues)
        if not page.more:
            return found


def _receipt(item: Item | Receipt) -> Receipt:
    return (item.id, item.receipt) if isinstance(item, Item) else item


def value_of(packed: bytes) -> object:
    """What a value is that was put."""
    value: object = msgspec.msgpack.decode(packed)
    return value


def _packed(value: object) -> bytes:
    try:
        return msgspec.msgpack.encode(value)
    except (TypeError, OverflowError, ValueError) as error:
        raise UsageError(f"the value of an item is nothing for MessagePack: {error}") from error
