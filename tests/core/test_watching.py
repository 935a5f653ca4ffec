"""What the watchdog finds of what its peer owns, and what happens meanwhile."""

from __future__ import annotations

from p2psched.core.levels import STALL_LEVEL
from p2psched.core.scheduler_events import Began, Noticed, Round, Watched
from p2psched.model.commands import Command, Drain, DrainMode, GiveBack, Place
from p2psched.model.execution import Standing
from p2psched.model.stalls import STALL_MS
from p2psched.model.taskset import TaskSet
from tests.core.feed_rig import JOB, F, Rig
from tests.core.test_machine import P
from tests.core.test_scheduler import FOUR, SUBMIT, Peer

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


def test_a_drained_peer_gives_back_what_nobody_there_knows() -> None:
    """Or its drain never ends, and nor does the job (seed 79)."""
    peer = Peer()
    peer.do(Began(peer.now_ms))
    peer.round()
    peer.commit()
    peer.scheduler.machine.level = STALL_LEVEL
    peer.commit_from_elsewhere(SUBMIT, Place(SUBMIT.job, FOUR, P, 1))
    grant = peer.scheduler.machine.command_index
    peer.scheduler.owner.set_aside([(0, len(FOUR))])  # and nothing is proposed of it
    peer.round()
    assert not peer.batches()
    peer.commit_from_elsewhere(Drain(P, DrainMode.ON))
    told: list[Command] = []
    for _ in range(0, 3 * STALL_MS, LOOK_MS):
        peer.now_ms += LOOK_MS
        peer.do(Watched(peer.now_ms, Standing()))
        told += peer.round()
    backs = [c for c in told if isinstance(c, GiveBack) and c.grant]
    assert {(back.grant, back.tasks) for back in backs} == {(grant, FOUR)}
