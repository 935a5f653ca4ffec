"""The blobs of a peer as files: content-addressed, durable before they count, verified when read.

    blobs/ab/<digest>        exactly the blob's bytes, mode 0444
    blobs/ab/<digest>.sums   the digests of its chunks; a cache, made again from the bytes
    blobs/incoming/<digest>  what is being written
    blobs/damaged/<digest>   what failed its checksum, the newest few

Names are made of digests of a fixed length, so nothing from outside can name another path, and no
link is followed. All calls block; any thread may make them.

Order of locks: that of an incoming blob comes before the store's.

Invariants: a blob is known (`is_here`) only once its bytes and then its name were synced; one whose
bytes fail is set aside at once and not known any more. What was touched lately is no garbage: the
age is counted by the clock of the machine's boot time and from the start of this process, not by
the files' times, because a wall clock that jumps must not delete what a job is about to name.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from p2psched.model import digests
from p2psched.model.blob import BlobRef
from p2psched.model.errors import Unavailable
from p2psched.model.limits import GIB, MIB
from p2psched.store.blob_calls import (
    FileCalls,
    check_space,
    make_folders,
    open_plain,
    restore_folders,
    telling_space,
)
from p2psched.store.blob_incoming import Incoming
from p2psched.store.blob_reads import BlobReads, NotHere, Unsound
from p2psched.store.files import refusing, sync_folder
from p2psched.store.space import LEAST_BYTES

log = logging.getLogger(__name__)

INCOMING_MAX: Final = 128  # open at a time; further ones are answered `busy`
IDLE_MS: Final = 60_000  # an incoming blob that rests for longer gives its place to another
INCOMING_KEPT_S: Final = 24 * 3600.0  # half a blob that nobody went on with is removed after that
DAMAGED_KEPT_MAX: Final = 4  # files
DAMAGED_BYTES_MAX: Final = 1 * GIB
SYNC_THREADS: Final = 8  # syncs of one group of files that wait for the disk together
RANGE_BYTES_MAX: Final = 64 * MIB  # of one `read_range`

_NAME: Final = re.compile(rf"[0-9a-f]{{{2 * digests.DIGEST_BYTES}}}")


@dataclass(slots=True)
class _Known:
    size: int
    touched_ms: int


class BlobFiles:
    """See the module. `on_damaged` is called from whichever thread found it."""

    def __init__(
        self,
        folder: Path,
        *,
        now_ms: Callable[[], int],
        calls: FileCalls | None = None,
        on_damaged: Callable[[BlobRef], None] | None = None,
    ) -> None:
        self.folder: Final = folder
        self._now_ms = now_ms
        self._calls = calls if calls is not None else FileCalls()
        self.on_damaged = on_damaged
        self.space_left_min = LEAST_BYTES  # what comes in must leave that much to the ledger
        self._lock = threading.RLock()
        self._known: dict[bytes, _Known] = {}
        self._bytes = 0
        self.written_bytes = 0  # of blobs that became whole here, by this process
        self._incoming: dict[bytes, Incoming] = {}
        self._reads = BlobReads(folder)
        self._syncs = ThreadPoolExecutor(SYNC_THREADS, thread_name_prefix="blob-sync")
        with refusing(f"use {folder} for blobs"):
            self._prepare()

    def close(self) -> None:
        """Keep what is incoming for the next process. Idempotent."""
        self._syncs.shutdown(wait=True)
        with self._lock:
            resting = list(self._incoming.values())
            self._incoming.clear()
        for incoming in resting:
            incoming.close()

    @property
    def total_bytes(self) -> int:
        """Of all blobs that are here."""
        return self._bytes

    @property
    def count(self) -> int:
        return len(self._known)

    # --- reading ----------------------------------------------------------------------------------

    def is_here(self, ref: BlobRef) -> bool:
        """Cheap enough for an event loop: one look into memory, one at the file's size."""
        known = self._known.get(ref.digest)
        if known is None or known.size != ref.size:
            return False
        try:
            status = self._reads.path_of(ref.digest).lstat()
        except OSError:
            self._miss(ref)
            return False
        if status.st_size != ref.size or not stat.S_ISREG(status.st_mode):
            self._set_aside(ref, Unsound(f"{status.st_size} bytes", status.st_ino))
            return False
        return True

    def chunk_list(self, ref: BlobRef) -> bytes:
        """Digests of the chunks, behind each other. Raises NotHere, also if it is damaged."""
        with self._sound(ref):
            return self._reads.chunk_list(ref)

    def read_chunk(self, ref: BlobRef, number: int) -> bytes:
        """One chunk, verified. Raises NotHere; ValueError if there is no such chunk."""
        if not 0 <= number < digests.chunk_count(ref.size):
            raise ValueError(f"a blob of {ref.size:,} bytes has no chunk {number}")
        with self._sound(ref):
            return self._reads.chunk(ref, number)

    def read_range(self, ref: BlobRef, offset: int, size: int) -> bytes:
        """Bytes, verified chunk by chunk. Raises NotHere; ValueError for what is outside the blob
        or more than RANGE_BYTES_MAX."""
        if offset < 0 or size < 0 or offset + size > ref.size or size > RANGE_BYTES_MAX:
            raise ValueError(
                f"{size:,} bytes from {offset:,} on of a blob of {ref.size:,}: read up to "
                f"{RANGE_BYTES_MAX // MIB} MiB inside of it"
            )
        with self._sound(ref):
            if not size:
                self._reads.chunk_list(ref)  # that it is here, and sound in its size
                return b""
            return self._reads.range_of(ref, offset, size)

    @contextlib.contextmanager
    def _sound(self, ref: BlobRef) -> Iterator[None]:
        if not self.is_here(ref):
            raise NotHere(str(ref))
        try:
            yield
        except NotHere:
            self._miss(ref)
            raise
        except Unsound as fault:
            self._set_aside(ref, fault)
            raise NotHere(str(ref)) from fault

    # --- writing ----------------------------------------------------------------------------------

    def adopt(self, files: Sequence[tuple[BlobRef, Path]]) -> None:
        """Take finished files of this filesystem, as many as there are with one round of syncs.

        They are durable on return. Their bytes are believed to be what their makers hashed; readers
        verify. One that is here already is removed. Raises, before anything was moved, ValueError
        if a file is not as long as it should be; Unavailable without space; OSError."""
        fresh: dict[bytes, tuple[BlobRef, Path]] = {}
        spare = []
        for ref, path in files:
            if ref.digest in fresh or self.touch(ref):
                spare.append(path)
            else:
                fresh[ref.digest] = ref, path
        needed = sum(ref.size for ref, _ in fresh.values())
        restore_folders(self.folder)
        with telling_space(needed, self.folder):
            list(self._syncs.map(self._sync_finished, fresh.values()))
            self._place([(ref, path) for ref, path in fresh.values()])
        for path in spare:
            path.unlink(missing_ok=True)

    def _sync_finished(self, finished: tuple[BlobRef, Path]) -> None:
        ref, path = finished
        descriptor, status = open_plain(path)
        try:
            if status.st_size != ref.size:
                raise ValueError(f"{path} has {status.st_size:,} bytes, not {ref.size:,}")
            os.fchmod(descriptor, 0o444)
            self._calls.sync(descriptor)
        finally:
            os.close(descriptor)

    def _place(self, synced: Sequence[tuple[BlobRef, Path]]) -> None:
        """Give synced files their names, and only then know them."""
        for ref, path in synced:
            self._calls.rename(path, self._reads.path_of(ref.digest))
        folders = sorted({self._reads.path_of(ref.digest).parent for ref, _ in synced})
        if len(folders) == 1:
            self._calls.sync_folder(folders[0])
        else:
            list(self._syncs.map(self._calls.sync_folder, folders))
        with self._lock:
            for ref, _ in synced:
                self._know(ref.digest, ref.size)
                self.written_bytes += ref.size

    def begin(self, ref: BlobRef, listed: bytes) -> Incoming:
        """Where the chunks of a blob go; the same for all who bring it. `listed` are the digests of
        its chunks. Raises ValueError if they aren't; Unavailable without space, or if too many
        are open; OSError."""
        chunk_digests = digests.parse_list(listed, ref.size, ref.digest)
        restore_folders(self.folder)
        resting: list[Incoming] = []
        with self._lock:
            incoming = self._incoming.get(ref.digest)
            if incoming is None or incoming.is_closed:
                resting = self._make_room(ref)
                path = self.folder / "incoming" / ref.digest.hex()
                incoming = Incoming(
                    path, ref, chunk_digests, calls=self._calls, now_ms=self._now_ms
                )
                self._incoming[ref.digest] = incoming
            incoming.used_ms = self._now_ms()
        for old in resting:
            old.close()
        try:
            incoming.prepare()
        except BaseException:
            self._drop(incoming)
            raise
        return incoming

    def incoming(self, ref: BlobRef) -> Incoming | None:
        """What was begun and is neither finished nor given up."""
        with self._lock:
            incoming = self._incoming.get(ref.digest)
            if incoming is None or incoming.is_closed or incoming.ref != ref:
                return None
            incoming.used_ms = self._now_ms()
            return incoming

    def finish(self, incoming: Incoming) -> None:
        """All chunks are there: durable on return. Idempotent. Raises Unavailable without space,
        OSError if the disk fails: the file is given up then."""
        with incoming.lock:
            if self.touch(incoming.ref):
                self._drop(incoming, remove=True)
                return
            if incoming.is_closed:
                raise Unavailable(f"blob {incoming.ref} was given up here: bring it again")
            try:
                incoming.sync()
                self._place([(incoming.ref, incoming.path)])
            except (OSError, Unavailable):
                self._drop(incoming, remove=True)
                raise
            self._reads.keep_list(incoming.ref, b"".join(incoming.digests))
            self._drop(incoming)

    def _make_room(self, ref: BlobRef) -> list[Incoming]:
        """See that there is a place and space for one more. Returns what has to be closed for it:
        it rests, and its file stays."""
        now = self._now_ms()
        resting = [i for i in self._incoming.values() if now - i.used_ms > IDLE_MS]
        resting.sort(key=lambda incoming: incoming.used_ms)
        excess = len(self._incoming) - INCOMING_MAX + 1
        if excess > len(resting):
            raise Unavailable(
                f"busy: {INCOMING_MAX} blobs are on their way to this peer; try again in a while"
            )
        promised = sum(incoming.left_bytes for incoming in self._incoming.values())
        check_space(self.folder, ref.size + promised + self.space_left_min)
        given_up = resting[: max(0, excess)]
        for old in given_up:
            del self._incoming[old.ref.digest]
        return given_up

    def _drop(self, incoming: Incoming, *, remove: bool = False) -> None:
        with self._lock:
            if self._incoming.get(incoming.ref.digest) is incoming:
                del self._incoming[incoming.ref.digest]
        if remove:
            incoming.discard()
        else:
            incoming.close()

    # --- keeping and deleting ---------------------------------------------------------------------

    def touch(self, ref: BlobRef) -> bool:
        """True if the blob is here, and no garbage for a while from now on."""
        with self._lock:
            if not self.is_here(ref):
                return False
            self._known[ref.digest].touched_ms = self._now_ms()
            return True

    def untouched(self, age_ms: int) -> list[bytes]:
        """Digests of the blobs that nobody touched for that long."""
        before_ms = self._now_ms() - age_ms
        with self._lock:
            return [d for d, known in self._known.items() if known.touched_ms <= before_ms]

    def delete(self, digest: bytes, *, age_ms: int = 0) -> int:
        """Remove a blob, unless somebody touched it meanwhile. Returns the bytes that are free."""
        with self._lock:
            known = self._known.get(digest)
            if known is None or known.touched_ms > self._now_ms() - age_ms:
                return 0
            self._forget(digest)
            # Renamed first: freeing a large file takes long, and who brings it anew keeps it.
            gone = self.folder / "incoming" / f"{digest.hex()}.gone"
            with contextlib.suppress(FileNotFoundError):
                self._reads.path_of(digest).replace(gone)
            self._reads.list_path_of(digest).unlink(missing_ok=True)
        gone.unlink(missing_ok=True)
        return known.size

    def remove_stale(self, wall_s: float) -> None:
        """Half blobs that nobody went on with for INCOMING_KEPT_S: files only, so a wall clock that
        jumps costs an upload's beginning at most."""
        oldest_ms = self._now_ms() - int(INCOMING_KEPT_S * 1000)
        with self._lock:
            resting = [i for i in self._incoming.values() if i.used_ms < oldest_ms]
        for incoming in resting:
            self._drop(incoming, remove=True)
        for path in list((self.folder / "incoming").iterdir()):
            with self._lock, contextlib.suppress(FileNotFoundError):
                open_names = {digest.hex() for digest in self._incoming}
                rested_s = wall_s - path.lstat().st_mtime
                if path.name not in open_names and rested_s > INCOMING_KEPT_S:
                    path.unlink()

    # --- inside -----------------------------------------------------------------------------------

    def _know(self, digest: bytes, size: int) -> None:
        self._forget(digest)
        self._known[digest] = _Known(size, self._now_ms())
        self._bytes += size

    def _forget(self, digest: bytes) -> bool:
        """True if it was known."""
        with self._lock:
            known = self._known.pop(digest, None)
            self._bytes -= known.size if known is not None else 0
            self._reads.forget(digest)
        return known is not None

    def _miss(self, ref: BlobRef) -> None:
        """Its file is not there: if we knew it, somebody deleted it behind our back."""
        if self._forget(ref.digest) and self.on_damaged is not None:
            self.on_damaged(ref)

    def _set_aside(self, ref: BlobRef, fault: Unsound) -> None:
        path = self._reads.path_of(ref.digest)
        with self._lock, contextlib.suppress(FileNotFoundError):
            if fault.inode and path.lstat().st_ino != fault.inode:
                return  # a sound copy has come in its place meanwhile
            self._forget(ref.digest)
            path.replace(self.folder / "damaged" / ref.digest.hex())
            self._reads.list_path_of(ref.digest).unlink(missing_ok=True)
        self._prune_damaged()
        log.error(
            "blob-damaged", extra={"blob": str(ref), "reason": str(fault), "kept_in": "damaged"}
        )
        if self.on_damaged is not None:
            self.on_damaged(ref)

    def _prune_damaged(self) -> None:
        total = 0
        with contextlib.suppress(FileNotFoundError):
            found = [(path.lstat(), path) for path in (self.folder / "damaged").iterdir()]
            found.sort(key=lambda pair: -pair[0].st_ctime_ns)
            for number, (status, path) in enumerate(found):
                total += status.st_size
                if number >= DAMAGED_KEPT_MAX or total > DAMAGED_BYTES_MAX:
                    path.unlink(missing_ok=True)

    def _prepare(self) -> None:
        """Make the folders, list the blobs, and sync what a killed process may not have."""
        for folder in make_folders(self.folder):
            self._list_folder(folder)
        list(self._syncs.map(sync_folder, {self._reads.path_of(d).parent for d in self._known}))

    def _list_folder(self, folder: Path) -> None:
        with os.scandir(folder) as found:
            for item in found:
                if item.name.endswith(".new"):
                    Path(item.path).unlink(missing_ok=True)
                elif _NAME.fullmatch(item.name) and item.is_file(follow_symlinks=False):
                    self._know(bytes.fromhex(item.name), item.stat(follow_symlinks=False).st_size)
