"""The demo's verdict: every way in which a run may be wrong fails a check of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import msgspec
import pytest

from p2psched.cli.demo_checks import checks_of, reruns_of
from p2psched.demo import alone
from p2psched.demo.digits import Score, Winner, reduce_scores
from p2psched.demo.facts import Outage, Rerun
from p2psched.model.commands import Event, Granted, Recorded, Revoked
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause, JobState, Segment
from p2psched.model.messages import JobView
from p2psched.model.taskset import TaskSet
from tests.demo.facts import SCORES, outage, score

JOB = JobId("1" * 32)
NAMES = {PeerId(name * 32): name for name in "abc"}
A, B, C = NAMES
VIEW = JobView(
    job=JOB,
    name="digits",
    kind="function",
    state=JobState.SUCCEEDED,
    tasks=4,
    waiting=0,
    owned=0,
    succeeded=4,
    failed=0,
    cancelled=0,
    segments=4,
    attempts_lost=2,
    attempts_failed=0,
    results_refused=0,
    submitted_ms=0,
    ended_ms=1,
    submitter="me@here",
)
RERUN = Rerun(cause="peer-lost", peer="a", tasks="1-2", count=2, ended_by={"b": 2})


def _failed(
    *,
    view: JobView = VIEW,
    seen: Mapping[int, int] | None = None,
    scores: Sequence[Score] = SCORES,
    winner: Winner | None = None,
    reruns: Sequence[Rerun] = (RERUN,),
    found: Outage | None = None,
    agreed: bool = True,
) -> list[str]:
    checks = checks_of(
        view=view,
        seen=seen if seen is not None else dict.fromkeys(range(4), 1),
        scores=scores,
        alone=SCORES,
        winner=winner or reduce_scores(SCORES),
        reruns=reruns,
        outage=found or outage(),
        agreed=agreed,
    )
    return [check.text for check in checks if not check.ok]


def test_a_run_as_it_should_be_fails_no_check() -> None:
    assert _failed() == []


@pytest.mark.parametrize("seen", [{0: 1, 1: 1, 2: 1}, {0: 1, 1: 2, 2: 1, 3: 1}])
def test_a_missing_or_doubled_result_fails(seen: dict[int, int]) -> None:
    assert len(_failed(seen=seen)) == 1


def test_one_score_that_differs_fails() -> None:
    changed = [*SCORES[:3], score("two", 1, correct=8)]
    assert [text for text in _failed(scores=changed) if "equal (==)" in text]


def test_another_winner_fails() -> None:
    winner = reduce_scores(SCORES)
    assert _failed(winner=replace(winner, candidates=3)) == [
        "the reduce task chose the winner that one process chooses, matrix and all"
    ]


def test_peers_that_disagree_fail() -> None:
    assert len(_failed(agreed=False)) == 1


def test_lost_work_that_history_does_not_name_fails() -> None:
    assert len(_failed(reruns=())) == 1
    assert len(_failed(reruns=[replace(RERUN, ended_by={"b": 1})])) == 1


@pytest.mark.parametrize(
    "found",
    [
        outage(leader="a"),
        outage(unfinished=0),
        outage(restarted_while_running=False),
        outage(client_moved_to="a"),
    ],
)
def test_a_kill_that_showed_nothing_fails(found: Outage) -> None:
    assert len(_failed(found=found)) == 1


def test_reruns_are_read_from_history() -> None:
    events: list[Event] = [
        Granted(JOB, 1, A, 1, TaskSet.of(0, 4)),
        Recorded(JOB, 1, A, 0, Segment(0, 1, Cause.OK, b"")),
        Revoked(JOB, 1, A, TaskSet.of(1, 4), Cause.PEER_LOST),
        Granted(JOB, 2, B, 1, TaskSet.of(1, 3)),
        Granted(JOB, 3, C, 1, TaskSet.of(3, 4)),
        Recorded(JOB, 2, B, 1, Segment(1, 3, Cause.OK, b"")),
        Recorded(JOB, 3, C, 2, Segment(3, 4, Cause.OK, b"")),
    ]
    (rerun,) = reruns_of(events, NAMES)
    assert rerun == Rerun(
        cause="peer-lost", peer="a", tasks="1-3", count=3, ended_by={"b": 2, "c": 1}
    )


def test_tasks_that_were_cancelled_are_no_reruns() -> None:
    assert reruns_of([Revoked(JOB, 1, A, TaskSet.of(0, 4), Cause.CANCELLED)], NAMES) == ()


def test_a_score_survives_its_line_of_json_unchanged() -> None:
    original = score("three", 2)
    copy = alone.decode(alone.encode(original))
    assert (copy, copy.fit_s) == (original, original.fit_s)
    with pytest.raises(msgspec.ValidationError):
        alone.decode(b'{"point": 1}\n')
