"""The checkpoints on a peer's disk, its own tasks' and copies for others: a folder for each task.

    JOB-INDEX/GRANT-NUMBER.checkpoint   the newest ones; see `model.checkpoints`
    JOB-INDEX/work/                     what the task saves as files, while it runs here
    JOB-INDEX/grant                     under which it runs here

Each is written aside, synced and renamed, and read as a whole before it counts: what is damaged is
set aside, with a word, and the one before it is what there is. Calls block; one thread a task.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
from pathlib import Path
from typing import BinaryIO, Final

from p2psched.model import digests
from p2psched.model.checkpoints import (
    FOLDER,
    GRANT_FILE,
    HEAD_BYTES,
    WORK,
    Head,
    file_name,
    folder_name,
    key_of,
    next_number,
    open_head,
    pack_head,
    seal,
)
from p2psched.model.ids import JobId
from p2psched.store import checkpoint_archive as archive
from p2psched.store.files import sync_folder

log = logging.getLogger(__name__)

KEPT: Final = 2  # of each task, the newest ones; as `run.host.checkpoint`
DAMAGED: Final = ".damaged"
_MAKING: Final = ".making"
_NAME: Final = re.compile(r"([0-9a-f]{32})-([0-9]{1,16})")
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC


class CheckpointFiles:
    def __init__(self, folder: Path) -> None:
        self.folder: Final = folder.absolute()
        self.damaged = 0  # that were set aside

    def tasks(self) -> list[tuple[JobId, int]]:
        """Of which there is anything."""
        try:
            names = os.listdir(self.folder)  # noqa: PTH208 - a list is quicker
        except FileNotFoundError:
            return []
        found = [name for name in map(_NAME.fullmatch, names) if name is not None]
        return sorted((JobId(name[1]), int(name[2])) for name in found)

    def path(self, job: JobId, task: int) -> Path:
        return self.folder / folder_name(job, task)

    def work(self, job: JobId, task: int) -> Path:
        return self.path(job, task) / WORK

    def saved(self, job: JobId, task: int) -> list[Head]:
        """The newest first. Their bodies were not looked at."""
        heads = []
        for key in sorted(self._keys(job, task), reverse=True):
            with contextlib.suppress(FileNotFoundError):
                try:
                    heads.append(self._head(self._file(job, task, key), job, task))
                except ValueError as error:
                    self._set_aside(job, task, key, str(error))
        return heads

    def newest_key(self, job: JobId, task: int) -> tuple[int, int] | None:
        return max(self._keys(job, task), default=None)

    def is_sound(self, head: Head) -> bool:
        """True if all of it is as it was written; else it is set aside. Reads it."""
        path = self._file(head.job, head.task, head.key)
        try:
            with path.open("rb") as file:
                _verify(file, head)
        except FileNotFoundError:
            return False
        except ValueError as error:
            self._set_aside(head.job, head.task, head.key, str(error))
            return False
        return True

    def read(self, head: Head, offset: int, size: int) -> bytes:
        """A piece of the file, not verified; nothing if it is gone."""
        try:
            with self._file(head.job, head.task, head.key).open("rb") as file:
                file.seek(offset)
                return file.read(size)
        except FileNotFoundError:
            return b""

    # --- what comes ---

    def begin(self, head: Head) -> BinaryIO:
        """A file to write all of it into, in whatever order, for `finish` or `drop`. Quick, once
        there is a folder: see `make`."""
        return open(self._aside(head), "wb", opener=_open_new)

    def finish(self, head: Head, file: BinaryIO) -> None:
        """It is all there. Raises ValueError if it is not what its head says, or damaged."""
        aside = self._aside(head)
        try:
            with file:
                file.flush()
                os.fsync(file.fileno())
            with aside.open("rb") as written:
                _verify(written, head)
            aside.replace(self._file(head.job, head.task, head.key))
        finally:
            aside.unlink(missing_ok=True)
        sync_folder(aside.parent)
        self.prune(JobId(head.job), head.task)

    def drop(self, head: Head, file: BinaryIO) -> None:
        file.close()
        self._aside(head).unlink(missing_ok=True)

    # --- a task that runs here ---

    def prepare(self, job: JobId, task: int, grant: int, head: Head | None) -> None:
        """Before an attempt: what is saved as files is as at that checkpoint, or empty. Raises
        OSError; ValueError if it is damaged."""
        folder = self.make(job, task)
        for entry in list(folder.iterdir()):
            if entry.name == WORK:
                shutil.rmtree(entry)
            elif entry.name.endswith(_MAKING):
                entry.unlink(missing_ok=True)
        work = folder / WORK
        work.mkdir(mode=0o700)
        if head is not None and head.kind == FOLDER:
            with self._file(job, task, head.key).open("rb") as file:
                file.seek(HEAD_BYTES)
                archive.unpack(file, head.body_bytes, work)
        (folder / GRANT_FILE).write_text(str(grant))

    def snapshot(self, job: JobId, task: int, grant: int, wall_ms: int) -> Head | None:
        """A checkpoint of what was renamed into place in the task's folder. None if something there
        was changed meanwhile, or nothing is there. Raises OSError."""
        work = self.work(job, task)
        listed = archive.listed(work)
        if not listed:
            return None
        aside = self.path(job, task) / f"snapshot{_MAKING}"
        try:
            with open(aside, "wb", opener=_open_new) as file:
                file.seek(HEAD_BYTES)
                hasher = digests.Hasher()
                archive.pack(file, hasher, work, listed)
                if archive.listed(work) != listed:
                    return None
                number = next_number(self._keys(job, task))
                digest = hasher.finish()
                head = Head(job, task, grant, number, wall_ms, hasher.size, FOLDER)
                packed = pack_head(head)
                file.write(seal(packed, digest))
                file.seek(0)
                file.write(packed)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(self._file(job, task, head.key))
        except FileNotFoundError:  # renamed or removed while it was read
            return None
        finally:
            aside.unlink(missing_ok=True)
        sync_folder(aside.parent)
        self.prune(job, task)
        return head

    def prune(self, job: JobId, task: int) -> None:
        for key in sorted(self._keys(job, task))[:-KEPT]:
            self._file(job, task, key).unlink(missing_ok=True)

    def remove(self, job: JobId, task: int) -> None:
        """All of a task."""
        shutil.rmtree(self.path(job, task), ignore_errors=True)

    def total(self) -> tuple[int, int]:
        """Tasks of which something is here, and the bytes of it."""
        tasks, size = self.tasks(), 0
        for job, task in tasks:
            for key in self._keys(job, task):
                with contextlib.suppress(FileNotFoundError):
                    size += self._file(job, task, key).stat().st_size
        return len(tasks), size

    # --- below ---

    def make(self, job: JobId, task: int) -> Path:
        """The folder of a task, durable."""
        folder = self.path(job, task)
        if not folder.is_dir():
            folder.mkdir(mode=0o700, parents=True)
            sync_folder(folder.parent)
        return folder

    def _file(self, job: str, task: int, key: tuple[int, int]) -> Path:
        return self.folder / folder_name(job, task) / file_name(*key)

    def _aside(self, head: Head) -> Path:
        path = self._file(head.job, head.task, head.key)
        return path.with_name(f"{path.name}{_MAKING}")

    def _keys(self, job: JobId, task: int) -> list[tuple[int, int]]:
        try:
            names = os.listdir(self.path(job, task))  # noqa: PTH208 - a list is quicker
        except FileNotFoundError:
            return []
        return [key for name in names if (key := key_of(name)) is not None]

    def _head(self, path: Path, job: JobId, task: int) -> Head:
        with path.open("rb") as file:
            head = open_head(file.read(HEAD_BYTES))
            size = os.fstat(file.fileno()).st_size
        if (head.job, head.task, head.key) != (job, task, key_of(path.name)):
            raise ValueError("it is another one's")
        if size != head.file_bytes:
            raise ValueError(f"it has {size} bytes of {head.file_bytes}")
        return head

    def _set_aside(self, job: str, task: int, key: tuple[int, int], why: str) -> None:
        path = self._file(job, task, key)
        with contextlib.suppress(FileNotFoundError):
            path.replace(path.with_name(f"{path.name}{DAMAGED}"))
            self.damaged += 1
            log.warning("checkpoint-damaged", extra={"path": str(path), "error": why})


def _open_new(path: str, _flags: int) -> int:
    return os.open(path, _NEW, 0o600)


def _verify(file: BinaryIO, head: Head) -> None:
    """Raises ValueError unless this is all of that checkpoint."""
    packed = file.read(HEAD_BYTES)
    if open_head(packed) != head:
        raise ValueError("it is another one")
    hasher, left = digests.Hasher(), head.body_bytes
    while left and (piece := file.read(min(left, archive.PIECE))):
        hasher.update(piece)
        left -= len(piece)
    if left or file.read() != seal(packed, hasher.finish()):
        raise ValueError("its checksum is not that of its bytes")
