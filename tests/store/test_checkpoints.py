"""Checkpoints on one disk: whole or not there, and the newest sound one is what there is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import pytest

from p2psched.model.checkpoints import FOLDER, HEAD_BYTES, Head, file_name, open_head, pack_head
from p2psched.model.ids import JobId
from p2psched.store import checkpoint_archive as archive
from p2psched.store.checkpoints import DAMAGED, KEPT, CheckpointFiles

JOB: Final = JobId("0123456789abcdef" * 2)


def saved_as_files(files: CheckpointFiles, text: str, *, grant: int = 7) -> Head:
    work = files.work(JOB, 0)
    (work / ".new").write_text(text)
    (work / ".new").rename(work / "state")
    head = files.snapshot(JOB, 0, grant, 1)
    assert head is not None
    return head


@pytest.fixture
def files(tmp_path: Path) -> CheckpointFiles:
    files = CheckpointFiles(tmp_path / "checkpoints")
    files.prepare(JOB, 0, 7, None)
    return files


def test_the_newest_ones_are_kept_and_known_by_their_heads(files: CheckpointFiles) -> None:
    heads = [saved_as_files(files, f"state {n}") for n in range(4)]
    assert files.saved(JOB, 0) == heads[:-3:-1]
    assert len(heads) - KEPT == 2
    assert files.tasks() == [(JOB, 0)]
    assert all(files.is_sound(head) for head in heads[-KEPT:])
    assert not files.is_sound(heads[0]), "it is gone"


def test_a_task_finds_its_folder_as_it_was_at_the_checkpoint(files: CheckpointFiles) -> None:
    work = files.work(JOB, 0)
    (work / ".making").mkdir()
    (work / ".making" / "weights").write_bytes(bytes(range(256)) * 9)
    (work / ".making" / "run").write_text("x")
    (work / ".making" / "run").chmod(0o750)
    os.utime(work / ".making" / "weights", ns=(5, 1_000_000_007))
    (work / ".making").rename(work / "step-10")
    (work / "half.tmp").write_text("not yet")
    (work / "link").symlink_to("/etc/passwd")
    head = files.snapshot(JOB, 0, 7, 1)
    assert head is not None
    (work / "step-10" / "weights").unlink()
    files.prepare(JOB, 0, 8, head)
    assert sorted(path.name for path in work.rglob("*")) == ["run", "step-10", "weights"]
    weights = work / "step-10" / "weights"
    assert weights.read_bytes() == bytes(range(256)) * 9
    assert weights.stat().st_mtime_ns == 1_000_000_007
    assert (work / "step-10" / "run").stat().st_mode & 0o777 == 0o750


def test_what_changes_while_it_is_read_is_no_checkpoint(
    files: CheckpointFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = files.work(JOB, 0)
    (work / "state").write_text("one")
    listed = archive.listed

    def changes(folder: Path) -> list[archive.Listed]:
        found = listed(folder)
        (work / "state").write_text((work / "state").read_text() + "!")
        return found

    monkeypatch.setattr(archive, "listed", changes)
    assert files.snapshot(JOB, 0, 7, 1) is None
    assert files.saved(JOB, 0) == []
    assert list(files.path(JOB, 0).glob("*.making")) == []


@pytest.mark.parametrize("end", ["flip", "cut", "longer"])
def test_every_damage_is_found_and_the_one_before_is_used(
    files: CheckpointFiles, end: str, caplog: pytest.LogCaptureFixture
) -> None:
    older, newer = saved_as_files(files, "older"), saved_as_files(files, "newer")
    path = files.path(JOB, 0) / file_name(*newer.key)
    sound = path.read_bytes()
    for at in range(len(sound)):
        if end == "flip":
            damaged = sound[:at] + bytes([sound[at] ^ (1 << at % 8)]) + sound[at + 1 :]
        else:
            damaged = sound[:at] if end == "cut" else sound + bytes(at + 1)
        path.write_bytes(damaged)
        found = [head for head in files.saved(JOB, 0) if files.is_sound(head)]
        assert found == [older], at
    assert files.damaged == len(sound)
    assert "checkpoint-damaged" in caplog.text
    assert path.with_name(f"{path.name}{DAMAGED}").exists()
    path.write_bytes(sound)
    assert files.is_sound(files.saved(JOB, 0)[0])


def test_what_comes_from_another_peer_counts_once_it_is_whole(
    files: CheckpointFiles, tmp_path: Path
) -> None:
    head = saved_as_files(files, "state")
    data = files.read(head, 0, head.file_bytes)
    there = CheckpointFiles(tmp_path / "there")
    for wrong in (data[:-1], data[:-1] + bytes([data[-1] ^ 1]), b""):
        there.make(JOB, 0)
        file = there.begin(head)
        file.write(wrong)
        with pytest.raises(ValueError, match=r"checksum|cut"):
            there.finish(head, file)
        assert there.saved(JOB, 0) == []
    file = there.begin(head)
    os.pwrite(file.fileno(), data[100:], 100)  # in any order
    os.pwrite(file.fileno(), data[:100], 0)
    there.finish(head, file)
    assert there.saved(JOB, 0) == [head]
    assert there.is_sound(head)
    there.prepare(JOB, 0, 9, head)
    assert (there.work(JOB, 0) / "state").read_text() == "state"
    there.remove(JOB, 0)
    assert there.tasks() == []


def test_a_checkpoint_of_another_task_is_not_taken_for_this_ones(files: CheckpointFiles) -> None:
    head = saved_as_files(files, "state")
    files.prepare(JOB, 1, 7, None)
    here, there = (files.path(JOB, task) / file_name(*head.key) for task in (0, 1))
    there.write_bytes(here.read_bytes())
    assert files.saved(JOB, 1) == []


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", ""])
def test_an_archive_does_not_leave_its_folder(tmp_path: Path, name: str) -> None:
    entry = archive._ENTRY.pack(len(name), 0o600, 0, 1, 0) + name.encode() + b"!"
    file = tmp_path / "archive"
    file.write_bytes(entry)
    (tmp_path / "in").mkdir()
    with file.open("rb") as source, pytest.raises(ValueError, match="no name inside"):
        archive.unpack(source, len(entry), tmp_path / "in")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["archive", "in"]


def test_heads_survive_their_bytes_and_nothing_else_passes_for_one() -> None:
    head = Head(JOB, 3, 1 << 40, 12, 1_700_000_000_000, 99, FOLDER)
    packed = pack_head(head)
    assert len(packed) == HEAD_BYTES
    assert open_head(packed) == head
    for at in range(HEAD_BYTES):
        with pytest.raises(ValueError, match=r"damaged|version"):
            open_head(packed[:at] + bytes([packed[at] ^ 4]) + packed[at + 1 :])
    with pytest.raises(ValueError, match="cut"):
        open_head(packed[:-1])
