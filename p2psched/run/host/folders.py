"""Folders of program tasks.

Nothing here follows a symbolic link, and no sent file leaves its folder: names are checked by the
one who writes them, whoever checked them before.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
from typing import Final

from . import large

File = tuple[str, int, bytes | str]  # name, mode, data or the path of a blob

_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
_MODE: Final = 0o700
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW


def name_of(job: str, index: int, grant: int) -> str:
    """Of a task's folder. Tasks of a job share no folder of their own: spawners would take it away
    from each other."""
    return f"{job[:8]}.{index}.{grant}"


def make(folder: str, files: list[File]) -> None:
    """A fresh folder with its files. Raises ValueError for a name that is none, OSError."""
    try:
        os.mkdir(folder, _MODE)  # noqa: PTH102 - strings all along: this is the hot path
    except FileExistsError:
        remove(folder)  # left by an attempt whose spawner was killed
        os.mkdir(folder, _MODE)  # noqa: PTH102
    _write_files(folder, files)


def _write_files(folder: str, files: list[File]) -> None:
    for name, mode, data in files:
        if _NAME.fullmatch(name) is None:
            raise ValueError(
                f"sent file {name!r}: a name has 1 to 128 of A-Z a-z 0-9 . _ - "
                f"and does not start with a dot"
            )
        if isinstance(data, str):
            large.place(data, f"{folder}/{name}", mode)
            continue
        descriptor = os.open(f"{folder}/{name}", _NEW, 0o600)
        try:
            with open(descriptor, "wb", closefd=False) as file:
                file.write(data)
            os.fchmod(descriptor, mode & 0o777)
        finally:
            os.close(descriptor)


def remove(folder: str) -> None:
    """Take a task's folder away with all that it holds."""
    try:
        os.rmdir(folder)  # noqa: PTH106 - most are empty
    except NotADirectoryError:  # the task put a file or a link in its place
        with contextlib.suppress(OSError):
            os.unlink(folder)  # noqa: PTH108
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)


class Place:
    """The folder of the task that runs; the next task takes it over if it was left untouched.

    To make and remove an inode for each task costs a quick program as much as its own work
    (ADR 0014): a rename does not, and the spawner need not even change its directory.
    """

    def __init__(self) -> None:
        self._path = ""
        self._number = 0  # of its inode: the name may stand for another folder by then

    def enter(self, path: str, files: list[File]) -> bool:
        """Have the folder `path` for a task. True if it is another one than the last task's.
        Raises as `make` does."""
        if not self._path:
            self._path = path
            make(path, files)
            self._number = os.lstat(path).st_ino
            return True
        before, self._path = self._path, path
        try:
            os.rename(before, path)  # noqa: PTH104
        except OSError:  # one that an attempt left whose spawner was killed
            remove(path)
            os.rename(before, path)  # noqa: PTH104
        _write_files(path, files)
        return False

    def leave(self, *, is_alone: bool) -> None:
        """The task is over. `is_alone`: no process that it started can still be in its folder."""
        if not (is_alone and self._is_untouched()):
            self.close()

    def _is_untouched(self) -> bool:
        """True if it is still the folder that was made, as it was made, and empty."""
        try:
            found = os.lstat(self._path)
            same = found.st_mode == stat.S_IFDIR | _MODE and found.st_ino == self._number
            return same and not os.listdir(self._path)  # noqa: PTH208 - a list is quicker
        except OSError:
            return False

    def close(self) -> None:
        """Take the folder away."""
        if self._path:
            remove(self._path)
            self._path = ""
