"""The part of the fold that lets each act of a client act once, and what is due happen in time.

A caller's name is the index of the command that gave it, so a caller that is unknown was forgotten:
nothing is done for it, since it may have been done before. Of each known one the outcomes are kept
that it may not have heard yet, encoded. Bounds: the caller that was silent longest is forgotten.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from p2psched.core import keys, leases, locks, queues, retrying
from p2psched.core.state import LedgerState
from p2psched.model.actions import Act, Acted, Action, ActionAnswer, Elapsed
from p2psched.model.commands import Acknowledged, Rejected
from p2psched.model.errors import Forgotten
from p2psched.model.key_actions import DeleteKey, PutKey, Transact
from p2psched.model.lease_actions import EndLease, Enrol, Enrolled, KeepLeases, TakeLease
from p2psched.model.limits import MIB
from p2psched.model.lock_actions import AcquireLock, ReleaseLock
from p2psched.model.queue_actions import OfQueues

CALLERS_MAX: Final = 16_384
UNSETTLED_MAX: Final = 1_024  # acts of one caller, from the first whose outcome it hasn't heard
OUTCOMES_MAX: Final = 65_536  # of all callers
OUTCOME_BYTES_MAX: Final = 16 * MIB
LAPSES_MAX: Final = 1_000  # in one command; the next one goes on

_encode: Final = msgspec.msgpack.Encoder().encode
_decoder: Final[msgspec.msgpack.Decoder[Acted | Rejected]] = msgspec.msgpack.Decoder(
    Acted | Rejected
)

# What has things that are due: when the first is, and let that one happen. At equal times in this
# order.
_CLOCKS: Final[
    tuple[tuple[Callable[[LedgerState], int | None], Callable[[LedgerState], None]], ...]
] = (
    (leases.next_due_ms, leases.elapse),
    (queues.next_due_ms, queues.elapse),
    (retrying.next_due_ms, retrying.elapse),
)


def decide(s: LedgerState, command: Act | Elapsed) -> Acted | Acknowledged | Rejected:
    return act(s, command) if isinstance(command, Act) else elapse(s, command)


def act(s: LedgerState, command: Act) -> Acted | Rejected:
    if isinstance(command.action, Enrol):
        return _enrol(s)
    caller = s.callers.get(command.caller)
    if caller is None:
        return _forgotten("this client was silent for too long, and is not known any more")
    key = (command.caller, command.number)
    known = s.acted.get(key)
    if known is not None:
        return _decoder.decode(known)
    if not 0 < command.settled <= command.number:
        return Rejected("usage", f"act {command.number} settles what comes before itself")
    settled, highest = caller
    if command.number < settled:
        return _forgotten("this client has said that it waits no longer for this")
    if command.number >= max(settled, command.settled) + UNSETTLED_MAX:
        return Rejected("unavailable", f"a client may wait for {UNSETTLED_MAX:,} outcomes at most")
    if command.settled > settled:
        _drop(s, command.caller, range(settled, min(command.settled, highest + 1)))
        settled = command.settled
    del s.callers[command.caller]  # the one that was silent longest stands first
    s.callers[command.caller] = (settled, max(highest, command.number))
    answer = _decide(s, command.action)
    outcome = answer if isinstance(answer, Rejected) else Acted(answer)
    # What may be there later is not refused for ever: nothing has acted.
    if not isinstance(outcome, Rejected) or outcome.code != "unavailable":
        _keep(s, key, outcome)
    return outcome


def _decide(s: LedgerState, action: Action) -> ActionAnswer | Rejected:
    match action:
        case TakeLease() | KeepLeases() | EndLease():
            return leases.decide(s, action)
        case PutKey() | DeleteKey() | Transact():
            return keys.decide(s, action)
        case AcquireLock() | ReleaseLock():
            return locks.decide(s, action)
        case OfQueues():
            return queues.decide(s, action)
        case Enrol():
            raise AssertionError("enrolled before")


def _enrol(s: LedgerState) -> Acted:
    while len(s.callers) >= CALLERS_MAX:
        _forget_oldest(s)
    s.callers[s.command_index] = (1, 0)
    return Acted(Enrolled(s.command_index))


def _forgotten(why: str) -> Rejected:
    return Rejected(Forgotten.code, f"{why}: whether its last operation acted is unknown")


def _keep(s: LedgerState, key: tuple[int, int], outcome: Acted | Rejected) -> None:
    kept = _encode(outcome)
    while len(s.callers) > 1 and (
        len(s.acted) >= OUTCOMES_MAX or s.acted_bytes + len(kept) > OUTCOME_BYTES_MAX
    ):
        _forget_oldest(s)
    if s.acted_bytes + len(kept) > OUTCOME_BYTES_MAX:  # all of one caller
        kept = _encode(Rejected("refused", "it acted, and its answer was too large to be kept"))
    s.acted[key] = kept
    s.acted_bytes += len(kept)


def _forget_oldest(s: LedgerState) -> None:
    name = next(iter(s.callers))
    settled, highest = s.callers.pop(name)
    _drop(s, name, range(settled, highest + 1))


def _drop(s: LedgerState, caller: int, numbers: range) -> None:
    for number in numbers:
        kept = s.acted.pop((caller, number), None)
        if kept is not None:
            s.acted_bytes -= len(kept)


# --- time -----------------------------------------------------------------------------------------


def next_due_ms(s: LedgerState) -> int | None:
    """When the next thing is due, in ledger time."""
    due = [due_ms for next_due, _ in _CLOCKS if (due_ms := next_due(s)) is not None]
    return min(due, default=None)


def elapse(s: LedgerState, command: Elapsed) -> Acknowledged:
    """In the order in which things are due, whatever they are."""
    upto_ms = min(command.upto_ms, s.stamp_ms)
    for _ in range(LAPSES_MAX):
        due_ms = next_due_ms(s)
        if due_ms is None or due_ms > upto_ms:
            break
        next(lapse for next_due, lapse in _CLOCKS if next_due(s) == due_ms)(s)
    return Acknowledged()


def rebuild(s: LedgerState) -> None:
    """What follows from the rest, after a state was restored."""
    s.acted_bytes = sum(map(len, s.acted.values()))
    leases.rebuild(s)
    keys.rebuild(s)
    locks.rebuild(s)
    queues.rebuild(s)
    retrying.rebuild(s)
