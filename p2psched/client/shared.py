"""What programs share through the ledger: the part of a client that is not about jobs."""

from __future__ import annotations

from abc import ABC, abstractmethod

from p2psched.client.durations import Duration, duration_ms
from p2psched.client.keys import Keys
from p2psched.client.leases import Lease
from p2psched.client.queues import Queue, list_queues
from p2psched.client.session import Session
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
