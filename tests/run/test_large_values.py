"""Large arguments and results of functions: through blobs, and nobody's but the task's."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import cloudpickle
import msgspec
import numpy as np
import pytest

from p2psched.client.functions import calls, one_call, pack, star_calls
from p2psched.model import chunks, limits, values
from p2psched.model.blob import BlobRef
from p2psched.model.job import Cause, FunctionWork
from p2psched.model.taskset import EMPTY, TaskSet
from tests.run.disk_blobs import DiskBlobs
from tests.run.rig import PYTHON, Rig, functions, packed, with_pool

pytestmark = pytest.mark.process

SAMPLES = "tests.run.samples"


def work_of(spec: object) -> FunctionWork:
    work = getattr(spec, "work", None)
    assert isinstance(work, FunctionWork)
    return work


@pytest.mark.smoke
def test_an_array_can_be_worked_on_in_place_where_it_arrives(tmp_path: Path) -> None:
    blobs = DiskBlobs(tmp_path / "blobs")
    small, large = np.arange(2_000.0), np.arange(100_000.0)

    async def scenario(rig: Rig) -> None:
        items = [(small, 2.0), (large, 2.0), (large, 3.0)]
        spec = packed(blobs, f"{SAMPLES}:scale_in_place", star_calls(items))
        outcome = await rig.run(spec)
        assert [outcome.tasks[index].cause for index in range(3)] == [Cause.OK] * 3
        for index, (array, factor) in enumerate(items):
            found = outcome.tasks[index].open()
            assert isinstance(found, np.ndarray)
            np.testing.assert_array_equal(found, array * factor)
            found += 1
        assert outcome.tasks[0].blobs == ()
        assert len(outcome.tasks[1].blobs) == 1

    with_pool(tmp_path, scenario, blobs=blobs, slots=1)
    np.testing.assert_array_equal(small, np.arange(2_000.0))
    np.testing.assert_array_equal(large, np.arange(100_000.0))


def test_an_array_passed_to_many_tasks_is_one_blob(tmp_path: Path) -> None:
    blobs = DiskBlobs(tmp_path / "blobs")
    array = np.ones(50_000)

    async def scenario(rig: Rig) -> None:
        spec = packed(blobs, f"{SAMPLES}:total_of", calls([array] * 40, range(40)), modules="none")
        assert len(work_of(spec).blobs) == 1
        outcome = await rig.run(spec)
        assert [outcome.tasks[i].open() for i in range(40)] == [50_000.0 + i for i in range(40)]

    with_pool(tmp_path, scenario, blobs=blobs)


VALUES: list[object] = [b"x" * 200_000, "\u00e9" * 200_000, list(range(200_000))]
VALUES += [{"a": (1, b"y" * 3_000_000)}, [np.zeros(9_000), "text", np.ones((300, 300))[:, ::2]]]


@pytest.mark.parametrize("number", range(len(VALUES)))
def test_a_value_of_any_size_comes_back_as_it_was(tmp_path: Path, number: int) -> None:
    value = VALUES[number]
    blobs = DiskBlobs(tmp_path / "blobs")

    async def scenario(rig: Rig) -> None:
        spec = packed(blobs, f"{SAMPLES}:give", calls([value]), modules="none")
        end = (await rig.run(spec)).tasks[0]
        assert end.cause is Cause.OK
        assert len(end.value) < 1_000
        assert [blob.ref for blob in end.blobs] == [BlobRef(*values.blob_of(end.value))]
        found = end.open()
        assert type(found) is type(value)
        if isinstance(value, list) and isinstance(found, list) and len(value) == 3:
            np.testing.assert_array_equal(found[0], value[0])
            np.testing.assert_array_equal(found[2], value[2])
        else:
            assert found == value
        assert list((rig.folder / "spill").iterdir()) == []

    with_pool(tmp_path, scenario, blobs=blobs)


@pytest.mark.smoke
def test_no_result_and_no_end_is_told_before_its_blob_is_kept(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        blobs.gate.clear()
        spec = packed(blobs, f"{SAMPLES}:zeros", calls([1, 90_000, 2]), modules="none")
        batch = rig.start(spec)
        await rig.until(lambda: blobs.adopt_calls == 1)
        await rig.until(lambda: set(rig.outcomes[batch].tasks) == {0, 2})
        await rig.until(lambda: rig.pool.statistics()["batches_running"] == 0)
        assert rig.outcomes[batch].unstarted is None
        blobs.gate.set()
        outcome = await rig.ended(batch)
        assert outcome.tasks[1].cause is Cause.OK
        assert outcome.unstarted == EMPTY

    blobs = DiskBlobs(tmp_path / "blobs")
    with_pool(tmp_path, scenario, blobs=blobs)


def test_a_result_that_the_disk_has_no_room_for_fails_alone(tmp_path: Path) -> None:
    blobs = DiskBlobs(tmp_path / "blobs", room=2_000_000)

    async def scenario(rig: Rig) -> None:
        spec = packed(blobs, f"{SAMPLES}:zeros", calls([10_000, 900_000, 20_000]), modules="none")
        outcome = await rig.run(spec)
        assert [outcome.tasks[i].cause for i in range(3)] == [Cause.OK, Cause.NO_SPACE, Cause.OK]
        assert "could not be kept" in str(outcome.tasks[1].header["message"])
        assert "disk is full" in str(outcome.tasks[1].header["message"])
        assert list((rig.folder / "spill").iterdir()) == []

    with_pool(tmp_path, scenario, blobs=blobs)


def test_much_arguments_reach_their_tasks_in_parts(tmp_path: Path) -> None:
    blobs = DiskBlobs(tmp_path / "blobs")
    items = [f"{number:05}" * 4_000 for number in range(600)]  # 12 MB

    async def scenario(rig: Rig) -> None:
        spec = packed(blobs, "builtins:hash", calls(items), modules="none")
        assert work_of(spec).arguments is not None
        assert work_of(spec).chunks == ()
        lengths = packed(blobs, "builtins:len", calls(items), modules="none")
        last = packed(blobs, f"{SAMPLES}:give", calls(items), modules="none")
        batches = [rig.start(spec), rig.start(lengths)]
        some = rig.start(last, TaskSet(((3, 5), (511, 513), (599, 600))))
        for batch in batches:
            outcome = await rig.ended(batch)
            assert len(outcome.tasks) == 600
            assert {end.cause for end in outcome.tasks.values()} == {Cause.OK}
        found = (await rig.ended(some)).tasks
        assert {index: end.open() for index, end in found.items()} == {
            index: items[index] for index in (3, 4, 511, 512, 599)
        }

    with_pool(tmp_path, scenario, blobs=blobs)


def test_a_batch_waits_for_its_blobs_and_holds_nobody_up(tmp_path: Path) -> None:
    blobs = DiskBlobs(tmp_path / "blobs")
    array = np.ones(50_000)

    async def scenario(rig: Rig) -> None:
        job = pack(f"{SAMPLES}:total_of", calls([array], [1]), modules="none")
        (upload,) = job.uploads
        with upload.opened() as read_at:
            blobs.others[upload.ref] = read_at(upload.ref.size, 0)
        blobs.fetch_gate.clear()
        waiting, given_up = rig.start(job.spec), rig.start(job.spec)
        assert (await rig.run(packed(blobs, "math:sqrt", calls([4.0])))).tasks[0].open() == 2.0
        rig.pool.stop(given_up, Cause.CANCELLED)
        assert rig.outcomes[given_up].unstarted == TaskSet.of(0, 1)
        blobs.fetch_gate.set()
        assert (await rig.ended(waiting)).tasks[0].open() == 50_001.0
        assert blobs.fetched == [upload.ref]

    with_pool(tmp_path, scenario, blobs=blobs, slots=1)


def test_what_is_nowhere_and_what_is_damaged_fails_its_task_with_its_name(tmp_path: Path) -> None:
    blobs = DiskBlobs(tmp_path / "blobs")

    async def scenario(rig: Rig) -> None:
        job = pack(f"{SAMPLES}:total_of", calls([np.ones(50_000)], [1]), modules="none")
        (upload,) = job.uploads
        end = (await rig.run(job.spec)).tasks[0]
        assert end.cause is Cause.NOT_STARTABLE
        assert str(upload.ref) in str(end.header["message"])
        blobs.path(upload.ref).parent.mkdir(exist_ok=True)
        blobs.path(upload.ref).write_bytes(bytes(upload.ref.size))
        end = (await rig.run(job.spec)).tasks[0]
        assert end.cause is Cause.NOT_STARTABLE
        assert f"{upload.ref} is damaged" in str(end.header["message"])

    with_pool(tmp_path, scenario, blobs=blobs)


def test_a_task_whose_argument_is_found_damaged_is_given_back_once_and_runs_with_a_sound_copy(
    tmp_path: Path,
) -> None:
    blobs = DiskBlobs(tmp_path / "blobs")
    (tmp_path / "blobs" / "damaged").mkdir()

    async def scenario(rig: Rig) -> None:
        spec = packed(
            blobs, f"{SAMPLES}:total_of", calls([np.ones(50_000)] * 2, [1, 2]), modules="none"
        )
        (ref,) = work_of(spec).blobs
        blobs.elsewhere(blobs.path(ref).read_bytes())
        blobs.path(ref).write_bytes(bytes(ref.size))
        outcome = await rig.run(spec)
        assert outcome.unstarted == TaskSet.of(0, 2)
        assert not outcome.tasks
        assert (tmp_path / "blobs" / "damaged" / str(ref)).read_bytes() == bytes(ref.size)
        outcome = await rig.run(spec)
        assert [outcome.tasks[index].open() for index in (0, 1)] == [50_001.0, 50_002.0]
        assert blobs.fetched == [ref]
        blobs.path(ref).write_bytes(bytes(ref.size))  # this disk does it again: no endless circle
        again = (await rig.run(spec)).tasks[0]
        assert again.cause is Cause.NOT_STARTABLE
        assert f"{ref} is damaged" in str(again.header["message"])

    with_pool(tmp_path, scenario, blobs=blobs, slots=1)


def test_a_batch_whose_blobs_are_here_starts_at_once(tmp_path: Path) -> None:
    """All but the first of a job: it must not cost a turn of the loop each time."""
    blobs = DiskBlobs(tmp_path / "blobs")

    async def scenario(rig: Rig) -> None:
        spec = functions("double", [(1,), (2,)])
        assert isinstance(spec.work, FunctionWork)
        code = blobs.elsewhere(cloudpickle.dumps(abs))
        work = msgspec.structs.replace(spec.work, path="", code=code)
        spec = msgspec.structs.replace(spec, work=work)
        assert (await rig.run(spec)).tasks[1].open() == 2
        assert blobs.fetched == [code]
        batch = rig.start(spec)
        assert rig.pool.statistics()["batches_running"] == 1
        assert (await rig.ended(batch)).tasks[0].open() == 1

    with_pool(tmp_path, scenario, blobs=blobs)


def test_large_code_travels_as_a_blob(tmp_path: Path) -> None:
    blobs = DiskBlobs(tmp_path / "blobs")
    table = bytes(range(256)) * 1_000

    async def scenario(rig: Rig) -> None:
        spec = packed(blobs, lambda at: table[at], calls([3, 700]))
        assert isinstance(work_of(spec).code, BlobRef)
        outcome = await rig.run(spec)
        assert [outcome.tasks[index].open() for index in (0, 1)] == [3, 700 % 256]

    with_pool(tmp_path, scenario, blobs=blobs)


def test_a_stopped_batch_between_two_parts_ends_with_what_is_left(tmp_path: Path) -> None:
    blobs = DiskBlobs(tmp_path / "blobs")
    items = ["x" * 60_000 for _ in range(100)]

    async def scenario(rig: Rig) -> None:
        spec = packed(blobs, "builtins:len", calls(items), modules="none")
        read, hold = blobs.read, asyncio.Event()

        async def read_slowly(ref: BlobRef, offset: int, size: int) -> bytes:
            if offset > 2 * limits.MIB and size > limits.KIB and offset + size < ref.size - 2_000:
                await hold.wait()
            return await read(ref, offset, size)

        blobs.read = read_slowly  # type: ignore[method-assign]  # the disk is slow
        batch = rig.start(spec)
        await rig.until(lambda: len(rig.outcomes[batch].tasks) >= 17)
        rig.pool.stop(batch, Cause.CANCELLED)
        outcome = await rig.ended(batch)
        done = TaskSet.from_indices(outcome.tasks)
        assert outcome.unstarted == spec.tasks - done
        hold.set()
        assert (await rig.run(packed(blobs, "math:sqrt", calls([9.0])))).tasks[0].open() == 3.0

    with_pool(tmp_path, scenario, blobs=blobs)


def test_one_call_with_large_and_small_arguments_by_name(tmp_path: Path) -> None:
    blobs = DiskBlobs(tmp_path / "blobs")

    async def scenario(rig: Rig) -> None:
        arguments = one_call(array=np.ones(70_000), plus=0.5)
        end = (await rig.run(packed(blobs, f"{SAMPLES}:total_of", arguments))).tasks[0]
        assert end.open() == 70_000.5

    with_pool(tmp_path, scenario, blobs=blobs)


class Deadly:
    """Ends the process that pickles it."""

    def __reduce__(self) -> str:
        os.kill(os.getpid(), signal.SIGKILL)
        return ""


def test_a_worker_that_dies_while_it_writes_leaves_no_file(tmp_path: Path) -> None:
    blobs = DiskBlobs(tmp_path / "blobs")

    def deadly(_: int) -> object:
        return [bytes(5_000_000), Deadly()]

    async def scenario(rig: Rig) -> None:
        end = (await rig.run(packed(blobs, deadly, calls([0])))).tasks[0]
        assert end.cause is Cause.SIGNAL
        await rig.until(lambda: not list((rig.folder / "spill").iterdir()))

    with_pool(tmp_path, scenario, blobs=blobs)


def test_a_caller_of_another_python_is_told_of_it_where_that_may_matter(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        plain = (await rig.run(functions("give", [(1,)], python="3.99"))).tasks[0]
        assert (plain.header, plain.open()) == ({}, 1)
        pickled = (await rig.run(functions("give", [({1},)], python="3.99"))).tasks[0]
        assert pickled.header == {"python": PYTHON}
        assert pickled.open() == {1}
        spec = functions("give", [(1,)], python="3.99")
        work = msgspec.structs.replace(spec.work, chunks=(chunks.pack([b"\x80\x05junk"]),))
        end = (await rig.run(msgspec.structs.replace(spec, work=work))).tasks[0]
        assert end.cause is Cause.NOT_STARTABLE
        assert "the caller runs Python 3.99" in str(end.header["message"])
        assert "same minor version" in str(end.header["message"])

    with_pool(tmp_path, scenario)
