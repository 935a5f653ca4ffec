"""The arguments of calls, packed: small ones into items, large ones and files into blobs.

An argument of ARGUMENT_INLINE_BYTES_MAX or more is a blob of its own, so an array that is passed to
a thousand tasks travels once. Memory stays flat: what is large lies in a spool until it is sent.
"""

from __future__ import annotations

import functools
import os
import pickle
import stat
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from p2psched.client.spool import Spool, Upload, upload_of, upload_of_bytes, upload_of_file
from p2psched.model import limits, values
from p2psched.model.blob import BlobRef
from p2psched.model.errors import UsageError
from p2psched.run.host import pickling
from p2psched.run.host.files import File, Shared

# Large objects that are known by their identity. The least recently used one is packed again.
SHARED_MAX: Final = 256
_PLAIN: Final = frozenset({int, float, str, bytes, bool, type(None)})
MODULES_INLINE_BYTES_MAX: Final = 2 * limits.KIB
# Of calls that are packed one by one: larger blobs go to a file, each with a descriptor of its own.
IN_MEMORY_BYTES_MAX: Final = 1 * limits.MIB
_SHORT: Final = 1000  # characters or bytes of an argument that needs no second look

Arguments = tuple[tuple[object, ...], Mapping[str, object]]
Ref = values.Ref


class Packer:
    """Of one job. `uploads` are what must be in the cluster before it."""

    def __init__(self, *, in_memory_max: int = 0) -> None:
        """A blob up to `in_memory_max` stays in memory."""
        self.uploads: dict[BlobRef, Upload] = {}
        self.named: dict[BlobRef, None] = {}  # blobs that items name
        self._in_memory_max = in_memory_max
        self._spool: Spool | None = None
        self._files: dict[tuple[str, int, int, int], BlobRef] = {}
        self._constants: dict[str, object] = {}
        self._constant_refs: list[Ref] = []
        # id -> the object itself, so that the id stays its own; its blob and what that names
        self._shared: OrderedDict[int, tuple[object, Ref, list[Ref]]] = OrderedDict()

    def set_constants(self, constants: Mapping[str, object]) -> None:
        """Keyword arguments of every call; each is packed once if it is large."""
        if not constants:
            return
        refs: list[Ref] = []
        dump = _Dump(self, dict(constants))
        if dump.size >= limits.ARGUMENT_INLINE_BYTES_MAX:
            _, replaced = self._replace((), constants, refs, stable=True, only_known=False)
            constants = replaced
        self._constants, self._constant_refs = dict(constants), refs

    def item(self, call: Arguments, *, stable: bool) -> bytes:
        """The packed arguments of one task. `stable`: nothing of the caller's runs between two
        calls, so an object that comes again has not changed.

        Raises UsageError for what can't be serialised, is too large or too much.
        """
        args, kwargs = call
        if self._constants:
            kwargs = {**self._constants, **kwargs}
        if not kwargs and all(type(arg) in _PLAIN and _is_short(arg) for arg in args):
            return pickle.dumps((args, {}), pickling.PROTOCOL)  # the same bytes, ten times as quick
        refs = list(self._constant_refs)
        call = self._replace(args, kwargs, refs, stable=stable, only_known=True)
        dump = _Dump(self, call)
        if dump.size >= limits.ARGUMENT_INLINE_BYTES_MAX:
            call = self._replace(*call, refs, stable=stable, only_known=False)
            dump = _Dump(self, call)
        if dump.size >= limits.ARGUMENT_INLINE_BYTES_MAX:
            inner = values.pack_blob(self._name(self.blob(dump)))
        else:
            inner = dump.joined()
        refs = list(dict.fromkeys([*refs, *dump.refs]))
        return values.pack_needs(refs, inner) if refs else inner

    def take(self, call: LargeCall) -> bytes:
        """An item that another packer made, with its blobs."""
        for ref in call.named:
            self._name(ref)
        self.uploads |= {upload.ref: upload for upload in call.uploads}
        return call

    def large(self, data: bytes) -> bytes | BlobRef:
        """Code, or a file: inline if it is small."""
        if len(data) < limits.ARGUMENT_INLINE_BYTES_MAX:
            return data
        return self._sent(upload_of_bytes(data))

    def archive(self, data: bytes) -> bytes | BlobRef:
        """Modules: inline if they are small. The next job is mostly of the same ones."""
        if len(data) < MODULES_INLINE_BYTES_MAX:
            return data
        return self._sent(_upload_of_archive(data))

    def _sent(self, upload: Upload) -> BlobRef:
        self.uploads[upload.ref] = upload
        return upload.ref

    def file(self, file: File) -> Ref:
        """Of an argument. One that came as a result of another job is in the cluster already."""
        if file.ref is not None:
            return self._name(BlobRef(*file.ref))
        try:
            status = os.stat(file.path)  # noqa: PTH116
        except OSError as error:
            raise UsageError(f"can't read {file.path}: {error.strerror}") from error
        if not stat.S_ISREG(status.st_mode):  # a device may have no end, a pipe nobody who writes
            raise UsageError(
                f"can't send {file.path}: it is no plain file: copy its content to one"
            )
        key = (str(file.path), status.st_ino, status.st_mtime_ns, status.st_size)
        ref = self._files.get(key)
        if ref is None:
            ref = self._files[key] = self._sent(upload_of_file(Path(file.path)))
        return self._name(ref)

    def blob(self, dump: _Dump) -> BlobRef:
        if dump.size <= self._in_memory_max:
            return self._sent(upload_of_bytes(dump.joined()))
        if self._spool is None:
            self._spool = Spool()
        before = self._spool.size
        upload = upload_of(dump.pieces(), self._spool)
        if upload.ref in self.uploads:
            self._spool.size = before
        self.uploads.setdefault(upload.ref, upload)
        return upload.ref

    def _replace(
        self,
        args: tuple[object, ...],
        kwargs: Mapping[str, object],
        refs: list[Ref],
        *,
        stable: bool,
        only_known: bool,
    ) -> Arguments:
        """The call with what is large in blobs of their own, whose names go to `refs`."""

        def stand_in(value: object) -> object:
            if type(value) is Shared or (type(value) in _PLAIN and _is_short(value)):
                return value
            known = self._shared.get(id(value)) if stable else None
            if known is None:
                if only_known and not isinstance(value, bytes | bytearray | str):
                    return value
                known = self._share(value, stable=stable)
                if known is None:
                    return value
            elif id(value) in self._shared:
                self._shared.move_to_end(id(value))
            _, ref, needs = known
            refs.extend((ref, *needs))
            return Shared(ref)

        new_args = tuple(map(stand_in, args))
        return new_args, {key: stand_in(value) for key, value in kwargs.items()}

    def _share(self, value: object, *, stable: bool) -> tuple[object, Ref, list[Ref]] | None:
        """Make a value a blob of its own, unless it is small."""
        if isinstance(value, bytes | bytearray | str) and len(value) < (
            limits.ARGUMENT_INLINE_BYTES_MAX // 4  # of a text's characters, each up to 4 bytes
        ):
            return None
        dump = _Dump(self, value)
        if dump.size < limits.ARGUMENT_INLINE_BYTES_MAX:
            return None
        found = (value, self._name(self.blob(dump)), dump.refs)
        if stable:
            self._shared[id(value)] = found
            if len(self._shared) > SHARED_MAX:
                self._shared.popitem(last=False)
        return found

    def _name(self, ref: BlobRef) -> Ref:
        self.named[ref] = None
        if len(self.named) > limits.BLOBS_PER_JOB_MAX:
            raise UsageError(
                f"a job has up to {limits.BLOBS_PER_JOB_MAX:,} large arguments and files: split "
                "the job, or pass paths"
            )
        return ref.digest, ref.size


class LargeCall(bytes):
    """The item of one task, together with the blobs that it names."""

    named: tuple[BlobRef, ...]
    uploads: tuple[Upload, ...]

    @staticmethod
    def of(item: bytes, packer: Packer) -> LargeCall:
        made = LargeCall(item)
        made.named = tuple(packer.named)
        made.uploads = tuple(packer.uploads.values())
        return made


class _Dump:
    """A value as a pickle and the buffers beside it; nothing is copied that is large."""

    def __init__(self, packer: Packer, value: object) -> None:
        self._packer = packer
        self.parts: list[bytes] = []
        self.buffers = pickling.Buffers()
        self.refs: list[Ref] = []
        try:
            pickling.dump_cleverly(value, self, self.buffers, self._on_file)
        except UsageError:
            raise
        except Exception as error:
            raise UsageError(
                f"an argument can't be serialised ({type(error).__name__}: {error}): pass plain "
                "data, and open files, sockets or locks inside the function"
            ) from error
        self.size = sum(map(len, self.parts)) + sum(map(len, self.buffers.found))

    def write(self, data: bytes) -> int:
        self.parts.append(data if type(data) is bytes else bytes(data))
        return len(data)

    def _on_file(self, file: File) -> Ref:
        ref = self._packer.file(file)
        if ref not in self.refs:
            self.refs.append(ref)
        if len(self.refs) > pickling.FILES_MAX:
            raise UsageError(f"the arguments of a task hold up to {pickling.FILES_MAX} files")
        return ref

    def pieces(self) -> list[values.Buffer]:
        if not self.buffers.found:
            return list(self.parts)
        return values.pack_buffers(b"".join(self.parts), self.buffers.found)

    def joined(self) -> bytes:
        return b"".join(self.pieces())


@functools.lru_cache(maxsize=2)
def _upload_of_archive(data: bytes) -> Upload:
    return upload_of_bytes(data)


def _is_short(value: object) -> bool:
    return not isinstance(value, str | bytes) or len(value) < _SHORT
