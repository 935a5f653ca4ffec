"""Results as files: which there are of a task, whole or not there, resumed, never replaced."""

from __future__ import annotations

import asyncio
import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import cast

import msgpack
import msgspec
import pytest

from p2psched.client import blobs
from p2psched.client.blobs import Progress
from p2psched.client.export_rows import rows_of
from p2psched.client.job import Job
from p2psched.client.saving import Content, Saved, files_of, save_results
from p2psched.client.session import Session
from p2psched.model import chunks, digests, items, values
from p2psched.model.blob import BlobRef
from p2psched.model.errors import ResultLost, UsageError
from p2psched.model.ids import JobId
from p2psched.model.job import Cause, Segment
from p2psched.run.adoption import result_blobs
from p2psched.run.host import pickling
from p2psched.run.host.files import File
from tests.client.test_export import FakeJob

JOB = JobId("ab" * 16)
ONE, TWO = (BlobRef(digests.digest_of(data), len(data)) for data in (b"one", b"two!"))
DATA = {ONE: b"one", TWO: b"two!"}


def ref_of(blob: BlobRef) -> values.Ref:
    return blob.digest, blob.size


def segment(index: int, item: bytes) -> Segment:
    chunk = chunks.pack([item])
    return Segment(index, index + 1, Cause.OK, chunk, 1, result_blobs(index, chunk))


def saved_as(item: bytes, *, is_function: bool) -> dict[str, Content]:
    (row,) = rows_of(JOB, segment(0, item), None)
    found = list(files_of(row, is_function=is_function))
    assert len({name for name, _ in found}) == len(found)
    return dict(found)


def program(*outputs: tuple[str, BlobRef]) -> bytes:
    listed = [[name, str(ref), ref.size] for name, ref in outputs]
    return items.pack({"outputs": str(listed).replace("'", '"'), "exit": 0}, stdout=b"hi")


def with_files(*files: tuple[str, BlobRef]) -> bytes:
    """A value that a worker has packed, with files in it."""
    found = [File("x") for _ in files]
    for file, (name, _) in zip(found, files, strict=True):
        file.name = name
    refs = {id(file): ref_of(ref) for file, (_, ref) in zip(found, files, strict=True)}
    packed = io.BytesIO()
    pickling.dump_cleverly(found, packed, pickling.Buffers(), lambda file: refs[id(file)])
    return values.pack_needs([ref_of(ref) for _, ref in files], packed.getvalue())


def test_values_are_text_where_that_says_it_all_and_packed_else() -> None:
    def value(packed: bytes) -> dict[str, Content]:
        return saved_as(items.pack_value(packed), is_function=True)

    assert value(msgpack.packb({"a": 1})) == {"value.json": b'{"a": 1}\n'}
    assert value(msgpack.packb(b"x")) == {"value.txt": b"b'x'\n"}
    packed = pickle.dumps({1}, 5)
    assert value(packed) == {"value.packed": packed}
    assert value(values.pack_blob(ref_of(ONE))) == {"value.packed": ONE}


def test_outputs_of_a_program_have_their_names_and_it_has_no_value() -> None:
    item = program(("a.bin", ONE), ("b", TWO))
    assert saved_as(item, is_function=False) == {"a.bin": ONE, "b": TWO}


def test_files_in_a_value_are_saved_by_name_beside_it() -> None:
    found = saved_as(items.pack_value(with_files(("out.csv", ONE), ("b", TWO))), is_function=True)
    packed = found.pop("value.packed")
    assert isinstance(packed, bytes)
    assert found == {"out.csv": ONE, "b": TWO}


@pytest.mark.parametrize("name", ["../up", ".hidden", "a/b", "", "x\ny"])
def test_a_name_from_elsewhere_leads_nowhere_else(name: str) -> None:
    found = saved_as(items.pack_value(with_files((name, ONE))), is_function=True)
    assert set(found) == {"value.packed", str(ONE)}


def test_two_files_of_one_name_and_one_named_like_the_value_are_all_saved() -> None:
    item = items.pack_value(with_files(("value.packed", ONE), ("value.packed", TWO)))
    found = saved_as(item, is_function=True)
    assert list(found.values())[1:] == [ONE, TWO]


def test_every_blob_of_a_task_has_a_name_of_its_own_in_the_ledger() -> None:
    """The ledger knows a large part of a result by task and name."""
    found = segment(4, items.pack_value(with_files(("a", ONE), ("a", TWO)))).blobs
    assert {blob.ref for blob in found} == {ONE, TWO}
    assert len({(blob.index, blob.name) for blob in found}) == 2


# --- to the disk ----------------------------------------------------------------------------------


class Store:
    """What `blobs.download` does, without peers."""

    def __init__(self) -> None:
        self.data = dict(DATA)
        self.asked: list[BlobRef] = []
        self.before: Callable[[BlobRef], None] = lambda _: None

    async def download(
        self, _session: Session, ref: BlobRef, path: Path, progress: Progress
    ) -> None:
        self.asked.append(ref)
        self.before(ref)
        if ref not in self.data:
            raise ResultLost("gone")
        await asyncio.to_thread(path.write_bytes, self.data[ref])
        progress(ref.size)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    made = Store()
    monkeypatch.setattr(blobs, "download", made.download)
    return made


def save(folder: Path, *, only: int | None = None, overwrite: bool = False) -> Saved:
    job = FakeJob([segment(0, program(("a", ONE))), segment(3, program(("b", TWO)))], tasks=4)
    job.view = msgspec.structs.replace(job.view, kind="program")

    async def main() -> Saved:
        return await save_results(
            cast("Session", None),
            cast("Job", job),
            job.view,
            folder,
            only=only,
            overwrite=overwrite,
        )

    return asyncio.run(main())


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_each_task_has_a_folder_and_only_one_is_saved_if_that_is_asked(
    store: Store, tmp_path: Path
) -> None:
    done = save(tmp_path / "all")
    assert files_in(tmp_path / "all") == {"0/a": b"one", "3/b": b"two!"}
    assert (done.files, done.bytes, done.present) == (2, 7, 0)
    save(tmp_path / "one", only=3)
    assert files_in(tmp_path / "one") == {"3/b": b"two!"}


def test_a_save_that_was_broken_off_goes_on_where_it_was(store: Store, tmp_path: Path) -> None:
    def cut(ref: BlobRef) -> None:
        if ref == TWO:
            raise UsageError("can't write: no space left on device")

    store.before = cut
    with pytest.raises(UsageError, match="no space"):
        save(tmp_path / "out")
    store.before = lambda _: None
    store.asked.clear()
    done = save(tmp_path / "out")
    assert (done.files, done.present, store.asked) == (1, 1, [TWO])


def test_no_saved_file_takes_the_place_of_what_is_none(store: Store, tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    os.mkfifo(tmp_path / "0" / "a")
    with pytest.raises(UsageError, match="0/a is there and is another one"):
        save(tmp_path, overwrite=True)
    assert (tmp_path / "0" / "a").is_fifo()


def test_a_file_that_differs_is_kept_unless_it_is_to_be_replaced(
    store: Store, tmp_path: Path
) -> None:
    save(tmp_path)
    (tmp_path / "0" / "a").write_bytes(b"eno")
    with pytest.raises(UsageError, match=r"0/a is there and is another one.*--force"):
        save(tmp_path)
    assert (tmp_path / "0" / "a").read_bytes() == b"eno"
    save(tmp_path, overwrite=True)
    assert (tmp_path / "0" / "a").read_bytes() == b"one"


def test_what_is_lost_is_named_and_the_others_are_saved(store: Store, tmp_path: Path) -> None:
    del store.data[ONE]
    done = save(tmp_path)
    assert files_in(tmp_path) == {"3/b": b"two!"}
    assert (done.lost, done.lost_count) == ([0], 1)
