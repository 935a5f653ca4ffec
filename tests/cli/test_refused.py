"""What `status` says of callers that a peer had no time for."""

from __future__ import annotations

from p2psched.cli.refused import door_row
from p2psched.model.status_messages import DoorStatus


def test_who_waits_and_who_was_refused_and_why() -> None:
    found = DoorStatus(1_200, 3, 1_000, waiting=40, waiting_bytes=9, line=256, wait_ms=12)
    said = "40 of 256 wait for the ledger, 12 ms lately; 1,200 told busy"
    assert door_row(found) == [
        ("callers", f"{said} (1,000 as too many jobs run, 3 for their bytes)")
    ]


def test_who_refused_nobody_says_so() -> None:
    line = "0 of 256 wait for the ledger, 0 ms lately; 0 told busy"
    assert door_row(DoorStatus(line=256)) == [("callers", line)]


def test_a_peer_that_holds_no_ledger_has_no_line() -> None:
    assert door_row(None) == []
