"""A peer's slots are in use for the share of the time that it was told, and no more."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2psched.core.duty import SAVED_MS_MAX, STEP_MS_MAX, WHOLE, Duty
from p2psched.model.config import Config

LOOK_MS = 100


def worked_ms(duty: Duty, slots: int, task_ms: int, *, over_ms: int) -> int:
    """What all slots together did in so long, with tasks at hand all the time: looked at each time
    one ends, and ten times a second."""
    ends: list[int] = []
    worked_ms = 0
    for now_ms in range(over_ms):
        was = len(ends)
        ends = [end for end in ends if end > now_ms]
        if (len(ends) == was and now_ms % LOOK_MS) or duty.rests(now_ms, len(ends)):
            continue
        started = slots - len(ends)
        worked_ms += started * task_ms
        ends += [now_ms + task_ms] * started
        duty.note(len(ends))
    return worked_ms


@given(st.integers(10, 990), st.integers(1, 4), st.sampled_from((5, 40, 250, 1_500)))
def test_slots_are_in_use_for_their_share_of_the_time(share: int, slots: int, task_ms: int) -> None:
    over_ms = 30_000
    worked = worked_ms(Duty(slots, share), slots, task_ms, over_ms=over_ms)
    fair_ms = slots * over_ms * share // WHOLE
    # What was saved up before, and the tasks that began last.
    assert worked <= fair_ms + slots * (SAVED_MS_MAX * share // WHOLE + task_ms)
    assert worked >= fair_ms * 0.9 - slots * LOOK_MS


def test_who_may_work_all_the_time_never_rests() -> None:
    duty = Duty(2)
    assert worked_ms(duty, 2, 50, over_ms=5_000) == 2 * 5_000
    assert not duty.is_spent


def test_a_long_task_is_followed_by_a_long_rest() -> None:
    duty = Duty(1, 500)
    assert not duty.rests(0, 0)
    duty.note(1)
    for now_ms in range(LOOK_MS, 10_001, LOOK_MS):
        duty.rests(now_ms, int(now_ms < 10_000))
    assert duty.rests(10_000 + 9_000, 0) is True  # a second at a time: nothing else came
    now_ms, looks = 19_000, 0
    while duty.rests(now_ms, 0):
        assert duty.is_spent
        now_ms, looks = now_ms + LOOK_MS, looks + 1
    assert looks * LOOK_MS == pytest.approx(10_000 - SAVED_MS_MAX - STEP_MS_MAX, abs=2 * LOOK_MS)


def test_a_process_that_was_stopped_has_neither_worked_nor_rested_meanwhile() -> None:
    duty = Duty(1, 100)
    assert not duty.rests(0, 0)
    duty.note(1)
    assert duty.rests(3_600_000, 0)
    worked_ms = STEP_MS_MAX * (WHOLE - 100) // 100 - SAVED_MS_MAX
    looks = [duty.rests(3_600_000 + n * STEP_MS_MAX, 0) for n in range(1, 20)]
    assert looks.index(False) + 1 == worked_ms // STEP_MS_MAX + 1


@pytest.mark.parametrize("share", [0, 1_001, -5])
def test_a_share_is_more_than_none_and_at_most_all(share: int) -> None:
    config = Config(name="a", data="a", listen="h:0", slots=1, python="python", runtime_dir="r")
    with pytest.raises(ValueError, match="duty"):
        msgspec.structs.replace(config, duty=share)
