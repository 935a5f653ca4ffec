"""`File`: a file that travels with a task's arguments or with what it returns.

Workers load this under a private name and callers as part of p2psched, so what stands in a pickle
is a name in `HOME`, which means the same on both sides (see `stand_in`). Nothing but a packed value
can carry a File: only there somebody sees to it that the bytes come along.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from ...model import digests, values  # noqa: TID252 - see shared.py

if TYPE_CHECKING:
    from pathlib import Path

HOME: Final = "p2psched.run.host.files"
COPY_BYTES: Final = 1024 * 1024
SELDOM_BYTES_MAX: Final = 1024 * 1024  # 4 ms: as long as it takes to load OpenSSL

Ref = values.Ref
Fetch = Callable[[Ref, str], None]  # bring a blob into a new file of this path; blocks


class File:
    """A file by its path here; where it arrives, a file of the same name and bytes.

    In a task `path` is the file in the peer's store: read it, don't write to it. At the caller a
    File that a task returned is still with the peers: `save` and `open` bring it, blocking as other
    files do (`asyncio.to_thread` in a coroutine).
    """

    __slots__ = ("_fetch", "_path", "_ref", "name")

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path: str | None = os.path.abspath(os.fspath(path))  # noqa: PTH100 - cwd may change
        self._ref: Ref | None = None
        self._fetch: Fetch | None = None
        self.name = os.path.basename(self._path)  # noqa: PTH119

    def __repr__(self) -> str:
        return f"<File {self.name!r}>"

    def __reduce__(self) -> str:
        raise CantTravelAlone(
            f"{self!r} travels only in the arguments of a task and in what it returns"
        )

    @property
    def path(self) -> Path:
        """Where it can be read here. Raises FileNotFoundError while only the peers have it."""
        if self._path is None:
            raise FileNotFoundError(f"{self.name} is with the peers: `save` it first")
        # Not above: every idle starter would hold it.
        made: Path = importlib.import_module("pathlib").Path(self._path)
        return made

    @property
    def ref(self) -> Ref | None:
        """Digest and size of the blob that it is; None for a file that has not travelled."""
        return self._ref

    @property
    def size(self) -> int:
        """Bytes."""
        return self._ref[1] if self._ref is not None else self.path.stat().st_size

    def open(self) -> io.BufferedReader:
        """For reading bytes. Close it, or use it in a `with`."""
        if self._path is not None:
            return self.path.open("rb")
        tempfile = importlib.import_module("tempfile")  # as above
        with tempfile.TemporaryDirectory() as folder:
            self.save(f"{folder}/file")
            # It stays readable without its name.
            return open(f"{folder}/file", "rb")  # noqa: PTH123

    def save(self, path: str | os.PathLike[str]) -> None:
        """Put a copy there, piece by piece. What was there is replaced once all has come."""
        target = os.fspath(path)
        new = f"{target}.{os.getpid()}.part"
        try:
            if self._fetch is not None and self._ref is not None:
                self._fetch(self._ref, new)
            else:
                shutil.copyfile(self.path, new)
            os.replace(new, target)  # noqa: PTH105
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(new)  # noqa: PTH108


class CantTravelAlone(TypeError):
    """A File, or what stands for a large value, met a pickler that is not ours."""


class Shared:
    """What stands in a call for a value that is a blob of its own."""

    __slots__ = ("ref",)

    def __init__(self, ref: Ref) -> None:
        self.ref = ref


def file_of(name: str, ref: Ref, *, path: str | None = None, fetch: Fetch | None = None) -> File:
    """A file that has arrived, or that can be fetched."""
    made = File(name)
    made.name = name
    made._path = path
    made._ref = ref
    made._fetch = fetch
    return made


# Names in pickles. `pickling.Opener` puts its own functions in their place.


def file_in_blob(name: str, digest: bytes, size: int) -> File:
    """Stands for a File in a packed value."""
    raise CantTravelAlone(f"{name} ({digest.hex()}, {size} bytes) is opened by p2psched only")


def value_in_blob(digest: bytes, size: int) -> object:
    """Stands for a value that is a blob of its own."""
    raise CantTravelAlone(f"{digest.hex()} ({size} bytes) is opened by p2psched only")


def digest_file(descriptor: int, *, seldom: bool = False) -> Ref:
    """Digest and size of an open file, piece by piece. `seldom`: this process reads no others."""
    hasher = digests.Hasher(seldom=seldom and os.fstat(descriptor).st_size <= SELDOM_BYTES_MAX)
    position = 0
    while piece := os.pread(descriptor, COPY_BYTES, position):
        hasher.update(piece)
        position += len(piece)
    return hasher.finish(), position


for _named in (File, Shared, file_in_blob, value_in_blob):
    _named.__module__ = HOME
