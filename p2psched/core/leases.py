"""The part of the fold that is about leases.

A lease lives until its deadline, in ledger time, is passed *and* an `Elapsed` says so: a renewal
that is committed before that wins. While nobody leads ledger time stands still, so a new leader
ends none early. What hangs on a lease is let go of in the command that ends it.
"""

from __future__ import annotations

from p2psched.core import keys, locks, queues
from p2psched.core.state import LedgerState
from p2psched.model.commands import Rejected
from p2psched.model.lease_actions import (
    LEASES_MAX,
    EndLease,
    KeepLeases,
    Lease,
    LeaseAnswer,
    LeaseBegan,
    LeaseEnded,
    LeaseId,
    LeaseOver,
    LeasesKept,
    LeaseTaken,
    TakeLease,
)


def decide(s: LedgerState, action: TakeLease | KeepLeases | EndLease) -> LeaseAnswer | Rejected:
    match action:
        case TakeLease():
            return _take(s, action)
        case KeepLeases(leases=leases):
            return LeasesKept(tuple(lease for lease in leases if not _renew(s, lease)))
        case EndLease(lease=lease):
            if lease in s.leases:
                _end(s, lease, expired=False)
            return LeaseOver()


def _take(s: LedgerState, action: TakeLease) -> LeaseAnswer | Rejected:
    if not _renew(s, action.lease):
        if len(s.leases) >= LEASES_MAX:
            return Rejected(
                "refused", f"there are {LEASES_MAX:,} leases: wait until some have ended"
            )
        s.events.append(LeaseBegan(action.lease, action.ttl_ms, action.owner))
        s.leases[action.lease] = Lease(action.owner, action.ttl_ms, 0)
        _renew(s, action.lease)
    return LeaseTaken(s.leases[action.lease].ttl_ms)


def _renew(s: LedgerState, name: LeaseId) -> bool:
    """False if it has ended."""
    lease = s.leases.get(name)
    if lease is None:
        return False
    deadline_ms = s.stamp_ms + lease.ttl_ms
    s.leases[name] = Lease(lease.owner, lease.ttl_ms, deadline_ms)
    s.lease_ends.set(name, deadline_ms)
    return True


def _end(s: LedgerState, name: LeaseId, *, expired: bool) -> None:
    del s.leases[name]
    s.lease_ends.drop(name)
    s.events.append(LeaseEnded(name, expired))
    keys.on_lease_ended(s, name)
    locks.on_lease_ended(s, name)
    queues.on_lease_ended(s, name)


def next_due_ms(s: LedgerState) -> int | None:
    return s.lease_ends.next_ms()


def elapse(s: LedgerState) -> None:
    """The first that is due ends."""
    due_ms = s.lease_ends.next_ms()
    name = s.lease_ends.take(due_ms) if due_ms is not None else None
    assert name is not None
    _end(s, name, expired=True)


def rebuild(s: LedgerState) -> None:
    """What follows from the rest, after a state was restored."""
    s.lease_ends.clear()
    for name, lease in s.leases.items():
        s.lease_ends.set(name, lease.deadline_ms)
