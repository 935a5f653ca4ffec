"""`--send` and `--inputs`: what of this machine's files goes into a job."""

from __future__ import annotations

import contextlib
import errno
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from p2psched.client.spool import Upload, upload_of_file
from p2psched.model.errors import UsageError
from p2psched.model.job import SentFile
from p2psched.model.limits import ARGUMENT_INLINE_BYTES_MAX, BLOB_BYTES_MAX, GIB, KIB

# Small files that travel inside the job's entry, together; the others are blobs like large ones.
INLINE_BYTES_MAX: Final = 256 * KIB


@dataclass(frozen=True, slots=True)
class Sending:
    """The files as the job names them, and what must be in the cluster before."""

    files: tuple[SentFile, ...]
    uploads: tuple[Upload, ...]


def sending_of(paths: Sequence[Path]) -> Sending:
    """Reads each file once; large ones stay on disk until they are sent. Raises UsageError."""
    files: list[SentFile] = []
    uploads: dict[object, Upload] = {}
    room = INLINE_BYTES_MAX
    for path, mode, size in map(_look, paths):
        try:
            if size < min(room, ARGUMENT_INLINE_BYTES_MAX):
                data = path.read_bytes()
                room -= len(data)
                files.append(SentFile(path.name, mode, data))
                continue
            upload = upload_of_file(path)
            uploads[upload.ref] = upload
            files.append(SentFile(path.name, mode, upload.ref))
        except OSError as error:
            raise UsageError(f"--send {path} can't be read: {error.strerror}") from error
        except ValueError as error:  # a name that no peer takes
            raise UsageError(f"--send {path}: {error}") from error
    return Sending(tuple(files), tuple(uploads.values()))


def modes_of(paths: Sequence[Path]) -> list[tuple[Path, int]]:
    """Of files that are arguments of functions. Raises UsageError."""
    return [(path, mode) for path, mode, _ in map(_look, paths)]


def _look(path: Path) -> tuple[Path, int, int]:
    """With mode and size."""
    try:
        status = path.stat()
    except OSError as error:
        raise UsageError(f"--send {path} can't be read: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):
        raise UsageError(f"--send {path}: it is no file; only plain files can be sent")
    if status.st_size > BLOB_BYTES_MAX:
        raise UsageError(
            f"--send {path}: it has {status.st_size / GIB:.1f} GiB, and a file may have "
            f"{BLOB_BYTES_MAX // GIB} GiB: split it, or put it on a shared disk"
        )
    return path, stat.S_IMODE(status.st_mode) & 0o777, status.st_size


@contextlib.contextmanager
def opened_inputs(name: str) -> Iterator[BinaryIO]:
    """A file, or stdin as `-`. Raises UsageError."""
    if name == "-":
        try:
            yield sys.stdin.buffer
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
            raise UsageError("--inputs - can't be read: stdin is closed") from error
        return
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(Path(name).open("rb"))
        except OSError as error:
            raise UsageError(f"--inputs {name} can't be read: {error.strerror}") from error
        yield file
