"""What a worker opens arguments with and packs results with.

Plain data becomes MessagePack, which anybody may open, everything else a pickle (a pickle starts
with 0x80 and goes on, as no MessagePack value does). What is over RESULT_BYTES_MAX goes into a
finished blob in the spill folder, straight from where the value lies, and so does every `File`;
the packed value is then their names.
"""

from __future__ import annotations

import functools
import importlib
import pickle
import struct
from collections.abc import Callable, Iterable
from typing import Final

from ...model import limits, values  # noqa: TID252 - see shared.py
from . import files, large, pickling

_QUICK: Final = frozenset({type(None), bool, int, float, str, bytes})
_PLAIN_DEPTH_MAX: Final = 8
_PLAIN_LEN_MAX: Final = 1000  # of one list or map: a larger one is pickled, which looks at it once
_SIZED: Final = frozenset({str, bytes})
_SMALL_TUPLE: Final = 16
_SMALL_TEXT: Final = 1000
# A pickle stays in memory up to this; then it is written where it belongs.
MEMORY_BYTES: Final = 1024 * 1024
# The pickler writes names in frames below this size, and only data in larger pieces.
_FRAME_BYTES_MAX: Final = 256 * 1024

Ref = values.Ref


class Exchange:
    """Of one worker. `spill` is None where large results can't be kept."""

    def __init__(self, *, blobs: large.BlobFolder, spill: large.Spill | None, scratch: str) -> None:
        self._blobs = blobs
        self._spill = spill
        self._scratch = scratch
        self._opener = pickling.Opener(self)

    # --- arguments

    def open(self, arguments: bytes) -> tuple[list[object], dict[str, object]]:
        """Of one call. Raises whatever a pickle raises."""
        call: tuple[list[object], dict[str, object]]
        call = self._opener.open(arguments)  # type: ignore[assignment]  # as the caller packed it
        return call

    def map(self, ref: Ref) -> memoryview:
        return self._blobs.map(ref)

    def file(self, name: str, ref: Ref) -> files.File:
        return files.file_of(name, ref, path=self._blobs.path(ref))

    # --- results

    def pack(self, value: object) -> bytes:
        """Raises TooLarge, or whatever a user's class raises."""
        kind = type(value)
        if kind is bytes and len(value) > limits.RESULT_BYTES_MAX:  # type: ignore[arg-type]
            head = b"\xc6" + struct.pack(">I", min(len(value), 2**32 - 1))  # type: ignore[arg-type]
            if len(value) < 2**32:  # type: ignore[arg-type]  # what MessagePack can say
                return self._keep([head, value], len(head) + len(value))  # type: ignore[list-item, arg-type]
        if _is_plain(value, 0):
            packb = _packb()
            if packb is not None:
                try:
                    plain = packb(value)
                except (ValueError, OverflowError):  # an integer over 64 bits
                    pass
                else:
                    fits = len(plain) <= limits.RESULT_BYTES_MAX
                    return plain if fits else self._keep([plain], len(plain))
        elif kind is tuple and _is_small(value):  # type: ignore[arg-type]  # it is one
            return pickle.dumps(value, pickling.PROTOCOL)
        return self._pickle(value)

    def _pickle(self, value: object) -> bytes:
        first = _Stream(self._spill)
        try:
            try:
                pickling.dump_plainly(value, first, first.buffers)
                # By reference to `__main__` would mean another module at the caller.
                if not first.names_main:
                    return self._finish(first, [])
            except large.TooLarge:
                raise
            except Exception:  # noqa: BLE001, S110 - cloudpickle may do better, and Files need more
                pass
        finally:
            first.discard()
        taken: dict[str, Ref] = {}
        second = _Stream(self._spill)
        try:
            on_file = functools.partial(self._take, taken)
            pickling.dump_cleverly(value, second, second.buffers, on_file)
            return self._finish(second, list(dict.fromkeys(taken.values())))
        finally:
            second.discard()

    def _take(self, taken: dict[str, Ref], file: files.File) -> Ref:
        path = str(file.path)
        ref = taken.get(path) or file.ref  # one that came as an argument is kept already
        if ref is None:
            if self._spill is None:
                raise large.TooLarge("this peer keeps no files")
            ref = self._spill.take(path, own_folder=self._scratch)
        taken[path] = ref
        if len(taken) > pickling.FILES_MAX:
            raise large.TooLarge(f"a value holds up to {pickling.FILES_MAX} files")
        return ref

    def _finish(self, stream: _Stream, refs: list[Ref]) -> bytes:
        inner = self._finish_value(stream)
        return values.pack_needs(refs, inner) if refs else inner

    def _finish_value(self, stream: _Stream) -> bytes:
        buffers = stream.buffers.found
        if stream.writer is not None:
            if not buffers:
                return values.pack_blob(stream.writer.finish())
            pickled: values.Buffer = stream.writer.map()
        else:
            pickled = b"".join(stream.parts)
        parts = values.pack_buffers(pickled, buffers) if buffers else [pickled]
        size = sum(map(len, parts))
        if size <= limits.RESULT_BYTES_MAX:
            return b"".join(parts)
        return self._keep(parts, size)

    def _keep(self, parts: Iterable[values.Buffer], size: int) -> bytes:
        if self._spill is None:
            raise large.TooLarge(
                f"it may take {human(limits.RESULT_BYTES_MAX)} here and takes {human(size)}: "
                "write it to a file and return its path"
            )
        writer = self._spill.writer()
        try:
            for part in parts:
                writer.write(part)
            return values.pack_blob(writer.finish())
        finally:
            writer.discard()


class _Stream:
    """Where a pickle goes: memory, and from MEMORY_BYTES on a file of the spill folder."""

    __slots__ = ("_size", "_spill", "buffers", "names_main", "parts", "writer")

    def __init__(self, spill: large.Spill | None) -> None:
        self._spill = spill
        self._size = 0
        self.buffers = pickling.Buffers()
        self.parts: list[bytes] = []
        self.writer: large.Writer | None = None
        self.names_main = False

    def write(self, data: bytes | memoryview) -> int:
        size = len(data)
        self._size += size
        if size <= _FRAME_BYTES_MAX:
            data = bytes(data)  # the same object, if it is of bytes
            self.names_main = self.names_main or b"__main__" in data
        if self.writer is None:
            if self._size <= MEMORY_BYTES or self._spill is None:
                self.parts.append(bytes(data))
                return size
            self.writer = self._spill.writer()
            for part in self.parts:
                self.writer.write(part)
            self.parts.clear()
        return self.writer.write(data)

    def discard(self) -> None:
        if self.writer is not None:
            self.writer.discard()


@functools.cache
def _packb() -> Callable[[object], bytes] | None:
    """None if this interpreter has no msgpack: then everything is a pickle."""
    try:
        packb: Callable[[object], bytes] = importlib.import_module("msgpack").packb
    except ImportError:
        return None
    return packb


def _is_plain(value: object, depth: int) -> bool:
    """Only what comes back from MessagePack as exactly the same types."""
    kind = type(value)
    if kind in _QUICK:
        return True
    if (
        depth > _PLAIN_DEPTH_MAX
        or not isinstance(value, list | dict)
        or len(value) > _PLAIN_LEN_MAX
    ):
        return False
    if kind is list:
        return all(_is_plain(item, depth + 1) for item in value)
    if isinstance(value, dict) and kind is dict:
        return all(type(key) is str and _is_plain(item, depth + 1) for key, item in value.items())
    return False


def _is_small(value: tuple[object, ...]) -> bool:
    """A tuple that the quickest pickler can take: nothing large, nothing of the user's."""
    if len(value) > _SMALL_TUPLE:
        return False
    for item in value:
        kind = type(item)
        if kind not in _QUICK or (kind in _SIZED and len(item) > _SMALL_TEXT):  # type: ignore[arg-type]  # it has a length
            return False
    return True


def human(size: int) -> str:
    if size < limits.MIB:
        return f"{-(-size // limits.KIB)} KiB"
    return f"{size / limits.MIB:.1f} MiB"
