"""Jobs of many small inputs: how they are packed, and how their outcomes are read."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import msgpack
import pytest

from p2psched.client.batches import (
    LINE_BYTES_MAX,
    Outcome,
    lines_of,
    outcomes_in,
    pack_batches,
)
from p2psched.client.shapes import Shape
from p2psched.model.blob import BlobRef
from p2psched.model.errors import UsageError
from p2psched.model.job import FunctionWork
from tests.client.test_functions import opened


def test_inputs_are_cut_into_batches_and_the_path_tells_how_many() -> None:
    packed = pack_batches(["cat"], (b"%d" % n for n in range(5)), batch=2, retries=1)
    assert [args[0] for args, _ in opened(packed)] == [[b"0", b"1"], [b"2", b"3"], [b"4"]]
    work = packed.spec.work
    assert isinstance(work, FunctionWork)
    assert (work.path, work.code) == ("p2psched_batch:run_5_by_2", b"")
    assert (packed.spec.name, len(packed.spec.tasks), packed.spec.retries) == ("cat", 3, 1)
    shape = Shape(5, 2)
    assert [list(shape.of_task(index)) for index in range(3)] == [[0, 1], [2, 3], [4]]


def test_the_driver_travels_as_a_module_of_its_own_with_equal_bytes() -> None:
    one, two = (pack_batches(["x"], [b"a"]) for _ in range(2))
    assert [upload.ref for upload in one.uploads] == [upload.ref for upload in two.uploads]
    (upload,) = one.uploads
    assert isinstance(one.spec.work, FunctionWork)
    assert one.spec.work.modules == upload.ref
    with upload.opened() as read_at:
        archive = zipfile.ZipFile(io.BytesIO(read_at(upload.ref.size, 0)))
    assert archive.namelist() == ["p2psched_batch.py"]
    source = archive.read("p2psched_batch.py")
    assert not [line for line in source.splitlines() if b"import" in line and b"p2psched" in line]


def test_a_sent_file_is_one_blob_for_all_batches(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(bytes(100))
    packed = pack_batches(["x"], [b"a"] * 10, batch=2, files=[(path, 0o755)])
    assert [upload.source for upload in packed.uploads].count(path) == 1
    for _, kwargs in opened(packed):
        ((file, mode),) = kwargs["files"]
        assert (file.name, file.ref[1], mode) == ("model", 100, 0o755)


@pytest.mark.parametrize("batch", [0, 1001])
def test_batches_that_make_no_sense_are_refused(batch: int) -> None:
    with pytest.raises(UsageError, match="a batch has 1 to 1,000 inputs"):
        pack_batches(["x"], [b"a"], batch=batch)


def test_no_inputs_are_no_job() -> None:
    with pytest.raises(UsageError, match="there are no inputs"):
        pack_batches(["x"], [])


def test_lines_keep_all_but_their_ends_and_a_long_one_is_refused() -> None:
    assert list(lines_of(io.BytesIO(b"a \r\n\n\xff\nlast"))) == [b"a \r", b"", b"\xff", b"last"]
    with pytest.raises(UsageError, match="longer than 1 MiB"):
        list(lines_of(io.BytesIO(bytes(LINE_BYTES_MAX + 1))))


FOUND = [{"ok": True, "out": b"\xff", "error": ""}, {"ok": False, "out": "", "error": "exit 1"}]


@pytest.mark.parametrize("dumps", [msgpack.packb, lambda found: pickle.dumps(found, 5)])
def test_outcomes_are_read_however_the_worker_packed_them(dumps: type) -> None:
    assert outcomes_in(dumps(FOUND)) == [Outcome(b"\xff", ""), Outcome(b"", "exit 1")]


@pytest.mark.parametrize(
    "value",
    [
        pickle.dumps([BlobRef(bytes(32), 1)], 5),
        pickle.dumps(print, 5),
        pickle.dumps(FOUND, 5)[:-9],
        msgpack.packb({"ok": True}),
        msgpack.packb([{"ok": 1, "out": "", "error": ""}]),
        b"",
    ],
)
def test_what_is_no_list_of_outcomes_runs_nothing_and_is_refused(value: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        outcomes_in(value)
