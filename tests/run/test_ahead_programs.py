"""Batches of programs that stand ready at a busy spawner."""

from __future__ import annotations

from pathlib import Path

from p2psched.model.job import Cause, JobSpec
from p2psched.model.taskset import EMPTY, TaskSet
from tests.run.rig import Rig, program, with_pool

SHORT_US = 1_000  # as expected: what they take is another matter


def waiting(folder: Path, name: str) -> JobSpec:
    script = f"echo > {folder}/{name}.begun; while [ ! -e {folder}/{name} ]; do sleep 0.01; done"
    return program("sh", "-c", script)


def logged(folder: Path, text: str) -> JobSpec:
    return program("sh", "-c", f"echo {text} >> {folder}/log")


def lines(folder: Path) -> list[str]:
    return (folder / "log").read_text().splitlines()


def short(rig: Rig, spec: JobSpec) -> int:
    return rig.start(spec, expected_us=SHORT_US)


def test_programs_that_stand_ready_run_once_each_and_in_order(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        batches = [short(rig, logged(tmp_path, str(number))) for number in range(12)]
        assert rig.pool.statistics()["batches_queued"] == 0
        for batch in batches:
            outcome = await rig.ended(batch)
            assert (outcome.unstarted, outcome.tasks[0].cause) == (EMPTY, Cause.OK)
        assert lines(tmp_path) == [str(number) for number in range(12)]

    with_pool(tmp_path, scenario, slots=1)


def test_programs_behind_one_that_takes_long_go_to_a_spawner_that_is_free(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        long = [short(rig, waiting(tmp_path, name)) for name in ("a", "b")]
        ready = [short(rig, logged(tmp_path, str(number))) for number in range(6)]
        (tmp_path / "a").touch()
        for batch in ready:
            assert (await rig.ended(batch)).tasks[0].cause is Cause.OK
        assert rig.outcomes[long[1]].unstarted is None
        (tmp_path / "b").touch()
        await rig.ended(long[1])
        assert sorted(lines(tmp_path)) == [str(number) for number in range(6)]

    with_pool(tmp_path, scenario, slots=2)


def test_a_program_that_stands_ready_is_stopped_unstarted_and_the_others_run(
    tmp_path: Path,
) -> None:
    async def scenario(rig: Rig) -> None:
        first = short(rig, waiting(tmp_path, "a"))
        ready = [short(rig, logged(tmp_path, str(number))) for number in range(3)]
        await rig.until((tmp_path / "a.begun").exists)
        rig.pool.stop(ready[1], Cause.CANCELLED)
        assert rig.outcomes[ready[1]].unstarted == TaskSet.of(0, 1)
        rig.pool.stop(first, Cause.CANCELLED)
        assert (await rig.ended(first)).tasks == {}
        for batch in (ready[0], ready[2]):
            assert (await rig.ended(batch)).tasks[0].cause is Cause.OK
        assert lines(tmp_path) == ["0", "2"]

    with_pool(tmp_path, scenario, slots=1)


def test_programs_that_have_ended_are_told_while_the_next_one_takes_long(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        quick = [short(rig, logged(tmp_path, str(number))) for number in range(3)]
        long = short(rig, waiting(tmp_path, "a"))
        for batch in quick:
            assert (await rig.ended(batch)).tasks[0].cause is Cause.OK
        assert rig.outcomes[long].unstarted is None
        (tmp_path / "a").touch()
        assert (await rig.ended(long)).tasks[0].cause is Cause.OK

    with_pool(tmp_path, scenario, slots=1)
