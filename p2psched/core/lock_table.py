"""Claims on locks, and what follows from them: the data of `locks`.

All that is kept are the claims, in the order in which they were made; the rest is counted anew
after a snapshot.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import msgspec

from p2psched.model.ids import JobId
from p2psched.model.lease_actions import LeaseId
from p2psched.model.lock_actions import CLAIMS_MAX, ClaimId, OwnerId

WRITER_UNITS: Final = 1 << 20
assert WRITER_UNITS > CLAIMS_MAX, "readers are never short of units"


class Claim(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A wish for a lock. `token` is 0 while it waits."""

    id: ClaimId
    name: str
    lease: LeaseId
    owner: OwnerId
    capacity: int
    units: int
    shared: bool
    label: str
    token: int = 0
    job: JobId = JobId("")  # whose tasks hold by it, if it is no client's


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

    __slots__ = ("by_lease", "by_name", "by_owner", "claims")

    def __init__(self, claims: dict[ClaimId, Claim]) -> None:
        """As they are with these claims. The mapping is changed along with them."""
        self.claims = claims
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

    def grant(self, claim: Claim, token: int) -> None:
        held = msgspec.structs.replace(claim, token=token)
        lock = self.lock_of(claim)
        lock.waiters.pop(claim.id, None)
        self.claims[claim.id] = held
        self._hold(lock, held)


def _drop(index: dict[str, dict[ClaimId, None]], key: str, claim: ClaimId) -> None:
    del index[key][claim]
    if not index[key]:
        del index[key]
