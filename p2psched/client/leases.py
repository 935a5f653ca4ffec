"""Leases of a client: renewed while it lives, and it knows in time that one may be lost.

A lease lives in ledger time from when its renewal is committed. Its holder counts from before it
sent that renewal, by a clock that goes on while the machine sleeps, less a margin for clocks that
run apart: so it knows that it may have lost a lease before anybody else is given what hung on it.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable
from types import TracebackType
from typing import Final

from p2psched.client.acting import Acting
from p2psched.client.find import who_am_i
from p2psched.model.errors import P2PSchedError
from p2psched.model.ids import new_id
from p2psched.model.lease_actions import (
    OWNER_LEN_MAX,
    EndLease,
    KeepLeases,
    LeaseId,
    LeaseOver,
    LeasesKept,
    LeaseTaken,
    TakeLease,
    margin_ms,
)
from p2psched.observe.clock import BootClock

LOOK_S: Final = 0.25  # at the clock, which may have leapt; less for short leases
RETRY_MS: Final = 200  # after a renewal that nobody took


class Lease:
    """Held until `lost` is set. Made by `Leases.take`; end it, or use it as a context manager."""

    def __init__(self, leases: Leases, name: LeaseId, ttl_ms: int, until_ms: int) -> None:
        self.id: Final = name
        self.ttl_ms: Final = ttl_ms
        self.lost: Final = asyncio.Event()
        self._leases = leases
        self._until_ms = until_ms
        self.renew_ms = until_ms - ttl_ms + ttl_ms // 3 + margin_ms(ttl_ms)

    @property
    def is_held(self) -> bool:
        """True if it is certain that nobody has seen it end."""
        return not self.lost.is_set() and self._leases.now_ms() < self._until_ms

    def renewed(self, sent_ms: int) -> None:
        self._until_ms = sent_ms + self.ttl_ms - margin_ms(self.ttl_ms)
        self.renew_ms = sent_ms + self.ttl_ms // 3

    async def end(self) -> None:
        """Let go of it, and of all that hangs on it. Nothing to do for one that is lost."""
        await self._leases.end(self)

    async def __aenter__(self) -> Lease:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.end()


class Leases:
    """Of one client. `keep` must run as long as there are any."""

    def __init__(
        self,
        acting: Acting,
        *,
        now_ms: Callable[[], int] | None = None,
    ) -> None:
        self._acting = acting
        self.now_ms: Final = now_ms or BootClock().now_ms
        self._held: dict[LeaseId, Lease] = {}
        self._taken = asyncio.Event()
        self._rng = random.SystemRandom()

    async def take(self, ttl_ms: int) -> Lease:
        """A new one. Raises UsageError, Refused, Unavailable."""
        sent_ms = self.now_ms()
        name = await self.grant(ttl_ms)
        lease = Lease(self, name, ttl_ms, sent_ms + ttl_ms - margin_ms(ttl_ms))
        self._held[name] = lease
        self._taken.set()
        return lease

    async def grant(self, ttl_ms: int) -> LeaseId:
        """A new one that nobody renews: it ends after its time."""
        name = new_id(self._rng)
        owner = f"{who_am_i()} {os.getpid()}"[:OWNER_LEN_MAX]
        await self._acting.act(TakeLease(name, ttl_ms, owner), LeaseTaken)
        return name

    async def end(self, lease: Lease) -> None:
        if self._held.pop(lease.id, None) is not None:
            lease.lost.set()
            await self._acting.act(EndLease(lease.id), LeaseOver)

    async def keep(self) -> None:
        """Renew what is held, until it is cancelled; then all of it is lost sooner or later."""
        async with asyncio.TaskGroup() as group:
            renewing: asyncio.Task[None] | None = None
            while True:
                while not self._held:
                    self._taken.clear()
                    await self._taken.wait()
                self._drop_lost()
                is_due = any(lease.renew_ms <= self.now_ms() for lease in self._held.values())
                if is_due and (renewing is None or renewing.done()):
                    renewing = group.create_task(self._renew())
                shortest_ms = min((lease.ttl_ms for lease in self._held.values()), default=0)
                await asyncio.sleep(min(LOOK_S, shortest_ms / 20_000))

    def _drop_lost(self) -> None:
        for lease in list(self._held.values()):
            if not lease.is_held:
                self._lose(lease)

    def _lose(self, lease: Lease) -> None:
        if self._held.pop(lease.id, None) is not None:
            lease.lost.set()

    async def _renew(self) -> None:
        """All of them in one act: what is not due yet costs next to nothing."""
        leases = list(self._held.values())
        sent_ms = self.now_ms()
        for lease in leases:
            lease.renew_ms = sent_ms + max(RETRY_MS, lease.ttl_ms // 3)
        try:
            kept = await self._acting.act(KeepLeases(tuple(one.id for one in leases)), LeasesKept)
        except P2PSchedError:
            for lease in leases:
                lease.renew_ms = self.now_ms() + RETRY_MS
            return
        gone = set(kept.gone)
        for lease in leases:
            if lease.id in gone:
                self._lose(lease)
            else:
                lease.renewed(sent_ms)
