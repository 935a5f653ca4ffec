"""Whatever a user submits costs that user's task and nothing else."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from p2psched.client.files import File
from p2psched.demo.cluster import LocalPeer
from p2psched.model.errors import P2PSchedError, Refused, UsageError
from p2psched.model.job import Cause, JobState
from p2psched.model.limits import OUTPUT_BYTES_MAX
from tests.integration import work
from tests.integration.rig import Rig, gone, tasks, until

pytestmark = pytest.mark.process


@pytest.mark.smoke
def test_each_bad_task_fails_by_its_own_cause_and_the_others_succeed(rig: Rig) -> None:
    kinds = ["fine", "exit", "segfault", "raise", "unserialisable", "large"]
    kinds += ["prints-much", "also fine"]

    async def story() -> dict[str, Cause]:
        async with rig.client() as client:
            job = await client.map(work.misbehave, kinds)
            found = {kinds[result.index]: result async for result in job.as_completed()}
            view = await job.show()
        assert (view.succeeded, view.failed) == (4, 4)
        assert found["fine"].value == "fine"
        assert found["exit"].header["exit"] == 3
        assert found["large"].value == bytes(1024 * 1024)
        assert found["segfault"].header["signal"] == 11
        with pytest.raises(LookupError, match="nothing here"):
            _ = found["raise"].value
        assert found["prints-much"].header["stdout_total"] == work.MANY_BYTES
        assert len(found["prints-much"].stdout) <= OUTPUT_BYTES_MAX
        return {kind: result.cause for kind, result in found.items()}

    assert asyncio.run(story()) == {
        "fine": Cause.OK,
        "exit": Cause.EXIT,
        "segfault": Cause.SIGNAL,
        "raise": Cause.EXCEPTION,
        "unserialisable": Cause.NOT_SERIALISABLE,
        "large": Cause.OK,
        "prints-much": Cause.OK,
        "also fine": Cause.OK,
    }


def test_a_function_that_cannot_be_imported_fails_every_task_with_its_name(rig: Rig) -> None:
    async def story() -> list[str]:
        async with rig.client() as client:
            job = await client.map("no_such_module:no_such_name", range(3))
            results = [result async for result in job.as_completed()]
        assert {result.cause for result in results} == {Cause.NOT_STARTABLE}
        return [str(result.error) for result in results]

    errors = asyncio.run(story())
    assert len(errors) == 3
    assert all("no_such_module" in error for error in errors)


@pytest.mark.parametrize(
    ("items", "says"),
    [
        ([threading.Lock()], "can't be serialised"),
        ([File("/no/such/file")], "can't read /no/such/file"),
        ([], "tasks, not 0"),
    ],
)
def test_what_cannot_be_submitted_is_refused_before_it_is_sent(
    rig: Rig, items: list[object], says: str
) -> None:
    async def story() -> None:
        async with rig.client() as client:
            before = await client.jobs(limit=1)
            with pytest.raises(UsageError, match=says):
                await client.map(work.square, items)
            assert await client.jobs(limit=1) == before

    asyncio.run(story())


@pytest.mark.smoke
def test_a_cancel_is_final_and_ends_the_processes_of_its_tasks(rig: Rig) -> None:
    side = rig.side("cancelled")

    async def story() -> None:
        async with rig.client() as client:
            job = await client.submit_program(side.argv, tasks=tasks(20))
            await until(lambda: len(side.starts()) >= 6)
            await job.cancel()
            side.let_go()  # results of those that still run come too late
            await until(lambda: all(gone(start.pid) for start in side.starts()))
            view = await job.wait()
            assert (view.state, view.succeeded, view.cancelled) == (JobState.CANCELLED, 0, 20)
            later = await client.map(work.square, range(50))
            assert await later.results() == [number * number for number in range(50)]
            assert await job.show() == view

    asyncio.run(story())


@pytest.mark.smoke
def test_without_the_secret_nobody_submits(rig: Rig, tmp_path: Path) -> None:
    wrong = tmp_path / "secret"
    wrong.write_text("0" * 64)
    wrong.chmod(0o600)

    async def story() -> None:
        client = type(rig.client())(rig.cluster.peers["a"].address, secret_file=wrong)
        with pytest.raises(P2PSchedError, match="secret"):
            async with client:
                await client.submit(work.square, 3)

    asyncio.run(story())


def test_without_the_secret_nobody_joins(rig: Rig, tmp_path: Path) -> None:
    wrong = tmp_path / "secret"
    wrong.write_text("0" * 64)
    wrong.chmod(0o600)
    stranger = rig.cluster.start("stranger", slots=1, options=["--secret-file", str(wrong)])
    try:
        assert _exit_code(stranger) == Refused.exit_code
        assert "secret" in stranger.last_lines()
    finally:
        del rig.cluster.peers["stranger"]

    async def names() -> set[str]:
        async with rig.client() as client:
            return set(await rig.views(client))

    assert asyncio.run(names()) == {"a", "b", "c"}


def _exit_code(peer: LocalPeer) -> int:
    assert peer.process is not None
    try:
        return peer.process.wait(30)
    finally:
        if peer.runs:
            peer.process.kill()
