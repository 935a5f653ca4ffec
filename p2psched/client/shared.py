"""What programs share through the ledger: the part of a client that is not about jobs."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod

from p2psched.client.durations import Duration, duration_ms
from p2psched.client.find import who_am_i
from p2psched.client.keys import Keys
from p2psched.client.leases import Lease
from p2psched.client.locks import Lock, named
from p2psched.client.queues import Queue, list_queues
from p2psched.client.session import Session
from p2psched.model.lock_actions import LABEL_LEN_MAX, AcquireLock, LockReleased, ReleaseLock
from p2psched.model.lock_messages import ListLocks, LockList, LockView
from p2psched.model.queue_messages import QueueView


class Shared(ABC):
    """A base of `Client`."""

    @property
    @abstractmethod
    def session(self) -> Session:
        """For calls that have no method here."""

    @property
    def kv(self) -> Keys:
        """Keys and their values, with versions: `await client.kv.put("a", 1)`."""
        return Keys(self.session)

    def queue(self, name: str, *, visibility: Duration | None = "30s") -> Queue:
        """Items that are given to one consumer at a time, until one of them acks it:
        `await client.queue("orders").put(7)`. `visibility`: what is taken comes back after so long;
        None: not as long as this client lives."""
        return Queue(self.session, name, visibility=visibility)

    async def queues(self) -> list[QueueView]:
        """By name."""
        return await list_queues(self.session)

    async def lease(self, ttl: Duration = "30s") -> Lease:
        """A life that keys, locks and items of queues may hang on: renewed while this client lives
        and reaches the cluster, and over within `ttl` ("30s", or seconds) if not."""
        return await self.session.leases.take(duration_ms(ttl))

    def lock(
        self,
        name: str,
        *,
        ttl: str | float = "30s",
        timeout: float | None = None,
        wait: bool = True,
        shared: bool = False,
        capacity: int | None = None,
        permits: int = 1,
        owner: str = "",
        cancel: bool = True,
    ) -> Lock:
        """A lock to be held: `async with client.lock("prod-db") as lock`, with `lock.token` for
        whatever guards the resource. Nobody overtakes anybody.

        `ttl`: how soon it is passed on if this client dies or is cut off. If it is lost before the
        block ends, `lock.lost` is set, the block is cancelled (unless `cancel` is False) and
        raises LockLost. `timeout`: seconds, then TimedOut; so does `wait=False` if it is not free.
        `shared`: together with others that share it. "license:3" may be held three times, if all
        who take it say so; `capacity` says it beside the name, of which a hold takes `permits`.
        `owner`: who waits here does nothing else meanwhile, so that a deadlock is found; by default
        the asyncio task. Raises Deadlock if this would wait for ever.
        """
        name, capacity = named(name, capacity)
        wish = AcquireLock(
            name=name,
            claim="",
            lease="",
            owner=owner,
            capacity=capacity,
            permits=permits,
            shared=shared,
            wait=wait,
            label=f"{who_am_i()} {os.getpid()}"[:LABEL_LEN_MAX],
        )
        ttl_ms = duration_ms(ttl)
        return Lock(self.session.claims, wish, ttl_ms=ttl_ms, timeout_s=timeout, cancel=cancel)

    async def locks(self, prefix: str = "", *, limit: int = 100) -> list[LockView]:
        """Locks that are held, by name: by whom, and how many wait."""
        found: list[LockView] = []
        while True:
            after = found[-1].name if found else ""
            asked = ListLocks(prefix, after, limit - len(found))
            page = await self.session.call(asked, LockList)
            found += page.locks
            if not page.more or len(found) >= limit:
                return found

    async def release_lock(self, name: str, *, claim: str = "", token: int = 0) -> bool:
        """Let go of a lock for whoever took it, or end its waiting; False if there is no such
        claim. Its holder is told only by who guards the resource."""
        action = ReleaseLock(name, claim, token)
        return (await self.session.acting.act(action, LockReleased)).was_there
