"""Timers follow what was measured, within bounds; they never decide what is true."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2psched.core.raft.effects import LoopLate
from p2psched.core.raft.timing import (
    APART_MAX,
    ROUNDS_MIN,
    STRETCH_MAX,
    Pace,
    Timing,
    stretched,
    under,
)
from p2psched.model.config import TIMINGS, Config
from p2psched.model.raft import Append, VoteReply, VoteRequest
from tests.core.rig import ABC, TIMING, Node, appends, entry

_, B, C = ABC
FIGURES = st.floats(0, 1e6, allow_nan=False)


@st.composite
def timings(draw: st.DrawFn) -> Timing:
    heartbeat_ms = draw(st.integers(1, 2_000))
    shortest_ms = draw(st.integers(2 * heartbeat_ms, 10_000))
    return Timing(heartbeat_ms, shortest_ms, draw(st.integers(shortest_ms + 1, 30_000)))


@given(timings(), FIGURES)
def test_no_timer_is_shorter_than_its_base_nor_longer_than_the_bound(
    base: Timing, round_ms: float
) -> None:
    now = stretched(base, round_ms)
    assert now.heartbeat_ms == base.heartbeat_ms
    assert base.election_ms_min <= now.election_ms_min <= STRETCH_MAX * base.election_ms_min
    assert base.election_ms_max <= now.election_ms_max <= STRETCH_MAX * base.election_ms_max


@given(timings(), FIGURES, FIGURES)
def test_what_takes_longer_never_makes_a_timer_shorter(
    base: Timing, one_ms: float, more_ms: float
) -> None:
    one, more = stretched(base, one_ms), stretched(base, one_ms + more_ms)
    assert one.election_ms_min <= more.election_ms_min
    assert one.election_ms_max <= more.election_ms_max


@given(timings(), FIGURES)
def test_some_rounds_fit_the_shortest_timeout_unless_the_bound_forbids(
    base: Timing, round_ms: float
) -> None:
    now = stretched(base, round_ms)
    fits = now.election_ms_min + 1 >= ROUNDS_MIN * round_ms
    assert fits or now.election_ms_min == STRETCH_MAX * base.election_ms_min


def test_a_good_day_changes_nothing() -> None:
    assert stretched(TIMING, 5.0) == TIMING


@given(st.lists(st.tuples(st.sampled_from(["on_sync", "on_late", "on_leader"]), FIGURES)))
def test_the_bounds_hold_after_any_figures(figures: list[tuple[str, float]]) -> None:
    pace = Pace(TIMING)
    for what, value in figures:
        getattr(pace, what)(value)
        assert pace.timing.election_ms_min >= TIMING.election_ms_min
        assert pace.timing.election_ms_max <= STRETCH_MAX * TIMING.election_ms_max


def test_a_follower_is_patient_with_a_leader_far_away() -> None:
    node = Node("b", term=2)
    node.receive("a", Append(2, 1, 1, 1, 1, (), slack_ms=200))
    assert node.raft.timing.election_ms_min == ROUNDS_MIN * 200
    assert node.raft.due_ms >= ROUNDS_MIN * 200
    node.receive("a", Append(2, 1, 1, 1, 2, (), slack_ms=1))
    assert node.raft.timing == TIMING


def test_a_leader_tells_each_follower_how_far_away_it_is() -> None:
    node = Node("a")
    node.lead("b")
    for _ in range(20):
        node.time_out()
        node.ack("b")
        node.wait(80)
        node.ack("c")
    told = {send.to: send.message for send in node.time_out()}
    near, far = told[B], told[C]
    assert isinstance(near, Append)
    assert isinstance(far, Append)
    assert near.slack_ms <= 1
    assert 75 <= far.slack_ms <= 80


def test_a_leader_tells_how_late_it_is() -> None:
    node = Node("a")
    node.lead("b")
    node.step(LoopLate(node.now_ms, 150.0))
    (one, *_) = appends([send.message for send in node.time_out()])
    assert one.slack_ms == 150


def test_a_slow_disk_makes_patient() -> None:
    node = Node("b", term=2)
    node.sync_ms = 400
    for number in range(2, 40):
        prev = 1 if number == 2 else 2
        node.receive("a", Append(2, number - 1, prev, 1, 1, (entry(number, 2, b"x"),)))
    assert node.raft.timing.election_ms_min == STRETCH_MAX * TIMING.election_ms_min


@pytest.mark.parametrize("slack_ms", [0, 10**9])
def test_votes_do_not_depend_on_timers(slack_ms: int) -> None:
    """Once the leader is silent for long enough, whoever has less of the log gets no vote, and
    nobody gets two in a term, however the timers are set."""
    node = Node("b", term=2)
    node.receive("a", Append(2, 1, 1, 1, 1, (entry(2, 2, b"x"),), slack_ms=slack_ms))
    node.wait(STRETCH_MAX * TIMING.election_ms_max)
    assert node.receive("c", VoteRequest(3, 1, 1, pre=False)) == [VoteReply(3, False, False)]
    assert node.receive("c", VoteRequest(4, 2, 2, pre=False)) == [VoteReply(4, True, False)]
    assert node.receive("a", VoteRequest(4, 2, 2, pre=False)) == [VoteReply(4, False, False)]


def test_a_leader_with_patience_still_steps_down_without_a_majority() -> None:
    node = Node("a")
    node.lead("b")
    for _ in range(20):
        node.time_out()
        node.step(LoopLate(node.now_ms, 200.0))
        node.ack("b")
    assert node.raft.timing.election_ms_max == 2 * TIMING.election_ms_max
    for _ in range(STRETCH_MAX * TIMING.election_ms_max // TIMING.heartbeat_ms + 2):
        node.time_out()
    assert not node.raft.is_leader


# --- presets --------------------------------------------------------------------------------------

DEFAULT = Config(name="a", data="", listen="", slots=0, python="", runtime_dir="")


@pytest.mark.parametrize("name", TIMINGS)
def test_a_preset_is_a_valid_timing_and_differs_in_timers_only(name: str) -> None:
    config = DEFAULT.with_timing(name)
    timing = Timing(config.heartbeat_ms, config.election_ms_min, config.election_ms_max)
    assert timing.election_ms_min >= TIMING.election_ms_min
    assert config.detection_window_ms >= 2 * timing.election_ms_max
    assert set(TIMINGS[name]) <= {
        *("heartbeat_ms", "election_ms_min", "election_ms_max", "detection_window_ms"),
        *("probe_ms", "probe_ack_ms"),
    }


def test_lan_is_the_default() -> None:
    assert DEFAULT.with_timing("lan") == DEFAULT
    assert Timing() == Timing(
        DEFAULT.heartbeat_ms, DEFAULT.election_ms_min, DEFAULT.election_ms_max
    )


def test_an_unknown_preset_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match="lan, wan, edge"):
        DEFAULT.with_timing("moon")


PRESETS = [DEFAULT.with_timing(name) for name in TIMINGS]


def timing_of(config: Config) -> Timing:
    return Timing(config.heartbeat_ms, config.election_ms_min, config.election_ms_max)


@pytest.mark.parametrize("theirs", PRESETS, ids=lambda config: config.timing)
@pytest.mark.parametrize("ours", PRESETS, ids=lambda config: config.timing)
def test_a_follower_bears_the_silence_of_a_leader_with_another_preset(
    ours: Config, theirs: Config
) -> None:
    pace = Pace(timing_of(ours))
    pace.on_leader(0, theirs.heartbeat_ms)
    assert pace.timing.election_ms_min >= 5 * theirs.heartbeat_ms
    assert pace.timing.election_ms_min >= ours.election_ms_min
    pace.on_leader(0)  # and as before when it leads itself
    assert pace.timing == timing_of(ours)


@given(timings(), st.integers(-1, 2**63))
def test_whatever_a_leader_says_patience_has_a_bound(base: Timing, heartbeat_ms: int) -> None:
    now = under(base, heartbeat_ms)
    assert base.election_ms_min <= now.election_ms_min <= APART_MAX * base.election_ms_min
    assert now.heartbeat_ms == base.heartbeat_ms


def test_heartbeats_say_how_often_they_come() -> None:
    leader = Node("a")
    leader.lead()
    leader.time_out()
    heard = [send.message for send in leader.sent if isinstance(send.message, Append)]
    assert {append.heartbeat_ms for append in appends(heard)} == {TIMING.heartbeat_ms}
    follower = Node("b")
    follower.receive("a", Append(1, 1, 1, 1, 1, heartbeat_ms=5 * TIMING.heartbeat_ms))
    assert follower.raft.leader_heartbeat_ms == 5 * TIMING.heartbeat_ms
    assert follower.raft.due_ms - follower.now_ms >= 5 * TIMING.election_ms_min
