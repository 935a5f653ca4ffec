"""The file of a backup is whole and sound, or is refused with the place; a half one has no name."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from p2psched.model.errors import Damaged, NoSpace, Refused, UsageError
from p2psched.store import backup_file
from p2psched.store.backup_file import BackupReader, BackupWriter, Head, Record, StatePart
from tests.peer.backup_rig import Source
from tests.small_disk import small_disk


@pytest.fixture(scope="module")
def source() -> Source:
    return Source()


def read(path: Path) -> list[Record]:
    with BackupReader(path) as reader:
        return [reader.head, *reader.records()]


def test_what_was_written_is_read(source: Source, tmp_path: Path) -> None:
    path = source.write(tmp_path / "b")
    assert read(path) == source.records()
    assert [item.name for item in tmp_path.iterdir()] == ["b"]
    assert path.stat().st_mode & 0o077 == 0


def test_each_byte_counts(source: Source, tmp_path: Path) -> None:
    """A small one, all of it: magic, lengths, checksums, every kind of record."""
    records = [r for r in source.records() if not isinstance(r, backup_file.BlobPart)]
    with BackupWriter(tmp_path / "b") as writer:
        for record in records:
            writer.add(record)
        writer.finish()
    data = (tmp_path / "b").read_bytes()
    bad = tmp_path / "bad"
    for at in range(len(data)):
        flipped = bytearray(data)
        flipped[at] ^= 1 << (at % 8)
        for damaged in (bytes(flipped), data[:at]):
            bad.write_bytes(damaged)
            with pytest.raises(Damaged) as caught:
                read(bad)
            assert caught.value.file == str(bad)
            assert caught.value.offset is not None
            assert caught.value.offset <= at
            assert str(bad) in str(caught.value)
    bad.write_bytes(data + b"\0")
    with pytest.raises(Damaged, match="something follows"):
        read(bad)


def test_records_in_the_wrong_order_are_refused(source: Source, tmp_path: Path) -> None:
    records = source.records()
    for wrong in (
        [records[1]],  # no head
        [records[0], records[3], records[1], records[-1]],
        [records[0], records[0], records[-1]],
        records[:-1],  # no rest
    ):
        path = tmp_path / "wrong"
        path.unlink(missing_ok=True)
        with BackupWriter(path) as writer:
            for record in wrong:
                writer.add(record)
            writer.finish()
        with pytest.raises(Damaged):
            read(path)


def test_a_later_format_is_refused(source: Source, tmp_path: Path) -> None:
    head = source.records()[0]
    assert isinstance(head, Head)
    later = Head(**{f: getattr(head, f) for f in Head.__struct_fields__ if f != "format"}, format=2)
    with BackupWriter(tmp_path / "b") as writer:
        writer.add(later)
        writer.finish()
    with pytest.raises(Refused, match="format 2"):
        BackupReader(tmp_path / "b")


def test_what_is_left_unfinished_leaves_nothing(source: Source, tmp_path: Path) -> None:
    writer = BackupWriter(tmp_path / "b")
    writer.add(source.records()[0])
    writer.close()
    assert not list(tmp_path.iterdir())
    # Of one that was killed a hidden piece is left, which the next one takes over.
    (tmp_path / ".b.part").write_bytes(b"x" * 100_000)
    path = source.write(tmp_path / "b")
    assert read(path) == source.records()
    assert [item.name for item in tmp_path.iterdir()] == ["b"]


def test_nothing_is_replaced_and_two_don_t_write_the_same(source: Source, tmp_path: Path) -> None:
    path = source.write(tmp_path / "b")
    before = path.read_bytes()
    with pytest.raises(Refused, match="exists"):
        BackupWriter(path)
    with BackupWriter(tmp_path / "c"), pytest.raises(Refused, match="another backup"):
        BackupWriter(tmp_path / "c")
    assert path.read_bytes() == before
    with pytest.raises(UsageError):
        BackupWriter(tmp_path / "nowhere" / "b")
    with pytest.raises(UsageError, match="can't read"):
        BackupReader(tmp_path / "nowhere")


def test_a_full_disk_is_told_and_keeps_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1 << 20) as disk:
        with BackupWriter(disk.folder / "b") as writer:
            for _ in range(15):
                writer.add(StatePart(bytes(1 << 16)))
            with pytest.raises(NoSpace, match="no space for"):
                writer.add(StatePart(bytes(1 << 20)))
        assert not list(disk.folder.iterdir())
        assert disk.free_bytes > 900_000


def test_a_sync_that_finds_no_space_is_told(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NoSpace):
        source.write(tmp_path / "b")
    assert not list(tmp_path.iterdir())
