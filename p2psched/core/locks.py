"""The part of the fold that is about locks: who holds which, and who is next.

A lock is there while somebody holds it or waits for it. It has units: a claim takes some or all of
them, and waits until those before it have theirs and enough are left, so that nobody is overtaken.
Of a lock that can be shared a reader takes one of very many units and a writer all of them.

All that is kept are the claims, in the order in which they were made; the rest is counted anew
after a snapshot. A claim is over when it is released or when its lease ends, never by a clock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

import msgspec

from p2psched.core import deadlocks
from p2psched.model.commands import Rejected
from p2psched.model.lock_actions import (
    CLAIMS_MAX,
    LOCKS_MAX,
    WAITERS_MAX,
    AcquireLock,
    ClaimId,
    LockBusy,
    LockEnded,
    LockEvent,
    LockGranted,
    LockHeld,
    LockReleased,
    LockWaiting,
    OwnerId,
    ReleaseLock,
    fault_of,
)

WRITER_UNITS: Final = 1 << 20
assert WRITER_UNITS > CLAIMS_MAX, "readers are never short of units"
HOLDERS_TOLD_MAX: Final = 3


class Claim(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A wish for a lock. `token` is 0 while it waits."""

    id: ClaimId
    name: str
    lease: str
    owner: OwnerId
    capacity: int
    units: int
    shared: bool
    label: str
    token: int = 0


class Lock:
    """What follows from its claims."""

    __slots__ = ("capacity", "holders", "name", "units_free", "waiters")

    def __init__(self, name: str, capacity: int) -> None:
        self.name = name
        self.capacity = capacity
        self.units_free = capacity if capacity > 1 else WRITER_UNITS
        self.holders: dict[ClaimId, None] = {}
        # To find the first, a plain dict would walk over all that has left its front.
        self.waiters: OrderedDict[ClaimId, None] = OrderedDict()


class Locks:
    """All locks at one ledger index."""

    __slots__ = ("by_lease", "by_name", "by_owner", "claims", "last_token")

    def __init__(self, claims: dict[ClaimId, Claim] | None = None, last_token: int = 0) -> None:
        """As they are after these claims. The mapping is this one's from now on."""
        self.claims: dict[ClaimId, Claim] = {} if claims is None else claims
        self.last_token = last_token
        self.by_name: dict[str, Lock] = {}
        self.by_owner: dict[OwnerId, dict[ClaimId, None]] = {}
        self.by_lease: dict[str, dict[ClaimId, None]] = {}
        for claim in self.claims.values():
            self._index(claim)

    def lock_of(self, claim: Claim) -> Lock:
        return self.by_name[claim.name]

    def add(self, claim: Claim) -> None:
        self.claims[claim.id] = claim
        self._index(claim)

    def _index(self, claim: Claim) -> None:
        lock = self.by_name.get(claim.name)
        if lock is None:
            lock = self.by_name[claim.name] = Lock(claim.name, claim.capacity)
        if claim.lease:
            self.by_lease.setdefault(claim.lease, {})[claim.id] = None
        if claim.owner:
            self.by_owner.setdefault(claim.owner, {})[claim.id] = None
        if claim.token:
            self._hold(lock, claim)
        else:
            lock.waiters[claim.id] = None

    def _hold(self, lock: Lock, claim: Claim) -> None:
        lock.holders[claim.id] = None
        lock.units_free -= claim.units
        assert lock.units_free >= 0, "never more holders than the capacity"

    def remove(self, claim: Claim) -> None:
        """What it leaves free is given to nobody yet."""
        lock = self.lock_of(claim)
        del self.claims[claim.id]
        if claim.token:
            del lock.holders[claim.id]
            lock.units_free += claim.units
        else:
            del lock.waiters[claim.id]
        if not lock.holders and not lock.waiters:
            del self.by_name[claim.name]
        if claim.lease:
            _drop(self.by_lease, claim.lease, claim.id)
        if claim.owner:
            _drop(self.by_owner, claim.owner, claim.id)

    def grant(self, claim: Claim, index: int) -> LockGranted:
        """By the command of that index, which may grant several: tokens rise from one to the next,
        and from one generation of the ledger to the next as command indices do."""
        self.last_token = max(self.last_token + 1, index)
        held = msgspec.structs.replace(claim, token=self.last_token)
        lock = self.lock_of(claim)
        lock.waiters.pop(claim.id, None)
        self.claims[claim.id] = held
        self._hold(lock, held)
        return LockGranted(held.name, held.id, held.token, held.label, held.shared)


def _drop(index: dict[str, dict[ClaimId, None]], key: str, claim: ClaimId) -> None:
    del index[key][claim]
    if not index[key]:
        del index[key]


# --- what clients do ------------------------------------------------------------------------------


def acquire(
    s: Locks, action: AcquireLock, *, index: int, events: list[LockEvent]
) -> LockHeld | LockWaiting | LockBusy | Rejected:
    """Its lease is there, which is for the caller to see to. Cost O(claims that might be in a
    circle with it), at most `deadlocks.LOOKED_AT_MAX`."""
    known = s.claims.get(action.claim)
    if known is not None:
        if (known.name, known.lease) != (action.name, action.lease):
            return Rejected("usage", f"this claim is one for lock {known.name}")
        return standing(s, known)
    rejected = _refusal(s, action)
    if rejected is not None:
        return rejected
    claim = _claim_of(action)
    lock = s.by_name.get(action.name)
    if lock is None or (not lock.waiters and claim.units <= lock.units_free):
        s.add(claim)
        events.append(s.grant(claim, index))
        return LockHeld(s.last_token)
    if not action.wait:
        return LockBusy(_holders_told(s, lock), len(lock.waiters))
    if len(lock.waiters) >= WAITERS_MAX:
        return Rejected("refused", f"{WAITERS_MAX} wait for lock {lock.name} already")
    s.add(claim)
    circle = deadlocks.circle_through(s, claim)
    if circle:
        s.remove(claim)
        return Rejected("deadlock", deadlocks.told(circle))
    return LockWaiting(len(lock.waiters))


def release(s: Locks, action: ReleaseLock, *, index: int, events: list[LockEvent]) -> LockReleased:
    """Whoever is next holds it from this command on."""
    claim = s.claims.get(action.claim) if action.claim else _with_token(s, action)
    if claim is None or claim.name != action.name:
        return LockReleased(was_there=False)
    _end(s, [claim], index=index, events=events, lease_over=False)
    return LockReleased(was_there=True)


def on_lease_ended(s: Locks, lease: str, *, index: int, events: list[LockEvent]) -> None:
    ended = [s.claims[claim] for claim in s.by_lease.get(lease, ())]
    _end(s, ended, index=index, events=events, lease_over=True)


def _end(
    s: Locks, ended: list[Claim], *, index: int, events: list[LockEvent], lease_over: bool
) -> None:
    # All of them go before anybody is granted anything: else one that goes might be.
    for claim in ended:
        s.remove(claim)
        events.append(
            LockEnded(claim.name, claim.id, claim.token, claim.label, lease_over=lease_over)
        )
    for name in dict.fromkeys(claim.name for claim in ended):
        lock = s.by_name.get(name)
        if lock is not None:
            _grant_next(s, lock, index=index, events=events)


def _grant_next(s: Locks, lock: Lock, *, index: int, events: list[LockEvent]) -> None:
    while lock.waiters:
        first = s.claims[next(iter(lock.waiters))]
        if first.units > lock.units_free:
            return
        events.append(s.grant(first, index))


# --- what others ask ------------------------------------------------------------------------------


def standing(s: Locks, claim: Claim) -> LockHeld | LockWaiting:
    if claim.token:
        return LockHeld(claim.token)
    for position, waiter in enumerate(s.lock_of(claim).waiters, 1):
        if waiter == claim.id:
            return LockWaiting(position)
    raise AssertionError("a claim without a token waits")


def holds(s: Locks, name: str, token: int) -> bool:
    """True if that token is one of a current holder."""
    return _with_token(s, ReleaseLock(name, token=token)) is not None


def holders(s: Locks, lock: Lock) -> Iterator[Claim]:
    """In the order in which they asked."""
    return (s.claims[claim] for claim in lock.holders)


def _with_token(s: Locks, action: ReleaseLock) -> Claim | None:
    lock = s.by_name.get(action.name)
    if lock is None or not action.token:
        return None
    return next((claim for claim in holders(s, lock) if claim.token == action.token), None)


def _holders_told(s: Locks, lock: Lock) -> tuple[str, ...]:
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


def _refusal(s: Locks, action: AcquireLock) -> Rejected | None:
    fault = fault_of(action)
    if fault:
        return Rejected("usage", fault)
    lock = s.by_name.get(action.name)
    if lock is not None and lock.capacity != action.capacity:
        return Rejected(
            "usage",
            f"lock {action.name} is in use with capacity {lock.capacity}, not {action.capacity}: "
            "all who take it name the same one",
        )
    if lock is None and len(s.by_name) >= LOCKS_MAX:
        return Rejected("refused", f"{LOCKS_MAX} locks are in use already")
    if len(s.claims) >= CLAIMS_MAX:
        return Rejected("refused", f"there are {CLAIMS_MAX} claims on locks already")
    return None
