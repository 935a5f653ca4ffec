"""A disk that is soon full: a small filesystem in memory, mounted for one test.

Needs the right to mount, which root has; where nobody may, the tests say so and are skipped. What
it can't show without that right is shown with simulated disks (`tests/store`, `tests/sim`).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from p2psched.model.limits import MIB

_FILLER: Final = "filler"


class SmallDisk:
    """`folder` is its root."""

    def __init__(self, folder: Path, filler: Path) -> None:
        self.folder = folder
        self._filler = filler

    @property
    def free_bytes(self) -> int:
        space = os.statvfs(self.folder)
        return space.f_bavail * space.f_frsize

    def fill(self, leave: int = 0) -> None:
        """Take all space but `leave` bytes, in whole pages."""
        with self._filler.open("ab") as file, contextlib.suppress(OSError):
            while (room := self.free_bytes - leave) > 0:
                file.write(bytes(min(room, MIB)))
                file.flush()

    def grow(self, size: int) -> None:
        """As if it had been made of this size."""
        mount = shutil.which("mount")
        assert mount is not None
        subprocess.run([mount, "-o", f"remount,size={size}", str(self.folder)], check=True)

    def empty(self) -> None:
        """Give back what `fill` took."""
        self._filler.unlink(missing_ok=True)


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[SmallDisk]:
    """Mounted at `folder`, which is made; its files are gone afterwards."""
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if mount is None or umount is None:
        pytest.skip("no command to mount a small disk")
    folder.mkdir(mode=0o700)
    done = subprocess.run(
        [mount, "-t", "tmpfs", "-o", f"size={size},mode=0700", "p2psched-test", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"a small disk can't be mounted here: {done.stderr.strip()}")
    try:
        yield SmallDisk(folder, folder / _FILLER)
    finally:
        # Lazily: a worker that ends just now may still stand in it.
        subprocess.run([umount, "-l", str(folder)], check=True)
