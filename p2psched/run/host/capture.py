"""Output of a task, in bounded memory: its first and its last bytes and how many there were."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from typing import Final

from ...model.limits import OUTPUT_BYTES_MAX  # noqa: TID252 - see shared.py

HALF: Final = OUTPUT_BYTES_MAX // 2
READ_BYTES: Final = 256 * 1024
# Reads of one `drain`: a writer that never stops must not hold its reader for ever.
READS_MAX: Final = 64

_LENGTHS = struct.Struct("<QIQI")  # for each stream: written in all, bytes that follow


class Capture:
    """One stream. Holds at most about OUTPUT_BYTES_MAX * 1.5 bytes whatever is written."""

    def __init__(self) -> None:
        self.total = 0
        self._head = b""
        self._tail = bytearray()

    def add(self, data: bytes) -> None:
        self.total += len(data)
        room = HALF - len(self._head)
        if room:
            self._head += data[:room]
            data = data[room:]
        if data:
            self._tail += data[-HALF:]
            if len(self._tail) > 2 * HALF:
                del self._tail[:-HALF]

    def newest(self, most: int, count: int) -> bytes:
        """Of the last `count` bytes that were written, and the line that they go on with, the
        newest `most`."""
        data = bytes(self._tail[-most:])
        if len(data) < most:
            data = self._head[-(most - len(data)) :] + data
        start = data.rfind(b"\n", 0, max(0, len(data) - count)) + 1
        return data[start:]

    def append(self, later: Capture) -> None:
        """What another has taken of the same stream behind this."""
        body = later.body()
        self.add(body)
        self.total += later.total - len(body)

    def header(self, name: str) -> dict[str, int]:
        """The fields of an item's header for this stream; none if nothing was written."""
        if not self.total:
            return {}
        fields = {f"{name}_total": self.total}
        if self.total > 2 * HALF:
            fields[f"{name}_head"] = len(self._head)
        return fields

    def body(self) -> bytes:
        return self._head + bytes(self._tail[-HALF:])


class Output:
    """Both streams of a task."""

    def __init__(self) -> None:
        self.stdout = Capture()
        self.stderr = Capture()

    def __bool__(self) -> bool:
        return bool(self.stdout.total or self.stderr.total)

    def append(self, later: Output) -> None:
        self.stdout.append(later.stdout)
        self.stderr.append(later.stderr)

    def header(self) -> dict[str, int | str]:
        return {**self.stdout.header("stdout"), **self.stderr.header("stderr")}


def drain(descriptor: int, capture: Capture) -> None:
    """Read what a non-blocking pipe holds now."""
    with contextlib.suppress(BlockingIOError):
        for _ in range(READS_MAX):
            data = os.read(descriptor, READ_BYTES)
            if not data:
                return
            capture.add(data)


def drain_once(descriptor: int, capture: Capture) -> None:
    """One read, for a loop that comes again if there is more."""
    with contextlib.suppress(BlockingIOError):
        capture.add(os.read(descriptor, READ_BYTES))


def send_output(sock: socket.socket, output: Output) -> None:
    """Hand an output over to the worker that it belongs to."""
    out, err = output.stdout.body(), output.stderr.body()
    head = _LENGTHS.pack(output.stdout.total, len(out), output.stderr.total, len(err))
    sock.sendall(head + out + err)


def receive_output(sock: socket.socket) -> Output:
    """The other end of `send_output`."""
    head = _receive(sock, _LENGTHS.size)
    stdout_total, stdout_bytes, stderr_total, stderr_bytes = _LENGTHS.unpack(head)
    output = Output()
    output.stdout.add(_receive(sock, stdout_bytes))
    output.stderr.add(_receive(sock, stderr_bytes))
    output.stdout.total = stdout_total
    output.stderr.total = stderr_total
    return output


def _receive(sock: socket.socket, size: int) -> bytes:
    data = sock.recv(size, socket.MSG_WAITALL) if size else b""
    if len(data) != size:
        raise ConnectionError("the starter is gone")
    return data
