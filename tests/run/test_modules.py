"""Modules that travel with a job: found, isolated from each other, gone with the job."""

from __future__ import annotations

import operator
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2psched.client.functions import calls
from p2psched.model.job import Cause, FunctionWork, JobSpec
from tests.run.disk_blobs import DiskBlobs
from tests.run.rig import Rig, functions, packed, with_pool

pytestmark = pytest.mark.process

FIRST = """
from . import parts
from helper_of_p2p_test import word
count = 0
class Point:
    def __init__(self, x): self.x = x
    def __eq__(self, other): return self.x == other.x
def version(_):
    global count
    count += 1
    from . import late
    return ["one", count, parts.NAME, late.NAME, word]
def point(x): return Point(x)
def same_class(p): return type(p) is Point
def read_data(_):
    from pathlib import Path
    return (Path(__file__).parent / "data.txt").read_text()
"""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    """A folder of the caller's that no worker looks into."""
    folder = tmp_path / "project"
    package = folder / "package_of_p2p_test"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(FIRST)
    (package / "parts.py").write_text("NAME = 'parts'")
    (package / "late.py").write_text("NAME = 'late'")
    (package / "data.txt").write_text("data")
    (folder / "helper_of_p2p_test.py").write_text("word = 'helped'")
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    yield folder
    sys.dont_write_bytecode = before
    sys.path.remove(str(folder))
    for name in [name for name in sys.modules if "of_p2p_test" in name]:
        del sys.modules[name]


def change(folder: Path) -> None:
    """The same package, edited."""
    source = folder / "package_of_p2p_test" / "__init__.py"
    source.write_text(FIRST.replace('"one"', '"two"'))
    (folder / "package_of_p2p_test" / "late.py").write_text("NAME = 'later'")


def version_of(number: int, rig_blobs: DiskBlobs, tasks: int = 1) -> JobSpec:
    return packed(rig_blobs, "package_of_p2p_test:version", calls([number] * tasks))


@pytest.mark.smoke
def test_a_local_module_and_what_it_imports_travel_with_the_job(
    tmp_path: Path, project: Path
) -> None:
    blobs = DiskBlobs(tmp_path / "blobs")

    async def scenario(rig: Rig) -> None:
        end = (await rig.run(version_of(0, blobs))).tasks[0]
        assert end.open() == ["one", 1, "parts", "late", "helped"]
        spec = packed(blobs, "package_of_p2p_test:read_data", calls([0]))
        assert (await rig.run(spec)).tasks[0].open() == "data"
        missing = functions("package_of_p2p_test:version", [(0,)])
        assert (await rig.run(missing)).tasks[0].cause is Cause.NOT_STARTABLE

    with_pool(tmp_path, scenario, blobs=blobs, slots=1)


def test_versions_of_a_module_do_not_meet_in_a_warm_worker_and_keep_their_state(
    tmp_path: Path, project: Path
) -> None:
    blobs = DiskBlobs(tmp_path / "blobs")

    async def scenario(rig: Rig) -> None:
        first = version_of(0, blobs)
        points = packed(blobs, "package_of_p2p_test:point", calls([5]))
        assert (await rig.run(first)).tasks[0].open() == ["one", 1, "parts", "late", "helped"]
        change(project)
        second = version_of(1, blobs)
        assert (await rig.run(second)).tasks[0].open() == ["two", 1, "parts", "later", "helped"]
        assert (await rig.run(first)).tasks[0].open() == ["one", 2, "parts", "late", "helped"]
        assert (await rig.run(points)).tasks[0].cause is Cause.OK
        assert (await rig.run(second)).tasks[0].open() == ["two", 2, "parts", "later", "helped"]
        assert rig.pool.statistics()["workers"] == 1

    with_pool(tmp_path, scenario, blobs=blobs, slots=1)


def test_objects_of_a_shipped_class_travel_both_ways(tmp_path: Path, project: Path) -> None:
    import package_of_p2p_test as package  # type: ignore[import-not-found]  # noqa: PLC0415

    blobs = DiskBlobs(tmp_path / "blobs")

    async def scenario(rig: Rig) -> None:
        given = package.Point(7)
        spec = packed(blobs, package.same_class, calls([given]))
        assert isinstance(spec.work, FunctionWork)
        assert (spec.work.path, spec.work.code) == ("package_of_p2p_test:same_class", b"")
        assert (await rig.run(spec)).tasks[0].open() is True
        assert (await rig.run(packed(blobs, package.point, calls([7])))).tasks[0].open() == given
        closure = packed(blobs, lambda x: package.point(x + given.x), calls([1]))
        assert (await rig.run(closure)).tasks[0].open() == package.Point(8)

    with_pool(tmp_path, scenario, blobs=blobs, slots=1)


def test_modules_of_functions_that_a_worker_has_forgotten_leave_no_folder(
    tmp_path: Path, project: Path
) -> None:
    blobs = DiskBlobs(tmp_path / "blobs")

    async def scenario(rig: Rig) -> None:
        assert (await rig.run(version_of(0, blobs))).tasks[0].cause is Cause.OK
        (folder,) = rig.folder.glob("host-*.modules")
        assert len(list(folder.iterdir())) == 1
        others = [name for name in dir(operator) if name.startswith("i")][:16]
        for name in others:
            await rig.run(functions(f"operator:{name}", [(0,)]))
        assert len(others) == 16
        assert list(folder.iterdir()) == []

    with_pool(tmp_path, scenario, blobs=blobs, slots=1)
