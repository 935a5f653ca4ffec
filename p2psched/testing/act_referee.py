"""What must hold of acts, leases and keys: a plain account of them, kept beside the fold.

Each committed entry is read once, in order. An act acts once, and a repeat is told the same; a
transaction is whole or nothing; a lease ends by its deadline in ledger time and not before, and
its keys with it; and no lease ends on which its holder still counts (P7).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from p2psched.core.event_log import Happened
from p2psched.model.actions import Act, Acted, Action, Elapsed
from p2psched.model.commands import Outcome, Rejected
from p2psched.model.key_actions import (
    Compare,
    DeleteKey,
    Entry,
    GetInside,
    Holds,
    KeyChanged,
    KeyConflict,
    KeyDeleted,
    KeyPut,
    KeyRead,
    Op,
    PutKey,
    Transact,
    Transacted,
    VersionIs,
)
from p2psched.model.lease_actions import EndLease, KeepLeases, LeaseEnded, TakeLease
from p2psched.model.lock_actions import LockEnded, LockGranted
from p2psched.testing.promises import demand

Change = tuple[str, bytes | None]  # a key, and what it holds from now on

LEVEL: Final = 4  # before it nothing acts


class ActReferee:
    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.keys: dict[str, Entry] = {}
        self.leases: dict[str, tuple[int, int]] = {}  # -> how long it lives, until when
        self.tokens: set[tuple[str, int]] = set()  # of locks that are held
        self.holders: dict[str, Callable[[], bool]] = {}  # who says that it counts on a lease
        self._index = 0
        self._stamp_ms = 0
        self._first: dict[tuple[int, int], Outcome] = {}  # of each act

    def on_happened(self, happened: Happened) -> None:
        """Of whichever peer applies an entry first."""
        batch = happened.batch
        if batch.index != self._index + 1 and self._index:  # 0: a ledger that goes on from a copy
            assert batch.index <= self._index, "somebody applied it before it was in a snapshot"
            return
        self._index = batch.index
        self._stamp_ms = max(self._stamp_ms, batch.stamp_ms)
        number = happened.before
        for envelope, outcome in zip(batch.envelopes, happened.outcomes, strict=True):
            number += 1
            command = envelope.command
            if not isinstance(command, Act | Elapsed):
                continue
            events = [s.event for s in happened.events if s.index == number]
            changes = [(e.key, e.value) for e in events if isinstance(e, KeyChanged)]
            ended = [e.lease for e in events if isinstance(e, LeaseEnded)]
            if isinstance(outcome, Rejected) and outcome.code == "unavailable":
                expected: tuple[object, list[Change], list[str]] = (outcome, [], [])
            elif isinstance(command, Elapsed):
                expected = (outcome, *self._elapse(command))
            else:
                expected = self._act(command, outcome, number)
            found = (outcome, changes, ended)
            if found != expected:
                demand(False, "P7", f"{command} led to {found}, not to {expected}")
            self._note_locks(events)

    def _note_locks(self, events: Sequence[object]) -> None:
        for event in events:
            if isinstance(event, LockGranted):
                self.tokens.add((event.name, event.token))
            elif isinstance(event, LockEnded):
                self.tokens.discard((event.name, event.token))

    def _act(
        self, act: Act, outcome: Outcome, number: int
    ) -> tuple[Outcome, list[Change], list[str]]:
        key = (act.caller, act.number)
        if act.caller and key in self._first and not _is_forgotten(outcome):
            self.counts["acts repeated"] += 1
            return self._first[key], [], []
        if isinstance(outcome, Rejected) and _is_forgotten(outcome):
            self.counts["acts too late"] += 1
            return outcome, [], []
        if act.caller:
            self._first[key] = outcome
            self.counts[f"acts: {type(act.action).__name__}"] += 1
        return self._do(act.action, outcome, number)

    def _do(
        self, action: Action, outcome: Outcome, number: int
    ) -> tuple[Outcome, list[Change], list[str]]:
        match action:
            case TakeLease(lease=lease, ttl_ms=ttl_ms):
                lives_ms = self.leases.get(lease, (ttl_ms, 0))[0]
                self.leases[lease] = (lives_ms, self._stamp_ms + lives_ms)
            case KeepLeases(leases=leases):
                for lease in leases:
                    if lease in self.leases:
                        lives_ms, _ = self.leases[lease]
                        self.leases[lease] = (lives_ms, self._stamp_ms + lives_ms)
            case EndLease(lease=lease):
                if lease in self.leases:
                    return outcome, self._end(lease), [lease]
            case PutKey() | DeleteKey() | Transact():
                result, changes = self._change(action, number)
                if result is None:  # some lease of it has ended
                    demand(isinstance(outcome, Rejected), "P7", f"{action} was not refused")
                    return outcome, [], []
                return Acted(result), changes, []
            case _:
                pass
        return outcome, [], []

    # --- keys ---

    def _change(
        self, action: PutKey | DeleteKey | Transact, number: int
    ) -> tuple[KeyPut | KeyDeleted | KeyConflict | Transacted | None, list[Change]]:
        ops: Sequence[Op] = (action,) if not isinstance(action, Transact) else action.otherwise
        held = False
        if isinstance(action, Transact):
            held = all(map(self._holds, action.compare))
            ops = action.then if held else action.otherwise
        elif action.expected not in {None, self._version(action.key)}:
            self.counts["races lost"] += 1
            return KeyConflict(self.keys.get(action.key)), []
        hanging = {op.lease for op in ops if isinstance(op, PutKey)} - {None}
        if not hanging <= set(self.leases):
            self.counts["changes refused"] += 1
            return None, []
        changes: list[Change] = []
        results = tuple(self._op(op, number, changes) for op in ops)
        if isinstance(action, Transact):
            return Transacted(held, number, results), changes
        assert not isinstance(results[0], KeyRead)
        return results[0], changes

    def _op(self, op: Op, number: int, changes: list[Change]) -> KeyPut | KeyDeleted | KeyRead:
        known = self.keys.get(op.key)
        match op:
            case PutKey(key=key, value=value, lease=lease):
                created = known.created if known is not None else number
                self.keys[key] = Entry(key, value, number, created, lease)
                changes.append((key, value))
                return KeyPut(number)
            case DeleteKey(key=key):
                if known is not None:
                    del self.keys[key]
                    changes.append((key, None))
                return KeyDeleted(known is not None)
            case GetInside():
                return KeyRead(known)

    def _version(self, key: str) -> int:
        return self.keys[key].version if key in self.keys else 0

    def _holds(self, compare: Compare) -> bool:
        if isinstance(compare, VersionIs):
            return self._version(compare.key) == compare.version
        if isinstance(compare, Holds):
            return (compare.lock, compare.token) in self.tokens
        return compare.key in self.keys and self.keys[compare.key].value == compare.value

    # --- leases ---

    def _end(self, lease: str) -> list[Change]:
        del self.leases[lease]
        gone = sorted(key for key, entry in self.keys.items() if entry.lease == lease)
        for key in gone:
            del self.keys[key]
        self.counts["keys gone with a lease"] += len(gone)
        return [(key, None) for key in gone]

    def _elapse(self, command: Elapsed) -> tuple[list[Change], list[str]]:
        upto_ms = min(command.upto_ms, self._stamp_ms)
        due = sorted((until, name) for name, (_, until) in self.leases.items() if until <= upto_ms)
        changes: list[Change] = []
        for _, lease in due:
            counts_on_it = self.holders.get(lease, lambda: False)()
            demand(not counts_on_it, "P7", f"lease {lease[:8]} ended while its holder counts on it")
            changes += self._end(lease)
            self.counts["leases expired"] += 1
        return changes, [lease for _, lease in due]


def _is_forgotten(outcome: Outcome) -> bool:
    return isinstance(outcome, Rejected) and outcome.code == "forgotten"
