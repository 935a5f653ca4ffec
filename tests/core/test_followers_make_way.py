"""Tasks of a follower make way as those of any peer: it is told what it needs to know."""

from __future__ import annotations

from msgspec.structs import replace

from p2psched.core.follower_events import Told
from p2psched.core.scheduler_events import Executed
from p2psched.model.commands import GiveBack, Place, SubmitJob
from p2psched.model.execution import Ended
from p2psched.model.ids import JobId
from p2psched.model.precedence import PREEMPTIONS_MAX, MakeWay, Precedence, Way
from p2psched.model.taskset import EMPTY, TaskSet
from tests.core.feed_rig import JOB, F, L, Rig, spec

ONE = TaskSet.of(0, 1)
WAITS = JobId("waits")


def own(rig: Rig, often: int = 0) -> int:
    """The grant of a task that may make way, and has done so this often."""
    way = Precedence(-1, True, 0)
    rig.commit(SubmitJob(JOB, replace(spec(1), checkpoint="s", precedence=way)))
    machine = rig.holders[L].machine
    for _ in range(often):
        rig.commit(Place(JOB, ONE, L, 1))
        (grant,) = machine.jobs[JOB].grants
        rig.commit(GiveBack(JOB, grant, ONE, by=WAITS))
    rig.commit(Place(JOB, ONE, F, 1))
    rig.settle()
    (grant,) = machine.jobs[JOB].grants
    return grant


def ask(rig: Rig, grant: int) -> None:
    rig.step(Told(rig.now_ms, L, MakeWay(WAITS, 5, (Way(JOB, grant, 1),))))


def test_a_follower_ends_what_it_is_asked_for_and_gives_it_back() -> None:
    rig = Rig()
    rig.begin()
    grant = own(rig)
    (batch,) = rig.started
    ask(rig, grant)
    assert rig.stopped == [batch.id]
    rig.step(Executed(rig.now_ms, Ended(batch.id, EMPTY)))
    given = [e.command for e in rig.proposed if isinstance(e.command, GiveBack)]
    assert given == [GiveBack(JOB, grant, ONE, by=WAITS)]


def test_a_follower_is_told_what_has_made_way_often_enough() -> None:
    rig = Rig()
    rig.begin()
    grant = own(rig, PREEMPTIONS_MAX)
    assert len(rig.started) == 1
    ask(rig, grant)
    assert rig.stopped == []
