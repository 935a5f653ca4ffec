"""Acts: what clients do to leases, keys, locks and queues, each exactly once (ADR 0045).

A client numbers its acts. One whose answer is lost is repeated under its number, at any peer; the
ledger answers the first outcome again. One command carries them all.
"""

from __future__ import annotations

from typing import Final

import msgspec

from p2psched.model import key_actions, lease_actions, lock_actions, queue_actions
from p2psched.model.key_actions import (
    DeleteKey,
    KeyAction,
    KeyAnswer,
    KeyChanged,
    PutKey,
    Transact,
)
from p2psched.model.lease_actions import (
    EndLease,
    Enrol,
    KeepLeases,
    LeaseAction,
    LeaseAnswer,
    LeaseEvent,
    TakeLease,
)
from p2psched.model.lock_actions import (
    AcquireLock,
    LockAction,
    LockAnswer,
    LockEvent,
    ReleaseLock,
)
from p2psched.model.queue_actions import OfQueues, PutItems, QueueAction, QueueAnswer
from p2psched.model.queue_events import QueueEvent

Action = LeaseAction | KeyAction | LockAction | QueueAction
ActionAnswer = LeaseAnswer | KeyAnswer | LockAnswer | QueueAnswer
# Of no job, and in no history but the ledger itself.
ActEvent = LeaseEvent | KeyChanged | LockEvent | QueueEvent
# What takes room in the ledger: refused by a peer whose disk is nearly full.
GROWING: Final[tuple[type[Action], ...]] = (TakeLease, PutKey, Transact, AcquireLock, PutItems)


class Act(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=53):
    """`caller` is what it was told when it enrolled, 0 to enrol. It has heard, or wants to hear no
    more, of all its acts below `settled`."""

    caller: int
    number: int  # 1, 2, 3 ... of its caller
    settled: int
    action: Action


class Elapsed(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=54):
    """Let happen what is due by this ledger time, as far as the ledger's own time has come."""

    upto_ms: int


class Acted(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=6):
    answer: ActionAnswer


def fault_of(action: Action) -> str:
    """Why nobody should propose it; empty if it is well. The fold asks for less."""
    match action:
        case Enrol() | TakeLease() | KeepLeases() | EndLease():
            return lease_actions.fault_of(action)
        case PutKey() | DeleteKey() | Transact():
            return key_actions.fault_of(action)
        case AcquireLock() | ReleaseLock():
            return lock_actions.fault_of(action)
        case OfQueues():
            return queue_actions.fault_of(action)


def size_of(action: Action) -> int:
    """Bytes that it brings, about."""
    match action:
        case PutKey(value=value):
            return len(value)
        case Transact(then=then, otherwise=otherwise):
            return sum(len(op.value) for op in (*then, *otherwise) if isinstance(op, PutKey))
        case PutItems(items=items):
            return sum(len(item.value) for item in items)
        case _:
            return 0
