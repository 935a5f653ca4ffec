"""Blobs as files: pieces in any order, bounds, age, space, and what is refused."""

from __future__ import annotations

import errno
import os
import random
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2psched.model import digests
from p2psched.model.blob import BlobRef
from p2psched.model.errors import NoSpace, Refused, Unavailable
from p2psched.model.taskset import TaskSet
from p2psched.store import blobs as module
from p2psched.store.blob_calls import Bytes
from p2psched.store.blob_reads import NotHere
from p2psched.store.blobs import BlobFiles
from tests.store_blobs.rig import Now, QuickCalls, begin, blob_path, get, name, pieces, put

DATA = random.Random(1).randbytes(300)  # five chunks


@pytest.fixture
def now() -> Now:
    return Now()


@pytest.fixture
def store(tmp_path: Path, now: Now) -> Iterator[BlobFiles]:
    store = BlobFiles(tmp_path / "blobs", now_ms=now, calls=QuickCalls())
    yield store
    store.close()


@pytest.fixture(scope="module")
def one_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BlobFiles]:
    folder = tmp_path_factory.mktemp("one")
    store = BlobFiles(folder / "blobs", now_ms=Now(), calls=QuickCalls())
    yield store
    store.close()


# --- properties -----------------------------------------------------------------------------------


@given(st.binary(max_size=700), st.randoms(use_true_random=False))
def test_any_cut_into_pieces_has_the_same_name(data: bytes, rng: random.Random) -> None:
    hasher = digests.Hasher()
    at = 0
    while at < len(data):
        step = rng.choice((1, 63, 64, 65, 200))
        hasher.update(data[at : at + step])
        at += step
    assert hasher.finish() == digests.digest_of(data)


@given(data=st.binary(max_size=700), rng=st.randoms(use_true_random=False))
def test_chunks_in_any_order_and_twice_give_the_blob(
    one_store: BlobFiles, data: bytes, rng: random.Random
) -> None:
    incoming = begin(one_store, data)
    numbered = list(enumerate(pieces(data))) * 2
    rng.shuffle(numbered)
    for number, piece in numbered:
        incoming.write(number, piece)
    one_store.finish(incoming)
    ref = name(data)
    assert get(one_store, ref) == data
    assert blob_path(one_store, ref).read_bytes() == data
    start, stop = sorted((rng.randint(0, len(data)), rng.randint(0, len(data))))
    assert one_store.read_range(ref, start, stop - start) == data[start:stop]


# --- coming in ------------------------------------------------------------------------------------


def test_a_blob_is_a_read_only_file_below_two_digits(store: BlobFiles) -> None:
    ref = put(store, DATA)
    path = store.folder / ref.digest.hex()[:2] / ref.digest.hex()
    assert path.read_bytes() == DATA
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    assert (store.total_bytes, store.count) == (300, 1)


def test_it_is_known_to_the_next_process(store: BlobFiles) -> None:
    ref = put(store, DATA)
    store.close()
    again = BlobFiles(store.folder, now_ms=Now(), calls=QuickCalls())
    assert again.is_here(ref)
    assert again.total_bytes == 300
    assert get(again, ref) == DATA
    again.close()


def test_a_wrong_size_names_another_blob(store: BlobFiles) -> None:
    ref = put(store, DATA)
    assert not store.is_here(BlobRef(ref.digest, 299))


def test_half_a_blob_is_gone_on_with_by_the_next_process(store: BlobFiles) -> None:
    incoming = begin(store, DATA)
    incoming.write(3, pieces(DATA)[3])
    incoming.write(1, pieces(DATA)[1])
    store.close()
    again = BlobFiles(store.folder, now_ms=Now(), calls=QuickCalls())
    incoming = begin(again, DATA)
    assert incoming.missing() == TaskSet(((0, 1), (2, 3), (4, 5)))
    for number in (0, 2, 4):
        incoming.write(number, pieces(DATA)[number])
    again.finish(incoming)
    assert get(again, name(DATA)) == DATA
    again.close()


def test_two_who_bring_the_same_blob_share_one_file(store: BlobFiles) -> None:
    one, two = begin(store, DATA), begin(store, DATA)
    for number, piece in enumerate(pieces(DATA)):
        (one, two)[number % 2].write(number, piece)
    store.finish(one)
    store.finish(two)
    assert get(store, name(DATA)) == DATA
    assert store.incoming(name(DATA)) is None


@pytest.mark.parametrize(
    ("number", "data", "why"),
    [
        (5, b"x", "no chunk 5"),
        (-1, b"x", "no chunk -1"),
        (2**70, b"x", "no chunk"),
        (0, DATA[:63], "has 64 bytes, not 63"),
        (0, DATA[:65], "has 64 bytes, not 65"),
        (4, DATA[256:300] + b"\0", "has 44 bytes"),
        (0, DATA[64:128], "checksum"),
    ],
)
def test_a_chunk_that_is_not_the_blobs_is_refused(
    store: BlobFiles, number: int, data: bytes, why: str
) -> None:
    incoming = begin(store, DATA)
    with pytest.raises(ValueError, match=why):
        incoming.write(number, data)
    assert len(incoming.missing()) == 5


def test_a_list_that_is_not_the_blobs_is_refused(store: BlobFiles) -> None:
    with pytest.raises(ValueError, match="checksums"):
        store.begin(name(DATA), bytes(5 * 32))
    with pytest.raises(ValueError, match="digests"):
        store.begin(name(DATA), bytes(4 * 32 + 1))
    assert list((store.folder / "incoming").iterdir()) == []


def test_no_link_is_followed(store: BlobFiles, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(DATA)
    (store.folder / "incoming" / name(DATA).digest.hex()).symlink_to(outside)
    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        begin(store, DATA)
    link = tmp_path / "link"
    link.symlink_to(outside)
    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        store.adopt([(name(DATA), link)])
    assert outside.read_bytes() == DATA


def test_a_folder_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "ab").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Refused, match="is no folder"):
        BlobFiles(tmp_path / "blobs", now_ms=Now())


# --- adopting -------------------------------------------------------------------------------------


def _made(folder: Path, *contents: bytes) -> list[tuple[BlobRef, Path]]:
    files = []
    for number, data in enumerate(contents):
        path = folder / f"made-{number}"
        path.write_bytes(data)
        files.append((name(data), path))
    return files


def test_finished_files_are_moved_and_equal_ones_kept_once(
    store: BlobFiles, tmp_path: Path
) -> None:
    files = _made(tmp_path, b"one", DATA, b"one", b"")
    store.adopt(files)
    assert [get(store, ref) for ref, _ in files] == [b"one", DATA, b"one", b""]
    assert [path.exists() for _, path in files] == [False] * 4
    assert store.count == 3
    store.adopt(_made(tmp_path, DATA))
    assert not (tmp_path / "made-0").exists()
    assert store.total_bytes == 303


def test_a_file_of_another_size_is_refused_and_nothing_moved(
    store: BlobFiles, tmp_path: Path
) -> None:
    files = _made(tmp_path, b"one", b"two")
    files[1] = BlobRef(files[1][0].digest, 4), files[1][1]
    with pytest.raises(ValueError, match="3 bytes, not 4"):
        store.adopt(files)
    assert [path.exists() for _, path in files] == [True, True]
    assert store.count == 0


def test_each_touched_folder_is_synced_once(tmp_path: Path) -> None:
    class Counting(QuickCalls):
        def __init__(self) -> None:
            self.folders: list[Path] = []

        def sync_folder(self, folder: Path) -> None:
            self.folders.append(folder)

    calls = Counting()
    store = BlobFiles(tmp_path / "blobs", now_ms=Now(), calls=calls)
    files = _made(tmp_path, *(b"%d" % number for number in range(600)))
    store.adopt(files)
    assert sorted(calls.folders) == sorted({blob_path(store, ref).parent for ref, _ in files})
    store.close()


# --- space and failing disks ----------------------------------------------------------------------


class Failing(QuickCalls):
    """Fails in one way until it is mended."""

    def __init__(self, call: str, code: int) -> None:
        self.call: str | None = call
        self._code = code

    def _maybe(self, call: str) -> None:
        if call == self.call:
            raise OSError(self._code, os.strerror(self._code))

    def write_at(self, descriptor: int, data: Bytes, offset: int) -> None:
        self._maybe("write")
        super().write_at(descriptor, data, offset)

    def sync(self, descriptor: int) -> None:
        self._maybe("sync")


@pytest.mark.parametrize("call", ["write", "sync"])
def test_a_full_disk_says_how_much_is_needed_and_recovers(tmp_path: Path, call: str) -> None:
    calls = Failing(call, errno.ENOSPC)
    store = BlobFiles(tmp_path / "blobs", now_ms=Now(), calls=calls)
    with pytest.raises(Unavailable, match=r"no space: 300 more bytes are needed in .*blobs"):
        put(store, DATA)
    assert not store.is_here(name(DATA))
    calls.call = None
    assert get(store, put(store, DATA)) == DATA
    store.close()


def test_after_a_failed_sync_nothing_of_the_file_is_trusted(tmp_path: Path) -> None:
    calls = Failing("sync", errno.EIO)
    store = BlobFiles(tmp_path / "blobs", now_ms=Now(), calls=calls)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        put(store, DATA)
    calls.call = None
    assert len(begin(store, DATA).missing()) == 5
    store.close()


def test_what_does_not_fit_the_disk_is_refused_before_it_comes(store: BlobFiles) -> None:
    store.space_left_min = 2**60
    with pytest.raises(NoSpace, match="no space"):
        begin(store, DATA)
    assert list((store.folder / "incoming").iterdir()) == []


def test_too_many_at_a_time_are_answered_busy_until_one_rests(
    store: BlobFiles, now: Now, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "INCOMING_MAX", 2)
    first = begin(store, b"a" * 100)
    first.write(0, b"a" * 64)
    begin(store, b"b" * 100)
    with pytest.raises(Unavailable, match="busy"):
        begin(store, b"c" * 100)
    now.ms += module.IDLE_MS + 1
    assert store.incoming(name(b"b" * 100)) is not None
    begin(store, b"c" * 100)
    assert first.is_closed
    first.write(1, b"a" * 36)  # too late, and no harm
    with pytest.raises(Unavailable, match="given up"):
        store.finish(first)


# --- age ------------------------------------------------------------------------------------------


def test_only_what_nobody_touched_for_long_is_deleted(store: BlobFiles, now: Now) -> None:
    old, pinned = put(store, DATA), put(store, b"pinned")
    now.ms += 5000
    assert store.touch(pinned)
    assert store.untouched(5000) == [old.digest]
    assert store.delete(pinned.digest, age_ms=5000) == 0
    assert store.delete(old.digest, age_ms=5000) == 300
    assert store.delete(old.digest, age_ms=5000) == 0
    assert store.total_bytes == 6
    assert not store.touch(old)
    files = [path.name for path in store.folder.rglob("*") if path.is_file()]
    assert files == [pinned.digest.hex()]


def test_nothing_is_old_right_after_the_start(store: BlobFiles, now: Now) -> None:
    ref = put(store, DATA)
    os.utime(blob_path(store, ref), (0, 0))
    now.ms += 9000
    again = BlobFiles(store.folder, now_ms=now, calls=QuickCalls())
    assert again.untouched(5000) == []
    again.close()


def test_half_blobs_that_nobody_goes_on_with_are_removed(store: BlobFiles, now: Now) -> None:
    begin(store, DATA).write(0, DATA[:64])
    left = store.folder / "incoming" / name(b"left by another process").digest.hex()
    left.write_bytes(b"half")
    written_s = left.stat().st_mtime
    store.remove_stale(written_s + module.INCOMING_KEPT_S - 60)
    assert left.exists()
    store.remove_stale(written_s + module.INCOMING_KEPT_S + 60)
    assert not left.exists()
    assert store.incoming(name(DATA)) is not None
    now.ms += int(module.INCOMING_KEPT_S * 1000) * 2
    store.remove_stale(written_s)
    assert list((store.folder / "incoming").iterdir()) == []


def test_a_range_outside_the_blob_or_too_large_is_refused(store: BlobFiles) -> None:
    ref = put(store, DATA)
    for offset, size in ((0, 301), (300, 1), (-1, 2), (0, -1)):
        with pytest.raises(ValueError, match="read up to"):
            store.read_range(ref, offset, size)
    with pytest.raises(ValueError, match="no chunk 5"):
        store.read_chunk(ref, 5)
    assert store.read_range(ref, 300, 0) == b""


def test_a_file_that_somebody_removed_is_not_here(store: BlobFiles) -> None:
    ref = put(store, DATA)
    blob_path(store, ref).unlink()
    with pytest.raises(NotHere):
        get(store, ref)
    assert store.total_bytes == 0
