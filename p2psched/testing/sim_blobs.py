"""The large results on the disk of a simulated peer: small files that stand for large ones, named
by their digests, on a disk of their own that loses power as the log's does.
"""

from __future__ import annotations

import random
from typing import Final

from p2psched.model.ids import PeerId
from p2psched.testing.sim_disk import SimAppendFile, SimDisk

INCOMING: Final = "incoming"


class SimBlobs(dict[bytes, bool]):
    """Digests of all that was ever here; False if it is not any more. Outlives processes."""

    def __init__(self, peer: PeerId) -> None:
        super().__init__()
        self._disk = SimDisk(random.Random(f"blobs {peer}"))

    def put(self, digest: bytes) -> None:
        """Keep it; what was told to be here has to be here after whatever loss of power."""
        disk = self._disk
        if INCOMING in disk.names():
            disk.remove(INCOMING)
        file = disk.open_append(INCOMING)
        file.write(digest)
        self._sync(file)
        file.close()
        disk.rename(INCOMING, digest.hex())
        self[digest] = True

    def _sync(self, file: SimAppendFile) -> None:
        file.sync()

    def lose_power(self) -> list[bytes]:
        """What is gone by it."""
        self._disk.crash()
        there = set(self._disk.names())
        gone = [
            digest
            for digest, is_here in self.items()
            if is_here and (digest.hex() not in there or self._disk.read(digest.hex()) != digest)
        ]
        self.update(dict.fromkeys(gone, False))
        return gone
