"""`p2psched.checkpoint`: what a long task saves, to go on from there after a kill, on any peer.

    from p2psched import checkpoint

    @p2psched.task(checkpoint=True)
    def train(steps):
        step, weights = checkpoint.load(default=(0, None))
        while step < steps:
            weights, step = learn(weights), step + 1
            if step % 10 == 0:
                checkpoint.save((step, weights))
        return weights

What `save` was given is on the disk of this peer when it returns, synced and checksummed; the peer
brings the newest to another one meanwhile. Outside of a task nothing is saved and `load` returns
its default, so the same function runs anywhere.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, BinaryIO, Final, TypeVar, overload

# relative: see shared.py
from ...model import checkpoints as form  # noqa: TID252
from ...model import digests  # noqa: TID252

if TYPE_CHECKING:
    from pathlib import Path

HOME: Final = "p2psched.run.host.checkpoint"
ROOT_VARIABLE: Final = "P2P_CHECKPOINTS"
FOLDER_VARIABLE: Final = "P2PSCHED_CHECKPOINT_DIR"
KEPT: Final = 2  # the newest ones
T = TypeVar("T")
_PIECE: Final = 1024 * 1024
_PROTOCOL: Final = 5
_MAKING: Final = ".making"

__all__ = ["folder", "load", "save"]


def save(value: object) -> int:
    """Save what the task needs to go on: anything that can be pickled, as a dict of arrays; bytes
    are saved as they are. Returns the number of this checkpoint, 0 outside of a task.

    It replaces the one before, which stays beside it until the next. Raises OSError if the disk
    takes no more. Call it as often as losing the work since would hurt: it costs a write and two
    syncs.
    """
    place = _place()
    if not place:
        return 0
    keys = _keys(place)
    number = form.next_number(keys)
    with open(f"{place}/{form.GRANT_FILE}") as file:  # noqa: PTH123 - strings all along
        grant = int(file.read())
    making = f"{place}/{os.getpid()}{_MAKING}"
    try:
        with open(making, "wb") as new:  # noqa: PTH123
            _write(new, value, grant, number)
        os.rename(making, f"{place}/{form.file_name(grant, number)}")  # noqa: PTH104
    except BaseException:
        _unlink(making)
        raise
    _sync_folder(place)
    for key in sorted(keys)[: len(keys) + 1 - KEPT]:
        _unlink(f"{place}/{form.file_name(*key)}")
    return number


@overload
def load() -> object: ...


@overload
def load(default: T) -> T: ...


def load(default: object = None) -> object:
    """What was saved last, by this attempt or by one before it, on whichever peer; `default` if
    nothing was. A damaged one is passed over for the one before."""
    place = _place()
    for key in sorted(_keys(place), reverse=True) if place else ():
        with contextlib.suppress(FileNotFoundError, ValueError):
            return _open(f"{place}/{form.file_name(*key)}")
    return default


def folder() -> Path:
    """A folder for what is saved as files. It holds what it held at the last checkpoint. Write
    aside, under a name that starts with a dot, then rename into place: each rename is a checkpoint
    of the whole folder, so put several files into a folder and rename that. Outside of a task it is
    a temporary one."""
    path: type[Path] = importlib.import_module("pathlib").Path
    place = _place()
    if not place:
        return path(importlib.import_module("tempfile").mkdtemp(prefix="checkpoint-"))
    return path(place, form.WORK)


def offer(environment: dict[bytes, bytes], name: str, folder: str) -> None:
    """For the spawner: tell a program where its checkpoints are, also by a link in its folder."""
    job, _, index = os.fsdecode(environment[b"P2P_TASK_ID"]).rpartition("/")
    root = os.environ.get(ROOT_VARIABLE, "")
    work = f"{root}/{form.folder_name(job, int(index))}/{form.WORK}"
    environment[os.fsencode(FOLDER_VARIABLE)] = os.fsencode(work)
    if name != ".":
        os.symlink(work, f"{folder}/{name}")  # noqa: PTH211


def _place() -> str:
    """The folder of this task's checkpoints; empty outside of a task."""
    task = os.environ.get("P2P_TASK_ID", "")
    if not task:
        return ""
    job, _, index = task.rpartition("/")
    root = os.environ.get(ROOT_VARIABLE, "")
    place = f"{root}/{form.folder_name(job, int(index))}"
    if not root or not os.path.exists(f"{place}/{form.GRANT_FILE}"):  # noqa: PTH110
        raise RuntimeError(
            "this job keeps no checkpoints: submit it with `checkpoint=True` (`@task(...)`, "
            "`client.map(...)`), or `p2psched submit-job --checkpoint DIR`"
        )
    return place


def _keys(place: str) -> list[tuple[int, int]]:
    names: Sequence[str] = os.listdir(place)  # noqa: PTH208
    return [key for name in names if (key := form.key_of(name)) is not None]


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # noqa: PTH108


class _Hashed:
    """A file that is hashed as it is written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.hasher = digests.Hasher()

    def write(self, data: bytes | bytearray | memoryview | pickle.PickleBuffer) -> int:
        view = memoryview(data).cast("B")
        self.hasher.update(view)
        self._file.write(view)
        return len(view)


def _write(file: BinaryIO, value: object, grant: int, number: int) -> None:
    job, _, index = os.environ["P2P_TASK_ID"].rpartition("/")
    file.seek(form.HEAD_BYTES)
    body = _Hashed(file)
    if isinstance(value, bytes | bytearray | memoryview):
        kind = form.BYTES
        body.write(value)
    else:
        kind = form.VALUE
        try:  # classes and functions of the caller's own script travel by value only
            pickler = importlib.import_module("cloudpickle").Pickler
        except ImportError:
            pickler = pickle.Pickler
        pickler(body, _PROTOCOL).dump(value)
    digest, wall_ms = body.hasher.finish(), time.time_ns() // 1_000_000
    head = form.Head(job, int(index), grant, number, wall_ms, body.hasher.size, kind)
    packed = form.pack_head(head)
    file.write(form.seal(packed, digest))
    file.seek(0)
    file.write(packed)
    file.flush()
    os.fsync(file.fileno())


def _open(path: str) -> object:
    """Raises ValueError if it is damaged, or an archive of files."""
    with open(path, "rb") as file:  # noqa: PTH123
        packed = file.read(form.HEAD_BYTES)
        head = form.open_head(packed)
        if head.kind == form.FOLDER:
            raise ValueError("it was saved as files: see `folder`")
        hasher, left = digests.Hasher(), head.body_bytes
        while left and (piece := file.read(min(left, _PIECE))):
            hasher.update(piece)
            left -= len(piece)
        if left or file.read() != form.seal(packed, hasher.finish()):
            raise ValueError("it is damaged")
        file.seek(form.HEAD_BYTES)
        if head.kind == form.BYTES:
            return file.read(head.body_bytes)
        return pickle.load(file)  # noqa: S301 - this is a worker


def _sync_folder(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
