"""Short batches that stand ready at a busy worker."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
import pytest

from p2psched.model.job import NAMELESS, Cause, JobSpec
from p2psched.model.taskset import EMPTY, TaskSet
from p2psched.run.host import frames, orders
from p2psched.run.host_handle import AHEAD_MAX, AHEAD_US, NEXT_TASK_US, NEXT_US
from tests.run.rig import Rig, functions, pids_in, with_pool

SHORT_US = 50  # as expected: what they take is another matter


class Files:
    """What tasks wait for, and where they write that they run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"

    def waiting(self, name: str, *, timeout_ms: int | None = None) -> JobSpec:
        arguments = [(str(self.folder / name), str(self.folder / f"{name}.begun"))]
        return functions("wait_for", arguments, timeout_ms=timeout_ms)

    def has_begun(self, name: str) -> bool:
        return (self.folder / f"{name}.begun").exists()

    def release(self, name: str) -> None:
        (self.folder / name).touch()

    def logged(self, text: str) -> JobSpec:
        return functions("log", [(str(self.log), text)])

    def lines(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def short(rig: Rig, spec: JobSpec) -> int:
    return rig.start(spec, expected_us=SHORT_US)


async def all_handed_over(rig: Rig, count: int) -> None:
    await rig.until(lambda: rig.pool.statistics()["batches_running"] == count)
    assert rig.pool.statistics()["batches_queued"] == 0


def test_many_short_jobs_run_once_each_and_in_order(tmp_path: Path, files: Files) -> None:
    async def scenario(rig: Rig) -> None:
        batches = [short(rig, files.logged(str(number))) for number in range(200)]
        for number, batch in enumerate(batches):
            outcome = await rig.ended(batch)
            assert outcome.unstarted == EMPTY
            assert outcome.tasks[0].open() == number + 1
        assert files.lines() == [str(number) for number in range(200)]

    with_pool(tmp_path, scenario, slots=1)


def test_results_of_many_short_jobs_come_in_few_messages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    together: list[int] = []
    plain = frames.Reader.feed

    def feed(self: frames.Reader, data: bytes) -> Iterator[tuple[int, bytes]]:
        found = list(plain(self, data))
        together.append(len(found))
        return iter(found)

    async def scenario(rig: Rig) -> None:
        await rig.run(functions("double", [(1,)]))
        monkeypatch.setattr(frames.Reader, "feed", feed)  # of this process: its hosts live
        batches = [short(rig, functions("double", [(number,)])) for number in range(20)]
        for number, batch in enumerate(batches):
            assert (await rig.ended(batch)).tasks[0].open() == 2 * number
        assert max(together) > 1

    with_pool(tmp_path, scenario, slots=1)


def test_what_stands_ready_behind_a_task_that_takes_long_goes_to_whoever_is_free(
    tmp_path: Path, files: Files
) -> None:
    async def scenario(rig: Rig) -> None:
        long = [short(rig, files.waiting(name)) for name in ("a", "b")]
        ready = [short(rig, files.logged(str(number))) for number in range(8)]
        files.release("a")
        for batch in ready:
            assert (await rig.ended(batch)).tasks[0].cause is Cause.OK
        assert rig.outcomes[long[1]].unstarted is None
        files.release("b")
        await rig.ended(long[1])
        assert sorted(files.lines()) == [str(number) for number in range(8)]

    with_pool(tmp_path, scenario, slots=2)


def test_more_than_a_worker_should_have_waits_for_whoever_is_free(
    tmp_path: Path, files: Files
) -> None:
    async def scenario(rig: Rig) -> None:
        first = rig.start(files.waiting("a"), expected_us=AHEAD_US // 2)
        most = [rig.start(files.logged("x"), expected_us=AHEAD_US // 4) for _ in range(2)]
        assert rig.pool.statistics()["batches_queued"] == 0
        more = rig.start(files.logged("x"), expected_us=AHEAD_US // 4)
        assert rig.pool.statistics()["batches_queued"] == 1
        files.release("a")
        for batch in (first, *most, more):
            assert (await rig.ended(batch)).unstarted == EMPTY

    with_pool(tmp_path, scenario, slots=1)


QUICK: Final = (NEXT_TASK_US * 3, 3)  # expected, and of how many tasks


def logs(files: Files, tasks: int = QUICK[1]) -> JobSpec:
    return functions("log", [(str(files.log), "x")] * tasks)


def quick(rig: Rig, spec: JobSpec) -> int:
    return rig.start(spec, expected_us=QUICK[0])


def test_one_longer_batch_of_quick_tasks_stands_ready_behind_one_that_runs(
    tmp_path: Path, files: Files
) -> None:
    async def scenario(rig: Rig) -> None:
        batches = [rig.start(files.waiting("a"), expected_us=QUICK[0])]
        batches += [quick(rig, logs(files)) for _ in range(2)]
        statistics = rig.pool.statistics()
        assert (statistics["batches_running"], statistics["batches_queued"]) == (2, 1)
        files.release("a")
        for batch in batches:
            assert (await rig.ended(batch)).unstarted == EMPTY
        assert len(files.lines()) == 2 * QUICK[1]

    with_pool(tmp_path, scenario, slots=1)


@pytest.mark.parametrize("why", ["long", "once", "saves"])
def test_what_takes_long_or_has_a_slot_of_its_own_stands_behind_nothing(
    tmp_path: Path, files: Files, why: str
) -> None:
    spec = {
        "long": logs(files, QUICK[1] - 1),
        "once": msgspec.structs.replace(logs(files), start="once"),
        "saves": msgspec.structs.replace(logs(files), checkpoint=NAMELESS),
    }[why]

    async def scenario(rig: Rig) -> None:
        first = rig.start(files.waiting("a"), expected_us=QUICK[0])
        more = quick(rig, spec)
        assert rig.pool.statistics()["batches_queued"] == 1
        files.release("a")
        for batch in (first, more):
            await rig.ended(batch)

    with_pool(tmp_path, scenario, slots=1)


def test_a_longer_batch_that_stands_ready_goes_to_a_slot_that_is_free(
    tmp_path: Path, files: Files
) -> None:
    """Though none of the tasks before it takes long."""

    async def scenario(rig: Rig) -> None:
        many = rig.start(functions("time:sleep", [(0.005,)] * 400), expected_us=QUICK[0])
        other = rig.start(files.waiting("b"), expected_us=NEXT_US)
        ready = quick(rig, logs(files))
        await all_handed_over(rig, 3)
        files.release("b")
        assert (await rig.ended(ready)).unstarted == EMPTY
        assert (await rig.ended(other)).unstarted == EMPTY
        assert (await rig.ended(many)).given_back

    with_pool(tmp_path, scenario, slots=2)


def test_a_worker_gets_a_bounded_number_ahead(tmp_path: Path, files: Files) -> None:
    async def scenario(rig: Rig) -> None:
        batches = [rig.start(files.waiting("a"), expected_us=1)]
        batches += [rig.start(files.logged("x"), expected_us=1) for _ in range(AHEAD_MAX + 5)]
        statistics = rig.pool.statistics()
        assert (statistics["batches_running"], statistics["batches_queued"]) == (AHEAD_MAX, 6)
        files.release("a")
        for batch in batches:
            assert (await rig.ended(batch)).unstarted == EMPTY

    with_pool(tmp_path, scenario, slots=1)


def test_nothing_stands_ready_behind_a_task_of_unknown_length(tmp_path: Path, files: Files) -> None:
    async def scenario(rig: Rig) -> None:
        first = rig.start(files.waiting("a"))
        second = short(rig, files.logged("x"))
        assert rig.pool.statistics()["batches_queued"] == 1
        files.release("a")
        for batch in (first, second):
            assert (await rig.ended(batch)).unstarted == EMPTY

    with_pool(tmp_path, scenario, slots=1)


def test_stopping_what_stands_ready_ends_it_unstarted_and_disturbs_nobody(
    tmp_path: Path, files: Files
) -> None:
    async def scenario(rig: Rig) -> None:
        first = short(rig, files.waiting("a"))
        ready = [short(rig, files.logged(str(number))) for number in range(3)]
        await rig.until(lambda: files.has_begun("a"))
        rig.pool.stop(ready[1], Cause.CANCELLED)
        assert rig.outcomes[ready[1]].unstarted == TaskSet.of(0, 1)
        files.release("a")
        for batch in (first, ready[0], ready[2]):
            outcome = await rig.ended(batch)
            assert (outcome.unstarted, outcome.tasks[0].cause) == (EMPTY, Cause.OK)
        assert files.lines() == ["0", "2"]
        assert rig.pool.statistics()["hosts_lost"] == 0
        assert rig.pool.statistics()["workers"] == 1

    with_pool(tmp_path, scenario, slots=1)


def test_stopping_what_runs_leaves_what_stands_ready_to_run_once(
    tmp_path: Path, files: Files
) -> None:
    async def scenario(rig: Rig) -> None:
        first = short(rig, files.waiting("a"))
        ready = [short(rig, files.logged(str(number))) for number in range(3)]
        await rig.until(lambda: files.has_begun("a"))
        rig.pool.stop(first, Cause.CANCELLED)
        stopped = await rig.ended(first)
        assert (stopped.unstarted, stopped.tasks) == (EMPTY, {})
        for batch in ready:
            assert (await rig.ended(batch)).tasks[0].cause is Cause.OK
        assert files.lines() == ["0", "1", "2"]

    with_pool(tmp_path, scenario, slots=1)


def test_a_task_over_its_time_is_ended_alone_and_what_stands_ready_runs(
    tmp_path: Path, files: Files
) -> None:
    async def scenario(rig: Rig) -> None:
        first = short(rig, files.waiting("a", timeout_ms=5))
        ready = [short(rig, files.logged(str(number))) for number in range(3)]
        assert (await rig.ended(first)).tasks[0].cause is Cause.TIMEOUT
        for batch in ready:
            outcome = await rig.ended(batch)
            assert (outcome.unstarted, outcome.tasks[0].cause) == (EMPTY, Cause.OK)
        assert files.lines() == ["0", "1", "2"]

    with_pool(tmp_path, scenario, slots=1)


def test_a_crash_costs_neither_the_jobs_before_it_nor_those_behind_it(
    tmp_path: Path, files: Files
) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.run(functions("double", [(1,)]))  # the worker is warm
        before = [short(rig, files.logged(str(number))) for number in range(3)]
        crashed = short(rig, functions("crash_at", [(1, 1, "exit")]))
        behind = [short(rig, files.logged("x")) for _ in range(3)]
        for batch in before:
            assert (await rig.ended(batch)).tasks[0].cause is Cause.OK
        assert (await rig.ended(crashed)).tasks[0].cause is Cause.EXIT
        for batch in behind:
            outcome = await rig.ended(batch)  # if the machine stood still it had been taken back
            assert outcome.unstarted == TaskSet.of(0, 1) or outcome.tasks[0].cause is Cause.OK
        ran = sum(bool(rig.outcomes[batch].tasks) for batch in behind)
        assert files.lines() == ["0", "1", "2", *["x"] * ran]

    with_pool(tmp_path, scenario, slots=1)


def test_a_killed_worker_gives_what_stands_ready_back(tmp_path: Path, files: Files) -> None:
    async def scenario(rig: Rig) -> None:
        first = short(rig, functions("stay", [(str(tmp_path),)]))
        ready = [short(rig, files.logged("x")) for _ in range(3)]
        await rig.until(lambda: len(pids_in(tmp_path / "pids")) == 2)
        os.kill(pids_in(tmp_path / "pids")[0], signal.SIGKILL)
        assert (await rig.ended(first)).tasks[0].cause is Cause.SIGNAL
        for batch in ready:
            outcome = await rig.ended(batch)
            assert outcome.unstarted == TaskSet.of(0, 1) or outcome.tasks[0].cause is Cause.OK
        assert len(files.lines()) == sum(bool(rig.outcomes[batch].tasks) for batch in ready)

    with_pool(tmp_path, scenario, slots=1)


def test_a_short_job_is_told_while_the_next_one_takes_long(tmp_path: Path, files: Files) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.run(functions("double", [(1,)]))
        quick = [short(rig, functions("double", [(number,)])) for number in range(3)]
        long = short(rig, files.waiting("a"))
        for batch in quick:
            assert (await rig.ended(batch)).unstarted == EMPTY
        assert rig.outcomes[long].unstarted is None
        files.release("a")
        assert (await rig.ended(long)).tasks[0].cause is Cause.OK

    with_pool(tmp_path, scenario, slots=1)


def test_a_ticket_is_taken_by_one_side_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders, "_TICKETS_READ", 1)
    desk = orders.Desk()
    tickets = orders.Tickets(desk.reader)
    batches = range(5_000)
    for batch in batches:
        desk.give(batch)
    taken: list[int] = []
    worker = threading.Thread(
        target=lambda: taken.extend(batch for batch in batches if tickets.take(batch))
    )
    worker.start()
    back: list[int] = []
    while found := desk.take_back():
        back += found
    worker.join()
    assert sorted([*taken, *back]) == list(batches)
    desk.close()


def test_what_was_taken_back_and_handed_over_anew_runs_once() -> None:
    desk = orders.Desk()
    tickets = orders.Tickets(desk.reader)
    sent: list[int] = []
    for batch in (1, 2, 3):
        desk.give(batch)
        sent.append(batch)
    assert list(desk.take_back()) == [1, 2, 3]
    for batch in (3, 2):
        desk.give(batch)
        sent.append(batch)
    assert [batch for batch in sent if tickets.take(batch)] == [3, 2]
    desk.close()


def test_an_order_comes_out_as_it_went_in() -> None:
    order = orders.Order(
        2**40, 7, 3, True, False, "ab" * 16, "1.9.3", [(5, 7, b"xy"), (9, 10, b"")]
    )
    assert orders.unpack(orders.pack(order)[5:]) == order
