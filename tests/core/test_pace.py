"""How quick an attempt is, and what that means for its limit: all in virtual time."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from p2psched.core.pace import SAMPLES_MAX, Finding, Pace, span
from p2psched.model.execution import TaskReport
from p2psched.model.progress_messages import done_text

SECOND, MINUTE, HOUR = 1_000, 60_000, 3_600_000


def reports(
    done_at: Callable[[int], float | None], *, until_ms: int, every_ms: int = SECOND
) -> Iterable[TaskReport]:
    """Of a task that has done so much by then, of 100; a word for each change."""
    said_at, said = 0, None
    for now_ms in range(every_ms, until_ms + 1, every_ms):
        done = done_at(now_ms)
        if done is not None and done != said:
            said_at, said = now_ms, done
        if said is None:
            yield TaskReport(1, 0, now_ms, now_ms)
        else:
            quiet_ms = now_ms - said_at
            yield TaskReport(1, 0, now_ms, quiet_ms, quiet_ms, said, 100.0)


def first_find(pace: Pace, seen: Iterable[TaskReport]) -> tuple[Finding, int]:
    """What it finds first, and when; FINE if nothing."""
    ran_ms = 0
    for report in seen:
        ran_ms = report.ran_ms
        if (found := pace.step(report)) is not Finding.FINE:
            return found, ran_ms
    return Finding.FINE, ran_ms


def linear(percent_per_min: float, *, begins_ms: int = 0) -> Callable[[int], float | None]:
    def done(now_ms: int) -> float | None:
        ran_ms = now_ms - begins_ms
        return None if ran_ms < 0 else min(100.0, ran_ms / MINUTE * percent_per_min)

    return done


def in_steps(done: Callable[[int], float | None]) -> Callable[[int], float | None]:
    def whole(now_ms: int) -> float | None:
        exact = done(now_ms)
        return None if exact is None else float(int(exact))

    return whole


@pytest.mark.parametrize("words", [linear(1), in_steps(linear(1))], ids=["each second", "each 1 %"])
def test_one_percent_a_minute_can_not_make_an_hour_and_that_is_known_after_six_minutes(
    words: Callable[[int], float | None],
) -> None:
    pace = Pace(limit_ms=HOUR)
    found, at_ms = first_find(pace, reports(words, until_ms=HOUR))
    assert found is Finding.SLOW
    assert at_ms <= HOUR // 10
    assert "its limit is 60 min" in pace.why


def test_whoever_makes_it_is_never_found_too_slow() -> None:
    for done in (linear(1.7), in_steps(linear(1.7)), linear(2, begins_ms=8 * MINUTE)):
        assert first_find(Pace(limit_ms=HOUR), reports(done, until_ms=HOUR))[0] is Finding.FINE


def test_a_slow_start_is_forgiven_who_has_got_quicker() -> None:
    def warms_up(now_ms: int) -> float:
        return now_ms / MINUTE if now_ms < MINUTE else 1 + (now_ms - MINUTE) / MINUTE * 4

    assert first_find(Pace(limit_ms=HOUR), reports(warms_up, until_ms=20 * MINUTE))[0] is (
        Finding.FINE
    )


def test_one_that_gets_slower_is_found_when_that_lasts() -> None:
    def tires(now_ms: int) -> float:
        return now_ms / MINUTE * 3 if now_ms < 20 * MINUTE else 60 + (now_ms / MINUTE - 20) / 4

    found, at_ms = first_find(Pace(limit_ms=HOUR), reports(tires, until_ms=HOUR))
    assert found is Finding.SLOW
    assert 20 * MINUTE < at_ms <= 45 * MINUTE


def test_one_that_stops_saying_anything_loses_its_pace() -> None:
    def stops(now_ms: int) -> float:
        return min(now_ms, 5 * MINUTE) / MINUTE * 4

    found, at_ms = first_find(Pace(limit_ms=HOUR), reports(stops, until_ms=HOUR))
    assert found is Finding.SLOW
    assert at_ms <= HOUR // 2


def test_silence_beyond_the_heartbeat_is_found_at_the_next_look() -> None:
    for done in (lambda _now_ms: None, lambda now_ms: min(now_ms, 10 * SECOND) / SECOND):
        pace = Pace(heartbeat_ms=MINUTE)
        found, at_ms = first_find(pace, reports(done, until_ms=HOUR))
        assert found is Finding.SILENT
        assert at_ms <= MINUTE + 10 * SECOND + SECOND
        assert pace.why.startswith("silent for 60 s")


def test_without_a_limit_three_times_what_was_expected_is_too_long() -> None:
    pace = Pace(expect_ms=MINUTE)
    silent = reports(lambda _now_ms: None, until_ms=HOUR)
    assert first_find(pace, silent) == (Finding.LONG, 3 * MINUTE + SECOND)
    found, at_ms = first_find(Pace(expect_ms=MINUTE), reports(linear(10), until_ms=HOUR))
    assert (found, at_ms <= MINUTE) == (Finding.LONG, True)  # its pace tells before


def test_a_new_phase_begins_a_new_pace_and_what_is_kept_is_bounded() -> None:
    pace = Pace(limit_ms=HOUR)
    for report in reports(lambda now_ms: now_ms / SECOND % 90, until_ms=29 * MINUTE):
        pace.step(report)
        assert len(pace._samples) <= SAMPLES_MAX
    assert pace.left_ms is not None
    assert pace.left_ms <= 101 * SECOND


def test_what_people_read() -> None:
    assert [span(ms) for ms in (900, 61_400, 119_000, 600_000, 9_000_000)] == [
        "0.9 s",
        "61 s",
        "119 s",
        "10 min",
        "2 h 30 min",
    ]
    assert done_text(450, 1000) == "45 % (450/1000)"
    assert (done_text(7, None), done_text(7, 0)) == ("7", "7")
