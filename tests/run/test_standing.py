"""What a pool says of batches that have not begun, and what helps: real processes are stopped."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from p2psched.model.execution import Standing, Tending, Unbegun
from p2psched.model.job import Cause
from p2psched.run.host_handle import HostHandle
from p2psched.run.standing import BEHIND, NO_SLOT
from tests.run.rig import Rig, functions, with_pool

pytestmark = pytest.mark.process


def host_of(rig: Rig) -> HostHandle:
    (host,) = rig.pool._hosts
    return host


def worker_pid(rig: Rig) -> int:
    """The one child of the starter."""
    assert rig.pool._link is not None
    starter = rig.pool._link.process.pid
    (pid,) = map(int, Path(f"/proc/{starter}/task/{starter}/children").read_text().split())
    return pid


def unbegun(rig: Rig) -> tuple[Unbegun, ...]:
    return rig.pool.standing().unbegun


def test_what_runs_has_begun_and_what_waits_has_a_reason(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        gate = tmp_path / "gate"
        first = rig.start(functions("wait_for", [(str(gate), str(tmp_path / "begun"))]))
        second = rig.start(functions("give", [(1,)]))
        await rig.until(lambda: [one.batch for one in unbegun(rig)] == [second])
        assert rig.pool.standing().batches == {first, second}
        assert unbegun(rig)[0].reason == NO_SLOT
        gate.touch()
        await rig.ended(first)
        await rig.ended(second)
        assert rig.pool.standing() == Standing()

    with_pool(tmp_path, scenario, slots=1)


@pytest.mark.smoke
def test_a_worker_that_begins_nothing_is_replaced_and_no_attempt_is_lost(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.run(functions("give", [(1,)]))  # now there is one
        os.kill(worker_pid(rig), signal.SIGSTOP)
        job = functions("give", [(7,)])
        batch = rig.start(job)
        behind = rig.start(functions("give", [(8,)]), expected_us=10)
        reasons = {one.batch: one.reason for one in unbegun(rig)}
        assert reasons[batch] == ""
        assert reasons[behind] in (BEHIND, NO_SLOT)
        rig.pool.tend(Tending.AGAIN, frozenset({batch}))
        assert len(unbegun(rig)) == 2, "nothing that looking again could change"
        rig.pool.tend(Tending.HOSTS, frozenset({batch}))
        outcome = await rig.ended(batch)
        assert (outcome.tasks[0].cause, outcome.tasks[0].open()) == (Cause.OK, 7)
        assert (await rig.ended(behind)).tasks[0].open() == 8
        assert rig.pool.statistics()["starter_restarts"] == 0

    with_pool(tmp_path, scenario, slots=1)


def test_a_starter_that_starts_nothing_is_replaced(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        assert rig.pool._link is not None
        os.kill(rig.pool._link.process.pid, signal.SIGSTOP)
        batch = rig.start(functions("give", [(7,)]))
        rig.pool.tend(Tending.HOSTS, frozenset({batch}))
        assert [(one.batch, one.reason) for one in unbegun(rig)] == [(batch, "")]
        rig.pool.tend(Tending.ALL, frozenset({batch}))
        outcome = await rig.ended(batch)
        while outcome.unstarted:  # whoever wants it started hands it over again
            outcome = await rig.ended(rig.start(functions("give", [(7,)])))
        assert outcome.tasks[0].open() == 7
        assert rig.pool.statistics()["starter_restarts"] == 1

    with_pool(tmp_path, scenario, slots=1)


def test_what_has_begun_goes_on_whatever_is_tended(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        gate = tmp_path / "gate"
        first = rig.start(functions("wait_for", [(str(gate), str(tmp_path / "begun"))]))
        await rig.until(lambda: not unbegun(rig))
        second = rig.start(functions("give", [(1,)]))
        for how in Tending:
            rig.pool.tend(how, frozenset({first, second}))
        gate.touch()
        assert (await rig.ended(first)).tasks[0].cause is Cause.OK
        assert (await rig.ended(second)).tasks[0].open() == 1
        assert rig.pool.statistics()["starter_restarts"] == 0

    with_pool(tmp_path, scenario, slots=1)
