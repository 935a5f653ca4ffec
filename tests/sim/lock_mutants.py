"""Bugs in locks and leases, planted on purpose: see `mutants`."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from typing import Final
from unittest.mock import patch

from p2psched.core import acts, locks
from p2psched.core.lock_table import Claim, Locks
from p2psched.core.raft.progress import Compaction
from p2psched.core.scheduler import Scheduler
from p2psched.core.state import LedgerState
from p2psched.model.actions import Elapsed
from p2psched.model.commands import Acknowledged
from p2psched.model.lock_actions import LockGranted
from p2psched.testing.faults import Faults
from p2psched.testing.sim_locks import SimLease
from p2psched.testing.sim_world import Snapshots
from tests.sim.mutants import NEVER, Mutant, Planted


def _token_of_the_first() -> Planted:
    """Whoever is next has the token of whoever was before."""

    def grant(s: LedgerState, claim: Claim) -> None:
        held = [s.lock_claims[other].token for other in s.locks.by_name[claim.name].holders]
        s.lock_token = max([s.lock_token or s.command_index, *held])
        s.locks.grant(claim, s.lock_token)
        s.events.append(LockGranted(claim.name, claim.id, s.lock_token, claim.label, claim.shared))

    return patch.object(locks, "_grant", grant)


def _own_clock() -> AbstractContextManager[object]:
    """A leader looks at its own clock for when leases end, which began at another hour."""
    elapse = acts.elapse

    def hasty(s: LedgerState, command: Elapsed) -> Acknowledged:
        stamp_ms, s.stamp_ms = s.stamp_ms, command.upto_ms
        outcome = elapse(s, command)
        s.stamp_ms = stamp_ms
        return outcome

    both = ExitStack()
    both.enter_context(patch.object(acts, "elapse", hasty))
    both.enter_context(patch.object(Scheduler, "ledger_ms", lambda _self, now_ms: now_ms))
    return both


def _counted_from_the_answer() -> Planted:
    """A caller counts its lease from when it hears of it."""

    def renewed(lease: SimLease, _sent_ms: float) -> None:
        lease.until_ms = float("inf")

    return patch.object(SimLease, "renewed", renewed)


def _waiters_left_out() -> Planted:
    """Of a state that comes from a snapshot only the holders are there."""

    def rebuild(s: LedgerState) -> None:
        for claim in list(s.lock_claims.values()):
            if not claim.token:
                del s.lock_claims[claim.id]
        s.locks = Locks(s.lock_claims)

    return patch.object(locks, "rebuild", rebuild)


def _nobody_is_next() -> Planted:
    """Who lets go wakes nobody."""
    return patch.object(locks, "_grant_next", lambda _s, _lock: None)


def _holders_stay() -> Planted:
    """The end of a lease is not the end of what hangs on it."""
    return patch.object(locks, "on_lease_ended", lambda _s, _lease: None)


# Callers are frozen, cut off and die all the time; so do the peers.
RESTLESS: Final = Faults(
    crash_every_ms=2_500,
    restart_ms_max=300,
    cut_every_ms=1_500,
    cut_ms_max=2_000,
    pause_every_ms=3_000,
    pause_ms_max=3_000,
    drop=0.05,
    tail=0.05,
    drift_ppm=500,
)
OFTEN: Final = Snapshots(5, Compaction(3, 1_000, 4_000, 200))

LOCK_MUTANTS: Final = tuple(
    Mutant(
        name=name,
        plant=plant,
        faults=RESTLESS,
        broken=broken,
        events=8_000,
        jobs_max=0,
        snapshots=snapshots,
        locks=6,
    )
    for name, plant, broken, snapshots in (
        ("the token of a lock is not raised", _token_of_the_first, "P7", NEVER),
        ("leases end by the leader's own clock", _own_clock, "P7", NEVER),
        ("a holder does not count its lease", _counted_from_the_answer, "P7", NEVER),
        ("who waits for a lock is not in the snapshot", _waiters_left_out, "P14", OFTEN),
        ("a lock that is let go of is given to nobody", _nobody_is_next, "L5", NEVER),
        ("a lock outlives its lease", _holders_stay, "L5", NEVER),
    )
)
