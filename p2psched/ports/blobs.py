"""Port `Blobs`: what the executor and the peer's loops ask of the blobs of this peer.

A blob that is `here` was verified when it came and is verified by every `read`. One that fails is
set aside at once and is not here any more. Calls that wait run off the loop.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from p2psched.model.blob import BlobRef


class Blobs(Protocol):
    @property
    def folder(self) -> Path:
        """Where workers find blobs by `model.digests.file_name`."""
        ...

    def is_here(self, ref: BlobRef) -> bool:
        """True if this peer has the whole blob on its disk. Costs a look at the folder."""
        ...

    async def read(self, ref: BlobRef, offset: int, size: int) -> bytes:
        """Bytes of a blob that is here, verified. Raises ResultLost if it is not, or damaged."""
        ...

    async def adopt(self, files: Iterable[tuple[BlobRef, Path]]) -> None:
        """Take finished files of this filesystem into the store: moved, durable on return, all of
        one call with as few syncs as the disk allows. One that is here already is just removed.
        Raises Unavailable without space; ValueError if a file has not the size that it should."""
        ...

    async def fetch(self, refs: Iterable[BlobRef]) -> None:
        """Bring what is not here from other peers, as long as it takes: returns when all are
        here. Raises ResultLost once every live peer has said that it has it not."""
        ...
