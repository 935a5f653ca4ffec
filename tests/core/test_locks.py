"""Locks: turns, tokens, counted and shared ones, what the end of a lease passes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import pytest

from p2psched.core import locks
from p2psched.core.lock_table import Lock
from p2psched.core.machine import Machine
from p2psched.model import lock_actions
from p2psched.model.commands import Rejected
from p2psched.model.lease_actions import Lease
from p2psched.model.lock_actions import (
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
)

LEASE: Final = "lease of all"


class Table:
    """Locks, and the commands that came to them. Claims are named by small numbers."""

    def __init__(self) -> None:
        self.state = Machine()
        self.state.leases[LEASE] = self.state.leases["one"] = Lease("", 1, 1)

    def take(
        self,
        claim: int,
        name: str = "a",
        *,
        owner: int = 0,
        capacity: int = 1,
        permits: int = 1,
        shared: bool = False,
        wait: bool = True,
        lease: str = LEASE,
    ) -> LockAnswer | Rejected:
        action = AcquireLock(
            name,
            f"{claim:032x}",
            lease,
            f"{owner}" if owner else "",
            capacity,
            permits,
            shared=shared,
            wait=wait,
            label=f"owner-{owner}" if owner else f"claim-{claim}",
        )
        return self._decide(action)

    def release(self, claim: int, name: str = "a", *, token: int = 0) -> LockAnswer | Rejected:
        return self._decide(ReleaseLock(name, f"{claim:032x}" if claim else "", token))

    def _decide(self, action: LockAction) -> LockAnswer | Rejected:
        self.state.command_index += 1
        return locks.decide(self.state, action)

    def end(self, lease: str) -> None:
        self.state.command_index += 1
        locks.on_lease_ended(self.state, lease)

    def holders(self, name: str = "a") -> list[int]:
        return self._claims(name, lambda lock: lock.holders)

    def waiters(self, name: str = "a") -> list[int]:
        return self._claims(name, lambda lock: lock.waiters)

    def _claims(self, name: str, part: Callable[[Lock], Iterable[str]]) -> list[int]:
        lock = self.state.locks.by_name.get(name)
        return [] if lock is None else [int(claim, 16) for claim in part(lock)]

    def woken(self) -> list[int]:
        """Who was granted something since the last call."""
        woken = [int(e.claim, 16) for e in self.state.events if isinstance(e, LockGranted)]
        self.state.events.clear()
        return woken


@pytest.fixture
def table() -> Table:
    return Table()


def test_waiters_get_their_turn_in_the_order_in_which_they_asked(table: Table) -> None:
    assert table.take(1) == LockHeld(1)
    assert [table.take(claim) for claim in (2, 3, 4)] == [LockWaiting(n) for n in (1, 2, 3)]
    table.woken()
    for claim in (1, 2, 3):
        assert table.release(claim) == LockReleased(was_there=True)
        assert table.woken() == [claim + 1], "only the next is woken"
    assert table.holders() == [4]
    table.release(4)
    assert not table.state.locks.by_name, "a lock that nobody wants takes no room"


def test_a_repeated_wish_is_the_same_wish(table: Table) -> None:
    first = table.take(1)
    assert table.take(1) == first
    assert table.take(2) == table.take(2) == LockWaiting(1)
    assert table.take(2, "b") == Rejected("usage", "this claim is one for lock a")


def test_tokens_are_those_of_the_command_or_higher(table: Table) -> None:
    table.state.command_index = 100
    assert table.take(1) == LockHeld(101)
    for claim in (2, 3, 4):
        table.take(claim, shared=True)
    table.release(1)
    tokens = [claim.token for claim in table.state.lock_claims.values()]
    assert tokens == [105, 106, 107], "one command granted all three"
    assert table.take(5, "b") == LockHeld(108), "of command 106, but 107 was given out"


def test_a_waiter_that_withdraws_lets_those_behind_it_pass(table: Table) -> None:
    table.take(1, shared=True)
    table.take(2)
    table.take(3, shared=True)
    assert table.waiters() == [2, 3], "no reader overtakes a writer that waits"
    table.woken()
    assert table.release(2) == LockReleased(was_there=True)
    assert table.woken() == [3]
    assert table.holders() == [1, 3]


def test_a_writer_is_alone_and_readers_come_in_one_go(table: Table) -> None:
    table.take(1)
    table.take(2, shared=True)
    table.take(3, shared=True)
    table.take(4)
    table.take(5, shared=True)
    table.woken()
    table.release(1)
    assert table.woken() == [2, 3]
    table.release(3)
    assert table.woken() == []
    table.release(2)
    assert table.woken() == [4]
    table.release(4)
    assert table.woken() == [5]


def test_a_counted_lock_has_as_many_holders_as_it_has_permits(table: Table) -> None:
    for claim in (1, 2, 3):
        assert isinstance(table.take(claim, capacity=3), LockHeld)
    assert table.take(4, capacity=3, permits=2) == LockWaiting(1)
    assert table.take(5, capacity=3) == LockWaiting(2)
    table.woken()
    table.release(2)
    assert table.woken() == [], "who wants two is not overtaken by who wants one"
    table.release(1)
    assert table.woken() == [4]


def test_who_does_not_want_to_wait_leaves_nothing_behind(table: Table) -> None:
    table.take(1)
    table.take(2)
    assert table.take(3, wait=False) == LockBusy(("claim-1",), 1)
    assert set(table.state.lock_claims) == {f"{1:032x}", f"{2:032x}"}


def test_the_end_of_a_lease_passes_on_all_it_held_and_wakes_only_the_next(table: Table) -> None:
    table.take(1, "a", lease="one")
    table.take(2, "b", lease="one")
    table.take(3, "b", lease="one")
    table.take(4, "a")
    table.take(5, "b")
    table.take(6, "b")
    table.woken()
    table.end("one")
    ended = [event for event in table.state.events if isinstance(event, LockEnded)]
    assert [(event.token, event.lease_over) for event in ended] == [(1, True), (2, True), (0, True)]
    assert table.woken() == [4, 5], "not 3, whose lease has ended as well"
    assert table.waiters("b") == [6]
    table.end("one")
    assert table.woken() == []


def test_a_token_says_whether_its_claim_still_holds(table: Table) -> None:
    held = table.take(1)
    table.take(2)
    assert isinstance(held, LockHeld)
    assert locks.holds(table.state, "a", held.token)
    assert not locks.holds(table.state, "b", held.token)
    assert table.release(0, token=held.token) == LockReleased(was_there=True)
    assert not locks.holds(table.state, "a", held.token)
    assert table.release(0, token=held.token) == LockReleased(was_there=False)
    assert table.release(0) == LockReleased(was_there=False)
    assert not locks.holds(table.state, "a", 0)


def test_a_claim_on_another_lock_is_not_released(table: Table) -> None:
    table.take(1, "a")
    assert table.release(1, "b") == LockReleased(was_there=False)
    assert table.holders("a") == [1]


def test_a_lock_hangs_on_a_lease_that_is_there(table: Table) -> None:
    answer = table.take(1, lease="another")
    assert isinstance(answer, Rejected)
    assert "the lease that lock a should hang on has ended" in answer.message


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": ""}, "the name of a lock has 1 to 256 bytes"),
        ({"name": "ü" * 129}, "the name of a lock has 1 to 256 bytes"),
        ({"name": "a\udcff"}, "the name of a lock has 1 to 256 bytes of UTF-8"),
        ({"name": "a\nb"}, "control characters"),
        ({"capacity": 0}, "the capacity of a lock is 1 to 65536, not 0"),
        ({"capacity": 2, "permits": 3}, "lock a has capacity 2: 3 never fit"),
        ({"permits": 0}, "lock a has capacity 1: 0 never fit"),
        ({"capacity": 2, "shared": True}, "it can't be shared as well"),
    ],
)
def test_a_wish_that_makes_no_sense_is_refused(
    table: Table, changes: dict[str, object], said: str
) -> None:
    answer = table.take(1, **{"name": "a", **changes})  # type: ignore[arg-type]  # of one column
    assert isinstance(answer, Rejected)
    assert answer.code == "usage"
    assert said in answer.message
    assert not table.state.lock_claims


def test_all_who_take_a_lock_name_the_same_capacity(table: Table) -> None:
    table.take(1, capacity=3)
    answer = table.take(2, capacity=4)
    assert isinstance(answer, Rejected)
    assert answer.code == "usage"
    table.release(1)
    assert isinstance(table.take(2, capacity=4), LockHeld), "nobody uses it any more"


def test_what_is_beyond_a_bound_is_refused_with_its_name(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "WAITERS_MAX", 2)
    monkeypatch.setattr(locks, "LOCKS_MAX", 2)
    monkeypatch.setattr(locks, "CLAIMS_MAX", 4)
    for claim in (1, 2, 3):
        table.take(claim)
    assert table.take(4) == Rejected("refused", "2 wait for lock a already")
    assert isinstance(table.take(4, "b"), LockHeld)
    assert table.take(5, "c") == Rejected("refused", "2 locks are in use already")
    assert table.take(5, "b") == Rejected("refused", "there are 4 claims on locks already")
    assert table.take(3) == LockWaiting(2), "a wish that is known is no new one"
    assert lock_actions.WAITERS_MAX < lock_actions.CLAIMS_MAX


# --- deadlocks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("takers", [2, 3, 7, 40])
def test_takers_in_a_circle_are_found_and_the_last_one_is_told(table: Table, takers: int) -> None:
    for number in range(takers):
        assert isinstance(table.take(number + 1, f"l{number}", owner=number + 1), LockHeld)
    for number in range(takers - 1):
        waits = table.take(100 + number, f"l{number + 1}", owner=number + 1)
        assert waits == LockWaiting(1)
    answer = table.take(99, "l0", owner=takers)
    assert isinstance(answer, Rejected)
    assert answer.code == "deadlock"
    assert f"owner-{takers} waits for l0, which owner-1 has; owner-1 waits for l1" in answer.message
    assert table.waiters("l0") == []
    table.release(takers, f"l{takers - 1}")
    assert table.holders(f"l{takers - 1}") == [100 + takers - 2], "the others go on"


def test_taking_an_exclusive_lock_twice_is_a_deadlock_with_oneself(table: Table) -> None:
    table.take(1, owner=1)
    answer = table.take(2, owner=1)
    assert isinstance(answer, Rejected)
    assert "owner-1 waits for a, which owner-1 has" in answer.message


def test_two_readers_that_both_want_to_write_are_a_deadlock(table: Table) -> None:
    table.take(1, owner=1, shared=True)
    table.take(2, owner=2, shared=True)
    table.take(3, owner=3)
    assert isinstance(table.take(4, owner=1), Rejected), "3 is before it, and waits for 1"


def test_a_reader_behind_a_writer_that_waits_for_it_is_a_deadlock(table: Table) -> None:
    table.take(1, owner=1, shared=True)
    table.take(2, owner=2)
    answer = table.take(3, owner=1, shared=True)
    assert isinstance(answer, Rejected)
    assert "owner-2 waits for, too, and before it; owner-2 waits for a, which owner-1 has" in (
        answer.message
    )


def test_a_counted_lock_is_no_deadlock_while_one_of_its_holders_goes_on(table: Table) -> None:
    table.take(1, "a", owner=1)
    table.take(2, "b", owner=2, capacity=2)
    table.take(3, "b", owner=3, capacity=2)
    assert table.take(4, "a", owner=2) == LockWaiting(1)
    assert table.take(5, "b", owner=1, capacity=2) == LockWaiting(1), "3 lets go of one some day"
    answer = table.take(6, "a", owner=3)
    assert isinstance(answer, Rejected), "now it would not"


def test_who_names_no_owner_is_in_no_circle(table: Table) -> None:
    table.take(1, "a", owner=1)
    table.take(2, "b")
    assert table.take(3, "a") == LockWaiting(1)
    assert table.take(4, "b", owner=1) == LockWaiting(1)


def test_an_owner_that_waits_twice_goes_on_with_the_first_it_gets(table: Table) -> None:
    table.take(1, "a", owner=1)
    table.take(2, "b", owner=2)
    table.take(3, "c", owner=3)
    table.take(4, "a", owner=2)
    table.take(5, "c", owner=2)
    assert table.take(6, "b", owner=1) == LockWaiting(1)


def test_what_is_too_large_to_look_through_is_not_called_a_deadlock(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2psched.core.deadlocks.LOOKED_AT_MAX", 3)
    table.take(1, "a", owner=1)
    table.take(2, "b", owner=2)
    table.take(3, "b", owner=1)
    assert table.take(4, "a", owner=2) == LockWaiting(1)
