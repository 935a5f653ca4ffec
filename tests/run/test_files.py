"""Files as arguments, results, sent files and outputs, on real workers and spawners."""

from __future__ import annotations

import sys
import venv
from pathlib import Path

import pytest

from p2psched.client.functions import calls, one_call
from p2psched.client.results import TaskResult
from p2psched.model import chunks, items, limits
from p2psched.model.blob import BlobRef
from p2psched.model.job import Cause, SentFile
from p2psched.run.host.files import File
from tests.run.disk_blobs import DiskBlobs
from tests.run.rig import FromDisk, Rig, TaskEnd, packed, program, with_pool

pytestmark = pytest.mark.process

SAMPLES = "tests.run.samples"
FLAT_KIB = 64 * 1024


@pytest.mark.smoke
def test_a_file_arrives_under_its_name_and_another_one_comes_back(tmp_path: Path) -> None:
    blobs = DiskBlobs(tmp_path / "blobs")
    poem = tmp_path / "poem.txt"
    poem.write_text("first\nsecond\n")

    async def scenario(rig: Rig) -> None:
        spec = packed(blobs, f"{SAMPLES}:first_line", calls([File(poem)] * 3), modules="none")
        outcome = await rig.run(spec)
        for index in range(3):
            assert outcome.tasks[index].open() == ("poem.txt", "first\n", 13)
        made = packed(blobs, f"{SAMPLES}:make_file", calls(["out.txt"], ["hi"]), modules="none")
        end = (await rig.run(made)).tasks[0]
        value = end.open()
        assert isinstance(value, dict)
        assert value["length"] == 2
        file = value["file"]
        assert isinstance(file, File)
        assert (file.name, file.size) == ("out.txt", 2)
        file.save(tmp_path / "saved")
        assert (tmp_path / "saved").read_text() == "hi"
        with file.open() as opened:
            assert opened.read() == b"hi"
        (blob,) = end.blobs
        assert (blob.name, blob.ref.size) == (str(blob.ref), 2)

    with_pool(tmp_path, scenario, blobs=blobs)
    assert poem.read_text() == "first\nsecond\n"


def test_a_file_of_the_users_own_is_copied_and_one_of_the_task_is_moved(tmp_path: Path) -> None:
    blobs = DiskBlobs(tmp_path / "blobs")
    mine = tmp_path / "mine"
    mine.write_text("stays")

    async def scenario(rig: Rig) -> None:
        spec = packed(blobs, File, calls([str(mine), str(tmp_path / "none")]))
        outcome = await rig.run(spec)
        file = outcome.tasks[0].open()
        assert isinstance(file, File)
        assert file.path.read_text() == "stays"
        assert outcome.tasks[1].cause is Cause.NOT_SERIALISABLE
        assert "No such file" in str(outcome.tasks[1].header["message"])

    with_pool(tmp_path, scenario, blobs=blobs)
    assert mine.read_text() == "stays"


def test_a_file_that_a_task_returns_as_it_came_is_not_stored_again(tmp_path: Path) -> None:
    blobs = DiskBlobs(tmp_path / "blobs")
    poem = tmp_path / "poem"
    poem.write_text("unchanged")

    async def scenario(rig: Rig) -> None:
        spec = packed(blobs, f"{SAMPLES}:give", calls([[File(poem), 5]]), modules="none")
        end = (await rig.run(spec)).tasks[0]
        value = end.open()
        assert isinstance(value, list)
        assert value[0].path.read_text() == "unchanged"
        assert blobs.adopt_calls == 0

    with_pool(tmp_path, scenario, blobs=blobs)


def test_a_large_file_passes_through_a_worker_in_little_memory(tmp_path: Path) -> None:
    blobs = DiskBlobs(tmp_path / "blobs")
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(256 * limits.MIB)

    def copy(file: File) -> File:
        with file.open() as source, Path("copy").open("wb") as target:
            while piece := source.read(1 << 20):
                target.write(piece)
        return File("copy")

    async def peak_kib(rig: Rig) -> int:
        spec = packed(blobs, f"{SAMPLES}:peak_kib", one_call(), modules="none")
        found = (await rig.run(spec)).tasks[0].open()
        assert isinstance(found, int)
        return found

    async def scenario(rig: Rig) -> None:
        idle_kib = await peak_kib(rig)
        end = (await rig.run(packed(blobs, copy, calls([File(large)])))).tasks[0]
        assert end.cause is Cause.OK, end.header
        assert [blob.ref.size for blob in end.blobs] == [256 * limits.MIB]
        assert await peak_kib(rig) < idle_kib + FLAT_KIB
        assert rig.pool.statistics()["workers"] == 1

    with_pool(tmp_path, scenario, blobs=blobs, slots=1)


def test_without_p2psched_installed_files_and_tasks_are_there_all_the_same(
    tmp_path: Path,
) -> None:
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / "bin" / "python"
    blobs = DiskBlobs(tmp_path / "blobs")
    project = tmp_path / "project"
    project.mkdir()
    (project / "uses_us.py").write_text(
        "import p2psched\nfrom p2psched.client.files import File\n\n"
        "@p2psched.task(retries=2)\ndef write(text):\n"
        "    with open('made', 'w') as file:\n        file.write(text)\n"
        "    return [File('made'), isinstance(p2psched.File('made'), File)]\n"
    )
    (tmp_path / "in").write_text("line\n")

    async def scenario(rig: Rig) -> None:
        spec = packed(blobs, "uses_us:write", calls(["a"]))
        end = (await rig.run(spec)).tasks[0]
        assert end.cause is Cause.OK, end.header
        value = end.open()
        assert isinstance(value, list)
        assert value[0].path.read_text() == "a"
        assert value[1] is True
        spec = packed(blobs, "operator:attrgetter", calls(["x"]))
        assert (await rig.run(spec)).tasks[0].cause is Cause.OK

    sys.path.insert(0, str(project))
    try:
        with_pool(tmp_path, scenario, blobs=blobs, python=str(python))
    finally:
        sys.path.remove(str(project))
        sys.modules.pop("uses_us", None)


def test_a_sent_file_that_is_a_blob_is_a_copy_in_each_folder(tmp_path: Path) -> None:
    blobs = DiskBlobs(tmp_path / "blobs")
    ref = blobs.put(b"weights" * 20_000)

    async def scenario(rig: Rig) -> None:
        files = (SentFile("data", 0o640, ref), SentFile("small", 0o644, b"s"))
        script = "cat small; wc -c < data; echo changed >> data; stat -c '%a %h' data"
        outcome = await rig.run(program("sh", "-c", script, tasks=2, files=files))
        for index in (0, 1):
            end = outcome.tasks[index]
            assert end.cause is Cause.OK, end.header
            assert end.stdout == b"s140000\n640 1\n"

    with_pool(tmp_path, scenario, blobs=blobs)
    assert blobs.path(ref).read_bytes() == b"weights" * 20_000


def test_outputs_of_a_program_are_kept_under_their_names(tmp_path: Path) -> None:
    blobs = DiskBlobs(tmp_path / "blobs")

    async def scenario(rig: Rig) -> None:
        script = "echo $P2P_INDEX > model.bin; : > log.txt; echo told"
        spec = program("sh", "-c", script, tasks=3, outputs=("model.bin", "log.txt"))
        outcome = await rig.run(spec)
        for index in range(3):
            end = outcome.tasks[index]
            assert (end.cause, end.stdout) == (Cause.OK, b"told\n")
            assert [(blob.name, blob.ref.size) for blob in end.blobs] == [
                ("model.bin", 2),
                ("log.txt", 0),
            ]
            found = as_result(rig, end, blobs).files
            assert found["model.bin"].path.read_text() == f"{index}\n"
            assert found["log.txt"].size == 0
        assert list((rig.folder / "spill").iterdir()) == []

    with_pool(tmp_path, scenario, blobs=blobs)


def as_result(rig: Rig, end: TaskEnd, blobs: DiskBlobs) -> TaskResult:
    item = items.pack(end.header, end.value, end.stdout, end.stderr)
    assert chunks.unpack(chunks.pack([item])) == [item]
    return TaskResult(rig.job(0), 0, end.cause, item, FromDisk(blobs))


@pytest.mark.parametrize(
    ("script", "cause", "words"),
    [
        ("true", Cause.EXIT, "ended well and left no file 'a' in its folder"),
        ("ln -s /etc/passwd a", Cause.EXIT, "'a' is no regular file"),
        ("mkfifo a", Cause.EXIT, "'a' is no regular file"),
        ("mkdir a", Cause.EXIT, "'a' is no regular file"),
        ("truncate -s 9G a", Cause.TOO_LARGE, "a blob may take 8"),
        ("echo > a; exit 3", Cause.EXIT, ""),
    ],
)
def test_outputs_that_cannot_be_kept_fail_the_task_with_the_reason(
    tmp_path: Path, script: str, cause: Cause, words: str
) -> None:
    blobs = DiskBlobs(tmp_path / "blobs")

    async def scenario(rig: Rig) -> None:
        end = (await rig.run(program("sh", "-c", script, outputs=("a",)))).tasks[0]
        assert end.cause is cause
        assert words in str(end.header.get("message", ""))
        assert end.header["exit"] == (3 if "exit 3" in script else 0)
        assert end.blobs == ()

    with_pool(tmp_path, scenario, blobs=blobs)


def test_an_output_with_a_second_name_is_copied(tmp_path: Path) -> None:
    blobs = DiskBlobs(tmp_path / "blobs")
    second = tmp_path / "second"

    async def scenario(rig: Rig) -> None:
        spec = program("sh", "-c", f"echo one > a; ln a {second}", outputs=("a",))
        (blob,) = (await rig.run(spec)).tasks[0].blobs
        assert second.stat().st_nlink == 1
        second.write_text("other")
        assert blobs.path(BlobRef(blob.ref.digest, 4)).read_text() == "one\n"

    with_pool(tmp_path, scenario, blobs=blobs)
