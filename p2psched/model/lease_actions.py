"""What clients do with leases: a life in ledger time that other things may hang on.

A lease ends when its deadline has passed or its holder says so, and by nothing else. What hangs on
it (keys, locks, items of queues) is let go of in the same command.
"""

from __future__ import annotations

from typing import Final

import msgspec

from p2psched.model.aside import Aside
from p2psched.model.ids import is_id

TTL_MS_MIN: Final = 1_000
TTL_MS_MAX: Final = 24 * 3600 * 1000
LEASES_MAX: Final = 65_536
LEASES_KEPT_MAX: Final = 4_096  # by one action
OWNER_LEN_MAX: Final = 128

LeaseId = str  # 32 hex digits that its holder has drawn


class Enrol(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=8):
    """A client that is about to act for the first time asks for a name to do so under. Again, it
    gets another name, and the first is for nobody."""


class TakeLease(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=1):
    """Begin a lease, or renew it if it is there."""

    lease: LeaseId
    ttl_ms: int
    owner: str = ""  # for people: user@host and process


class KeepLeases(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=2):
    """Renew leases: each lives for its time from now on."""

    leases: tuple[LeaseId, ...]


class EndLease(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=3):
    lease: LeaseId


LeaseAction = Enrol | TakeLease | KeepLeases | EndLease


class Enrolled(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=8):
    caller: int


class LeaseTaken(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=1):
    ttl_ms: int  # that it has: of a lease that was there, as it was taken first


class LeasesKept(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=2):
    gone: tuple[LeaseId, ...]  # had ended before: nothing of them is left


class LeaseOver(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=3):
    """It has ended, now or before."""


LeaseAnswer = Enrolled | LeaseTaken | LeasesKept | LeaseOver


class LeaseBegan(Aside, frozen=True, array_like=True, gc=False, tag=75):
    lease: LeaseId
    ttl_ms: int
    owner: str


class LeaseEnded(Aside, frozen=True, array_like=True, gc=False, tag=76):
    lease: LeaseId
    expired: bool  # its deadline passed; else its holder said so


LeaseEvent = LeaseBegan | LeaseEnded


class Lease(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """As the ledger holds it."""

    owner: str
    ttl_ms: int
    deadline_ms: int  # ledger time


def margin_ms(ttl_ms: int) -> int:
    """By so much earlier than the ledger a holder takes a lease for lost."""
    return ttl_ms // 20 + 50


def fault_of(action: LeaseAction) -> str:
    """Why nobody should propose it; empty if it is well."""
    match action:
        case TakeLease(lease=lease, ttl_ms=ttl_ms, owner=owner):
            if not TTL_MS_MIN <= ttl_ms <= TTL_MS_MAX:
                return "a lease lives for 1 s to 24 h"
            if not is_id(lease) or len(owner) > OWNER_LEN_MAX:
                return f"a lease is 32 hex digits, and its owner up to {OWNER_LEN_MAX} characters"
        case KeepLeases(leases=leases) if len(leases) > LEASES_KEPT_MAX:
            return f"up to {LEASES_KEPT_MAX:,} leases are kept at a time"
        case _:
            pass
    return ""
