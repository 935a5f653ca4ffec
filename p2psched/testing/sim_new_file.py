"""A file of `SimDisk` that comes piece by piece, and its start last."""

from __future__ import annotations

from typing import Protocol


class Replaced(Protocol):
    def replace(self, name: str, data: bytes) -> None: ...


class SimNewFile:
    """Handle of `SimDisk.make`. Its bytes get to the disk at once, with the start: what a crash
    before that leaves, nobody looks at."""

    def __init__(self, disk: Replaced, name: str, start_bytes: int) -> None:
        self._disk = disk
        self._name = name
        self._start_bytes = start_bytes
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        self._parts.append(bytes(data))

    def finish(self, start: bytes) -> None:
        assert len(start) == self._start_bytes
        self._disk.replace(self._name, start + b"".join(self._parts))

    def close(self) -> None:
        self._parts.clear()
