"""`ledger verify`: sound folders are sound, each planted damage is told, and nothing is changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
import pytest

from p2psched.cli.app import run
from p2psched.core.machine import Machine
from p2psched.core.raft.made import open_entry
from p2psched.core.raft.state import encode_membership
from p2psched.core.snapshot import encode_machine
from p2psched.model.commands import Envelope, SubmitJob
from p2psched.model.errors import Damaged, NotFound, Refused
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import JobSpec, ProgramWork
from p2psched.model.raft import Entry, EntryKind, HardState, Member, Membership, Snapshot
from p2psched.model.taskset import TaskSet
from p2psched.peer.verify import Verified, verify
from p2psched.store.disk import OsDisk
from p2psched.store.folder import DataFolder
from p2psched.store.log import LogStore
from p2psched.store.marker import MARKER
from p2psched.store.regain import NOTE, open_or_regain
from p2psched.store.snapshots import described, snapshot_name
from tests.core.test_machine import up

ME: Final = Member(PeerId("a"), "a", "a:1")
MEMBERS: Final = Membership((ME,))
LAST: Final = 12  # entries; snapshots of the 4th and the 8th
_encode: Final = msgspec.msgpack.Encoder().encode


def entries() -> list[Entry]:
    """A founding, a peer that comes up, then jobs."""
    made = [Entry(1, 1, EntryKind.MEMBERSHIP, 1, 0, encode_membership(MEMBERS))]
    for index in range(2, LAST + 1):
        spec = JobSpec(name="", tasks=TaskSet.of(0, index), work=ProgramWork(("true",)))
        command = up(ME.peer) if index == 2 else SubmitJob(JobId(f"{index:032x}"), spec)
        payload = _encode((Envelope(ME.peer, index, command),))
        made.append(Entry(index, 1, EntryKind.COMMANDS, index, 0, payload))
    return made


def apply(machine: Machine, entry: Entry) -> None:
    machine.apply(open_entry(entry))


class Folder:
    """A data folder at rest, and what its peer knew."""

    def __init__(self, path: Path, *, snapshots: bool) -> None:
        self.path = path
        self.ledger = path / "ledger"
        with DataFolder.open(path, create=True, name="a") as folder:
            folder.next_incarnation()
            store, _ = LogStore.open(OsDisk(folder.ledger_path), segment_bytes_max=500)
            machine = Machine()
            for entry in entries():
                hard = HardState(1, ME.peer) if entry.index == 1 else None
                store.write(hard_state=hard, truncate_from=None, entries=[entry])
                store.sync()
                apply(machine, entry)
                if snapshots and entry.index in (4, 8):
                    state = encode_machine(machine)
                    head = Snapshot(entry.index, 1, entry.stamp_ms, MEMBERS)
                    store.snapshots.save(described(head, state), state)
            if snapshots:
                store.compact()
            store.mark_end()
            store.close()
        self.state_hash = machine.state_hash
        self.sound = verify(path)

    def files(self) -> dict[str, bytes]:
        found = (item for item in self.path.rglob("*") if item.is_file())
        return {str(item.relative_to(self.path)): item.read_bytes() for item in found}


@pytest.fixture(params=[False, True], ids=["log", "log-and-snapshots"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    return Folder(tmp_path / "data", snapshots=request.param)


def test_a_sound_folder_is_sound_and_is_folded_to_its_end(folder: Folder) -> None:
    before = folder.files()
    found = verify(folder.path)
    assert found.faults == ()
    assert (found.last_index, found.state_hash) == (LAST, folder.state_hash)
    assert (found.term, found.vote, found.name) == (1, ME.peer, "a")
    assert len(found.segments) > 2
    assert all(is_sound for _, is_sound in found.snapshots)
    assert folder.files() == before


def damages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """One bit of each byte turned over, and each length that is too short; and where."""
    for at in range(len(data)):
        flipped = bytearray(data)
        flipped[at] ^= 1 << (at % 8)
        yield at, bytes(flipped)
        yield at, data[:at]


def is_told(found: Verified, sound: Verified) -> bool:
    cut = found.torn_bytes > sound.torn_bytes or bool(found.unfinished)
    return bool(found.faults) or cut


@pytest.mark.timeout(300)
@pytest.mark.long
def test_every_flipped_bit_and_every_truncation_is_told(tmp_path: Path) -> None:
    """Of all files that hold the ledger, without an exception: the marker knows the synced end."""
    folder = Folder(tmp_path / "data", snapshots=True)
    store, _ = LogStore.open(OsDisk(folder.ledger))  # the seal of a start: what it read was synced
    store.close()
    sound = verify(folder.path)
    assert sound.faults == ()
    count = 0
    for path in [folder.path / "identity", *sorted(folder.ledger.iterdir())]:
        data = path.read_bytes()
        for at, bad in damages(data):
            path.write_bytes(bad)
            found = verify(folder.path)
            assert is_told(found, sound), (path.name, at, len(bad))
            if found.faults and path.parent == folder.ledger:
                # A segment that ends too early, between two records, is seen by the next one.
                names = [item.name for item in sorted(folder.ledger.iterdir()) if item >= path][:2]
                assert found.faults[0].file in names, (path.name, at)
            count += 1
        path.write_bytes(data)
    assert count > 2_000
    assert verify(folder.path) == sound


def test_a_log_that_ends_before_its_marker_is_told_with_file_and_offset(folder: Folder) -> None:
    newest = max(folder.ledger.glob("log-*.seg"))
    data = newest.read_bytes()
    assert verify(folder.path).marker == "sound"
    newest.write_bytes(data[:-1])
    (fault,) = verify(folder.path).faults
    assert fault.file == newest.name
    assert fault.offset is not None
    assert 0 < fault.offset < len(data)
    newest.write_bytes(data)
    (folder.ledger / MARKER).unlink()
    (fault,) = verify(folder.path).faults
    assert (fault.file, fault.offset) == (MARKER, None)
    assert "missing" in fault.what


def test_a_start_refuses_what_verify_calls_damaged_in_the_log(folder: Folder) -> None:
    oldest = min(folder.ledger.glob("log-*.seg"))
    data = bytearray(oldest.read_bytes())
    data[100] ^= 1
    oldest.write_bytes(bytes(data))
    (fault,) = verify(folder.path).faults
    assert fault.file == oldest.name
    assert fault.offset is not None
    assert fault.offset <= 100
    with pytest.raises(Damaged, match=f"byte {fault.offset}"):
        LogStore.open(OsDisk(folder.ledger))


def test_a_missing_segment_and_a_missing_ledger_are_told(folder: Folder) -> None:
    middle = sorted(folder.ledger.glob("log-*.seg"))[1]
    middle.unlink()
    assert [fault.file for fault in verify(folder.path).faults] == [middle.name]
    for path in folder.ledger.iterdir():
        path.unlink()
    (fault,) = verify(folder.path).faults
    assert fault.what == "it is gone, and the identity is not"


def test_a_log_that_is_being_asked_for_again_is_told(folder: Folder) -> None:
    oldest = min(folder.ledger.glob("log-*.seg"))
    data = bytearray(oldest.read_bytes())
    data[100] ^= 1
    oldest.write_bytes(bytes(data))
    open_or_regain(OsDisk(folder.ledger), has_others=True)[0].close()
    found = verify(folder.path)
    assert found.faults == ()
    assert f"{oldest.name} is damaged at byte" in found.lost
    assert (found.term, found.vote) == (1, ME.peer)
    note = folder.ledger / NOTE
    note.write_bytes(note.read_bytes()[:-1])
    assert [fault.file for fault in verify(folder.path).faults] == [NOTE]


def test_all_damaged_files_are_told_at_once(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "data", snapshots=True)
    names = [snapshot_name(4), snapshot_name(8)]
    for name in names:
        path = folder.ledger / name
        path.write_bytes(path.read_bytes()[:-1])
    faults = verify(folder.path).faults
    assert {fault.file for fault in faults} >= set(names)


def test_a_folder_that_is_none_or_in_use_is_refused(folder: Folder, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        verify(tmp_path / "nothing")
    with DataFolder.open(folder.path, create=False), pytest.raises(Refused, match="stop it first"):
        verify(folder.path)


def test_a_log_without_entries_is_told_in_words(
    folder: Folder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is right after `ledger compact`."""
    found = verify(folder.path)
    assert run(["ledger", "verify", str(folder.path)]) == 0
    assert f" to {LAST}, the last may not be committed" in capsys.readouterr().out
    bare = msgspec.structs.replace(found, first_index=13, last_index=12, snapshot_index=12)
    monkeypatch.setattr("p2psched.peer.verify.verify", lambda _: bare)
    assert run(["ledger", "verify", str(folder.path)]) == 0
    assert "none behind the snapshot" in capsys.readouterr().out


def test_the_command_tells_file_offset_and_an_exit_code(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["ledger", "verify", str(folder.path)]) == 0
    out, err = capsys.readouterr()
    assert "sound" in out
    assert folder.state_hash in out
    assert err == ""
    oldest = min(folder.ledger.glob("log-*.seg"))
    digest = hashlib.sha256(oldest.read_bytes()).digest()
    oldest.write_bytes(oldest.read_bytes()[:-1])
    assert run(["ledger", "verify", str(folder.path), "-o", "json"]) == 6
    said = json.loads(capsys.readouterr().out)["verify"]
    assert not said["ok"]
    (fault,) = said["faults"]
    assert fault["file"] == oldest.name
    assert isinstance(fault["offset"], int)
    assert hashlib.sha256(oldest.read_bytes()).digest() != digest  # it was not mended
