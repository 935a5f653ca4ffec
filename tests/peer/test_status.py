"""What a peer counts for its status: large results that are on fewer disks than asked for."""

from __future__ import annotations

import msgspec
import pytest

from p2psched.core.machine import Machine
from p2psched.model.blob import ResultBlob
from p2psched.model.commands import Place, Placed, SubmitJob
from p2psched.model.ids import PeerId
from p2psched.peer import holder_status
from p2psched.peer.holder_status import short_of_copies
from tests.core.test_machine import (
    ALL,
    JOB,
    Ledger,
    P,
    Q,
    blob_ref,
    complete,
    ended,
    spec,
    up,
)


def machine_with(*holders: tuple[PeerId, ...], copies: int = 2, peers: int = 2) -> Machine:
    """One large result for each of `holders`."""
    ledger = Ledger()
    for peer in (P, Q)[:peers]:
        ledger.do(up(peer))
    ledger.do(SubmitJob(JOB, msgspec.structs.replace(spec(), copies=copies)))
    placed = ledger.do(Place(JOB, ALL, P, 1))
    assert isinstance(placed, Placed)
    blobs = tuple(ResultBlob(n, "", blob_ref(n), held) for n, held in enumerate(holders))
    segment = msgspec.structs.replace(ended(0, 10), blobs=blobs)
    ledger.do(complete(placed.grant, segment))
    return ledger.machine


def test_results_on_too_few_live_disks_are_counted() -> None:
    assert short_of_copies(machine_with((P,), (P, Q), (), (Q,))) == (3, 4)
    assert short_of_copies(machine_with((P,), (Q,), copies=1)) == (0, 2)


def test_a_cluster_of_one_is_short_of_copies_too() -> None:
    assert short_of_copies(machine_with((P,), peers=1)) == (1, 1)


def test_without_large_results_nothing_is_counted() -> None:
    assert short_of_copies(machine_with()) == (0, 0)


def test_counting_ends_at_its_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = machine_with(*[(P,)] * 8)
    monkeypatch.setattr(holder_status, "BLOBS_SHORT_MAX", 3)
    assert short_of_copies(machine) == (3, 3)
    monkeypatch.setattr(holder_status, "BLOBS_SHORT_MAX", 100)
    monkeypatch.setattr(holder_status, "COUNTED_MAX", 5)
    assert short_of_copies(machine) == (5, 5)
