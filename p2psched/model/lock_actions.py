"""Locks: what a client may do with one, what it is answered, and what others learn of it.

A claim is one wish for a lock, named by who has it, so that asking again is the same wish. It holds
the lock, or waits for its turn. `token` is the fence of a claim that holds: it only rises, so that
who guards a resource can refuse whoever comes with a lower one than it has seen.
"""

from __future__ import annotations

from typing import Final

import msgspec

from p2psched.model.aside import Aside
from p2psched.model.ids import is_id
from p2psched.model.lease_actions import LeaseId
from p2psched.model.text import utf8_bytes

# Beyond each of these a claim is refused with a message that names the limit.
LOCKS_MAX: Final = 16_384  # that somebody holds or waits for; others take no room
CLAIMS_MAX: Final = 65_536
WAITERS_MAX: Final = 4_096  # for one lock
LOCK_NAME_BYTES_MAX: Final = 256
LOCK_CAPACITY_MAX: Final = 65_536
LABEL_LEN_MAX: Final = 128
OWNER_LEN_MAX: Final = 32

ClaimId = str  # 32 hex digits that its holder has drawn
OwnerId = str


class AcquireLock(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=20):
    """Hold a lock as long as `lease` lasts, or wait for one's turn.

    `owner`: who can do nothing else while it waits for this; so that a circle of such is found.
    Empty: nobody says so. All who take a lock name the same capacity while it is in use."""

    name: str
    claim: ClaimId
    lease: LeaseId
    owner: OwnerId = ""
    capacity: int = 1
    permits: int = 1  # of the capacity
    shared: bool = False  # with others that share; only of a lock with capacity 1
    wait: bool = True
    label: str = ""  # who it is, for people


class ReleaseLock(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=21):
    """Let go, or don't wait any more. Without a claim the one with this token is meant."""

    name: str
    claim: ClaimId = ""
    token: int = 0


LockAction = AcquireLock | ReleaseLock


class LockHeld(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=20):
    token: int


class LockWaiting(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=21):
    position: int  # 1 is next


class LockBusy(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=22):
    """The answer to who doesn't want to wait. Nothing has changed."""

    holders: tuple[str, ...]  # labels of the first few
    waiters: int


class LockReleased(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=23):
    was_there: bool  # it held, or waited, until now


LockAnswer = LockHeld | LockWaiting | LockBusy | LockReleased


class LockGranted(Aside, frozen=True, array_like=True, gc=False, tag=65):
    name: str
    claim: ClaimId
    token: int
    label: str
    shared: bool


class LockEnded(Aside, frozen=True, array_like=True, gc=False, tag=66):
    """A claim is over."""

    name: str
    claim: ClaimId
    token: int  # 0: it only waited
    label: str
    lease_over: bool  # nobody released it


LockEvent = LockGranted | LockEnded


def fault_of(action: LockAction) -> str:
    """Why nobody should propose it; empty if it is well."""
    if isinstance(action, ReleaseLock):
        return ""
    fault = fault_of_name(action.name)
    if fault:
        return fault
    if _has_control(action.label):
        return f"who takes a lock is told without control characters: {action.label!r}"
    if not is_id(action.claim) or len(action.owner) > OWNER_LEN_MAX:
        return f"a claim is 32 hex digits, and its owner up to {OWNER_LEN_MAX} characters"
    if not 1 <= action.capacity <= LOCK_CAPACITY_MAX:
        return f"the capacity of a lock is 1 to {LOCK_CAPACITY_MAX}, not {action.capacity}"
    if not 1 <= action.permits <= action.capacity:
        return f"lock {action.name} has capacity {action.capacity}: {action.permits} never fit"
    if action.shared and action.capacity != 1:
        return f"lock {action.name} is counted ({action.capacity}): it can't be shared as well"
    if len(action.label) > LABEL_LEN_MAX:
        return f"who takes a lock is told with at most {LABEL_LEN_MAX} characters"
    return ""


def fault_of_name(name: str) -> str:
    if not 0 < utf8_bytes(name) <= LOCK_NAME_BYTES_MAX:
        return f"the name of a lock has 1 to {LOCK_NAME_BYTES_MAX} bytes of UTF-8"
    if _has_control(name):
        return f"the name of a lock has no control characters: {name!r}"
    return ""


def _has_control(text: str) -> bool:
    """Not `isprintable`: peers whose interpreters know different editions of Unicode must agree."""
    return any(mark < " " or mark == "\x7f" for mark in text)
