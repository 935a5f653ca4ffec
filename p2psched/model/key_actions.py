"""What clients do with keys: put, delete and compare, alone or several at once.

A version is the index of the command that made a change: unique to it, rising, one space for all
keys. What one transaction changes has one version. Values are bytes that no peer opens.
"""

from __future__ import annotations

from typing import Final

import msgspec

from p2psched.model.aside import Aside
from p2psched.model.lease_actions import LeaseId
from p2psched.model.limits import KIB, MIB
from p2psched.model.text import utf8_bytes

KEY_BYTES_MAX: Final = 1 * KIB  # in UTF-8
VALUE_BYTES_MAX: Final = 256 * KIB
KEYS_MAX: Final = 100_000
KEYS_BYTES_MAX: Final = 64 * MIB  # of all keys and their values
LEASE_KEYS_MAX: Final = 4_096  # that hang on one lease, and go with it
OPS_MAX: Final = 128  # in each of the three lists of a transaction
TRANSACTION_BYTES_MAX: Final = 512 * KIB  # that it brings, and as many that it reads


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    key: str
    value: bytes
    version: int  # of its last change
    created: int  # version since which it is there
    lease: LeaseId | None = None  # with which it goes

    @property
    def size(self) -> int:
        return len(self.key) + len(self.value)


class PutKey(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=10):
    """Put a value, whatever was there; with `expected` only if the key has that version, 0: if it
    is not there. Without a lease it hangs on none from now on."""

    key: str
    value: bytes
    lease: LeaseId | None = None
    expected: int | None = None


class DeleteKey(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=11):
    key: str
    expected: int | None = None


class GetInside(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=12):
    """Read a key at its place in a transaction."""

    key: str


Op = PutKey | DeleteKey | GetInside  # inside a transaction `expected` is not looked at


class VersionIs(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=1):
    key: str
    version: int  # 0: it is not there


class ValueIs(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=2):
    key: str
    value: bytes


class Holds(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=3):
    """A lock is held under this token: a change that compares so is one that the lock guards."""

    lock: str
    token: int


Compare = VersionIs | ValueIs | Holds


class Transact(msgspec.Struct, frozen=True, array_like=True, tag=13):
    """If all of `compare` holds do all of `then`, else all of `otherwise`, in order; or nothing."""

    compare: tuple[Compare, ...]
    then: tuple[Op, ...]
    otherwise: tuple[Op, ...] = ()


KeyAction = PutKey | DeleteKey | Transact


class KeyPut(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=10):
    version: int


class KeyDeleted(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=11):
    was_there: bool


class KeyConflict(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=12):
    """It was not as expected: nothing is done."""

    current: Entry | None


class KeyRead(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=13):
    entry: Entry | None


class Transacted(msgspec.Struct, frozen=True, array_like=True, tag=14):
    held: bool  # all that it compared
    version: int  # of what it changed
    results: tuple[KeyPut | KeyDeleted | KeyRead, ...]  # of each op that was done


KeyAnswer = KeyPut | KeyDeleted | KeyConflict | Transacted


class KeyChanged(Aside, frozen=True, array_like=True, gc=False, tag=60):
    """`value`: None if it is gone. `lease`: on which it hangs, or with which it went."""

    key: str
    version: int
    created: int
    value: bytes | None
    lease: LeaseId | None


def fault_of(action: KeyAction) -> str:
    """Why nobody should propose it; empty if it is well."""
    if not isinstance(action, Transact):
        return _op_fault(action)
    ops = (*action.then, *action.otherwise)
    if max(len(action.compare), len(action.then), len(action.otherwise)) > OPS_MAX:
        return f"a transaction has up to {OPS_MAX} comparisons and as many operations"
    faults = (
        *(key_fault(one.key) for one in action.compare if not isinstance(one, Holds)),
        *map(_op_fault, ops),
    )
    size = sum(
        len(one.value) for one in (*action.compare, *ops) if isinstance(one, PutKey | ValueIs)
    )
    if size > TRANSACTION_BYTES_MAX:
        return f"the values in a transaction have up to {TRANSACTION_BYTES_MAX // KIB} KiB together"
    return next(filter(None, faults), "")


def _op_fault(op: Op) -> str:
    if isinstance(op, PutKey) and len(op.value) > VALUE_BYTES_MAX:
        return (
            f"the value of key {op.key[:80]!r} has {len(op.value):,} bytes, and "
            f"{VALUE_BYTES_MAX // KIB} KiB are the most: put what is larger into a file or a job"
        )
    return key_fault(op.key)


def key_fault(key: str) -> str:
    return (
        ""
        if 0 < utf8_bytes(key) <= KEY_BYTES_MAX
        else f"a key has 1 to {KEY_BYTES_MAX} bytes of UTF-8"
    )
