"""A blob store on a disk that loses power: what was not synced is lost, bytes and names alike."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

from p2psched.model import digests
from p2psched.model.blob import BlobRef
from p2psched.store.blob_calls import Bytes, FileCalls
from p2psched.store.blob_incoming import Incoming
from p2psched.store.blobs import BlobFiles


class PowerCut(BaseException):
    """No code of ours may catch it."""


class QuickCalls(FileCalls):
    """Without syncs, for tests that lose no power."""

    def sync(self, descriptor: int) -> None:
        pass

    def sync_folder(self, folder: Path) -> None:
        pass


class LosingCalls(FileCalls):
    """The power fails after `steps` calls; `lose` then takes away what was not synced."""

    def __init__(self, steps: int, *, syncs: bool = True, syncs_folders: bool = True) -> None:
        self.steps = steps
        self._syncs = syncs
        self._syncs_folders = syncs_folders
        self._lock = threading.Lock()
        self._written: list[tuple[int, int, int, int]] = []  # inode, own descriptor, offset, size
        self._renamed: list[tuple[Path, Path]] = []

    def write_at(self, descriptor: int, data: Bytes, offset: int) -> None:
        with self._lock:
            self._check()
            super().write_at(descriptor, data, offset)
            inode = os.fstat(descriptor).st_ino
            self._written.append((inode, os.dup(descriptor), offset, len(data)))
            self._step()

    def sync(self, descriptor: int) -> None:
        with self._lock:
            self._check()
            inode = os.fstat(descriptor).st_ino
            if self._syncs:
                self._written = [entry for entry in self._written if entry[0] != inode]
            self._step()

    def rename(self, old: Path, new: Path) -> None:
        with self._lock:
            self._check()
            super().rename(old, new)
            self._renamed.append((old, new))
            self._step()

    def sync_folder(self, folder: Path) -> None:
        with self._lock:
            self._check()
            if self._syncs_folders:
                self._renamed = [pair for pair in self._renamed if pair[1].parent != folder]
            self._step()

    def lose(self) -> None:
        for old, new in reversed(self._renamed):
            new.rename(old)
        for _, descriptor, offset, size in self._written:
            os.pwrite(descriptor, bytes(size), offset)
            os.close(descriptor)

    def _check(self) -> None:
        if self.steps <= 0:
            raise PowerCut

    def _step(self) -> None:
        self.steps -= 1
        self._check()


class Now:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.ms = 1_000_000

    def __call__(self) -> int:
        return self.ms


def name(data: bytes) -> BlobRef:
    return BlobRef(digests.digest_of(data), len(data))


def pieces(data: bytes) -> list[bytes]:
    size = digests.CHUNK_BYTES
    return [data[at : at + size] for at in range(0, len(data), size)]


def listed(data: bytes) -> bytes:
    return b"".join(hashlib.sha256(piece).digest() for piece in pieces(data))


def begin(store: BlobFiles, data: bytes) -> Incoming:
    return store.begin(name(data), listed(data))


def put(store: BlobFiles, data: bytes) -> BlobRef:
    """As an upload does."""
    incoming = begin(store, data)
    for number, piece in enumerate(pieces(data)):
        incoming.write(number, piece)
    store.finish(incoming)
    return name(data)


def get(store: BlobFiles, ref: BlobRef) -> bytes:
    """All chunks; raises NotHere."""
    store.chunk_list(ref)
    return b"".join(
        store.read_chunk(ref, number) for number in range(digests.chunk_count(ref.size))
    )


def blob_path(store: BlobFiles, ref: BlobRef) -> Path:
    return store.folder / digests.file_name(ref.digest)
