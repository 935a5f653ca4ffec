"""How calls are packed: what travels by value, as a blob or not at all, and with which words."""

from __future__ import annotations

import functools
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from p2psched.client.files import File
from p2psched.client.functions import (
    CHUNK_TASKS,
    PackedFunction,
    PackedJob,
    calls,
    one_call,
    pack,
    pack_call,
    pack_single,
    packed_calls,
    star_calls,
)
from p2psched.client.task import task
from p2psched.model import chunks, digests, limits, values
from p2psched.model.blob import BlobRef
from p2psched.model.errors import UsageError
from p2psched.model.job import FunctionWork
from p2psched.run.host.files import file_of
from p2psched.run.host.pickling import Opener


class Sent:
    """The blobs of a packed job, as a worker has them."""

    def __init__(self, job: PackedJob) -> None:
        self._blobs: dict[tuple[bytes, int], bytes] = {}
        for upload in job.uploads:
            with upload.opened() as read_at:
                data = read_at(upload.ref.size, 0)
            assert digests.digest_of(data) == upload.ref.digest
            assert digests.parse_list(upload.listed, upload.ref.size, upload.ref.digest)
            self._blobs[upload.ref.digest, upload.ref.size] = data

    def map(self, ref: tuple[bytes, int]) -> memoryview:
        return memoryview(bytearray(self._blobs[ref]))

    def file(self, name: str, ref: tuple[bytes, int]) -> File:
        assert ref in self._blobs
        return file_of(name, ref)


def work_of(job: PackedJob) -> FunctionWork:
    assert isinstance(job.spec.work, FunctionWork)
    return job.spec.work


def items_of(job: PackedJob) -> list[bytes]:
    """The packed arguments of all tasks, from wherever they are."""
    work = work_of(job)
    pieces = list(work.chunks)
    if work.arguments is not None:
        data = bytes(Sent(job).map((work.arguments.digest, work.arguments.size)))
        count = -(-len(job.spec.tasks) // work.chunk_tasks)
        ends = memoryview(data)[-8 * count :].cast("Q")
        assert ends[-1] == len(data) - 8 * count
        pieces = [data[a:b] for a, b in zip([0, *ends], ends, strict=False)]
    return [item for chunk in pieces for item in chunks.unpack(chunk)]


def opened(job: PackedJob) -> list[tuple[Any, Any]]:
    opener = Opener(Sent(job))
    return [cast("tuple[Any, Any]", opener.open(item)) for item in items_of(job)]


def test_every_call_is_found_in_its_chunk() -> None:
    items: list[object] = [*range(CHUNK_TASKS + 3), {"a": [1, 2]}, None]
    job = pack("math:sqrt", calls(items))
    assert opened(job) == [((item,), {}) for item in items]
    assert chunks.count(work_of(job).chunks[0]) == CHUNK_TASKS
    assert job.uploads == ()


def test_calls_have_the_shapes_of_map_and_starmap_with_constants() -> None:
    assert opened(pack("a:b", calls([1, 2, 3], "xy", kwargs={"k": [0]}))) == [
        ((1, "x"), {"k": [0]}),
        ((2, "y"), {"k": [0]}),
    ]
    assert opened(pack("a:b", star_calls([(1, 2), [3, 4]]))) == [((1, 2), {}), ((3, 4), {})]
    assert opened(pack("a:b", one_call(1, k=2))) == [((1,), {"k": 2})]


def test_an_import_path_sends_no_code() -> None:
    work = work_of(pack("math:sqrt", calls([1])))
    assert (work.path, work.code, work.modules) == ("math:sqrt", b"", b"")


def test_a_closure_travels_by_value() -> None:
    offset = 5

    def add(number: int) -> int:
        return number + offset

    work = work_of(pack(add, calls([1])))
    assert isinstance(work.code, bytes)
    assert pickle.loads(work.code)(2) == 7  # noqa: TID251 (as a worker does)
    assert work.modules == b"", "the function's own module is not needed"


def test_a_job_is_named_after_its_function() -> None:
    assert pack("package.module:Class.method", calls([1])).spec.name == "Class.method"
    assert pack(len, calls(["a"])).spec.name == "len"


@pytest.mark.parametrize(
    ("function", "items", "words"),
    [
        ("math.sqrt", [1], "write it like package.module:name"),
        (len, [], "1 to 1,000,000 tasks, not 0"),
        (len, [threading.Lock()], "an argument can't be serialised"),
        (len, [File("/no/such/file")], "can't read /no/such/file"),
        (len, [File("/dev/zero")], "/dev/zero: it is no plain file"),
        (3, [1], "3 is not a function"),
    ],
)
def test_what_cannot_travel_is_refused_with_the_way_out(
    function: Callable[..., object], items: list[object], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        pack(function, calls(items))


def test_a_function_that_holds_a_lock_is_refused() -> None:
    lock = threading.Lock()

    def locked(_: object) -> None:
        with lock:
            pass

    with pytest.raises(UsageError, match="the function can't be serialised"):
        pack(locked, calls([1]))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cpus": 1.5}, "cpus are 1 to 1024, not 1.5"),
        ({"cpus": 0}, "cpus are 1 to 1024, not 0"),
        ({"retries": "x"}, "retries are 0 to 100"),
        ({"timeout_s": 0}, "a timeout is more than 0"),
        ({"timeout_s": -1.0}, "a timeout is more than 0"),
        ({"timeout_s": float("nan")}, "a timeout is more than 0"),
        ({"timeout_s": 1e300}, "a timeout is more than 0 and at most"),
        ({"name": "a/b"}, "no '/'"),
        ({"modules": "all"}, "'auto', 'none' or a list"),
        ({"modules": ["no_such_module_here"]}, "no module 'no_such_module_here'"),
    ],
)
def test_options_that_make_no_sense_are_refused_before_anything_is_sent(
    options: dict[str, object], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        pack(len, calls(["a"]), **options)  # type: ignore[arg-type]  # wrong on purpose


# --- what is large --------------------------------------------------------------------------------


def test_a_large_argument_is_one_blob_however_many_tasks_have_it() -> None:
    array = np.arange(20_000.0)
    job = pack("a:b", calls([array] * 50, range(50)))
    assert len(job.uploads) == 1
    assert work_of(job).blobs == (job.uploads[0].ref,)
    assert all(values.refs_of(item) == [digest_size(job.uploads[0].ref)] for item in items_of(job))
    args, _ = opened(job)[7]
    np.testing.assert_array_equal(args[0], array)
    assert args[0].flags.writeable
    assert args[1] == 7


def digest_size(ref: BlobRef) -> tuple[bytes, int]:
    return ref.digest, ref.size


def test_a_constant_is_one_blob_too_and_a_generator_may_reuse_its_buffer() -> None:
    def batches() -> Iterator[np.ndarray]:
        buffer = np.zeros(20_000)
        for number in range(3):
            buffer[:] = number
            yield buffer

    table = {"rows": np.ones(30_000)}
    job = pack("a:b", calls(batches(), kwargs={"table": table}))
    assert len(job.uploads) == 4
    for number, call in enumerate(opened(job)):
        args, kwargs = call
        assert args[0][0] == number
        np.testing.assert_array_equal(kwargs["table"]["rows"], table["rows"])


def test_many_middling_arguments_of_one_call_are_one_blob() -> None:
    arguments = [np.full(1_000, number) for number in range(20)]
    job = pack("a:b", star_calls([arguments]))
    (item,) = items_of(job)
    assert values.kind_of(item) == values.BLOB
    ((args, _),) = opened(job)
    assert [int(array[0]) for array in args] == list(range(20))


def test_arguments_that_are_much_together_become_a_blob_of_chunks() -> None:
    items = [f"{number:>600}" for number in range(3 * CHUNK_TASKS + 1)]
    job = pack("a:b", calls(items))
    assert work_of(job).chunks == ()
    assert [upload.ref for upload in job.uploads] == [work_of(job).arguments]
    assert opened(job) == [((item,), {}) for item in items]


def test_a_file_is_sent_as_it_is_and_read_once(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"content")
    job = pack("a:b", calls([[File(path), {"again": File(path)}]] * 3))
    (upload,) = job.uploads
    assert upload.source == path
    ((args, _), *_) = opened(job)
    assert (args[0][0].name, args[0][1]["again"].size) == ("data", 7)


def test_a_file_cannot_hide_in_a_function(tmp_path: Path) -> None:
    file = File(tmp_path / "x")
    with pytest.raises(UsageError, match="travels only in the arguments"):
        pack(lambda: file, one_call())


_LARGE = b"x" * limits.JOB_ARGUMENT_BYTES_MAX


@pytest.mark.parametrize(
    ("function", "call", "is_single"),
    [
        (PackedFunction("math:sqrt", b"", "sqrt"), ((2,), {}), True),
        (PackedFunction("", b"code", "<lambda>", b"zip"), ((), {"a": [1]}), True),
        (PackedFunction("", _LARGE, "f", _LARGE), ((1,), {}), True),
        (PackedFunction("", b"", "f"), ((_LARGE,), {}), False),
        (PackedFunction("", b"c" * 60_000, "f", b"m" * 1_000), ((_LARGE[:60_000],), {}), True),
    ],
)
@pytest.mark.parametrize(("name", "number"), [(None, 1), ("a job", 3)])
def test_a_single_call_is_packed_as_one_of_many(
    function: PackedFunction,
    call: tuple[tuple[object, ...], dict[str, object]],
    name: str | None,
    number: int,
    *,
    is_single: bool,
) -> None:
    packed, timeout_s = pack_call(call), number / 2
    single = pack_single(
        function,
        packed,
        name=name,
        retries=number,
        timeout_s=timeout_s,
        cpus=number,
        submitter="me",
    )
    assert (single is not None) == is_single
    if single is not None:
        general = pack(
            function,
            packed_calls([packed]),
            name=name,
            retries=number,
            timeout_s=timeout_s,
            cpus=number,
            submitter="me",
        )
        assert single.spec == general.spec
        assert [up.ref for up in single.uploads] == [up.ref for up in general.uploads]


def test_large_code_is_a_blob() -> None:
    table = bytes(100_000)
    work = work_of(pack(lambda: table, one_call()))
    assert isinstance(work.code, BlobRef)


def test_more_blobs_than_a_job_may_have_are_refused_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BLOBS_PER_JOB_MAX", 3)
    with pytest.raises(UsageError, match="up to 3 large arguments"):
        pack("a:b", calls(bytes([n]) * 70_000 for n in range(1_000_000)))


def test_a_million_items_from_a_generator_need_little_memory() -> None:
    script = (
        "import resource\n"
        "from p2psched.client.functions import calls, pack\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "pack('a:b', calls(range(10)))\n"
        "before = peak()\n"
        "job = pack('a:b', calls(f'{n:>150}' for n in range(600_000)))\n"
        "assert job.spec.work.arguments.size > 90_000_000\n"
        "print(peak() - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 64 * 1024


# --- @task ----------------------------------------------------------------------------------------


@task(retries=3, timeout_s=2.5, cpus=2, name="doubling")
def double(number: int) -> int:
    """Twice."""
    return 2 * number


def test_a_task_is_its_function_and_brings_its_options() -> None:
    assert double(4) == 8
    assert (double.__doc__, vars(double)["__name__"]) == ("Twice.", "double")
    spec = pack(double, calls([1])).spec
    assert (spec.retries, spec.timeout_ms, spec.cpus, spec.name) == (3, 2500, 2, "doubling")
    spec = pack(double, calls([1]), retries=0, name="other").spec
    assert (spec.retries, spec.timeout_ms, spec.name) == (0, 2500, "other")


def test_options_make_another_task_and_leave_this_one_alone() -> None:
    wide = double.options(cpus=8)
    assert (wide.settings.cpus, wide.settings.retries, double.settings.cpus) == (8, 3, 2)
    assert wide.function is double.function
    with pytest.raises(TypeError):
        double.options(color=1)  # type: ignore[call-arg]  # wrong on purpose


def test_a_task_of_a_local_module_travels_by_its_path_with_the_module() -> None:
    work = work_of(pack(double, calls([1]), modules=["tests.client.test_functions"]))
    assert (work.path, work.code) == ("tests.client.test_functions:double", b"")
    assert work.modules


def test_a_task_inside_a_closure_travels_by_value() -> None:
    work = work_of(pack(functools.partial(lambda f, n: f(n), double), calls([4]), modules="none"))
    assert isinstance(work.code, bytes)
    assert pickle.loads(work.code)(5) == 10  # noqa: TID251 (as a worker does)
