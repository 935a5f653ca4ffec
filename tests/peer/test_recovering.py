"""A recovery goes on with one disk as another cluster; one that was cut off is ended or nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from p2psched.core.generation import INDEX_BITS
from p2psched.core.raft.state import encode_membership
from p2psched.model.commands import Command, Envelope, Place, SubmitJob
from p2psched.model.errors import Refused
from p2psched.model.ids import ClusterId, JobId, PeerId
from p2psched.model.job import JobSpec, ProgramWork
from p2psched.model.raft import Entry, EntryKind, HardState, Member, Membership
from p2psched.model.taskset import TaskSet
from p2psched.peer import new_generation
from p2psched.peer.recovering import look, recover
from p2psched.peer.verify import ReadOnlyDisk, fold, verify
from p2psched.store.disk import OsDisk
from p2psched.store.folder import DataFolder, read_identity
from p2psched.store.log import LogStore
from p2psched.store.recovery import read_segments
from p2psched.store.snapshots import find_standing
from tests.core.test_machine import up

B, C = PeerId("bb" * 16), PeerId("cc" * 16)
CLUSTER = ClusterId("dd" * 16)
JOB = JobId("f" * 32)
SPEC = JobSpec(name="j", tasks=TaskSet.of(0, 4), work=ProgramWork(("true",)))
_encode = msgspec.msgpack.Encoder().encode


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """The folder of one of three voters; it knows of a job whose tasks are granted."""
    path = tmp_path / "data"
    with DataFolder.open(path, create=True, name="a") as folder:
        folder.set_cluster(CLUSTER)
        folder.write_secret(bytes(32))
        folder.next_incarnation()
        me = folder.identity.peer
        folder.address_book.save({B: ("b", "127.0.0.1:1")})
        voters = tuple(Member(peer, peer[:1], "127.0.0.1:1") for peer in sorted((me, B, C)))
        commands: list[Command] = [up(B), SubmitJob(JOB, SPEC), Place(JOB, SPEC.tasks, B, 1)]
        entries = [Entry(1, 1, EntryKind.MEMBERSHIP, 1, 5, encode_membership(Membership(voters)))]
        entries += [
            Entry(n, 1, EntryKind.COMMANDS, n, 5, _encode((Envelope(B, n, command),)))
            for n, command in enumerate(commands, start=2)
        ]
        store, _ = LogStore.open(OsDisk(folder.ledger_path))
        store.write(hard_state=HardState(7, B), truncate_from=None, entries=entries)
        store.sync()
        store.mark_end()
        store.close()
    return path


def opened(path: Path) -> DataFolder:
    return DataFolder.open(path, create=False, to_recover=True)


def test_a_look_tells_what_is_known_and_changes_nothing(left: Path) -> None:
    before = {p: p.read_bytes() for p in left.rglob("*") if p.is_file() and p.name != "lock"}
    with opened(left) as folder:
        seen = look(folder)
    assert (seen.last_index, seen.term, seen.last_wall_ms, seen.generation) == (4, 7, 5, 1)
    assert seen.is_voter
    assert seen.majority == 2
    assert {member.peer for member in seen.others} == {B, C}
    assert [(job.id, job.tasks, job.ended) for job in seen.running] == [(JOB, 4, 0)]
    assert {p: p.read_bytes() for p in before} == before


def check_recovered(path: Path) -> None:
    assert not verify(path).faults
    identity = read_identity(path)
    assert identity.cluster not in (None, CLUSTER)
    assert identity.name == "a"
    disk = ReadOnlyDisk(path / "ledger")
    log = read_segments(disk)
    machine = fold(log, find_standing(disk, log))
    assert machine.generation == 2
    assert machine.command_index >> INDEX_BITS == 2
    assert not machine.peers
    assert machine.jobs[JOB].waiting == SPEC.tasks
    assert log.hard_state.term == 8
    with DataFolder.open(path, create=False) as folder:
        outlook = look(folder)
        assert not outlook.is_begun
        assert [voter.peer for voter in outlook.voters] == [identity.peer]
        assert folder.read_secret() == bytes(32)
        assert not folder.address_book.load()


def test_a_recovered_folder_is_another_peer_alone_in_another_cluster(left: Path) -> None:
    before = read_identity(left).peer
    with opened(left) as folder:
        folder.address_book.save({before: ("b", "127.0.0.1:7420")})
        done = recover(folder)
        assert folder.address_book.load() == {}, "it would look for those of before"
    assert done.peer != before
    assert done.generation == 2
    check_recovered(left)


class CutOff(Exception):
    pass


def after(act: Callable[..., object]) -> Callable[..., object]:
    def then_die(*args: object, **kwargs: object) -> object:
        act(*args, **kwargs)
        raise CutOff

    return then_die


@pytest.mark.parametrize("at", ["noted", "written", "renamed"])
def test_a_recovery_that_is_cut_off_starts_nothing_and_is_ended_by_the_next(
    left: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    with monkeypatch.context() as patch:
        match at:
            case "noted":
                patch.setattr(DataFolder, "begin_recovery", after(DataFolder.begin_recovery))
            case "written":
                patch.setattr(new_generation, "begin", after(new_generation.begin))
            case _:
                patch.setattr(DataFolder, "_change", after(DataFolder._change))
        with opened(left) as folder, pytest.raises(CutOff):
            recover(folder)
    with pytest.raises(Refused, match="ledger recover"):
        DataFolder.open(left, create=False)
    with opened(left) as folder:
        assert look(folder).is_begun
        first = folder.begin_recovery(folder.identity)  # what the first try had chosen
        done = recover(folder)
    assert done.peer == first.peer
    assert done.generation == 2
    check_recovered(left)


def test_a_torn_write_of_the_generation_is_made_good(
    left: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The group of one is on the disk, and the command behind it is not."""

    def only_group(member: Member, commands: object, first: int) -> list[bytes]:
        return []

    with monkeypatch.context() as patch:
        patch.setattr(new_generation, "_payloads", only_group)
        patch.setattr(DataFolder, "end_recovery", after(lambda *_: None))
        with opened(left) as folder, pytest.raises(CutOff):
            recover(folder)
    with opened(left) as folder:
        recover(folder)
    disk = ReadOnlyDisk(left / "ledger")
    log = read_segments(disk)
    machine = fold(log, find_standing(disk, log))
    assert machine.generation == 2
    assert not machine.jobs[JOB].grants


def test_it_can_be_done_again_later(left: Path) -> None:
    with opened(left) as folder:
        first = recover(folder)
    with opened(left) as folder:
        second = recover(folder)
    assert second.generation == 3
    assert second.cluster != first.cluster


def test_a_folder_without_a_ledger_has_nothing_to_recover(tmp_path: Path) -> None:
    with DataFolder.open(tmp_path / "x", create=True) as folder, pytest.raises(Refused):
        look(folder)
