"""One flipped bit, one byte less: noticed, set aside, never given to anybody."""

from __future__ import annotations

import logging
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2psched.model.blob import BlobRef
from p2psched.store import blobs as module
from p2psched.store.blob_reads import NotHere
from p2psched.store.blobs import BlobFiles
from tests.store_blobs.rig import Now, QuickCalls, begin, blob_path, get, name, pieces, put

DATA = random.Random(2).randbytes(150)  # three chunks


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damage") / "blobs"


def _open(folder: Path, damaged: list[BlobRef] | None = None) -> BlobFiles:
    told = damaged.append if damaged is not None else None
    return BlobFiles(folder, now_ms=Now(), calls=QuickCalls(), on_damaged=told)


def _hurt(path: Path, data: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(data)


def _damages(data: bytes) -> Iterator[bytes]:
    """Every bit flipped, every truncation, one byte more."""
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        yield bytes(flipped)
    for size in range(len(data)):
        yield data[:size]
    yield data + b"\0"


def test_no_flipped_bit_or_truncation_of_a_blob_is_ever_returned(tmp_path: Path) -> None:
    damaged: list[BlobRef] = []
    store = _open(tmp_path / "blobs", damaged)
    for count, bad in enumerate(_damages(DATA), 1):
        ref = put(store, DATA)
        _hurt(blob_path(store, ref), bad)
        with pytest.raises(NotHere):
            get(store, ref)
        assert not store.is_here(ref)
        assert len(damaged) == count
    store.close()


@given(st.integers(0, 8 * 150 - 1))
def test_a_bit_that_flips_while_the_peer_is_down_is_noticed(folder: Path, bit: int) -> None:
    store = _open(folder)
    ref = put(store, DATA)
    flipped = bytearray(DATA)
    flipped[bit // 8] ^= 1 << bit % 8
    _hurt(blob_path(store, ref), bytes(flipped))
    store.close()
    again = _open(folder)
    for offset, size in ((0, 150), (bit // 8, 1)):
        with pytest.raises(NotHere):
            again.read_range(ref, offset, size)
    again.close()


@given(st.data())
def test_a_damaged_list_of_checksums_is_made_again(folder: Path, data: st.DataObject) -> None:
    store = _open(folder)
    ref = put(store, DATA)
    path = blob_path(store, ref).with_suffix(".sums")
    sound = path.read_bytes()
    _hurt(path, data.draw(st.sampled_from(list(_damages(sound)))))
    store.close()
    again = _open(folder)
    assert again.chunk_list(ref) == sound
    assert get(again, ref) == DATA
    assert path.read_bytes() == sound
    again.close()


def test_without_its_list_a_blob_is_read_from_its_bytes(tmp_path: Path) -> None:
    store = _open(tmp_path / "blobs")
    ref = put(store, DATA)
    blob_path(store, ref).with_suffix(".sums").unlink()
    store.close()
    again = _open(tmp_path / "blobs")
    assert get(again, ref) == DATA
    again.close()


def test_the_sound_chunks_of_a_damaged_blob_are_sound(tmp_path: Path) -> None:
    store = _open(tmp_path / "blobs")
    ref = put(store, DATA)
    _hurt(blob_path(store, ref), DATA[:149] + bytes([DATA[149] ^ 1]))
    assert store.read_chunk(ref, 0) == DATA[:64]
    with pytest.raises(NotHere):
        store.read_chunk(ref, 2)
    with pytest.raises(NotHere):
        store.read_chunk(ref, 0)
    store.close()


def test_a_damaged_blob_is_kept_aside_told_and_replaced_by_a_sound_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = _open(tmp_path / "blobs")
    ref = put(store, DATA)
    bad = bytes(150)
    _hurt(blob_path(store, ref), bad)
    with caplog.at_level(logging.ERROR), pytest.raises(NotHere):
        store.read_range(ref, 0, 10)
    assert [record.getMessage() for record in caplog.records] == ["blob-damaged"]
    assert (store.folder / "damaged" / ref.digest.hex()).read_bytes() == bad
    assert get(store, put(store, DATA)) == DATA
    store.close()


def test_few_damaged_files_are_kept(tmp_path: Path) -> None:
    store = _open(tmp_path / "blobs")
    for number in range(3 * module.DAMAGED_KEPT_MAX):
        ref = put(store, b"%d" % number)
        _hurt(blob_path(store, ref), b"??"[: ref.size])
        with pytest.raises(NotHere):
            get(store, ref)
    assert len(list((store.folder / "damaged").iterdir())) == module.DAMAGED_KEPT_MAX
    store.close()


def test_a_file_that_lies_under_a_wrong_name_is_not_that_blob(tmp_path: Path) -> None:
    """As when a disk or a person mixes files up: sizes agree, bytes don't."""
    store = _open(tmp_path / "blobs")
    ref, other = put(store, DATA), name(DATA[::-1])
    blob_path(store, ref).replace(blob_path(store, other))
    store.close()
    again = _open(tmp_path / "blobs")
    with pytest.raises(NotHere):
        get(again, other)
    again.close()


def test_a_file_that_somebody_deleted_is_told_once_and_one_that_we_deleted_is_not(
    tmp_path: Path,
) -> None:
    damaged: list[BlobRef] = []
    store = _open(tmp_path / "blobs", damaged)
    ref = put(store, DATA)
    blob_path(store, ref).unlink()
    assert not store.is_here(ref)
    assert not store.is_here(ref)
    assert damaged == [ref]
    put(store, DATA)
    assert store.delete(ref.digest) == len(DATA)
    assert not store.is_here(ref)
    assert damaged == [ref]
    store.close()


def test_a_store_whose_folder_was_deleted_while_it_runs_takes_what_comes_after(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = _open(tmp_path / "blobs")
    put(store, DATA)
    half = begin(store, DATA[::-1])
    shutil.rmtree(store.folder)
    for number, piece in enumerate(pieces(DATA[::-1])):
        half.write(number, piece)
    with pytest.raises(OSError, match="No such file"):
        store.finish(half)
    made = tmp_path / "made"
    made.write_bytes(DATA)
    store.adopt([(name(DATA), made)])
    assert get(store, name(DATA)) == DATA
    assert get(store, put(store, DATA[::-1])) == DATA[::-1]
    assert "blobs-folder-deleted" in caplog.text
    store.close()
