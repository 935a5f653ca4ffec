"""Small files of a peer: written whole or not at all, read within a bound, failures told plainly.

For identity, secret, address book and records. Not for the ledger: that has its own port.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from p2psched.model.errors import Refused

_ADVICE: Final = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some space there",
    errno.EROFS: "choose a folder that can be written",
    errno.EACCES: "check who owns it, or choose another place",
    errno.EPERM: "check who owns it, or choose another place",
    errno.ENOTDIR: "choose a folder, not a file",
    errno.ELOOP: "choose a place that is no symbolic link",
}


@contextlib.contextmanager
def refusing(doing: str) -> Iterator[None]:
    """Turn an OSError into Refused: `can't <doing>: <reason>: <advice>`."""
    try:
        yield
    except OSError as fault:
        reason = fault.strerror or str(fault)
        advice = _ADVICE.get(fault.errno or 0, "check the path and the disk")
        raise Refused(f"can't {doing}: {reason}: {advice}") from fault


def replace_file(path: Path, data: bytes, *, durable: bool) -> None:
    """Write a file of mode 0600 so that readers see the old or the new content, never a mix; with
    `durable` the same holds after a power cut, and the new one is there on return."""
    aside = aside_of(path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(aside, flags, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, 0o600)  # it may be left over from a crash, or cut by the umask
        file.write(data)
        file.flush()
        if durable:
            os.fsync(descriptor)
    aside.replace(path)
    if durable:
        sync_folder(path.parent)


def aside_of(path: Path) -> Path:
    """Where `replace_file` writes first; a crash may leave it behind."""
    return path.with_name(f"{path.name}.new")


def sync_folder(path: Path) -> None:
    """Make names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_file(path: Path, bytes_max: int) -> tuple[bytes, os.stat_result]:
    """The content of a plain file and what its owner and mode are. Raises OSError; ValueError if
    it is longer than `bytes_max` or is no plain file (a pipe would block for ever)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("not a plain file")
        data = file.read(bytes_max + 1)
    if len(data) > bytes_max:
        raise ValueError(f"longer than {bytes_max} bytes")
    return data, status
