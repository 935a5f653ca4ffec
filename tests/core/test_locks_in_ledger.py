"""Locks as a part of the ledger: with leases, repeats, snapshots and generations."""

from __future__ import annotations

from typing import Final

from p2psched.core import locks
from p2psched.core.capture import Capture
from p2psched.core.machine import Machine
from p2psched.core.snapshot import encode_machine, restore_machine
from p2psched.model.actions import Acted
from p2psched.model.commands import Event, NewGeneration, Rejected
from p2psched.model.ids import PeerId
from p2psched.model.lease_actions import EndLease, KeepLeases, TakeLease
from p2psched.model.lock_actions import (
    AcquireLock,
    LockEnded,
    LockGranted,
    LockHeld,
    LockReleased,
    LockWaiting,
    ReleaseLock,
)
from tests.core.acts_rig import LEASES, Client, Ledger

A, B, C, D = LEASES
TTL_MS: Final = 5_000


def claim(number: int) -> str:
    return f"{number:032x}"


def wish(number: int, lease: str, name: str = "lock", *, shared: bool = False) -> AcquireLock:
    return AcquireLock(name, claim(number), lease, f"owner-{number}", shared=shared)


def with_leases(ledger: Ledger, *leases: str) -> Client:
    client = Client(ledger)
    for lease in leases:
        client.do(TakeLease(lease, TTL_MS))
    return client


def held(events: list[Event]) -> list[tuple[str, int]]:
    return [(e.claim, e.token) for e in events if isinstance(e, LockGranted)]


def test_the_lock_of_a_lost_lease_is_passed_on_when_its_time_is_over_and_not_before() -> None:
    ledger = Ledger()
    client = with_leases(ledger, A, B)
    client.do(wish(1, A))
    client.do(wish(2, B))
    ledger.now_ms += TTL_MS - 1
    client.do(KeepLeases((B,)))
    assert ledger.elapse() == []
    ledger.now_ms += 1
    events = ledger.elapse()
    assert [type(event).__name__ for event in events] == ["LeaseEnded", "LockEnded", "LockGranted"]
    assert held(events) == [(claim(2), ledger.machine.command_index)]


def test_a_renewal_that_is_committed_first_keeps_the_lock() -> None:
    ledger = Ledger()
    client = with_leases(ledger, A, B)
    client.do(wish(1, A))
    client.do(wish(2, B))
    ledger.now_ms += TTL_MS
    client.do(KeepLeases((A, B)))
    assert ledger.elapse() == []
    assert list(ledger.machine.locks.by_name["lock"].holders) == [claim(1)]


def test_a_wish_that_is_repeated_after_its_release_is_answered_as_before() -> None:
    """And nobody holds the lock because of it."""
    ledger = Ledger()
    client = with_leases(ledger, A)
    first = client.act(wish(1, A))
    taken = client.number
    assert isinstance(first, Acted)
    assert client.act(ReleaseLock("lock", claim(1)), settled=taken) == Acted(
        LockReleased(was_there=True)
    )
    assert client.act(wish(1, A), number=taken, settled=taken) == first
    assert not ledger.machine.lock_claims


def test_a_wish_that_comes_after_its_caller_gave_up_is_not_granted() -> None:
    ledger = Ledger()
    client = with_leases(ledger, A)
    client.act(ReleaseLock("lock", claim(1)), number=5, settled=5)
    late = client.act(wish(1, A), number=4, settled=4)
    assert isinstance(late, Rejected)
    assert late.code == "forgotten"
    assert not ledger.machine.lock_claims


def test_rows_and_tokens_survive_a_restart() -> None:
    ledger = Ledger()
    client = with_leases(ledger, A, B, C)
    client.do(wish(1, A, shared=True))
    client.do(wish(2, B))
    client.do(wish(3, C, shared=True))
    client.do(wish(4, C, "other"))
    newest = ledger.machine.lock_token
    ledger.restart()
    assert client.do(wish(3, C, shared=True)) == LockWaiting(2)
    client.do(EndLease(A))
    ((who, token),) = held(ledger.events)
    assert (who, token > newest) == (claim(2), True)
    assert locks.holds(ledger.machine, "lock", token)


def test_a_capture_holds_the_row_as_it_was_however_it_changes_meanwhile() -> None:
    ledger = Ledger()
    client = with_leases(ledger, A, B)
    client.do(wish(1, A))
    client.do(wish(2, B))
    state = encode_machine(ledger.machine)
    capture = Capture(ledger.machine)
    client.do(EndLease(A))
    client.do(wish(3, B))
    assert b"".join(capture.pieces()) == state
    anew = Machine()
    restore_machine(anew, state)
    assert list(anew.locks.by_name["lock"].waiters) == [claim(2)]


def test_tokens_of_a_new_generation_are_higher_than_all_that_the_old_one_may_have_given() -> None:
    ledger = Ledger()
    client = with_leases(ledger, A)
    client.do(wish(1, A))
    before = ledger.machine.lock_token
    ledger.do(NewGeneration(2, PeerId("q"), 7))
    client.do(ReleaseLock("lock", claim(1)))
    answer = client.do(wish(2, A))
    assert isinstance(answer, LockHeld)
    assert answer.token > before + 2**39


def test_the_end_of_a_lease_that_nobody_waits_for_leaves_nothing() -> None:
    ledger = Ledger()
    client = with_leases(ledger, A)
    client.do(wish(1, A))
    client.do(EndLease(A))
    assert [e.lease_over for e in ledger.events if isinstance(e, LockEnded)] == [True]
    assert not ledger.machine.lock_claims
    assert not ledger.machine.locks.by_name
    assert not ledger.machine.locks.by_lease
    assert not ledger.machine.locks.by_owner
