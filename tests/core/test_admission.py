"""The line to the ledger: as long as it is served in time, whatever is asked."""

from __future__ import annotations

import pytest

from p2psched.core.admission import (
    LATE_MS,
    LINE_BYTES_MAX,
    LINE_MIN,
    LINE_START,
    RETRY_MS_MAX,
    RETRY_MS_MIN,
    SHRINK_MOST,
    Door,
)
from p2psched.model.limits import MIB, RUNNING_BYTES_MAX, RUNNING_JOBS_MAX


class Ledger:
    """Serves so many a second in order, each `way_ms` after its turn at the earliest; time goes on
    in milliseconds."""

    def __init__(self, door: Door, *, per_s: float, way_ms: int = 2) -> None:
        self.door, self.per_s, self.way_ms = door, per_s, way_ms
        self.now_ms = 0
        self.waiting: list[int] = []
        self.waits_ms: list[int] = []
        self.served = self.refused = 0
        self._owed = self._asked = 0.0

    def run(self, for_ms: int, *, asked_per_s: float) -> None:
        self.waits_ms.clear()
        self.served = self.refused = 0
        for _ in range(for_ms):
            self.now_ms += 1
            self._asked += asked_per_s / 1000
            while self._asked >= 1:
                self._asked -= 1
                self._ask()
            self._serve()

    def _ask(self) -> None:
        if self.door.refusal(0) is None:
            self.door.enter(0)
            self.waiting.append(self.now_ms)
        else:
            self.refused += 1

    def _serve(self) -> None:
        self._owed = min(self._owed + self.per_s / 1000, 8.0)
        while self._owed >= 1 and self.waiting and self.waiting[0] + self.way_ms <= self.now_ms:
            self._owed -= 1
            since_ms = self.waiting.pop(0)
            self.waits_ms.append(self.now_ms - since_ms)
            self.served += 1
            self.door.served(0, since_ms=since_ms, now_ms=self.now_ms)


@pytest.mark.parametrize("per_s", [300, 1_000])
def test_of_ten_times_too_many_what_is_taken_is_served_within_a_second_at_full_rate(
    per_s: int,
) -> None:
    ledger = Ledger(Door(), per_s=per_s)
    ledger.run(3_000, asked_per_s=10 * per_s)
    assert max(ledger.waits_ms) <= 1_000
    ledger.run(5_000, asked_per_s=10 * per_s)
    assert max(ledger.waits_ms) <= 700
    assert ledger.served >= 0.98 * per_s * 5
    assert ledger.refused >= 0.89 * 10 * per_s * 5


def test_a_cluster_that_keeps_up_refuses_nobody() -> None:
    ledger = Ledger(Door(), per_s=1_000)
    ledger.run(5_000, asked_per_s=900)
    assert ledger.refused == 0


def test_after_a_flood_all_come_in_again() -> None:
    ledger = Ledger(Door(), per_s=1_000)
    ledger.run(5_000, asked_per_s=10_000)
    ledger.run(1_000, asked_per_s=500)
    ledger.run(3_000, asked_per_s=900)
    assert ledger.refused == 0


def test_far_peers_and_slow_disks_are_no_reason_to_take_less() -> None:
    ledger = Ledger(Door(), per_s=1_000, way_ms=250)
    ledger.run(5_000, asked_per_s=500)
    ledger.run(5_000, asked_per_s=700)
    assert ledger.refused == 0


def test_one_late_outcome_shortens_the_line_once_however_many_waited_with_it() -> None:
    door = Door()
    for _ in range(LINE_START):
        door.enter(0)
    for _ in range(LINE_START):
        door.served(0, since_ms=0, now_ms=5_000)
    assert LINE_MIN <= door.status().line == int(LINE_START * SHRINK_MOST)


def test_a_line_that_is_much_too_long_is_cut_to_what_would_have_been_in_time() -> None:
    door = Door()
    for _ in range(LINE_START):
        door.enter(0)
    door.served(0, since_ms=0, now_ms=10)
    door.served(0, since_ms=10, now_ms=1_010)
    assert door.status().line == int(LINE_START * (10 + LATE_MS) / 1_000)


def test_also_a_slow_cluster_soon_serves_in_time_whom_it_takes() -> None:
    ledger = Ledger(Door(), per_s=100)
    ledger.run(5_000, asked_per_s=1_000)
    ledger.run(5_000, asked_per_s=1_000)
    assert max(ledger.waits_ms) <= 700
    assert ledger.served >= 0.98 * 500


def test_a_line_always_has_room_for_a_few() -> None:
    door = Door()
    for second in range(100):
        door.enter(0)
        door.served(0, since_ms=second * 10_000, now_ms=second * 10_000 + 9_000)
    assert door.status().line == LINE_MIN
    assert door.refusal(0) is None


def test_bytes_are_bounded_and_the_first_comes_in_whatever_it_takes() -> None:
    door = Door()
    assert door.refusal(2 * LINE_BYTES_MAX) is None
    door.enter(LINE_BYTES_MAX - 10)
    assert door.refusal(10) is None
    busy = door.refusal(11)
    assert busy is not None
    assert "32.0 MiB" in busy.why
    door.leave(LINE_BYTES_MAX - 10)
    assert door.refusal(11) is None
    status = door.status()
    assert (status.refused, status.refused_bytes, status.waiting_bytes) == (1, 1, 0)


def test_jobs_that_have_not_ended_are_bounded_in_number_and_in_bytes() -> None:
    door = Door()
    assert door.job_refusal(RUNNING_JOBS_MAX - 1, 0, 10) is None
    assert door.job_refusal(0, 0, RUNNING_BYTES_MAX + 1) is None
    assert door.job_refusal(RUNNING_JOBS_MAX, 0, 10) is not None
    full = door.job_refusal(3, RUNNING_BYTES_MAX, MIB)
    assert full is not None
    assert full.why == "3 jobs of 256 MiB have not ended"
    assert door.status().refused_jobs == 2


def test_who_is_refused_hears_a_time_that_grows_with_the_wait_and_has_an_end() -> None:
    door = Door()
    for _ in range(LINE_START):
        door.enter(0)
    first = door.refusal(0)
    assert first is not None
    assert first.retry_ms == RETRY_MS_MIN
    for _ in range(LINE_START):
        door.served(0, since_ms=0, now_ms=60_000)
    for _ in range(door.status().line):
        door.enter(0)
    last = door.refusal(0)
    assert last is not None
    assert last.retry_ms == RETRY_MS_MAX
