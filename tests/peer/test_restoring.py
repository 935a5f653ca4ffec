"""A restore makes a whole data folder or none, and in it nobody of before has a say."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import msgspec
import pytest

from p2psched.core.generation import INDEX_BITS
from p2psched.core.machine import Machine
from p2psched.core.raft.state import decode_membership
from p2psched.model.commands import Complete, Completed, Envelope, Forget, PeerUp, Place, Placed
from p2psched.model.errors import Damaged, NoSpace, NotFound, Refused
from p2psched.model.execution import Committed
from p2psched.model.job import JobState
from p2psched.model.raft import EntryKind, Member, Membership
from p2psched.model.taskset import TaskSet
from p2psched.peer.restoring import Restored, check, restore
from p2psched.peer.verify import ReadOnlyDisk, fold, verify
from p2psched.store.backup_file import BackupWriter, BlobPart, Head, JobPart, Record, Rest
from p2psched.store.blobs import BlobFiles
from p2psched.store.folder import DataFolder, read_identity
from p2psched.store.recovery import read_segments
from p2psched.store.results_gaps import SqliteGapResults
from p2psched.store.snapshots import find_standing
from tests.core.test_generation import NEW_UP
from tests.core.test_machine import ended
from tests.peer.backup_rig import CLUSTER, ENDED, LARGE, OLD, REF, RUNNING, SECRET, SPEC, Source
from tests.small_disk import small_disk


@pytest.fixture(scope="module")
def source() -> Source:
    return Source()


def nothing(_: int) -> None:
    pass


def make(file: Path, target: Path) -> Restored:
    return restore(file, target, name="new", secret=SECRET, progress=nothing)


def state_of(folder: Path) -> Machine:
    disk = ReadOnlyDisk(folder / "ledger")
    log = read_segments(disk)
    return fold(log, find_standing(disk, log))


def test_jobs_results_and_blobs_are_there_and_grants_of_before_are_void(
    source: Source, tmp_path: Path
) -> None:
    file, target = source.write(tmp_path / "b"), tmp_path / "data"
    made = make(file, target)
    assert (made.jobs, made.jobs_running, made.blobs, made.generation) == (2, 1, 1, 2)
    assert made == msgspec.structs.replace(
        check(file, nothing), cluster=made.cluster, peer=made.peer, name="new"
    )
    identity = read_identity(target)
    assert identity.peer == made.peer != OLD
    assert identity.cluster == made.cluster != CLUSTER
    assert not verify(target).faults

    machine = state_of(target)
    assert machine.generation == 2
    assert machine.jobs[ENDED].state is JobState.SUCCEEDED
    running = machine.jobs[RUNNING]
    assert not running.grants
    assert running.waiting == SPEC.tasks
    assert not machine.peers

    def do(command: Complete | PeerUp | Place) -> object:
        index = machine.applied_index + 1
        outcomes, _ = machine.apply(Committed(index, 0, 0, (Envelope(OLD, index, command),)))
        return outcomes[0]

    late = Complete(RUNNING, source.grant, (ended(0, 2),))
    assert do(late) == Completed(stale=SPEC.tasks)
    do(NEW_UP)
    placed = do(Place(RUNNING, SPEC.tasks, NEW_UP.info.peer, 1))
    assert isinstance(placed, Placed)
    assert placed.grant >> INDEX_BITS == 2
    assert do(late) == Completed(stale=SPEC.tasks)

    results = SqliteGapResults(target / "results.db")
    assert not results.gaps()
    assert results.spec(ENDED) == SPEC
    assert results.segments(ENDED, 0, 10_000).segments == [
        e.event.segment for e in source.events if hasattr(e.event, "segment")
    ]
    told = [e for e in source.events if getattr(e.event, "job", "") == ENDED]
    assert [e.index for e in results.history(ENDED, 0, 100)] == [e.index for e in told]
    results.close()
    blobs = BlobFiles(target / "blobs", now_ms=lambda: 0)
    assert blobs.read_range(REF, 0, REF.size) == LARGE
    blobs.close()


def test_the_group_is_one_new_voter_and_remembers_who_is_out(
    source: Source, tmp_path: Path
) -> None:
    target = tmp_path / "data"
    made = make(source.write(tmp_path / "b"), target)
    assert made.peer is not None
    log = read_segments(ReadOnlyDisk(target / "ledger"))
    (entry,) = [e for e in log.entries if e.kind is EntryKind.MEMBERSHIP]
    assert decode_membership(entry) == Membership((Member(made.peer, "new", ""),), removed=(OLD,))
    assert log.hard_state.term > source.snapshot.term


def test_what_became_of_a_job_meanwhile_becomes_of_it(source: Source, tmp_path: Path) -> None:
    target = tmp_path / "data"
    make(source.write(tmp_path / "b", after=(Forget(ENDED),)), target)
    machine = state_of(target)
    assert list(machine.jobs) == [RUNNING]
    assert ENDED in machine.forgotten


def test_a_damaged_backup_is_refused_with_the_place_and_makes_nothing(
    source: Source, tmp_path: Path
) -> None:
    file, target = source.write(tmp_path / "b"), tmp_path / "data"
    data = file.read_bytes()
    bad = tmp_path / "bad"
    for at in range(0, len(data), len(data) // 9):
        flipped = bytearray(data)
        flipped[at] ^= 0x10
        for damaged in (bytes(flipped), data[:at]):
            bad.write_bytes(damaged)
            with pytest.raises(Damaged) as caught:
                check(bad, nothing)
            with pytest.raises(Damaged) as again:
                make(bad, target)
            assert str(again.value) == str(caught.value)
            assert caught.value.file == str(bad)
            assert caught.value.offset is not None
            assert caught.value.offset <= at
    assert sorted(item.name for item in tmp_path.iterdir()) == ["b", "bad"]
    make(file, target)


def unfitting(records: list[Record]) -> dict[str, list[Record]]:
    """Each record is sound, and together they are no backup."""
    head, rest = records[0], records[-1]
    assert isinstance(head, Head)
    assert isinstance(rest, Rest)
    first_blob = next(r for r in records if isinstance(r, BlobPart))
    other = BlobPart(first_blob.ref, 0, b"X" + first_blob.data[1:])
    last_part = next(r for r in records if isinstance(r, JobPart) and r.is_last)
    return {
        "rest": [*records[:-1], msgspec.structs.replace(rest, jobs=9)],
        "state": [head, *records[2:]],
        "head": [msgspec.structs.replace(head, command_index=99), *records[1:]],
        "blob": [other if r is first_blob else r for r in records],
        "half a blob": [r for r in records if r is not first_blob],
        "half a job": [r for r in records if r is not last_part],
        "no job": [
            msgspec.structs.replace(rest, jobs=1) if r is rest else r
            for r in records
            if not isinstance(r, JobPart) or r.job != ENDED
        ],
    }


@pytest.mark.parametrize("what", unfitting(Source().records()))
def test_parts_that_do_not_fit_together_are_no_backup(
    source: Source, tmp_path: Path, what: str
) -> None:
    path = tmp_path / "wrong"
    with BackupWriter(path) as writer:
        for record in unfitting(source.records())[what]:
            writer.add(record)
        writer.finish()
    with pytest.raises(Damaged, match="wrong is damaged"):
        make(path, tmp_path / "data")
    assert [item.name for item in tmp_path.iterdir()] == ["wrong"]


def test_a_folder_in_use_is_left_alone(source: Source, tmp_path: Path) -> None:
    file, target = source.write(tmp_path / "b"), tmp_path / "data"
    target.mkdir()
    (target / "mine").touch()
    with pytest.raises(Refused, match="not empty"):
        make(file, target)
    assert [item.name for item in target.iterdir()] == ["mine"]
    (target / "mine").unlink()
    make(file, target)  # an empty one is fine
    with pytest.raises(Refused, match="not empty"):
        make(file, target)


def test_two_restores_of_one_backup_are_two_clusters_with_grants_of_their_own(
    source: Source, tmp_path: Path
) -> None:
    file = source.write(tmp_path / "b")
    made = [make(file, tmp_path / name) for name in "12"]
    assert made[0].cluster != made[1].cluster
    assert made[0].peer != made[1].peer
    machines = [state_of(tmp_path / name) for name in "12"]
    grants = []
    for machine in machines:
        place = Place(RUNNING, SPEC.tasks, NEW_UP.info.peer, 1)
        batch = (Envelope(OLD, 1, NEW_UP), Envelope(OLD, 2, place))
        _, placed = machine.apply(Committed(machine.applied_index + 1, 0, 0, batch))[0]
        assert isinstance(placed, Placed)
        grants.append(placed.grant)
    assert [grant >> INDEX_BITS for grant in grants] == [2, 2]
    for machine, grant in zip(machines, reversed(grants), strict=True):
        late = Envelope(OLD, 3, Complete(RUNNING, grant, (ended(0, 2),)))
        outcomes, _ = machine.apply(Committed(machine.applied_index + 1, 0, 0, (late,)))
        assert outcomes == [Completed(stale=SPEC.tasks)]


@pytest.mark.parametrize("records", [1, 4, 8, 11])
def test_a_killed_restore_leaves_nothing_that_starts_and_the_next_one_is_whole(
    source: Source, tmp_path: Path, records: int
) -> None:
    file, target = source.write(tmp_path / "b"), tmp_path / "data"
    left = records

    def die(_: int) -> None:
        nonlocal left
        left -= 1
        if not left:
            os._exit(9)

    process = multiprocessing.get_context("fork").Process(
        target=restore, args=(file, target), kwargs={"name": "n", "secret": SECRET, "progress": die}
    )
    process.start()
    process.join()
    assert process.exitcode == 9
    assert not target.exists()
    half = tmp_path / ".data.restoring"
    assert half.is_dir()
    with pytest.raises((Refused, NotFound)):
        DataFolder.open(half, create=True)
    make(file, target)
    assert not half.exists()
    assert not verify(target).faults
    assert state_of(target).jobs[RUNNING].waiting == TaskSet.of(0, 2)


def test_a_full_disk_is_told_and_leaves_nothing(source: Source, tmp_path: Path) -> None:
    file = source.write(tmp_path / "b")
    with small_disk(tmp_path / "disk", 1 << 20) as disk:
        disk.fill(leave=150_000)
        before = disk.free_bytes
        with pytest.raises((NoSpace, Refused), match=r"space"):
            make(file, disk.folder / "data")
        assert [item.name for item in disk.folder.iterdir()] == ["filler"]
        assert disk.free_bytes == before
