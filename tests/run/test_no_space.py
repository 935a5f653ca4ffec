"""Tasks on a peer whose disk is full: they end as that, whatever it was that found no space."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import pytest

from p2psched.client.functions import calls
from p2psched.model.job import Cause, FunctionWork, JobSpec, SentFile, blobs_of
from p2psched.model.limits import KIB, MIB
from tests.run.disk_blobs import DiskBlobs
from tests.run.rig import Rig, TaskEnd, packed, program, with_pool
from tests.small_disk import small_disk

pytestmark = pytest.mark.process

SAMPLES: Final = "tests.run.samples"
LEFT: Final = 256 * KIB


def run_full(tmp_path: Path, make: Callable[[DiskBlobs], JobSpec], says: str) -> None:
    """The first task ends as that and `says` so while the disk is full, and well afterwards."""
    ends: list[TaskEnd] = []

    async def scenario(rig: Rig) -> None:
        spec = make(blobs)
        disk.fill(LEFT)
        ends.append((await rig.run(spec)).tasks[0])
        assert not list((rig.folder / "spill").iterdir()), "what was half made takes space"
        assert disk.free_bytes >= LEFT - 64 * KIB
        disk.empty()
        ends.append((await rig.run(spec)).tasks[0])

    with small_disk(tmp_path / "disk", 16 * MIB) as disk:
        blobs = DiskBlobs(disk.folder / "blobs")
        with_pool(disk.folder, scenario, blobs=blobs)
    full, free = ends
    assert (full.cause, free.cause) == (Cause.NO_SPACE, Cause.OK)
    assert says in str(full.header["message"])


@pytest.mark.smoke
def test_a_large_value_that_finds_no_space(tmp_path: Path) -> None:
    run_full(
        tmp_path,
        lambda blobs: packed(blobs, f"{SAMPLES}:zeros", calls([MIB // 4]), modules="none"),
        "free some space there, then `p2psched job retry`",
    )


def test_a_large_pickle_that_finds_no_space(tmp_path: Path) -> None:
    run_full(
        tmp_path,
        lambda blobs: packed(blobs, "builtins:list", calls([range(600_000)]), modules="none"),
        "free some space there, then `p2psched job retry`",
    )


def test_an_output_that_must_be_copied_and_finds_no_space(tmp_path: Path) -> None:
    script = "head -c 160000 /dev/zero > made && ln made out"  # a second name is never taken
    spec = program("sh", "-c", script, outputs=("out",))
    run_full(tmp_path, lambda _: spec, "ended well, and of its output 'out'")


def test_a_sent_file_that_finds_no_space(tmp_path: Path) -> None:
    spec = program("true", files=(SentFile("data", 0o644, bytes(400 * KIB)),))
    run_full(tmp_path, lambda _: spec, "No space left on device")


def test_modules_that_find_no_space(tmp_path: Path) -> None:
    def make(blobs: DiskBlobs) -> JobSpec:
        spec = packed(blobs, f"{SAMPLES}:zeros", calls([1]), modules="none")
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packing:
            packing.writestr("data_of_p2p_test/table.txt", bytes(MIB))
        assert isinstance(spec.work, FunctionWork)
        work = msgspec.structs.replace(spec.work, modules=archive.getvalue())
        return msgspec.structs.replace(spec, work=work)

    run_full(tmp_path, make, "No space left on device")


def test_arguments_that_find_no_space_on_the_way_here(tmp_path: Path) -> None:
    """Nobody waits for a full disk to empty: the tasks may run elsewhere."""
    blobs = DiskBlobs(tmp_path / "blobs")
    spec = packed(blobs, "builtins:len", calls([bytes(2 * MIB)]), modules="none")
    for ref in blobs_of(spec.work):
        blobs.others[ref] = blobs.path(ref).read_bytes()
        blobs.path(ref).unlink()
    blobs.fetch_room = 0

    async def scenario(rig: Rig) -> None:
        assert (await rig.run(spec)).tasks[0].cause is Cause.NO_SPACE
        blobs.fetch_room = 2**60
        assert (await rig.run(spec)).tasks[0].cause is Cause.OK

    with_pool(tmp_path, scenario, blobs=blobs)
