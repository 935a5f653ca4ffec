"""Output of tasks on their owner's disk: while it grows, and what is kept of it afterwards.

Files are named by task and grant (`run/host/spool.py`). Those that nobody writes any more because
their host or their whole peer was killed are kept like the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from p2psched.model import limits
from p2psched.model.ids import JobId
from p2psched.model.log_messages import OutputRead, ReadOutput
from p2psched.run.handed import Running
from p2psched.run.host import folders, spool
from p2psched.run.host_handle import HostHandle

TAIL_BYTES_MAX: Final = 64 * limits.KIB
FORGET_S: Final = 5.0  # what was forgotten within it goes together

IsRunning = Callable[[JobId, int, int], bool]


class Outputs:
    def __init__(
        self, folder: Path, running: Callable[[], Iterator[tuple[HostHandle, Running]]]
    ) -> None:
        """`folder` is the pool's."""
        self._folder = folder
        self.kept_folder: Final = Path(spool.kept_folder(str(folder)))
        self._running = running
        self._forgotten: set[str] = set()

    # --- reads

    async def tail(
        self,
        job: JobId,
        index: int,
        stderr: bool,
        offset: int,
    ) -> tuple[int, bytes] | None:
        """Where the next piece starts, and at most TAIL_BYTES_MAX bytes from `offset` on (or from
        where there is something again), of a task that runs here; None if it does not."""
        for _, running in self._running():
            batch = running.batch
            if batch.job == job and index in running.left:
                found = await asyncio.to_thread(
                    self._read, job, index, batch.grant, stderr=stderr, offset=offset
                )
                if found is None:
                    return offset, b""
                return found[0] + len(found[1]), found[1]
        return None

    async def read(self, body: ReadOutput) -> OutputRead:
        """A piece of what an attempt has printed here."""
        job, index, grant = body.job, body.index, body.grant
        found = await asyncio.to_thread(
            self._read, job, index, grant, stderr=body.stderr, offset=body.offset
        )
        if found is None:
            return OutputRead(False)
        start, data, total = found
        is_over = not self._runs(job[:8], index, grant)
        return OutputRead(True, total, start + len(data), data, is_over)

    def _read(
        self, job: JobId, index: int, grant: int, *, stderr: bool, offset: int
    ) -> tuple[int, bytes, int] | None:
        file = f"{folders.name_of(job, index, grant)}.{spool.STREAMS[stderr]}"
        for folder in (self._folder, self.kept_folder):
            found = spool.read(f"{folder}/{file}", max(0, offset), TAIL_BYTES_MAX)
            if found is not None:
                return found
        return None

    def _runs(self, job: str, index: int, grant: int) -> bool:
        return any(
            running.batch.grant == grant
            and running.batch.job.startswith(job)
            and index in running.left
            for _, running in self._running()
        )

    # --- what is kept

    def open(self) -> None:
        """Before anything runs, or when all has ended: keep what an earlier life has left.
        Blocks."""
        self.kept_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for entry in self._folder.iterdir():
            if entry.name.rpartition(".")[2] in spool.STREAMS:
                spool.keep_files(str(entry))
        spool.prune(str(self.kept_folder))

    def sweep(self) -> None:
        """A host is dead: keep what nobody writes any more. In the loop, so that what runs is what
        runs; the folder has a few files a slot."""
        for entry in self._folder.iterdir():
            name, _, stream = entry.name.rpartition(".")
            if stream in spool.STREAMS and not self._is_written(name):
                spool.keep_files(str(entry))

    def _is_written(self, name: str) -> bool:
        try:
            job, index, grant = name.split(".")
            return self._runs(job, int(index), int(grant))
        except ValueError:
            return False

    def sizes(self) -> tuple[int, int]:
        """Streams that are kept, and their bytes. Blocks, for milliseconds if they are many."""
        return spool.prune(str(self.kept_folder))

    def forget(self, job: JobId) -> None:
        """A job is gone: so is what it printed, soon. Belongs to the loop."""
        if not self._forgotten:
            asyncio.get_running_loop().call_later(FORGET_S, self._forget_soon)
        self._forgotten.add(job[:8])

    def _forget_soon(self) -> None:
        names, self._forgotten = self._forgotten, set()
        asyncio.get_running_loop().run_in_executor(None, self._remove, names)

    def _remove(self, jobs: set[str]) -> None:
        if self.kept_folder.is_dir():
            for entry in self.kept_folder.iterdir():
                if entry.name.partition(".")[0] in jobs:
                    entry.unlink(missing_ok=True)
