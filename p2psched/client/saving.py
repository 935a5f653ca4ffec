"""Results as files in a folder: `FOLDER/INDEX/NAME` for each output and value of a task.

Nothing is opened that could run code. Files come one by one and each is whole or not there; one
that is there already and the same is left alone, so a save that was broken off goes on where it
was. Memory is flat: what is large goes from the peers to the disk chunk by chunk.
"""

from __future__ import annotations

import asyncio
import os
import pickletools
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from p2psched.client import blobs
from p2psched.client.blobs import Progress
from p2psched.client.export_rows import Row, rows_of
from p2psched.client.job import Job
from p2psched.client.session import Session
from p2psched.model import digests, limits, values
from p2psched.model.blob import BlobRef
from p2psched.model.errors import ResultLost, UsageError
from p2psched.model.job import Segment
from p2psched.model.messages import JobView
from p2psched.net.together import together

AT_A_TIME: Final = 4
LOST_NAMED_MAX: Final = 1000
_READ_BYTES: Final = 1 * limits.MIB
_SMALL: Final = {"json": "value.json", "repr": "value.txt", "packed": "value.packed"}
PACKED: Final = "value.packed"
_NAME_LEN_MAX: Final = 200

Content = bytes | BlobRef


@dataclass(slots=True)
class Saved:
    """What a save did. `present`: files that were there already. `lost`: tasks with a result that
    no peer has any more, LOST_NAMED_MAX at most of `lost_count`."""

    files: int = 0
    bytes: int = 0
    present: int = 0
    lost_count: int = 0
    lost: list[int] = field(default_factory=list)


async def save_results(
    session: Session,
    job: Job,
    view: JobView,
    folder: Path,
    *,
    only: int | None = None,
    overwrite: bool = False,
    progress: Progress = blobs.ignore,
) -> Saved:
    """What had ended when `view` was made. Raises UsageError for a file that is there and differs,
    unless `overwrite`, and if it can't be written; what was saved stays."""
    await asyncio.to_thread(_make, folder)
    saving = _Saving(session, folder, overwrite, progress)
    if view.segments:
        async for page in job.pages():
            for segment, position in zip(page.segments, page.positions, strict=True):
                if position < view.segments and (only is None or only in segment.tasks):
                    await saving.add(list(_files_of(view, segment, only)))
            if page.next_position >= view.segments:
                break
    return saving.saved


class _Saving:
    def __init__(self, session: Session, folder: Path, overwrite: bool, progress: Progress) -> None:
        self._session = session
        self._folder = folder
        self._overwrite = overwrite
        self._progress = progress
        self.saved = Saved()

    async def add(self, files: Sequence[tuple[int, str, Content]]) -> None:
        """AT_A_TIME of them at a time."""
        await together(lambda file: self._save(*file), files, at_most=AT_A_TIME)

    async def _save(self, index: int, name: str, content: Content) -> None:
        path = self._folder / str(index) / name
        size = len(content) if isinstance(content, bytes) else content.size
        if await asyncio.to_thread(self._is_there, path, content):
            self.saved.present += 1
            self._progress(size)
            return
        try:
            if isinstance(content, bytes):
                await asyncio.to_thread(_write, path, content)
            else:
                await blobs.download(self._session, content, path, self._progress)
        except ResultLost:
            self.saved.lost_count += 1
            if len(self.saved.lost) < LOST_NAMED_MAX:
                self.saved.lost.append(index)
            return
        self.saved.files += 1
        self.saved.bytes += size

    def _is_there(self, path: Path, content: Content) -> bool:
        """Blocks. False if it is to be written. Raises UsageError."""
        _make(path.parent)
        if not os.path.lexists(path):
            return False
        if _same(path, content):
            return True
        if (path.exists() and not path.is_file()) or not self._overwrite:
            raise UsageError(
                f"{path} is there and is another one: choose another folder, or replace it "
                "(--force)"
            )
        return False


def _files_of(
    view: JobView, segment: Segment, only: int | None
) -> Iterator[tuple[int, str, Content]]:
    """What the tasks of a segment have to save."""
    for row in rows_of(view.job, segment, None):
        if only is None or row.index == only:
            for name, content in files_of(row, is_function=view.kind == "function"):
                yield row.index, name, content


def files_of(row: Row, *, is_function: bool) -> Iterator[tuple[str, Content]]:
    """Outputs of a program by their names. Of a function its value, as text where that says all
    of it, else as it was packed; and the files in it."""
    for output, hexadecimal, length in row.blobs:
        if not is_function:
            yield output, BlobRef(bytes.fromhex(hexadecimal), length)
    if not is_function or not row.value_kind:
        return
    if row.value_kind in {"json", "repr"}:
        text = f"{row.value}\n".encode("utf-8", "backslashreplace")
        yield _SMALL[row.value_kind], text
        return
    inner: values.Buffer = row.packed
    refs: Sequence[values.Ref] = ()
    if values.kind_of(inner) == values.NEEDS:
        refs, inner = values.needs_of(inner)
    if values.kind_of(inner) == values.BLOB:
        yield PACKED, BlobRef(*values.blob_of(inner))
    else:
        yield PACKED, bytes(inner)
    taken = {PACKED}
    names = _names_in(inner)
    for digest, size in refs:
        name = names.get(digest, digest.hex())
        name = f"{digest.hex()[:8]}-{name}" if name in taken else name
        taken.add(name)
        yield name, BlobRef(digest, size)


def _names_in(pickled: values.Buffer) -> dict[bytes, str]:
    """Names of the files in a value, by digest, as far as its opcodes tell: a file's name stands
    right before its digest (`pickling.dump_cleverly`)."""
    if values.kind_of(pickled) == values.BUFFERS:
        pickled, _ = values.unpack_buffers(pickled)
    found: dict[bytes, str] = {}
    before: object = None
    try:
        for opcode, argument, _ in pickletools.genops(bytes(pickled)):
            if isinstance(argument, bytes) and len(argument) == digests.DIGEST_BYTES:
                if isinstance(before, str) and _is_name(before):
                    found[argument] = before
            elif opcode.name not in {"MEMOIZE", "BINPUT", "LONG_BINPUT"}:
                before = argument
    except ValueError:  # it is in a blob, or no pickle: digests will do
        pass
    return found


def _is_name(text: str) -> bool:
    """It came from somebody else: no way out of the folder, nothing hidden."""
    return (
        0 < len(text) <= _NAME_LEN_MAX
        and text.isprintable()
        and "/" not in text
        and not text.startswith(".")
    )


def _same(path: Path, content: Content) -> bool:
    """Blocks; reads the whole file if its size is right."""
    size = len(content) if isinstance(content, bytes) else content.size
    if path.is_symlink() or not path.is_file() or path.stat().st_size != size:
        return False
    if isinstance(content, bytes):
        return path.read_bytes() == content
    hasher = digests.Hasher()
    with path.open("rb") as file:
        while piece := file.read(_READ_BYTES):
            hasher.update(piece)
    return hasher.finish() == content.digest


def _make(folder: Path) -> None:
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UsageError(f"can't make the folder {folder}: {error.strerror}") from error


def _write(path: Path, data: bytes) -> None:
    aside = path.with_name(f".{path.name[:200]}.{secrets.token_hex(4)}.part")
    try:
        aside.write_bytes(data)
        aside.replace(path)
    except OSError as error:
        raise UsageError(f"can't write {path}: {error.strerror}: free some space") from error
    finally:
        aside.unlink(missing_ok=True)
