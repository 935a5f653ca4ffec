"""The blobs of this peer, off the loop: port `Blobs` over its disk and the other peers.

Small work (a chunk read, verified, written) and slow work (syncs) have threads of their own, so
that a slow disk doesn't hold up who reads from memory. What the port promises is told there.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Callable, Iterable, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from p2psched.model.blob import BlobRef
from p2psched.model.errors import ResultLost, Unavailable
from p2psched.model.ids import PeerId
from p2psched.net.together import together
from p2psched.peer.blob_fetch import BLOBS_MAX, Fetcher
from p2psched.peer.blob_places import Places
from p2psched.peer.others import Others
from p2psched.store.blob_reads import NotHere
from p2psched.store.blobs import BlobFiles

log = logging.getLogger(__name__)

T = TypeVar("T")

QUICK_THREADS: Final = 4
SLOW_THREADS: Final = 8
GARBAGE_AGE_MS: Final = 3_600_000  # nobody takes what was touched within an hour
PIN_S: Final = 600.0  # from an upload to the submit that needs it
GARBAGE_SLICE: Final = 256  # blobs deleted between two looks at what is referenced


class Threads:
    """`blob_fetch.OffLoop`. An OSError of the disk becomes Unavailable for whoever asked; one that
    means that the disk fails is told to `on_disk_failed` too."""

    def __init__(self, on_disk_failed: Callable[[OSError], None]) -> None:
        self._on_disk_failed = on_disk_failed
        self._quick = ThreadPoolExecutor(QUICK_THREADS, thread_name_prefix="blobs")
        self._slow = ThreadPoolExecutor(SLOW_THREADS, thread_name_prefix="blobs-slow")

    async def quick(self, work: Callable[..., T], *values: object) -> T:
        return await self._run(self._quick, work, *values)

    async def slow(self, work: Callable[..., T], *values: object) -> T:
        return await self._run(self._slow, work, *values)

    async def _run(self, pool: ThreadPoolExecutor, work: Callable[..., T], *values: object) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, work, *values)
        except OSError as fault:
            if fault.errno in (errno.EIO, errno.EROFS):
                self._on_disk_failed(fault)
            raise Unavailable(f"the disk of this peer failed: {fault}") from fault

    def close(self) -> None:
        self._quick.shutdown(wait=True, cancel_futures=True)
        self._slow.shutdown(wait=True, cancel_futures=True)


class PeerBlobs:
    """Port `Blobs`. Its tasks live in `group`. `alive` are the peers that the ledger holds alive,
    `holders` a hint who is likely to have a blob, the likeliest first."""

    def __init__(
        self,
        store: BlobFiles,
        *,
        me: PeerId,
        others: Others,
        alive: Callable[[], Iterable[PeerId]],
        group: asyncio.TaskGroup,
        on_disk_failed: Callable[[OSError], None],
        holders: Callable[[BlobRef], Sequence[PeerId]] = lambda _ref: (),
    ) -> None:
        self.store: Final = store
        self.threads: Final = Threads(on_disk_failed)
        self._pins: dict[bytes, float] = {}  # digest -> until when, in the loop's time
        self.places: Final = Places(me=me, others=others, alive=alive, holders=holders, group=group)
        self._fetcher = Fetcher(
            store, places=self.places, others=others, off_loop=self.threads, group=group
        )

    @property
    def folder(self) -> Path:
        return self.store.folder

    @property
    def total_bytes(self) -> int:
        return self.store.total_bytes

    def is_here(self, ref: BlobRef) -> bool:
        return self.store.is_here(ref)

    async def read(self, ref: BlobRef, offset: int, size: int) -> bytes:
        try:
            return await self.threads.quick(self.store.read_range, ref, offset, size)
        except NotHere:
            raise ResultLost(
                f"blob {ref} is not on this peer's disk (any more): fetch it from another first, "
                "or compute it again with `p2psched job retry`"
            ) from None

    async def adopt(self, files: Iterable[tuple[BlobRef, Path]]) -> None:
        await self.threads.slow(self.store.adopt, list(files))

    async def fetch(self, refs: Iterable[BlobRef]) -> None:
        """See the port. Raises Unavailable at once if this disk has no space for them."""
        await together(self._fetcher.fetch, list(dict.fromkeys(refs)), at_most=BLOBS_MAX)

    async def fetch_from(self, ref: BlobRef, source: PeerId) -> None:
        """As `fetch`, for one that `source` said it has."""
        await self._fetcher.fetch(ref, (source,))

    def pin(self, ref: BlobRef) -> None:
        """A client is about to submit a job that refers to it."""
        now = asyncio.get_running_loop().time()
        self._pins = {digest: until for digest, until in self._pins.items() if until > now}
        self._pins[ref.digest] = now + PIN_S

    async def remove(self, refs: Iterable[BlobRef]) -> list[BlobRef]:
        """Delete what nobody refers to any more, but for what is pinned, which is returned."""
        now = asyncio.get_running_loop().time()
        pinned: list[BlobRef] = []
        free: list[bytes] = []
        for ref in refs:
            if self._pins.get(ref.digest, 0.0) > now:
                pinned.append(ref)
            else:
                free.append(ref.digest)
        await self.threads.slow(self._delete, free, 0)
        return pinned

    async def collect(
        self,
        referenced: Callable[[], Set[bytes]],
        *,
        wall_ms: int,
        age_ms: int = GARBAGE_AGE_MS,
    ) -> int:
        """Delete blobs that nobody references and nobody touched for `age_ms`, and half ones that
        nobody went on with. Returns the bytes that are free. `referenced` must name, besides what
        the state holds, results that this peer has adopted and not committed yet."""
        await self.threads.slow(self.store.remove_stale, wall_ms / 1000)
        old = await self.threads.slow(self.store.untouched, age_ms)
        held = referenced()
        garbage = [digest for digest in old if digest not in held]
        freed = 0
        for start in range(0, len(garbage), GARBAGE_SLICE):
            held = referenced()
            part = [d for d in garbage[start : start + GARBAGE_SLICE] if d not in held]
            freed += await self.threads.slow(self._delete, part, age_ms)
        if garbage:
            log.info("blobs-collected", extra={"blobs": len(garbage), "bytes": freed})
        return freed

    async def old(self) -> list[bytes]:
        """What nobody touched lately: `drop` what of it nobody refers to."""
        return list(await self.threads.slow(self.store.untouched, GARBAGE_AGE_MS))

    async def drop(self, digests: Sequence[bytes]) -> None:
        """Delete these, unless somebody has touched them meanwhile."""
        for start in range(0, len(digests), GARBAGE_SLICE):
            part = digests[start : start + GARBAGE_SLICE]
            await self.threads.slow(self._delete, part, GARBAGE_AGE_MS)

    def _delete(self, digests: Sequence[bytes], age_ms: int) -> int:
        return sum(self.store.delete(digest, age_ms=age_ms) for digest in digests)

    def close(self) -> None:
        """Blocks until running work has ended."""
        self.threads.close()
        self.store.close()
