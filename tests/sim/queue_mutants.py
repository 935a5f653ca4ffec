"""Bugs of queues planted on purpose, in seeds that all have queues."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final
from unittest.mock import patch

from p2psched.core import acts, queues
from p2psched.core.coordinator import Coordinator
from p2psched.core.queue_state import Item, Queue
from p2psched.core.state import LedgerState
from p2psched.model.actions import Elapsed
from p2psched.model.commands import Acknowledged, Command
from p2psched.model.queue_actions import AckItems, ExtendItems, NackItems, QueueAnswer
from p2psched.testing import sim_queues
from p2psched.testing.faults import Faults
from tests.sim.mutants import BEHIND, NEVER, OFTEN, Mutant, Planted

AHEAD_MS: Final = 400
WEATHER: Final = Faults(
    drop=0.1,
    tail=0.05,
    cut_every_ms=1_000,
    cut_ms_max=500,
    crash_every_ms=2_000,
    restart_ms_max=200,
    drift_ppm=500,
)


def in_all_seeds(plant: Callable[[], Planted]) -> Callable[[], Planted]:
    @contextmanager
    def planted() -> Iterator[None]:
        with patch.object(sim_queues, "SHARE", 1.0), plant():
            yield

    return planted


def _drops_dead_letters() -> Planted:
    return patch.object(queues, "_bury", lambda s, queue, item: None)


def _loses_takers() -> Planted:
    """Who waits is not in the bytes, as if it were a matter of whoever leads."""
    rebuild = queues.rebuild

    def forgetful(s: LedgerState) -> None:
        for name, claim in list(s.queue_claims.items()):
            if not claim.held:
                del s.queue_claims[name]
        rebuild(s)

    return patch.object(queues, "rebuild", forgetful)


@contextmanager
def _trusts_a_local_clock() -> Iterator[None]:
    """Whoever leads says what time it is, by a clock that runs ahead."""
    to_elapse = Coordinator.to_elapse

    def hasty(coordinator: Coordinator, ledger_ms: int) -> list[Command]:
        return to_elapse(coordinator, ledger_ms + AHEAD_MS)

    def elapse(s: LedgerState, command: Elapsed) -> Acknowledged:
        while (due_ms := queues.next_due_ms(s)) is not None and due_ms <= command.upto_ms:
            queues.elapse(s)
        return Acknowledged()

    with patch.object(Coordinator, "to_elapse", hasty), patch.object(acts, "elapse", elapse):
        yield


def _takes_old_receipts() -> Planted:
    settle = queues._settle

    def careless(s: LedgerState, action: AckItems | NackItems | ExtendItems) -> QueueAnswer:
        queue = s.queues.queues.get(action.queue)
        receipts = tuple(
            (number, queue.items[number].receipt if queue and number in queue.items else receipt)
            for number, receipt in action.receipts
        )
        return settle(s, type(action)(action.queue, receipts, *_rest(action)))

    return patch.object(queues, "_settle", careless)


def _rest(action: AckItems | NackItems | ExtendItems) -> tuple[int, ...]:
    match action:
        case AckItems():
            return ()
        case NackItems(delay_ms=delay_ms):
            return (delay_ms,)
        case ExtendItems(visibility_ms=visibility_ms):
            return (visibility_ms,)


def _forgets_keys() -> Planted:
    def is_ready(queue: Queue, item: Item) -> bool:
        return not item.receipt and not item.due_ms

    return patch.object(Queue, "is_ready", is_ready)


def _mutant(name: str, plant: Callable[[], Planted], broken: str, *, saved: bool = False) -> Mutant:
    return Mutant(
        name=name,
        plant=in_all_seeds(plant),
        faults=BEHIND if saved else WEATHER,
        broken=broken,
        snapshots=OFTEN if saved else NEVER,
        events=4_000,
    )


QUEUE_MUTANTS: Final = (
    _mutant("a dead letter is dropped", _drops_dead_letters, "P7"),
    _mutant("a taker is lost in a snapshot", _loses_takers, "P14", saved=True),
    _mutant("items come back by a local clock", _trusts_a_local_clock, "before its time"),
    _mutant("an item is acked under an old receipt", _takes_old_receipts, "P7"),
    _mutant("an item passes an earlier one of its key", _forgets_keys, "of its key"),
)
