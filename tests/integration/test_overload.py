"""Ten times what a cluster takes (L6): `busy` in time, memory with an end, the same leader, nothing
lost, and as before soon after it is over. Longer with `python -m bench.overload --for 300`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import asdict
from typing import Final

import pytest

from bench.overload import main
from tests.integration.rig import ROOT

pytestmark = [pytest.mark.process, pytest.mark.long, pytest.mark.timeout(600)]

Record = Callable[[str, object], None]
FOR_S: Final = 30.0
ANSWER_MS: Final = 1_000
MEMORY_MIB: Final = 256  # of each peer
AGAIN_S: Final = 10.0  # until nearly as many come in as later
SETTLED_SHARE: Final = 0.5  # of the rate before, which was that of a cluster without a past
ACCEPTED_SHARE: Final = 0.7  # of the rate before, while the flood goes on


def test_a_flood_is_answered_in_time_and_costs_neither_the_leader_nor_a_job(
    record_property: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    report = asyncio.run(main(FOR_S))
    record_property("overload", asdict(report))
    assert set(report.answers) == {"JobAccepted", "busy"}
    assert report.busy_per_s > report.accepted_per_s > ACCEPTED_SHARE * report.sustained_per_s
    assert report.terms[0] == report.terms[1]
    assert report.memory_max <= MEMORY_MIB
    assert report.answer_ms_p99 <= ANSWER_MS
    assert report.again_s <= AGAIN_S
    assert report.settled_per_s >= SETTLED_SHARE * report.sustained_per_s
    assert report.looked_at == report.finished > 0
    assert (report.lost, report.twice) == (0, 0)
    assert sum(report.refused) >= report.answers["busy"]
