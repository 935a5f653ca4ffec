"""Whatever comes to the locks in whatever order: what must hold of them, against a plain model."""

from __future__ import annotations

from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st

from p2psched.core import deadlocks, locks
from p2psched.core.locks import WRITER_UNITS, Claim, Locks
from p2psched.model.commands import Rejected
from p2psched.model.lock_actions import (
    AcquireLock,
    LockEnded,
    LockEvent,
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


def apply(s: Locks, step: Step, index: int) -> list[LockEvent]:
    events: list[LockEvent] = []
    what, claim, lock, _, _ = step
    if what in ("take", "try"):
        locks.acquire(s, wish(step), index=index, events=events)
    elif what == "release":
        action = ReleaseLock(NAMES[lock], f"{claim:032x}")
        locks.release(s, action, index=index, events=events)
    else:
        locks.on_lease_ended(s, f"lease-{claim % 4}", index=index, events=events)
    return events


def check(s: Locks) -> None:
    """Capacity, exclusion, and that nobody waits who could hold."""
    for lock in s.by_name.values():
        held = list(locks.holders(s, lock))
        if lock.capacity == 1:
            assert len(held) <= 1 or all(claim.shared for claim in held)
        else:
            assert sum(claim.units for claim in held) <= lock.capacity
        if lock.waiters:
            first = s.claims[next(iter(lock.waiters))]
            total = lock.capacity if lock.capacity > 1 else WRITER_UNITS
            assert sum(claim.units for claim in held) + first.units > total
        assert held or lock.waiters


@given(steps)
@settings(max_examples=300)
def test_exclusion_turns_and_tokens(sequence: list[Step]) -> None:
    s = Locks()
    order: dict[str, list[str]] = {name: [] for name in NAMES}  # who waits, as it was asked
    last_token = 0
    for index, step in enumerate(sequence, 1):
        before = dict(s.claims)
        events = apply(s, step, index)
        for event in events:
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
        for claim in s.claims.values():
            if claim.id not in before and not claim.token:
                order[claim.name].append(claim.id)
        assert {name: list(lock.waiters) for name, lock in s.by_name.items()} == {
            name: waits for name, waits in order.items() if name in s.by_name
        }
        check(s)


@given(steps)
@settings(max_examples=200)
def test_what_is_kept_is_all_that_decides(sequence: list[Step]) -> None:
    """A state that was built anew from its claims goes on like the one that never was."""
    s = Locks()
    for index, step in enumerate(sequence, 1):
        anew = Locks(dict(s.claims), s.last_token)
        events = apply(s, step, index)
        assert apply(anew, step, index) == events
        assert list(anew.claims.items()) == list(s.claims.items())
        assert anew.last_token == s.last_token


def run_down(s: Locks) -> list[Claim]:
    """Everybody who has all it waits for lets go of everything, until nothing moves: who is
    left? An independent way to see a deadlock, by the locks themselves."""
    moved = True
    while moved:
        moved = False
        for claim in list(s.claims.values()):
            mine = [s.claims[other] for other in s.by_owner[claim.owner]]
            if claim.token and all(other.token for other in mine):
                action = ReleaseLock(claim.name, claim.id)
                locks.release(s, action, index=0, events=[])
                moved = True
                break
    return list(s.claims.values())


@given(steps)
@settings(max_examples=400)
def test_a_deadlock_is_told_if_and_only_if_it_is_one(sequence: list[Step]) -> None:
    """As clients take them: who waits for one lock doesn't ask for another."""
    s = Locks()
    for index, step in enumerate(sequence, 1):
        if step[0] == "take":
            action = wish(step)
            mine = [s.claims[claim] for claim in s.by_owner.get(action.owner, ())]
            if action.claim in s.claims or not all(claim.token for claim in mine):
                continue
            answer = locks.acquire(s, action, index=index, events=[])
            trial = Locks(dict(s.claims), s.last_token)
            if isinstance(answer, Rejected):
                assert answer.code == "deadlock"
                trial.add(waiting(action))
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
    s = Locks()
    for number in range(count):
        take(s, number, number)
    for number in range(count - 1):
        take(s, number, number + 1)
    closing = waiting(action_of(count - 1, 0))
    s.add(closing)
    circle = deadlocks.circle_through(s, closing)
    assert len(circle) == count
    assert circle[0][0] == closing
    for (_, other), (waiter, _) in zip(circle, [*circle[1:], circle[0]], strict=True):
        assert waiter.owner == other.owner


def action_of(owner: int, lock: int) -> AcquireLock:
    return AcquireLock(f"lock-{lock}", f"{owner:016x}{lock:016x}", "lease", f"owner-{owner}")


def take(s: Locks, owner: int, lock: int) -> None:
    answer = locks.acquire(s, action_of(owner, lock), index=1, events=[])
    assert isinstance(answer, LockHeld) == (owner == lock)


def test_both_kinds_of_events_are_told_apart() -> None:
    s = Locks()
    assert [type(event) for event in apply(s, ("take", 1, 0, 1, False), 1)] == [LockGranted]
    assert [type(event) for event in apply(s, ("release", 1, 0, 1, False), 2)] == [LockEnded]
