"""Modules that came with a job: each set in a folder of its own, one set at a time on `sys.path`.

A warm worker serves jobs that may bring different versions of the same module. So a set owns the
top-level names in its archive: while it is in use, `sys.modules` holds its own modules under these
names; when another set, or none, takes over, they are put aside together with their state, and
what had these names before comes back. Nothing is loaded twice and no two versions ever meet.
What a module did to others when it was loaded (a patched library, say) stays; a job that must not
see that of another one should use a program.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import types
from collections.abc import Callable
from typing import Final

from ...model import limits  # noqa: TID252 - see shared.py
from . import archive as archives

# What an archive may hold once it is unpacked; the caller keeps to it, this is the second look.
UNPACKED_BYTES_MAX: Final = 64 * limits.MIB


class _Set:
    def __init__(self, folder: str, names: frozenset[str]) -> None:
        self.folder = folder
        self.names = names
        self.modules: dict[str, types.ModuleType] = {}  # while another set is in use
        self.aside: dict[str, types.ModuleType] = {}  # what had its names, while it is in use


class ModuleSets:
    """`folder` is this worker's alone. The worker bounds the number of sets by that of its jobs."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._sets: dict[bytes, _Set] = {}
        self._active: _Set | None = None

    def use(self, digest: bytes | None, archive: Callable[[], bytes]) -> None:
        """From now on imports see this set, or none. Raises ValueError for what is no archive,
        OSError, and what `archive` raises; then none is in use."""
        wanted = None if digest is None else self._sets.get(digest)
        if wanted is None or wanted is not self._active:
            self._leave()
        if digest is None:
            return
        if wanted is None:
            wanted = self._sets[digest] = self._unpack(digest, archive())
        if wanted is not self._active:
            self._enter(wanted)

    def drop(self, digest: bytes) -> None:
        """No job of this worker has it any more."""
        dropped = self._sets.pop(digest, None)
        if dropped is not None:
            if dropped is self._active:
                self._leave()
            shutil.rmtree(dropped.folder, ignore_errors=True)

    def _enter(self, entered: _Set) -> None:
        entered.aside = _take(entered.names)
        sys.modules.update(entered.modules)
        sys.path.insert(0, entered.folder)
        importlib.invalidate_caches()
        self._active = entered

    def _leave(self) -> None:
        left, self._active = self._active, None
        if left is not None:
            left.modules = _take(left.names)
            sys.modules.update(left.aside)
            if left.folder in sys.path:  # a task may have changed the list
                sys.path.remove(left.folder)

    def _unpack(self, digest: bytes, archive: bytes) -> _Set:
        folder = f"{self._folder}/{digest.hex()[:16]}"
        try:
            found = archives.entries(archive)
            if sum(entry.size for entry in found) > UNPACKED_BYTES_MAX:
                raise ValueError(f"they take more than {UNPACKED_BYTES_MAX // limits.MIB} MiB")
            os.makedirs(folder, exist_ok=True)  # noqa: PTH103
            try:
                archives.extract(archive, found, folder)
            except BaseException:  # on a full disk it would hold the space that is missing
                shutil.rmtree(folder, ignore_errors=True)
                raise
        except ValueError as error:
            raise ValueError(f"the job's modules are no archive: {error}") from error
        names = frozenset(entry.name.partition("/")[0].removesuffix(".py") for entry in found)
        return _Set(folder, names)


def _take(names: frozenset[str]) -> dict[str, types.ModuleType]:
    """Out of `sys.modules`: the modules of these names, and what is below them."""
    found = [name for name in sys.modules if name.partition(".")[0] in names]
    return {name: sys.modules.pop(name) for name in found}
