"""The part of the fold that is about locks: who holds which, and who is next.

A lock is there while somebody holds it or waits for it. It has units: a claim takes some or all of
them, and waits until those before it have theirs and enough are left, so that nobody is overtaken.
Of a lock that can be shared a reader takes one of very many units and a writer all of them. A claim
is over when it is released or when its lease ends, never by a clock. Tokens only rise.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from p2psched.core import deadlocks
from p2psched.core.lock_table import WRITER_UNITS, Claim, Lock, Locks
from p2psched.core.state import LedgerState
from p2psched.model.commands import Rejected
from p2psched.model.lease_actions import LeaseId
from p2psched.model.lock_actions import (
    CLAIMS_MAX,
    LOCKS_MAX,
    WAITERS_MAX,
    AcquireLock,
    LockAction,
    LockAnswer,
    LockBusy,
    LockEnded,
    LockGranted,
    LockHeld,
    LockReleased,
    LockWaiting,
    ReleaseLock,
    fault_of,
)

HOLDERS_TOLD_MAX: Final = 3


def decide(s: LedgerState, action: LockAction) -> LockAnswer | Rejected:
    return _acquire(s, action) if isinstance(action, AcquireLock) else _release(s, action)


def _acquire(s: LedgerState, action: AcquireLock) -> LockHeld | LockWaiting | LockBusy | Rejected:
    """Cost O(claims that might be in a circle with it), `deadlocks.LOOKED_AT_MAX` at most."""
    known = s.lock_claims.get(action.claim)
    if known is not None:
        if (known.name, known.lease) != (action.name, action.lease):
            return Rejected("usage", f"this claim is one for lock {known.name}")
        return standing(s, known)
    rejected = _refusal(s, action)
    if rejected is not None:
        return rejected
    claim = _claim_of(action)
    lock = s.locks.by_name.get(action.name)
    if lock is None or (not lock.waiters and claim.units <= lock.units_free):
        enter(s, claim)
        return LockHeld(s.lock_token)
    if not action.wait:
        return LockBusy(_holders_told(s, lock), len(lock.waiters))
    if len(lock.waiters) >= WAITERS_MAX:
        return Rejected("refused", f"{WAITERS_MAX} wait for lock {lock.name} already")
    s.locks.add(claim)
    circle = deadlocks.circle_through(s.locks, claim)
    if circle:
        s.locks.remove(claim)
        return Rejected("deadlock", deadlocks.told(circle))
    return LockWaiting(len(lock.waiters))


def enter(s: LedgerState, claim: Claim) -> None:
    """It holds if it can and nobody waits before it."""
    s.locks.add(claim)
    lock = s.locks.lock_of(claim)
    if len(lock.waiters) == 1 and claim.units <= lock.units_free:
        _grant(s, claim)


def _release(s: LedgerState, action: ReleaseLock) -> LockReleased | Rejected:
    """Whoever is next holds it from this command on."""
    claim = s.lock_claims.get(action.claim) if action.claim else _with_token(s, action)
    if claim is None or claim.name != action.name:
        return LockReleased(was_there=False)
    if claim.job:
        return Rejected("refused", f"a task of {claim.label} holds lock {claim.name}: cancel it")
    end(s, [claim])
    return LockReleased(was_there=True)


def on_lease_ended(s: LedgerState, lease: LeaseId) -> None:
    ended = [s.lock_claims[claim] for claim in s.locks.by_lease.get(lease, ())]
    end(s, ended, lease_over=True)


def end(s: LedgerState, ended: list[Claim], *, lease_over: bool = False) -> None:
    # All of them go before anybody is granted anything: else one that goes might be.
    for claim in ended:
        s.locks.remove(claim)
        s.events.append(
            LockEnded(claim.name, claim.id, claim.token, claim.label, lease_over=lease_over)
        )
    for name in dict.fromkeys(claim.name for claim in ended):
        lock = s.locks.by_name.get(name)
        if lock is not None:
            _grant_next(s, lock)


def _grant(s: LedgerState, claim: Claim) -> None:
    s.locks.grant(claim, _next_token(s))
    if claim.job:
        s.turning[claim.job] = None
    s.events.append(LockGranted(claim.name, claim.id, s.lock_token, claim.label, claim.shared))


def _next_token(s: LedgerState) -> int:
    """One command may give several: they rise from one to the next, and from one generation of the
    ledger to the next as command indices do."""
    s.lock_token = max(s.lock_token + 1, s.command_index)
    return s.lock_token


def renew(s: LedgerState, claim: Claim) -> int:
    """Another token for one that holds."""
    token = _next_token(s)
    s.lock_claims[claim.id] = msgspec.structs.replace(claim, token=token)
    return token


def _grant_next(s: LedgerState, lock: Lock) -> None:
    while lock.waiters:
        first = s.lock_claims[next(iter(lock.waiters))]
        if first.units > lock.units_free:
            return
        _grant(s, first)


# --- what others ask ------------------------------------------------------------------------------


def standing(s: LedgerState, claim: Claim) -> LockHeld | LockWaiting:
    if claim.token:
        return LockHeld(claim.token)
    for position, waiter in enumerate(s.locks.lock_of(claim).waiters, 1):
        if waiter == claim.id:
            return LockWaiting(position)
    raise AssertionError("a claim without a token waits")


def holds(s: LedgerState, name: str, token: int) -> bool:
    """True if that token is one of a current holder."""
    return _with_token(s, ReleaseLock(name, token=token)) is not None


def holders(s: LedgerState, lock: Lock) -> Iterator[Claim]:
    """In the order in which they asked."""
    return (s.lock_claims[claim] for claim in lock.holders)


def _with_token(s: LedgerState, action: ReleaseLock) -> Claim | None:
    lock = s.locks.by_name.get(action.name)
    if lock is None or not action.token:
        return None
    return next((claim for claim in holders(s, lock) if claim.token == action.token), None)


def _holders_told(s: LedgerState, lock: Lock) -> tuple[str, ...]:
    labels = [claim.label for claim in holders(s, lock)]
    return tuple(labels[:HOLDERS_TOLD_MAX])


def _claim_of(action: AcquireLock) -> Claim:
    units = action.permits
    if action.capacity == 1 and not action.shared:
        units = WRITER_UNITS
    return Claim(
        id=action.claim,
        name=action.name,
        lease=action.lease,
        owner=action.owner,
        capacity=action.capacity,
        units=units,
        shared=action.shared,
        label=action.label,
    )


def _refusal(s: LedgerState, action: AcquireLock) -> Rejected | None:
    fault = fault_of(action)
    if fault:
        return Rejected("usage", fault)
    if action.lease not in s.leases:
        return Rejected("refused", f"the lease that lock {action.name} should hang on has ended")
    return refusal(s, action.name, action.capacity)


def refusal(s: LedgerState, name: str, capacity: int) -> Rejected | None:
    """Why nobody may claim it so."""
    lock = s.locks.by_name.get(name)
    if lock is not None and lock.capacity != capacity:
        return Rejected(
            "usage",
            f"lock {name} is in use with capacity {lock.capacity}, not {capacity}: "
            "all who take it name the same one",
        )
    if lock is None and len(s.locks.by_name) >= LOCKS_MAX:
        return Rejected("refused", f"{LOCKS_MAX} locks are in use already")
    if len(s.lock_claims) >= CLAIMS_MAX:
        return Rejected("refused", f"there are {CLAIMS_MAX} claims on locks already")
    return None


def rebuild(s: LedgerState) -> None:
    """What follows from the rest, after a state was restored."""
    s.locks = Locks(s.lock_claims)
