"""Packed values made and opened: see `model.values` for what they look like.

Only workers and callers import this. Arrays and other large buffers stay out of the pickle and are
not copied on the way in or out; where they arrive they are views into what came, and writable if
they were: into private memory, so that work in place harms nobody else.
"""

from __future__ import annotations

import functools
import importlib
import io
import pickle
import sys
from collections.abc import Callable
from typing import Any, Final, Protocol

from ...model import values  # noqa: TID252 - see shared.py
from . import files

PROTOCOL: Final = 5
BUFFER_BYTES_MIN: Final = 4096  # a smaller buffer is not worth an entry of its own
FILES_MAX: Final = 1024  # of one value; the names of more would not fit an item
PYTHON: Final = f"{sys.version_info.major}.{sys.version_info.minor}"

Ref = values.Ref
Buffer = values.Buffer


class Source(Protocol):
    """Where blobs are when a value is opened."""

    def map(self, ref: Ref) -> memoryview:
        """Bytes that may be written to without anybody else's seeing it."""
        ...

    def file(self, name: str, ref: Ref) -> files.File: ...


class Sink(Protocol):
    def write(self, data: bytes, /) -> object: ...


class Buffers:
    """Takes large buffers out of a pickle, in order."""

    __slots__ = ("found",)

    def __init__(self) -> None:
        self.found: list[memoryview] = []

    def __call__(self, buffer: pickle.PickleBuffer) -> bool:
        """True to leave it in the pickle."""
        try:
            view = buffer.raw()
        except BufferError:  # not one piece of memory
            return True
        if len(view) < BUFFER_BYTES_MIN or len(self.found) >= values.BUFFERS_MAX:
            return True
        self.found.append(view)
        return False


def dump_plainly(value: object, sink: Sink, buffers: Buffers) -> None:
    """As the standard library pickles. Raises whatever a user's class does."""
    pickle.Pickler(sink, PROTOCOL, buffer_callback=buffers).dump(value)


def dump_cleverly(
    value: object, sink: Sink, buffers: Buffers, on_file: Callable[[files.File], Ref]
) -> None:
    """By value where there is no other way (cloudpickle, if it is there), Files as blobs."""
    _pickler_class()(sink, buffers, on_file).dump(value)


class _Travelling(Protocol):
    def dump(self, value: object, /) -> None: ...


@functools.cache
def _pickler_class() -> Callable[[Sink, Buffers, Callable[[files.File], Ref]], _Travelling]:
    try:
        base = importlib.import_module("cloudpickle").Pickler
    except ImportError:
        base = _Plain

    class Travelling(base):  # type: ignore[misc, valid-type]  # whichever there is
        def __init__(
            self, sink: Sink, buffers: Buffers, on_file: Callable[[files.File], Ref]
        ) -> None:
            super().__init__(sink, protocol=PROTOCOL, buffer_callback=buffers)
            self._on_file = on_file

        def reducer_override(self, value: object) -> object:
            if type(value) is files.File:
                return files.file_in_blob, (value.name, *self._on_file(value))
            if type(value) is files.Shared:
                return files.value_in_blob, value.ref
            return super().reducer_override(value)

    return Travelling


class _Plain(pickle.Pickler):
    def reducer_override(self, value: object) -> Any:  # noqa: ARG002 - the library's signature
        return NotImplemented


def join(pickled: bytes, buffers: list[memoryview]) -> bytes:
    """A packed value in one piece."""
    return b"".join(values.pack_buffers(pickled, buffers)) if buffers else pickled


class Opener:
    """Opens packed values."""

    def __init__(self, source: Source | None, plain: Callable[[Buffer], object] | None = None):
        """`plain` opens what is neither marked nor a pickle."""
        self._source = source
        self._plain = plain

    def open(self, value: Buffer) -> object:
        """Raises whatever a pickle's code raises, ValueError for bytes that are no value, what
        the source raises for a blob that is not there."""
        kind = values.kind_of(value)
        if kind == values.BLOB:
            return self.open(self.source.map(values.blob_of(value)))
        if kind == values.NEEDS:
            return self.open_needing(values.needs_of(value)[1])
        return self._load(value, needs=False)

    def open_needing(self, value: Buffer) -> object:
        """As `open`, for a value that may refer to other blobs."""
        if values.kind_of(value) == values.BLOB:
            value = self.source.map(values.blob_of(value))
        return self._load(value, needs=True)

    @property
    def source(self) -> Source:
        if self._source is None:
            raise ValueError("a value that is in a blob, and there are no blobs here")
        return self._source

    def _load(self, value: Buffer, *, needs: bool) -> object:
        buffers: list[memoryview] = []
        pickled: Buffer = value
        if values.kind_of(value) == values.BUFFERS:
            # Arrays over `bytes` could not be written to.
            own = bytearray(value) if memoryview(value).readonly else value
            pickled, buffers = values.unpack_buffers(own)
        elif self._plain is not None and not is_pickle(value):
            return self._plain(value)
        if not needs:
            return pickle.loads(pickled, buffers=buffers)  # noqa: S301, TID251 - worker or caller
        return _Unpickler(pickled, buffers, self.source).load()


class _Unpickler(pickle.Unpickler):
    """Puts what has arrived in the place of what stands for it."""

    def __init__(self, pickled: Buffer, buffers: list[memoryview], source: Source) -> None:
        super().__init__(io.BytesIO(pickled), buffers=buffers)
        self._source = source

    def find_class(self, module: str, name: str, /) -> object:
        if module == files.HOME and name == "file_in_blob":
            return self._file
        if module == files.HOME and name == "value_in_blob":
            return self._value
        return super().find_class(module, name)

    def _file(self, name: str, digest: bytes, size: int) -> files.File:
        return self._source.file(name, (digest, size))

    def _value(self, digest: bytes, size: int) -> object:
        return Opener(self._source).open_needing(self._source.map((digest, size)))


def is_pickle(value: Buffer) -> bool:
    """True if opening a value may run code of whoever made it."""
    # Protocol 2 and later. In MessagePack 0x80 is the empty map, which has nothing behind it.
    return len(value) > 1 and value[0] in {0x80, values.MARK}


def dumps(value: object) -> bytes:
    """Pickle in one piece: by reference where that is possible, by value where cloudpickle can."""
    try:
        data = pickle.dumps(value, PROTOCOL)
        # By reference to `__main__` would mean another module at the caller.
        if b"__main__" not in data:
            return data
    except Exception:  # noqa: BLE001 - cloudpickle may do better
        data = b""
    try:
        cloudpickle = importlib.import_module("cloudpickle")
    except ImportError:
        return data or pickle.dumps(value, PROTOCOL)
    found: bytes = cloudpickle.dumps(value, PROTOCOL)
    return found
