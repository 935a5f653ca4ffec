"""The measures of the benchmark, in the order in which they run."""

from __future__ import annotations

from bench.measures import (
    engines,
    footprint,
    functions,
    keys,
    ledger,
    load,
    locks,
    programs,
    queues,
    recovery,
    stealing,
    transfers,
    whole_loss,
)
from bench.registry import Registry


def registry() -> Registry:
    found = Registry()
    for module in (
        functions,
        stealing,
        programs,
        transfers,
        footprint,
        recovery,
        whole_loss,
        ledger,
        engines,
        keys,
        locks,
        queues,
        load,
    ):
        found.add(*module.MEASURES)
    return found
