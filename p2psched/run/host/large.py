"""Large data as a host sees it: blobs that are on this peer's disk, and those that it makes.

Blobs are read from the peer's folder and verified once in a host's life, as long as the file stays
the same. What a task makes is written as a finished file, named by its digest, into the spill
folder, from where the peer takes it before anybody hears of the result. Hashed while it is written,
never held in memory.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import shutil
import stat
from collections import OrderedDict
from typing import Final

from ...model import digests, limits, values  # noqa: TID252 - see shared.py
from . import files

SPILL: Final = "spill"  # below the pool's folder
VERIFIED_MAX: Final = 4096  # blobs that a host remembers to be good; the oldest is verified again
BUFFERING: Final = 256 * 1024
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

Ref = values.Ref


class Missing(Exception):
    """A blob can't be read here; the text says which and why."""


class Damaged(Missing):
    """It was, or is set aside: the peer can bring a sound copy."""


class TooLarge(Exception):
    """More bytes than a blob may have, or a disk that takes none."""


class NoSpace(TooLarge):
    """This peer's disk is full: another one may have room."""


def is_full(error: OSError) -> bool:
    """True if it says that a disk is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def _not_kept(error: OSError) -> TooLarge:
    kind = NoSpace if is_full(error) else TooLarge
    return kind(
        f"it can't be kept on the disk of peer {os.environ.get('P2P_PEER', '')}: {error.strerror}: "
        "free some space there, then `p2psched job retry`"
    )


class BlobFolder:
    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._verified: OrderedDict[bytes, tuple[int, int, int]] = OrderedDict()

    def path(self, ref: Ref) -> str:
        """A file that holds exactly these bytes. Raises Missing."""
        os.close(self._open(ref))
        return self._path(ref)

    def map(self, ref: Ref) -> memoryview:
        """The bytes. What is written into them stays with whoever asked: neither the file nor
        the next one who maps it sees it. Raises Missing."""
        descriptor = self._open(ref)
        try:
            size = ref[1]
            return memoryview(mmap.mmap(descriptor, size, access=mmap.ACCESS_COPY) if size else b"")
        finally:
            os.close(descriptor)

    def read(self, ref: Ref) -> bytes:
        """All of a blob of code, which is small enough for memory. Raises Missing."""
        descriptor = self._open(ref, seldom=True)
        with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor
            return file.read()

    def _path(self, ref: Ref) -> str:
        return f"{self._folder}/{digests.file_name(ref[0])}"

    def _open(self, ref: Ref, *, seldom: bool = False) -> int:
        digest, size = ref
        if not self._folder:
            raise Missing("this peer keeps no large data")
        try:
            descriptor = os.open(self._path(ref), _READ)
        except FileNotFoundError as error:
            # It was here when the peer handed this over; another worker has set it aside since.
            raise Damaged(f"blob {digest.hex()} is not here any more") from error
        except OSError as error:
            raise Missing(f"blob {digest.hex()} can't be read here: {error.strerror}") from error
        try:
            self._verify(descriptor, digest, size, seldom=seldom)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _verify(self, descriptor: int, digest: bytes, size: int, *, seldom: bool) -> None:
        status = os.fstat(descriptor)
        state = (status.st_ino, status.st_mtime_ns, status.st_size)
        if self._verified.get(digest) == state:
            self._verified.move_to_end(digest)
            return
        if status.st_size != size or files.digest_file(descriptor, seldom=seldom) != (digest, size):
            kind = Damaged if self._set_aside(digest, status.st_ino) else Missing
            raise kind(f"blob {digest.hex()} is damaged on this peer's disk")
        self._verified[digest] = state
        if len(self._verified) > VERIFIED_MAX:
            self._verified.popitem(last=False)

    def _set_aside(self, digest: bytes, inode: int) -> bool:
        """True if it makes sense to ask for it again: not if it was damaged before, too."""
        path, aside = self._path((digest, 0)), f"{self._folder}/damaged/{digest.hex()}"
        try:
            if os.lstat(path).st_ino != inode:
                return True  # a sound copy has come in its place meanwhile
        except OSError:
            return True  # somebody else has set it aside
        is_first = not os.path.lexists(aside)
        try:
            os.replace(path, aside)  # noqa: PTH105 - as above
        except OSError:
            return False
        return is_first


class Writer:
    """A blob while it is written. Use `finish` or `discard`."""

    def __init__(self, folder: str, name: str) -> None:
        self._folder = folder
        self._path = f"{folder}/{name}"
        self._file = open(os.open(self._path, _NEW, 0o600), "wb", buffering=BUFFERING)  # noqa: SIM115, PTH123
        self._hasher = digests.Hasher()

    @property
    def size(self) -> int:
        return self._hasher.size

    def write(self, data: values.Buffer) -> int:
        """Raises TooLarge; then only `discard` makes sense."""
        view = memoryview(data).cast("B")
        if self._hasher.size + len(view) > limits.BLOB_BYTES_MAX:
            raise TooLarge(
                f"a blob may take {limits.BLOB_BYTES_MAX // limits.GIB} GiB, this one takes more: "
                "split it, or write it to a path that all peers see"
            )
        try:
            self._file.write(view)
        except OSError as error:
            raise _not_kept(error) from error
        self._hasher.update(view)
        return len(view)

    def finish(self) -> Ref:
        """The blob has its name now."""
        size = self._hasher.size
        digest = self._hasher.finish()
        try:
            self._file.close()
            os.replace(self._path, f"{self._folder}/{digest.hex()}")  # noqa: PTH105
        except OSError as error:
            raise _not_kept(error) from error
        return digest, size

    def map(self) -> memoryview:
        """What was written so far, for reading. Raises TooLarge."""
        try:
            self._file.flush()
        except OSError as error:
            raise _not_kept(error) from error
        with open(self._path, "rb") as file:  # noqa: PTH123
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    def discard(self) -> None:
        """Also after `finish`: then nothing happens."""
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)  # noqa: PTH108

    def copy(self, descriptor: int) -> None:
        """Write all of an open file. Raises TooLarge, OSError."""
        position = 0
        while piece := os.pread(descriptor, files.COPY_BYTES, position):
            self.write(piece)
            position += len(piece)


class Spill:
    """Where a host puts what its tasks made. `tag` is the host's own, for files not yet named."""

    def __init__(self, pool_folder: str, tag: str) -> None:
        self._folder = f"{pool_folder}/{SPILL}"
        self._tag = tag
        self._count = 0

    def writer(self) -> Writer:
        """Raises TooLarge if no file can be made."""
        self._count += 1
        try:
            return Writer(self._folder, f"{self._tag}-{self._count}")
        except OSError as error:
            raise _not_kept(error) from error

    def take(self, path: str, *, own_folder: str) -> Ref:
        """A file that a task hands over: moved if it is the task's own, else copied. Raises
        TooLarge; OSError if it can't be read; ValueError if it is no regular file."""
        own = _is_below(path, own_folder)
        descriptor = os.open(path if own else os.path.realpath(path), _READ | os.O_NONBLOCK)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ValueError(f"{path} is no regular file")
            if status.st_size > limits.BLOB_BYTES_MAX:
                raise TooLarge(
                    f"{os.path.basename(path)} takes "  # noqa: PTH119
                    f"{status.st_size / limits.GIB:.1f} GiB; "
                    f"a blob may take {limits.BLOB_BYTES_MAX // limits.GIB}"
                )
            # A second name would be a way to change the blob later.
            if own and status.st_nlink == 1:
                ref = files.digest_file(descriptor)
                os.fchmod(descriptor, 0o600)
                with contextlib.suppress(OSError):  # another filesystem: then a copy
                    os.rename(path, f"{self._folder}/{ref[0].hex()}")  # noqa: PTH104
                    return ref
            writer = self.writer()
            try:
                writer.copy(descriptor)
                return writer.finish()
            finally:
                writer.discard()
        finally:
            os.close(descriptor)


def forget(pool_folder: str, tag: str) -> None:
    """Remove what a dead host has not finished."""
    with contextlib.suppress(OSError), os.scandir(f"{pool_folder}/{SPILL}") as entries:
        for entry in entries:
            if entry.name.startswith(f"{tag}-"):
                os.unlink(entry.path)  # noqa: PTH108


def place(source: str, target: str, mode: int) -> None:
    """Put a blob at a path that does not exist, as a file of its own: never a second name of the
    same bytes, which a program could write to. Shares blocks where the filesystem can."""
    reader = os.open(source, _READ)
    try:
        writer = os.open(target, _NEW, 0o600)
        try:
            _copy(reader, writer)
            os.fchmod(writer, mode & 0o777)
        finally:
            os.close(writer)
    finally:
        os.close(reader)


def _copy(reader: int, writer: int) -> None:
    try:
        while os.copy_file_range(reader, writer, 1 << 30):
            pass
    except OSError:  # not on this filesystem; both positions are where it stopped
        with open(reader, "rb", closefd=False) as source, open(writer, "wb", closefd=False) as file:
            shutil.copyfileobj(source, file, files.COPY_BYTES)


def _is_below(path: str, folder: str) -> bool:
    """Whichever way the path goes; the file itself may be a link."""
    parent, own = os.path.realpath(os.path.dirname(path)), os.path.realpath(folder)  # noqa: PTH120
    return parent == own or parent.startswith(f"{own}/")
