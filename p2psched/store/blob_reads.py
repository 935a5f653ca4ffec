"""Reading blobs from disk: every chunk is verified before anybody gets it.

The list of a blob's chunk digests is what makes that cheap. It comes from memory, from the file
beside the blob, or from the bytes themselves; wherever it comes from, it must fit the blob's name.

It refuses to return a byte that it did not verify: `Unsound` then, and the caller sets the blob
aside. Bounds: LISTS_BYTES_MAX of lists and CHUNKS_KEPT_MAX chunks in memory.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from p2psched.model import digests
from p2psched.model.blob import BlobRef
from p2psched.model.errors import Unavailable
from p2psched.model.limits import MIB
from p2psched.store.blob_calls import open_plain, read_at

LISTS_BYTES_MAX: Final = 4 * MIB  # the least recently used go first
CHUNKS_KEPT_MAX: Final = 8  # of those that `range_of` verified: small reads in a row hash once

# Of shorter lists no file is kept: to hash a few chunks again is cheaper than one more file.
LISTED_CHUNKS_MIN: Final = 16

_D: Final = digests.DIGEST_BYTES


class NotHere(Exception):
    """There is no sound copy of this blob on this disk, or not any more."""


class Unsound(Exception):
    """The bytes on disk are not the blob's. `inode` is that of the file that was read."""

    def __init__(self, reason: str, inode: int) -> None:
        super().__init__(reason)
        self.inode = inode


class BlobReads:
    """Threads may share it. `path_of(digest)` is where a blob lies."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._text = str(folder)
        self._lock = threading.Lock()
        self._lists: OrderedDict[bytes, bytes] = OrderedDict()
        self._lists_bytes = 0
        self._chunks: OrderedDict[tuple[bytes, int], bytes] = OrderedDict()

    def path_of(self, digest: bytes) -> Path:
        return self._folder / digests.file_name(digest)

    def look_at(self, digest: bytes) -> os.stat_result:
        """At a blob's file, for each batch that needs it: no path object, which
        took ten times as long. Raises OSError."""
        return os.lstat(f"{self._text}/{digests.file_name(digest)}")

    def list_path_of(self, digest: bytes) -> Path:
        return self._folder / f"{digests.file_name(digest)}.sums"

    def chunk_list(self, ref: BlobRef) -> bytes:
        """The digests of the blob's chunks, behind each other. Raises NotHere, Unsound."""
        with self._lock:
            found = self._lists.get(ref.digest)
            if found is not None:
                self._lists.move_to_end(ref.digest)
                return found
        listed = self._stored_list(ref)
        if listed is None:
            listed = self._counted_list(ref)
            self.keep_list(ref, listed)
        else:
            self._remember(ref, listed)
        return listed

    def keep_list(self, ref: BlobRef, listed: bytes) -> None:
        """Remember the list, and write a long one beside the blob. A cache: not durable, and no
        matter if it fails."""
        self._remember(ref, listed)
        if len(listed) < LISTED_CHUNKS_MIN * _D:
            return
        path = self.list_path_of(ref.digest)
        aside = path.with_name(f"{path.name}.{threading.get_ident()}.new")
        with contextlib.suppress(OSError):
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(aside, flags, 0o600), "wb") as file:
                file.write(listed)
            aside.replace(path)

    def chunk(self, ref: BlobRef, number: int) -> bytes:
        """Raises NotHere, Unsound."""
        listed = self.chunk_list(ref)
        length = digests.chunk_size(ref.size, number)
        with self._opened(ref) as (descriptor, inode):
            data = read_at(descriptor, length, number * digests.CHUNK_BYTES)
        if not digests.fits(data, listed[_D * number : _D * number + _D]):
            raise Unsound(f"chunk {number} fails its checksum", inode)
        return data

    def range_of(self, ref: BlobRef, offset: int, size: int) -> bytes:
        """Raises NotHere, Unsound."""
        assert size > 0
        parts = []
        end = offset + size
        for number in range(offset // digests.CHUNK_BYTES, digests.chunk_count(end)):
            start = number * digests.CHUNK_BYTES
            chunk = self._kept_chunk(ref, number)
            parts.append(memoryview(chunk)[max(0, offset - start) : end - start])
        return b"".join(parts)

    def forget(self, digest: bytes) -> None:
        """The blob is not here any more."""
        with self._lock:
            self._lists_bytes -= len(self._lists.pop(digest, b""))
            for key in [key for key in self._chunks if key[0] == digest]:
                del self._chunks[key]

    # --- inside -----------------------------------------------------------------------------------

    def _kept_chunk(self, ref: BlobRef, number: int) -> bytes:
        key = (ref.digest, number)
        with self._lock:
            found = self._chunks.get(key)
            if found is not None:
                self._chunks.move_to_end(key)
                return found
        data = self.chunk(ref, number)
        with self._lock:
            self._chunks[key] = data
            while len(self._chunks) > CHUNKS_KEPT_MAX:
                self._chunks.popitem(last=False)
        return data

    def _remember(self, ref: BlobRef, listed: bytes) -> None:
        with self._lock:
            self._lists_bytes += len(listed) - len(self._lists.pop(ref.digest, b""))
            self._lists[ref.digest] = listed
            while self._lists_bytes > LISTS_BYTES_MAX:
                _, oldest = self._lists.popitem(last=False)
                self._lists_bytes -= len(oldest)

    def _stored_list(self, ref: BlobRef) -> bytes | None:
        if digests.chunk_count(ref.size) < LISTED_CHUNKS_MIN:
            return None
        try:
            descriptor, _ = open_plain(self.list_path_of(ref.digest))
        except OSError:
            return None
        try:
            data = read_at(descriptor, digests.chunk_count(ref.size) * _D + 1, 0)
            digests.parse_list(data, ref.size, ref.digest)
        except (OSError, ValueError):
            return None
        finally:
            os.close(descriptor)
        return data

    def _counted_list(self, ref: BlobRef) -> bytes:
        """Hash the whole blob. Cost O(size): about a second for 1.5 GB."""
        with self._opened(ref) as (descriptor, inode):
            found = [
                hashlib.sha256(
                    read_at(
                        descriptor,
                        digests.chunk_size(ref.size, number),
                        number * digests.CHUNK_BYTES,
                    )
                ).digest()
                for number in range(digests.chunk_count(ref.size))
            ]
        if digests.root(ref.size, found) != ref.digest:
            raise Unsound("its bytes fail the checksum", inode)
        return b"".join(found)

    @contextlib.contextmanager
    def _opened(self, ref: BlobRef) -> Iterator[tuple[int, int]]:
        """Descriptor and inode of the blob's file."""
        try:
            descriptor, status = open_plain(self.path_of(ref.digest))
        except FileNotFoundError:
            raise NotHere(str(ref)) from None
        except OSError as fault:
            if fault.errno in (errno.ELOOP, errno.EINVAL, errno.EIO):
                raise Unsound(f"it can't be opened: {fault.strerror}", 0) from fault
            raise Unavailable(
                f"this peer can't read blob {ref}: {fault.strerror}", retry_after_s=1
            ) from fault
        try:
            if status.st_size != ref.size:
                raise Unsound(f"{status.st_size} bytes instead of {ref.size}", status.st_ino)
            yield descriptor, status.st_ino
        except OSError as fault:
            raise Unsound(f"it can't be read: {fault.strerror}", status.st_ino) from fault
        finally:
            os.close(descriptor)
