"""Locks: `async with client.lock("prod-db") as lock`, and what is inside is nobody else's.

As sure as clocks are: a holder that is frozen, or whose write is under way, may be late, and the
lock be somebody else's by then. Who guards the resource keeps it out by `lock.token`, which only
rises: refuse a token that is lower than one that was seen (`docs/locks.md`).
"""

from __future__ import annotations

import asyncio
import re
from types import TracebackType
from typing import Final

import msgspec

from p2psched.client.claims import Busy, Claims, HeldClaim
from p2psched.model.errors import LockLost, TimedOut, UsageError
from p2psched.model.lease_actions import LeaseId
from p2psched.model.lock_actions import AcquireLock, ClaimId, OwnerId

COUNT_MAX: Final = 1_000  # in `name:count`: what is higher may be a port that is part of the name
_COUNTED: Final = re.compile(r"(.+):(\d{1,20})", re.DOTALL)


def named(name: str, capacity: int | None = None) -> tuple[str, int]:
    """Name and capacity of `license:3`; a name as it is if the capacity is given beside it. Raises
    UsageError for what may be meant as either."""
    counted = _COUNTED.fullmatch(name)
    if capacity is not None or counted is None:
        return name, 1 if capacity is None else capacity
    count = int(counted[2])
    if not 1 <= count <= COUNT_MAX:
        raise UsageError(
            f"{name} would be a lock {counted[1]} that {count} may hold at a time: if that is its "
            "name, give the capacity (1) beside it"
        )
    return counted[1], count


class Lock:
    """One hold on a lock, see the module. Made by `client.lock`; a context manager, or `acquire`
    and `release`. After `release` it can be taken again, under a new token."""

    def __init__(
        self,
        claims: Claims,
        wish: AcquireLock,
        *,
        ttl_ms: int,
        timeout_s: float | None,
        cancel: bool,
    ) -> None:
        self.name: Final = wish.name
        self.lost: Final = asyncio.Event()  # the lease is lost: somebody else may hold it
        self._claims = claims
        self._wish = wish
        self._ttl_ms = ttl_ms
        self._timeout_s = timeout_s
        self._cancels = cancel
        self._owner = wish.owner
        self._held: HeldClaim | None = None
        self._body: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._is_cut = False  # the body was cancelled because of the loss

    @property
    def token(self) -> int:
        """The fence. Raises UsageError if it isn't held, and never was."""
        if self._held is None:
            raise UsageError(f"lock {self.name} is not held: `async with client.lock(...) as lock`")
        return self._held.token

    @property
    def claim(self) -> ClaimId:
        """As `p2psched lock list` shows it; empty if it isn't held."""
        return self._held.id if self._held is not None else ""

    @property
    def lease(self) -> LeaseId:
        """What it hangs on, together with other locks of this client; empty if it isn't held."""
        return self._held.footing.lease.id if self._held is not None else ""

    @property
    def owner(self) -> OwnerId:
        """Who waits when this waits: a program that takes locks for this one says the same."""
        return self._owner

    @property
    def is_held(self) -> bool:
        """True if it is certain that nobody else holds it now."""
        return self._held is not None and self._held.footing.lease.is_held

    async def acquire(self) -> int:
        """Wait for one's turn; the token. Raises TimedOut, Deadlock (let go of what you hold, and
        begin again), UsageError, Refused, Unavailable."""
        if self._held is not None:
            raise UsageError(f"this holds lock {self.name} already: release it first")
        self.lost.clear()
        self._owner = self._wish.owner or self._claims.this_task()
        wish = msgspec.structs.replace(self._wish, owner=self._owner)
        try:
            async with asyncio.timeout(self._timeout_s):
                self._held = await self._claims.acquire(wish, self._ttl_ms, self._on_lost)
        except Busy as busy:
            more = busy.answer.waiters
            waiting = f", and {more} wait for it" if more else ""
            raise TimedOut(
                f"lock {self.name} is held by {' and '.join(busy.answer.holders)}{waiting}"
            ) from None
        except TimeoutError as error:
            raise TimedOut(
                f"lock {self.name} did not come free within {self._timeout_s:g} s: "
                "`p2psched lock list` tells who holds it"
            ) from error
        return self._held.token

    async def release(self) -> None:
        """Whoever is next holds it then. Nothing to do if it is lost, or isn't held."""
        held, self._held = self._held, None
        if held is not None:
            await self._claims.release(held)

    async def leave(self) -> None:
        """Hold it for its time to live from now on, and don't renew it: for who goes and comes
        back. Nothing says any more that it is lost."""
        held, self._held = self._held, None
        if held is None:
            raise UsageError(f"lock {self.name} is not held")
        await self._claims.leave(held)

    def _on_lost(self) -> None:
        self.lost.set()
        if self._body is not None and self._cancels and not self._is_cut:
            self._is_cut = True
            self._body.cancel()

    async def __aenter__(self) -> Lock:
        await self.acquire()
        body = asyncio.current_task()
        assert body is not None
        self._body, self._cancelling, self._is_cut = body, body.cancelling(), False
        if self.lost.is_set():  # meanwhile
            self._on_lost()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        body, self._body = self._body, None
        assert body is not None
        if not self._is_cut:
            await self.release()
            return
        held, self._held = self._held, None
        if held is not None:
            self._claims.release_later(held)
        is_ours = body.uncancel() <= self._cancelling
        if kind is None:  # it ended before the cancel reached it, which is still to come
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                if not is_ours:
                    raise
        if is_ours and (kind is None or issubclass(kind, asyncio.CancelledError)):
            raise LockLost(
                f"lock {self.name} was lost: its lease could not be renewed in time, and somebody "
                "else may hold it"
            ) from error
