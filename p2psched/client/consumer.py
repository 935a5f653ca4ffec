"""The life of a client as a consumer of queues: what it has taken comes back when it is gone."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from p2psched.client.leases import Lease, Leases
from p2psched.model.errors import P2PSchedError
from p2psched.model.lease_actions import LeaseId

TTL_MS: Final = 15_000  # after a client died, before its items are for others
CLOSE_S: Final = 1.0


class Consumer:
    """One lease for all that a client takes, from the first time on."""

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self._lease: Lease | None = None
        self._taking = asyncio.Lock()

    async def lease(self) -> LeaseId:
        async with self._taking:
            if self._lease is None or not self._lease.is_held:
                self._lease = await self._leases.take(TTL_MS)
            return self._lease.id

    def drop_lease(self) -> None:
        """The ledger says that it is over."""
        self._lease = None

    async def close(self) -> None:
        """What was taken and not settled is for others at once, if somebody can be told."""
        lease, self._lease = self._lease, None
        if lease is not None:
            with contextlib.suppress(P2PSchedError, TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await lease.end()
