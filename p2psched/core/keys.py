"""The part of the fold that is about keys.

Whatever is refused changes nothing, a transaction as a whole: what it needs is reckoned before the
first of its operations is done. Where changes stand in the ledger is noted now and then (`marks`),
so that whoever watches from a version on finds its place.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Sequence
from typing import Final

from p2psched.core import locks
from p2psched.core.state import LedgerState
from p2psched.model.commands import Rejected
from p2psched.model.key_actions import (
    KEYS_BYTES_MAX,
    KEYS_MAX,
    LEASE_KEYS_MAX,
    TRANSACTION_BYTES_MAX,
    Compare,
    DeleteKey,
    Entry,
    GetInside,
    Holds,
    KeyAction,
    KeyAnswer,
    KeyChanged,
    KeyConflict,
    KeyDeleted,
    KeyPut,
    KeyRead,
    Op,
    PutKey,
    Transact,
    Transacted,
    ValueIs,
    VersionIs,
)
from p2psched.model.lease_actions import LeaseId
from p2psched.model.limits import KIB, MIB

MARKS_MAX: Final = 1_024  # then every second one goes, and they lie twice as far apart


def decide(s: LedgerState, action: KeyAction) -> KeyAnswer | Rejected:
    match action:
        case PutKey(key=key, expected=expected) | DeleteKey(key=key, expected=expected):
            if expected is not None and _version(s, key) != expected:
                return KeyConflict(s.keys.get(key))
            refusal = _refusal(s, (action,))
            if refusal is not None:
                return refusal
            result = _do(s, action)
            assert not isinstance(result, KeyRead)
            return result
        case Transact():
            held = all(_holds(s, compare) for compare in action.compare)
            ops = action.then if held else action.otherwise
            refusal = _refusal(s, ops)
            if refusal is not None:
                return refusal
            return Transacted(held, s.command_index, tuple([_do(s, op) for op in ops]))


def _version(s: LedgerState, key: str) -> int:
    entry = s.keys.get(key)
    return entry.version if entry is not None else 0


def _holds(s: LedgerState, compare: Compare) -> bool:
    match compare:
        case VersionIs(key=key, version=version):
            return _version(s, key) == version
        case ValueIs(key=key, value=value):
            entry = s.keys.get(key)
            return entry is not None and entry.value == value
        case Holds(lock=lock, token=token):
            return locks.holds(s, lock, token)


def _refusal(s: LedgerState, ops: Sequence[Op]) -> Rejected | None:
    """Why these can't be done, all of them."""
    after: dict[str, PutKey | None] = {}  # what each key would be
    read = 0
    for op in ops:
        match op:
            case PutKey(key=key, lease=lease):
                if lease is not None and lease not in s.leases:
                    return Rejected("refused", f"lease {lease} has ended: take another one")
                after[key] = op
            case DeleteKey(key=key):
                after[key] = None
            case GetInside(key=key):
                held = after[key] if key in after else s.keys.get(key)
                read += len(held.value) if held is not None else 0
    if read > TRANSACTION_BYTES_MAX:
        return Rejected(
            "refused",
            f"what this would read has {read // KIB:,} KiB, and {TRANSACTION_BYTES_MAX // KIB} are "
            "the most: read fewer keys at a time",
        )
    return _no_room(s, after)


def _no_room(s: LedgerState, after: dict[str, PutKey | None]) -> Rejected | None:
    count, size = len(s.keys), s.key_bytes
    hanging: dict[LeaseId, int] = {}
    for key, put in after.items():
        known = s.keys.get(key)
        if known is not None:
            count, size = count - 1, size - known.size
        if put is not None:
            count, size = count + 1, size + len(key) + len(put.value)
            if put.lease is not None and (known is None or known.lease != put.lease):
                hanging[put.lease] = hanging.get(put.lease, 0) + 1
    is_more = size > s.key_bytes or count > len(s.keys)
    if is_more and (count > KEYS_MAX or size > KEYS_BYTES_MAX):
        return Rejected(
            "refused",
            f"the ledger holds {len(s.keys):,} keys of {s.key_bytes // MIB:,} MiB, and "
            f"{KEYS_MAX:,} or {KEYS_BYTES_MAX // MIB} MiB are the most: delete some",
        )
    for lease, more in hanging.items():
        if len(s.lease_keys.get(lease, ())) + more > LEASE_KEYS_MAX:
            return Rejected(
                "refused", f"{LEASE_KEYS_MAX:,} keys hang on lease {lease}: take another one"
            )
    return None


def _do(s: LedgerState, op: Op) -> KeyPut | KeyDeleted | KeyRead:
    match op:
        case PutKey(key=key, value=value, lease=lease):
            _put(s, key, value, lease)
            return KeyPut(s.command_index)
        case DeleteKey(key=key):
            return KeyDeleted(_delete(s, key))
        case GetInside(key=key):
            return KeyRead(s.keys.get(key))


def _put(s: LedgerState, key: str, value: bytes, lease: LeaseId | None) -> None:
    known = s.keys.get(key)
    created = s.command_index
    if known is not None:
        created = known.created
        s.key_bytes -= known.size
        if known.lease != lease:
            _let_go(s, known)
    else:
        insort(s.key_order, key)
    entry = s.keys[key] = Entry(key, value, s.command_index, created, lease)
    s.key_bytes += entry.size
    if lease is not None:
        s.lease_keys.setdefault(lease, {})[key] = None
    _tell(s, KeyChanged(key, entry.version, created, value, lease))


def _delete(s: LedgerState, key: str) -> bool:
    known = s.keys.pop(key, None)
    if known is None:
        return False
    del s.key_order[bisect_left(s.key_order, key)]
    s.key_bytes -= known.size
    _let_go(s, known)
    _tell(s, KeyChanged(key, s.command_index, known.created, None, known.lease))
    return True


def _let_go(s: LedgerState, entry: Entry) -> None:
    """It hangs on its lease no more."""
    hanging = s.lease_keys.get(entry.lease) if entry.lease is not None else None
    if hanging is not None:
        hanging.pop(entry.key, None)
        if not hanging:
            del s.lease_keys[entry.lease or ""]


def on_lease_ended(s: LedgerState, lease: LeaseId) -> None:
    """All of its keys go, in the command that ends it."""
    for key in sorted(s.lease_keys.pop(lease, ())):
        _delete(s, key)


def _tell(s: LedgerState, event: KeyChanged) -> None:
    s.events.append(event)
    marks = s.key_marks
    if not marks or s.applied_index - marks[-1][1] >= s.key_marks_apart:
        marks.append((s.command_index, s.applied_index))
        if len(marks) > MARKS_MAX:
            del marks[1::2]
            s.key_marks_apart *= 2


def rebuild(s: LedgerState) -> None:
    """What follows from the keys, after a state was restored."""
    s.key_order = sorted(s.keys)
    s.key_bytes = sum(entry.size for entry in s.keys.values())
    s.lease_keys = {}
    for entry in s.keys.values():
        if entry.lease is not None:
            s.lease_keys.setdefault(entry.lease, {})[entry.key] = None


# --- looks ----------------------------------------------------------------------------------------


def entries(s: LedgerState, prefix: str, after: str | None) -> Iterator[Entry]:
    """Those whose keys begin so, in order of their keys, behind `after`."""
    order = s.key_order
    start = bisect_left(order, prefix)
    if after is not None:
        start = max(start, bisect_left(order, after))
        if start < len(order) and order[start] == after:
            start += 1
    for place in range(start, len(order)):
        key = order[place]
        if not key.startswith(prefix):
            return
        yield s.keys[key]


def entry_of_version(s: LedgerState, version: int) -> int | None:
    """An entry of the ledger at or before the first change behind a version; None: there was no
    change of a key yet."""
    marks = s.key_marks
    place = bisect_right(marks, version, key=lambda mark: mark[0]) - 1
    return marks[max(place, 0)][1] if marks else None


def version_at(s: LedgerState, entry: int) -> int:
    """A version that can be watched from if this entry of the ledger, and all later ones, can be
    had."""
    return next((version for version, at in s.key_marks if at >= entry), s.command_index)
