"""What programs share through the ledger: the part of a client that is not about jobs."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import Final

from p2psched.client.keys import Keys
from p2psched.client.leases import Lease
from p2psched.client.session import Session
from p2psched.model.errors import UsageError

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_UNIT_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}


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

    async def lease(self, ttl: str | float = "30s") -> Lease:
        """A life that keys, locks and items of queues may hang on: renewed while this client lives
        and reaches the cluster, and over within `ttl` ("30s", or seconds) if not."""
        return await self.session.leases.take(duration_ms(ttl))


def duration_ms(duration: str | float) -> int:
    """Of "1.5s", "200ms", "5m", "2h", or of seconds. Raises UsageError."""
    if isinstance(duration, str):
        found = _DURATION.fullmatch(duration.strip())
        if found is None:
            raise UsageError(f"{duration!r} is no duration: write it like 30s, 200ms, 5m or 2h")
        return round(float(found[1]) * _UNIT_MS[found[2]])
    if not 0 <= duration < 10**9:
        raise UsageError(f"{duration} is no duration in seconds")
    return round(duration * 1_000)
