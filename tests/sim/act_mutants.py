"""Bugs in acts, leases and keys, planted on purpose: see `mutants`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from unittest.mock import patch

from p2psched.core import acts, keys, leases, scheduler, snapshot
from p2psched.core.coordinator import Coordinator
from p2psched.core.machine import Machine
from p2psched.core.state import LedgerState
from p2psched.model.actions import Acted, Elapsed
from p2psched.model.commands import Acknowledged, Command, Rejected
from p2psched.model.key_actions import KeyAction, KeyAnswer, KeyDeleted, KeyPut, KeyRead, Op, PutKey
from p2psched.testing import sim_keys
from p2psched.testing.faults import Faults
from tests.sim.mutants import OFTEN, RESTLESS, Mutant

# Answers are lost, and leaders now and then.
LOSSY: Final = Faults(drop=0.03, tail=0.1, cut_every_ms=2_500, cut_ms_max=700, sync_us_max=5_000)


@contextmanager
def _everywhere() -> Iterator[None]:
    """Clients act in each seed."""
    with patch.object(sim_keys, "SHARE", 1.0):
        yield


@contextmanager
def _forgets_what_acted() -> Iterator[None]:
    def keep(s: LedgerState, key: tuple[int, int], outcome: Acted | Rejected) -> None:
        pass

    with _everywhere(), patch.object(acts, "_keep", keep):
        yield


@contextmanager
def _forgets_in_snapshots() -> Iterator[None]:
    restore = snapshot.restore_machine

    def forgetful(machine: Machine, data: bytes) -> None:
        restore(machine, data)
        machine.acted.clear()

    with _everywhere(), patch.object(scheduler, "restore_machine", forgetful):
        yield


@contextmanager
def _ends_by_local_clocks() -> Iterator[None]:
    """What the leader's own clock says is due ends, not what the ledger's does."""
    to_elapse = Coordinator.to_elapse

    def by_own(coordinator: Coordinator, ledger_ms: int) -> list[Command]:
        return to_elapse(coordinator, max(ledger_ms, coordinator._looked_ms))

    def trusting(s: LedgerState, command: Elapsed) -> Acknowledged:
        while (due_ms := acts.next_due_ms(s)) is not None and due_ms <= command.upto_ms:
            leases.elapse(s)
        return Acknowledged()

    with (
        _everywhere(),
        patch.object(Coordinator, "to_elapse", by_own),
        patch.object(acts, "elapse", trusting),
    ):
        yield


@contextmanager
def _does_a_part() -> Iterator[None]:
    """The operations of a transaction are looked at one by one, as they are done."""
    refusal, do = keys._refusal, keys._do

    def first(s: LedgerState, ops: tuple[Op, ...]) -> Rejected | None:
        return refusal(s, ops[:1])

    def careful(s: LedgerState, op: Op) -> KeyPut | KeyDeleted | KeyRead:
        if isinstance(op, PutKey) and refusal(s, (op,)) is not None:
            return KeyRead(None)
        return do(s, op)

    with (
        _everywhere(),
        patch.object(keys, "_refusal", first),
        patch.object(keys, "_do", careful),
    ):
        yield


@contextmanager
def _keeps_keys_of_the_dead() -> Iterator[None]:
    with _everywhere(), patch.object(keys, "on_lease_ended", lambda s, lease: None):
        yield


@contextmanager
def _swaps_without_looking() -> Iterator[None]:
    decide = keys.decide

    def blind(s: LedgerState, action: KeyAction) -> KeyAnswer | Rejected:
        if isinstance(action, PutKey):
            action = PutKey(action.key, action.value, action.lease)
        return decide(s, action)

    with _everywhere(), patch.object(keys, "decide", blind):
        yield


ACT_MUTANTS: Final = (
    Mutant(
        name="an act that is repeated acts twice",
        plant=_forgets_what_acted,
        faults=LOSSY,
        broken="P7",
    ),
    Mutant(
        name="outcomes of acts are not in the snapshot",
        plant=_forgets_in_snapshots,
        faults=RESTLESS,
        broken="P",
        snapshots=OFTEN,
    ),
    Mutant(
        name="a lease ends by the leader's own clock",
        plant=_ends_by_local_clocks,
        faults=LOSSY,
        broken="P7",
    ),
    Mutant(
        name="a transaction is done in part",
        plant=_does_a_part,
        faults=LOSSY,
        broken="P7",
    ),
    Mutant(
        name="keys outlive their lease",
        plant=_keeps_keys_of_the_dead,
        faults=LOSSY,
        broken="P7",
    ),
    Mutant(
        name="a key is swapped whatever its version",
        plant=_swaps_without_looking,
        faults=LOSSY,
        broken="P7",
    ),
)
