"""What has not begun is given back, also the end of a batch whose first tasks run."""

from __future__ import annotations

import os
import threading
from functools import partial
from pathlib import Path

import msgspec
import pytest

from p2psched.model.job import Cause, JobSpec
from p2psched.model.once import Start
from p2psched.model.taskset import EMPTY, TaskSet
from p2psched.run.handed import LEG_US
from p2psched.run.host import orders
from tests.run.rig import Outcome, Rig, functions, program, with_pool
from tests.run.test_ahead import Files

TASKS = 5
LONG_US = LEG_US * TASKS  # a batch of as many legs as tasks


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def first_waits(files: Files) -> JobSpec:
    """A task that waits for the file "a", and others behind it."""
    names = ["a", *"bcde"]
    return functions(
        "wait_for", [(str(files.folder / n), str(files.folder / f"{n}.begun")) for n in names]
    )


def program_waits(files: Files) -> JobSpec:
    text = f"touch {files.folder}/a.begun; [ $P2P_INDEX -gt 0 ] || cat {files.folder}/pipe"
    return program("sh", "-c", f"echo $P2P_INDEX >> {files.log}; {text}", tasks=TASKS)


def test_the_end_of_a_batch_that_runs_is_given_back_and_never_begins(
    tmp_path: Path, files: Files
) -> None:
    async def scenario(rig: Rig) -> None:
        batch = rig.start(first_waits(files), expected_us=LONG_US)
        await rig.until(lambda: files.has_begun("a"))
        rig.pool.take_back()
        assert rig.taken_back == 1
        assert rig.outcomes[batch].given_back == TaskSet.of(1, TASKS)
        behind = rig.start(files.logged("behind"), expected_us=LONG_US)
        for name in "abcde":
            files.release(name)
        outcome = await rig.ended(batch)
        assert (list(outcome.tasks), outcome.unstarted) == ([0], EMPTY)
        assert outcome.tasks[0].cause is Cause.OK
        assert (await rig.ended(behind)).tasks[0].cause is Cause.OK
        assert not any(files.has_begun(name) for name in "bcde")
        statistics = rig.pool.statistics()
        assert (statistics["workers"], statistics["hosts_lost"]) == (1, 0)

    with_pool(tmp_path, scenario, slots=1)


def test_the_programs_behind_one_that_runs_are_given_back(tmp_path: Path, files: Files) -> None:
    os.mkfifo(tmp_path / "pipe")

    async def scenario(rig: Rig) -> None:
        batch = rig.start(program_waits(files), expected_us=LONG_US)
        await rig.until(lambda: files.has_begun("a"))
        rig.pool.take_back()
        assert rig.outcomes[batch].given_back == TaskSet.of(1, TASKS)
        (files.folder / "pipe").write_text("")
        outcome = await rig.ended(batch)
        assert (list(outcome.tasks), outcome.unstarted) == ([0], EMPTY)
        assert files.lines() == ["0"]

    with_pool(tmp_path, scenario, slots=1)


def test_what_stands_behind_a_task_that_takes_long_comes_back_by_itself(
    tmp_path: Path, files: Files
) -> None:
    async def scenario(rig: Rig) -> None:
        batch = rig.start(first_waits(files), expected_us=LONG_US)
        await rig.until(lambda: rig.outcomes[batch].given_back)
        assert rig.outcomes[batch].given_back == TaskSet.of(1, TASKS)
        files.release("a")
        assert list((await rig.ended(batch)).tasks) == [0]

    with_pool(tmp_path, scenario, slots=1)


def test_whole_batches_that_stand_ready_or_wait_end_unstarted(tmp_path: Path, files: Files) -> None:
    async def scenario(rig: Rig) -> None:
        first = rig.start(first_waits(files), TaskSet.of(0, 1))
        await rig.until(lambda: files.has_begun("a"))
        ready = [rig.start(files.logged(str(n)), expected_us=50) for n in range(3)]
        rig.pool.take_back()
        for batch in ready:
            assert rig.outcomes[batch].unstarted == TaskSet.of(0, 1)
        files.release("a")
        assert (await rig.ended(first)).tasks[0].cause is Cause.OK
        assert files.lines() == []

    with_pool(tmp_path, scenario, slots=1)


def test_what_must_not_start_twice_stays(tmp_path: Path, files: Files) -> None:
    async def scenario(rig: Rig) -> None:
        first = rig.start(first_waits(files), TaskSet.of(0, 1))
        await rig.until(lambda: files.has_begun("a"))
        once = rig.start(msgspec.structs.replace(files.logged("once"), start=Start.ONCE))
        rig.pool.take_back()
        assert rig.outcomes[once].unstarted is None
        files.release("a")
        for batch in (first, once):
            assert (await rig.ended(batch)).tasks[0].cause is Cause.OK

    with_pool(tmp_path, scenario, slots=1)


def test_a_task_runs_or_is_given_back_however_often_that_is_asked(
    tmp_path: Path, files: Files
) -> None:
    count = 1_000

    def was_begun(seen: int, outcome: Outcome) -> bool:
        return len(files.lines()) > seen or outcome.unstarted is not None

    async def scenario(rig: Rig) -> None:
        await rig.run(functions("double", [(1,)]))  # the worker is warm
        spec = functions("log", [(str(files.log), str(n)) for n in range(count)])
        left, ran = TaskSet.of(0, count), EMPTY
        batches = 0
        while left.ranges:
            batch = rig.start(spec, left, expected_us=LEG_US * len(left))
            batches += 1
            outcome = rig.outcomes[batch]
            await rig.until(partial(was_begun, len(ran), outcome))
            rig.pool.take_back()
            await rig.ended(batch)
            assert outcome.unstarted is not None
            done = TaskSet.from_indices(outcome.tasks)
            assert done | outcome.given_back | outcome.unstarted == left
            assert not done & ran
            left, ran = left - done, ran | done
        assert batches > 1, "something was given back"
        assert sorted(map(int, files.lines())) == list(range(count))

    with_pool(tmp_path, scenario, slots=1)


def test_a_leg_is_begun_or_taken_back_by_one_side_only() -> None:
    desk = orders.Desk()
    tickets = orders.Tickets(desk.reader)
    batches, legs = range(500), 8
    given = dict.fromkeys(batches, 0)
    begun = dict.fromkeys(batches, 0)
    handed_over = threading.Semaphore(0)

    def work() -> None:
        for batch in batches:
            handed_over.acquire()
            if tickets.take(batch):
                walk = orders.Walk(tickets, batch, 1)
                while walk.may_begin():
                    begun[batch] += 1

    worker = threading.Thread(target=work)
    worker.start()
    for batch in batches:
        desk.give(batch, legs)
        handed_over.release()
        if batch % 3 == 0:
            for number, count in desk.take_back().items():
                given[number] += count
    worker.join()
    for number, count in desk.take_back().items():
        given[number] += count
    assert all(begun[batch] + given[batch] == legs for batch in batches)
    assert any(given[batch] > 0 for batch in batches)
    desk.close()
