"""Calls about locks that change nothing: to wait for one's turn, and to look."""

from __future__ import annotations

import msgspec

from p2psched.model.lock_actions import ClaimId, LockHeld, LockWaiting


class AwaitLock(msgspec.Struct, frozen=True, array_like=True, tag=96):
    """Answered as soon as the claim doesn't wait any more, at the latest after `wait_ms`."""

    claim: ClaimId
    wait_ms: int = 0


class ListLocks(msgspec.Struct, frozen=True, array_like=True, tag=97):
    """Locks in use, by name: those that start so, behind `after`."""

    prefix: str = ""
    after: str = ""
    limit: int = 100


class LockNow(msgspec.Struct, frozen=True, array_like=True, tag=96):
    standing: LockHeld | LockWaiting | None  # None: the claim is over, or there never was one


class ClaimView(msgspec.Struct, frozen=True, array_like=True):
    claim: ClaimId
    label: str
    token: int  # 0 while it waits
    shared: bool
    permits: int


class LockView(msgspec.Struct, frozen=True, array_like=True):
    """Of long rows only the first are told."""

    name: str
    capacity: int
    holders: tuple[ClaimView, ...]
    held_count: int
    waiters: tuple[ClaimView, ...]
    waiting_count: int


class LockList(msgspec.Struct, frozen=True, array_like=True, tag=97):
    locks: tuple[LockView, ...]
    more: bool
