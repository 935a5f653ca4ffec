"""A small twin of the port `Blobs` for tests of the executor: one folder, nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

from p2psched.model import digests
from p2psched.model.blob import BlobRef
from p2psched.model.errors import NoSpace, ResultLost


class DiskBlobs:
    """`others` stands for what other peers have; `room` is how many bytes may be adopted."""

    def __init__(self, folder: Path, *, room: int = 2**60) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.room = room
        self.others: dict[BlobRef, bytes] = {}
        self.fetched: list[BlobRef] = []
        self.fetch_room = 2**60  # how large a blob may be that is brought here
        self.adopt_calls = 0
        self.gate = asyncio.Event()  # adopting waits for it
        self.gate.set()
        self.fetch_gate = asyncio.Event()
        self.fetch_gate.set()

    def path(self, ref: BlobRef) -> Path:
        return self.folder / digests.file_name(ref.digest)

    def put(self, data: bytes) -> BlobRef:
        ref = BlobRef(digests.digest_of(data), len(data))
        self.path(ref).parent.mkdir(exist_ok=True)
        self.path(ref).write_bytes(data)
        return ref

    def elsewhere(self, data: bytes) -> BlobRef:
        ref = BlobRef(digests.digest_of(data), len(data))
        self.others[ref] = data
        return ref

    def is_here(self, ref: BlobRef) -> bool:
        return self.path(ref).exists()

    async def read(self, ref: BlobRef, offset: int, size: int) -> bytes:
        if not self.is_here(ref):
            raise ResultLost(f"no blob {ref}")
        with self.path(ref).open("rb") as file:
            file.seek(offset)
            return file.read(size)

    async def adopt(self, files: Iterable[tuple[BlobRef, Path]]) -> None:
        self.adopt_calls += 1
        await self.gate.wait()
        files = list(files)
        if sum(ref.size for ref, _ in files) > self.room:
            raise NoSpace("the disk is full")
        for ref, path in files:
            if path.stat().st_size != ref.size:
                raise ValueError("of another size")
            self.room -= ref.size
            self.path(ref).parent.mkdir(exist_ok=True)
            path.rename(self.path(ref))

    async def fetch(self, refs: Iterable[BlobRef]) -> None:
        await self.fetch_gate.wait()
        for ref in refs:
            if not self.is_here(ref):
                if ref not in self.others:
                    raise ResultLost(f"nobody has blob {ref}")
                if ref.size > self.fetch_room:
                    raise NoSpace("the disk is full")
                self.fetched.append(ref)
                self.put(self.others[ref])
