"""Submits that a peer has no time for: they hear `busy`, at once."""

from __future__ import annotations

import gc
from types import SimpleNamespace
from typing import cast

from p2psched.core.admission import LINE_START
from p2psched.model.commands import Submitted
from p2psched.model.errors import Unavailable
from p2psched.model.ids import JobId
from p2psched.model.limits import RUNNING_JOBS_MAX
from p2psched.model.messages import Answer, Failure
from p2psched.net.link import Connection
from tests.peer.test_submissions import ACCEPTED, JOB, FakeConnection, Rig, submit


def job_number(number: int) -> str:
    return f"{number:032x}"


def test_beyond_the_line_a_submit_is_told_busy_at_once_and_repeats_of_known_jobs_are_not() -> None:
    async def story(rig: Rig) -> None:
        for number in range(1, LINE_START + 1):
            rig.call(submit(job=job_number(number)), number)
        assert rig.connection.sent == []
        other = FakeConnection()
        rig.call(submit(), 1_000, other)
        (told,) = other.sent
        assert isinstance(told, Failure)
        assert (told.id, told.code, told.busy) == (1_000, Unavailable.code, True)
        assert told.retry_after_ms == 100
        said = f"busy: {LINE_START} proposals wait for the ledger here; ask again in 100 ms"
        assert told.message == said
        rig.scheduling.jobs[JOB] = SimpleNamespace(id=JOB, ended=True, segments=0)
        rig.call(submit(), 1_001, other)
        assert len(rig.scheduling.proposed) == LINE_START + 1
        rig.close()
        rig.answering.on_closed(cast("Connection", other))

    Rig.run(story)


def test_no_submit_leaves_a_cycle_behind_whatever_came_of_it() -> None:
    """The collector of cycles would have to look at all that is open, again and again."""

    async def story(rig: Rig) -> None:
        other = FakeConnection()
        gc.collect()
        gc.disable()
        try:
            for number in range(1, LINE_START + 11):
                rig.call(submit(job=job_number(number), follow=False), number, other)
            for number in range(LINE_START, LINE_START - 10, -1):
                rig.scheduling.commit(Submitted(JobId(job_number(number)), duplicate=False))
            assert len(other.sent) == 20
            assert gc.collect() == 0
        finally:
            gc.enable()
        rig.close()
        rig.answering.on_closed(cast("Connection", other))

    Rig.run(story)


def test_an_outcome_makes_room_and_says_how_long_it_took() -> None:
    async def story(rig: Rig) -> None:
        rig.call(submit(follow=False))
        rig.scheduling.now_ms = 40
        rig.scheduling.commit(Submitted(JOB, duplicate=False))
        status = rig.scheduling.door.status()
        assert (status.waiting, status.wait_ms) == (0, 4)
        assert rig.connection.sent == [Answer(1, ACCEPTED)]

    Rig.run(story)


def test_a_ledger_full_of_jobs_takes_no_further_one() -> None:
    async def story(rig: Rig) -> None:
        rig.scheduling.machine.running = dict.fromkeys(range(RUNNING_JOBS_MAX))
        rig.call(submit())
        (told,) = rig.connection.sent
        assert isinstance(told, Failure)
        assert told.busy
        assert told.message.startswith("busy: 100,000 jobs of 0 MiB have not ended; ask again")
        assert rig.scheduling.door.status().refused_jobs == 1

    Rig.run(story)
