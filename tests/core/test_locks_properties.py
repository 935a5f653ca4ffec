"""Whatever comes to the locks in whatever order: what must hold of them, against a plain model."""

from __future__ import annotations

from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st

from p2psched.core import deadlocks, locks
from p2psched.core.lock_table import WRITER_UNITS, Claim
from p2psched.core.state import LedgerState
from p2psched.model.commands import Event, Rejected
from p2psched.model.lease_actions import Lease
from p2psched.model.lock_actions import (
    AcquireLock,
    LockEnded,
    LockGranted,
    LockHeld,
    ReleaseLock,
)

CAPACITY_OF: Final = {"plain": 1, "other": 1, "three": 3, "two": 2}
NAMES: Final = tuple(CAPACITY_OF)
OWNERS: Final = 5

Step = tuple[str, int, int, int, bool]  # what, claim or lease, lock, permits, shared

steps: Final = st.lists(
    st.tuples(
        st.sampled_from(["take", "take", "take", "try", "release", "end"]),
        st.integers(1, 14),
        st.integers(0, len(NAMES) - 1),
        st.integers(1, 3),
        st.booleans(),
    ),
    max_size=60,
)


def wish(step: Step) -> AcquireLock:
    what, claim, lock, permits, shared = step
    name = NAMES[lock]
    capacity = CAPACITY_OF[name]
    return AcquireLock(
        name,
        f"{claim:032x}",
        f"lease-{claim % 4}",
        f"owner-{claim % OWNERS}",
        capacity,
        min(permits, capacity),
        shared=shared and capacity == 1,
        wait=what == "take",
    )


def table(like: LedgerState | None = None) -> LedgerState:
    """An empty one, or one that was built anew from all that is kept of another."""
    s = LedgerState()
    s.leases = {f"lease-{number}": Lease("", 1, 1) for number in range(4)}
    if like is not None:
        s.lock_claims, s.lock_token = dict(like.lock_claims), like.lock_token
        locks.rebuild(s)
    return s


def apply(s: LedgerState, step: Step, index: int) -> list[Event]:
    s.command_index = index
    s.events.clear()
    what, claim, lock, _, _ = step
    if what in ("take", "try"):
        locks.decide(s, wish(step))
    elif what == "release":
        locks.decide(s, ReleaseLock(NAMES[lock], f"{claim:032x}"))
    else:
        locks.on_lease_ended(s, f"lease-{claim % 4}")
    return list(s.events)


def check(s: LedgerState) -> None:
    """Capacity, exclusion, and that nobody waits who could hold."""
    for lock in s.locks.by_name.values():
        held = list(locks.holders(s, lock))
        if lock.capacity == 1:
            assert len(held) <= 1 or all(claim.shared for claim in held)
        else:
            assert sum(claim.units for claim in held) <= lock.capacity
        if lock.waiters:
            first = s.lock_claims[next(iter(lock.waiters))]
            total = lock.capacity if lock.capacity > 1 else WRITER_UNITS
            assert sum(claim.units for claim in held) + first.units > total
        assert held or lock.waiters


@given(steps)
@settings(max_examples=300)
def test_exclusion_turns_and_tokens(sequence: list[Step]) -> None:
    s = table()
    order: dict[str, list[str]] = {name: [] for name in NAMES}  # who waits, as it was asked
    last_token = 0
    for index, step in enumerate(sequence, 1):
        before = dict(s.lock_claims)
        events = apply(s, step, index)
        for event in events:
            assert isinstance(event, LockGranted | LockEnded)
            waits = order[event.name]
            if isinstance(event, LockEnded):
                assert event.token == before[event.claim].token
                if not event.token:
                    waits.remove(event.claim)
            else:
                assert event.token > last_token, "tokens only rise"
                last_token = event.token
                if event.claim in before:
                    assert waits.pop(0) == event.claim, "nobody is overtaken"
        for claim in s.lock_claims.values():
            if claim.id not in before and not claim.token:
                order[claim.name].append(claim.id)
        assert {name: list(lock.waiters) for name, lock in s.locks.by_name.items()} == {
            name: waits for name, waits in order.items() if name in s.locks.by_name
        }
        check(s)


@given(steps)
@settings(max_examples=200)
def test_what_is_kept_is_all_that_decides(sequence: list[Step]) -> None:
    """A state that was built anew from its claims goes on like the one that never was."""
    s = table()
    for index, step in enumerate(sequence, 1):
        anew = table(s)
        events = apply(s, step, index)
        assert apply(anew, step, index) == events
        assert list(anew.lock_claims.items()) == list(s.lock_claims.items())
        assert anew.lock_token == s.lock_token


def run_down(s: LedgerState) -> list[Claim]:
    """Everybody who has all it waits for lets go of everything, until nothing moves: who is
    left? An independent way to see a deadlock, by the locks themselves."""
    moved = True
    while moved:
        moved = False
        for claim in list(s.lock_claims.values()):
            mine = [s.lock_claims[other] for other in s.locks.by_owner[claim.owner]]
            if claim.token and all(other.token for other in mine):
                locks.decide(s, ReleaseLock(claim.name, claim.id))
                moved = True
                break
    return list(s.lock_claims.values())


@given(steps)
@settings(max_examples=400)
def test_a_deadlock_is_told_if_and_only_if_it_is_one(sequence: list[Step]) -> None:
    """As clients take them: who waits for one lock doesn't ask for another."""
    s = table()
    for index, step in enumerate(sequence, 1):
        if step[0] == "take":
            action = wish(step)
            mine = [s.lock_claims[claim] for claim in s.locks.by_owner.get(action.owner, ())]
            if action.claim in s.lock_claims or not all(claim.token for claim in mine):
                continue
            answer = locks.decide(s, action)
            trial = table(s)
            if isinstance(answer, Rejected):
                assert answer.code == "deadlock"
                trial.locks.add(waiting(action))
                left = run_down(trial)
                assert action.claim in {claim.id for claim in left}, "it would have had its turn"
            else:
                assert not run_down(trial), "nobody was told"
        else:
            apply(s, step, index)


def waiting(action: AcquireLock) -> Claim:
    """As it would stand had nobody looked for a deadlock."""
    writes = action.capacity == 1 and not action.shared
    return Claim(
        action.claim,
        action.name,
        action.lease,
        action.owner,
        action.capacity,
        WRITER_UNITS if writes else action.permits,
        action.shared,
        "",
    )


@given(st.integers(2, 30))
def test_a_circle_of_any_size_is_told_link_by_link(count: int) -> None:
    s = table()
    for number in range(count):
        take(s, number, number)
    for number in range(count - 1):
        take(s, number, number + 1)
    closing = waiting(action_of(count - 1, 0))
    s.locks.add(closing)
    circle = deadlocks.circle_through(s.locks, closing)
    assert len(circle) == count
    assert circle[0][0] == closing
    for (_, other), (waiter, _) in zip(circle, [*circle[1:], circle[0]], strict=True):
        assert waiter.owner == other.owner


def action_of(owner: int, lock: int) -> AcquireLock:
    return AcquireLock(f"lock-{lock}", f"{owner:016x}{lock:016x}", "lease-0", f"owner-{owner}")


def take(s: LedgerState, owner: int, lock: int) -> None:
    answer = locks.decide(s, action_of(owner, lock))
    assert isinstance(answer, LockHeld) == (owner == lock)


def test_both_kinds_of_events_are_told_apart() -> None:
    s = table()
    assert [type(event) for event in apply(s, ("take", 1, 0, 1, False), 1)] == [LockGranted]
    assert [type(event) for event in apply(s, ("release", 1, 0, 1, False), 2)] == [LockEnded]
