"""What the watchdog of a follower finds, and what its feeder tells meanwhile."""

from __future__ import annotations

from p2psched.core.scheduler_events import Noticed, Round, Watched
from p2psched.model.commands import GiveBack, Place
from p2psched.model.execution import Standing
from p2psched.model.stalls import STALL_MS
from p2psched.model.taskset import TaskSet
from tests.core.feed_rig import JOB, F, Rig

FIRST, SECOND = TaskSet.of(0, 1), TaskSet.of(1, 2)
LOOK_MS = 500


def lose(rig: Rig) -> None:
    """Its workers know nothing of what they were given; it finds that, and its turn goes on."""
    for _ in range(0, 3 * STALL_MS, LOOK_MS):
        rig.run(LOOK_MS)
        effects = rig.follower.step(Watched(rig.now_ms, Standing()))
        if any(isinstance(effect, Noticed) for effect in effects):
            return
        rig.step(Round(rig.now_ms))
    raise AssertionError("it was not found")


def test_what_was_lost_is_not_begun_again_when_its_job_is_told_before_it_is_given_back() -> None:
    rig = Rig()
    rig.begin()
    (grant,) = rig.submit(FIRST)
    rig.settle()
    assert [batch.tasks for batch in rig.started] == [FIRST]
    lose(rig)
    rig.commit(Place(JOB, SECOND, F, 1))
    rig.settle(commits=False)  # the feed is there before the turn ends
    assert [batch.tasks for batch in rig.started] == [FIRST, SECOND]
    given_back = [e.command for e in rig.proposed if isinstance(e.command, GiveBack)]
    assert [(back.grant, back.tasks) for back in given_back if back.grant] == [(grant, FIRST)]
