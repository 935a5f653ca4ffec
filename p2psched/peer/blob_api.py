"""What a peer answers about blobs: reads, uploads of clients, copies for other peers.

An upload counts once it is durable on a majority of the voters' disks, as everything that a job
rests on. It refuses what does not fit its name before it costs anything: a list of other
checksums, a chunk of another length or content, one that nobody began.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from p2psched.core.admission import Busy as Refusal
from p2psched.core.admission import retry_ms
from p2psched.model import digests
from p2psched.model.blob import BlobRef, wait_s
from p2psched.model.blob_messages import (
    BeginUpload,
    BlobCall,
    BlobChunk,
    BlobList,
    CopyBlob,
    EndUpload,
    ReadBlob,
    StatBlob,
    UploadChunk,
    UploadState,
)
from p2psched.model.errors import NotFound, P2PSchedError, Unavailable, UsageError
from p2psched.model.ids import PeerId
from p2psched.model.messages import AnswerBody, Done
from p2psched.model.taskset import EMPTY
from p2psched.net.together import together
from p2psched.peer.blobs import PeerBlobs
from p2psched.peer.lines import busy_error
from p2psched.peer.others import Others
from p2psched.peer.shared_runs import SharedRuns
from p2psched.store.blob_reads import NotHere

log = logging.getLogger(__name__)

HELD_CHUNKS_MAX: Final = 64  # uploaded and not yet written, 32 MiB; more are answered `busy`
COPY_PATIENCE_S: Final = 5.0  # and what the bytes take: for a copy on another peer
COPY_RETRY_S: Final = 0.2
SECURED_S: Final = 240.0  # as `client.session.SENT_S`, less than a pin lasts (`peer.blobs.PIN_S`)
SECURED_MAX: Final = 4096  # beyond it all are asked for again
_WEIGHT: Final = 0.1  # of the newest chunk in a moving average
SPREADS_MAX: Final = 32  # blobs on their way to a majority; further ones wait


class BlobApi:
    """`voters` are the current ones, this peer among them if it votes."""

    def __init__(
        self,
        blobs: PeerBlobs,
        *,
        me: PeerId,
        others: Others,
        voters: Callable[[], tuple[PeerId, ...]],
        group: asyncio.TaskGroup,
    ) -> None:
        self._blobs = blobs
        self._store = blobs.store
        self._threads = blobs.threads
        self._me = me
        self._others = others
        self._voters = voters
        self._group = group
        self._held_chunks = 0
        self._chunk_ms = 0.0  # that one waits for its turn and the disk: a moving average
        self._spreads = asyncio.Semaphore(SPREADS_MAX)
        self._secured: dict[bytes, tuple[float, tuple[PeerId, ...]]] = {}  # digest -> until, voters
        self._spreading: SharedRuns[bytes, None] = SharedRuns(group)

    async def answer(self, body: BlobCall) -> AnswerBody:
        """Raises a P2PSchedError for the caller."""
        match body:
            case StatBlob() | ReadBlob():
                return await self._read(body)
            case BeginUpload():
                return await self._begin(body)
            case UploadChunk():
                return await self._chunk(body)
            case EndUpload(ref=ref):
                return await self._end(ref)
            case CopyBlob():
                return await self._copy(body)

    # --- reads ------------------------------------------------------------------------------------

    async def _read(self, body: StatBlob | ReadBlob) -> AnswerBody:
        ref = body.ref
        if isinstance(body, ReadBlob) and not 0 <= body.chunk < digests.chunk_count(ref.size):
            raise UsageError(
                f"blob {ref} of {ref.size:,} bytes has {digests.chunk_count(ref.size)} chunks, "
                f"counted from 0: there is no chunk {body.chunk}"
            )
        if self._store.is_here(ref):
            try:
                if isinstance(body, ReadBlob):
                    chunk = await self._threads.quick(self._store.read_chunk, ref, body.chunk)
                    return BlobChunk(chunk)
                return BlobList(await self._threads.slow(self._store.chunk_list, ref))
            except NotHere:
                pass  # damaged, or deleted meanwhile
        if body.here:
            raise NotFound(f"this peer has no blob {ref}: ask another")
        if isinstance(body, ReadBlob):
            return await self._blobs.places.ask(ref, ReadBlob(ref, body.chunk, here=True))
        return await self._blobs.places.ask(ref, StatBlob(ref, here=True))

    # --- uploads ----------------------------------------------------------------------------------

    async def _begin(self, body: BeginUpload) -> UploadState:
        ref = body.ref
        if self._store.touch(ref):
            return UploadState(EMPTY)
        expected = digests.chunk_count(ref.size) * digests.DIGEST_BYTES
        if len(body.digests) != expected:
            raise UsageError(
                f"a blob of {ref.size:,} bytes has {expected:,} bytes of chunk digests, not "
                f"{len(body.digests):,}"
            )
        try:
            incoming = await self._threads.slow(self._store.begin, ref, body.digests)
        except ValueError as error:
            raise UsageError(f"blob {ref}: {error}") from error
        return UploadState(await self._threads.quick(incoming.missing))

    async def _chunk(self, body: UploadChunk) -> Done:
        incoming = self._store.incoming(body.ref)
        if incoming is None:
            if self._store.is_here(body.ref):
                return Done()
            raise _not_begun(body.ref)
        if self._held_chunks >= HELD_CHUNKS_MAX:
            why = f"{HELD_CHUNKS_MAX} chunks wait for this peer's disk"
            raise busy_error(Refusal(why, retry_ms(self._chunk_ms)))
        self._held_chunks += 1
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        try:
            await self._threads.quick(incoming.write, body.chunk, body.data)
        except ValueError as error:
            raise UsageError(f"blob {body.ref}: {error}") from error
        finally:
            self._held_chunks -= 1
            took_ms = (loop.time() - began_s) * 1000
            self._chunk_ms += _WEIGHT * (took_ms - self._chunk_ms)
        return Done()

    async def _end(self, ref: BlobRef) -> Done:
        self._blobs.pin(ref)
        if not self._store.touch(ref):
            incoming = self._store.incoming(ref)
            if incoming is None:
                raise _not_begun(ref)
            if not incoming.is_whole:
                missing = await self._threads.quick(incoming.missing)
                raise UsageError(
                    f"blob {ref} lacks {len(missing)} of its {len(incoming.digests)} chunks "
                    f"(the first is {missing.first}): send them before you end the upload"
                )
            await self._threads.slow(self._store.finish, incoming)
        await self._spread_once(ref)
        return Done()

    async def _spread_once(self, ref: BlobRef) -> None:
        voters = self._voters()
        await self._spreading.join(ref.digest, lambda: self._spread(ref))
        now = asyncio.get_running_loop().time()
        if len(self._secured) >= SECURED_MAX:
            self._secured.clear()
        self._secured[ref.digest] = (now + SECURED_S, voters)

    def is_secure(self, ref: BlobRef) -> bool:
        """True if a majority of the voters of now had it a little while ago: they keep it pinned
        for longer than that."""
        until, voters = self._secured.get(ref.digest, (0.0, ()))
        fresh = until > asyncio.get_running_loop().time() and voters == self._voters()
        return fresh and self._blobs.is_here(ref)

    # --- copies -----------------------------------------------------------------------------------

    async def _copy(self, body: CopyBlob) -> Done:
        if body.pin:
            self._blobs.pin(body.ref)
        try:
            async with asyncio.timeout(COPY_PATIENCE_S + wait_s(body.ref.size)):
                await self._blobs.fetch_from(body.ref, body.source)
        except TimeoutError as error:
            raise Unavailable(f"blob {body.ref} did not come here in time") from error
        return Done()

    async def secure(self, refs: Sequence[BlobRef]) -> None:
        """What a job refers to is here, and durable on a majority of the voters' disks. Raises
        ResultLost for what nobody has: upload it first; Unavailable without a majority."""
        refs = [ref for ref in refs if not self.is_secure(ref)]
        if not refs:
            return
        for ref in refs:
            self._blobs.pin(ref)
        await self._blobs.fetch(refs)
        await together(self._spread_once, refs)

    async def copy_to(self, ref: BlobRef, peer: PeerId) -> None:
        """Have a blob that is here on the disk of another peer. Raises what that one answers;
        Unavailable after a while without an answer."""
        try:
            async with asyncio.timeout(COPY_PATIENCE_S + wait_s(ref.size)):
                await self._others.call(peer, CopyBlob(ref, self._me, pin=True))
        except TimeoutError as error:
            raise Unavailable(f"no answer to the copy of blob {ref}") from error

    async def _spread(self, ref: BlobRef) -> None:
        """Until a majority of the voters has the blob, durable. What is still under way then goes
        on: a copy more than a majority costs nothing that was not paid already."""
        patience_s = COPY_PATIENCE_S + wait_s(ref.size)
        deadline = asyncio.get_running_loop().time() + patience_s
        have = {self._me}
        changed = asyncio.Event()
        asked: set[PeerId] = set()
        try:
            async with asyncio.timeout_at(deadline), self._spreads:
                while not self._is_majority(have):
                    for peer in self._voters():
                        if peer not in asked and peer != self._me:
                            asked.add(peer)
                            copying = self._copy_until(ref, peer, deadline, have, changed)
                            self._group.create_task(copying)
                    changed.clear()
                    await changed.wait()
        except TimeoutError as error:
            raise Unavailable(
                f"blob {ref} is durable on {len(have)} peers, which is no majority of the "
                f"{len(self._voters())} voters: try again; `p2psched peers` shows who is there"
            ) from error

    def _is_majority(self, have: set[PeerId]) -> bool:
        voters = self._voters()
        return sum(peer in have for peer in voters) > len(voters) // 2

    async def _copy_until(
        self,
        ref: BlobRef,
        peer: PeerId,
        deadline: float,
        have: set[PeerId],
        changed: asyncio.Event,
    ) -> None:
        """Adds `peer` to `have`. Tried again only as long as a majority is missing."""
        loop = asyncio.get_running_loop()
        while loop.time() < deadline and not self._is_majority(have):
            try:
                await self.copy_to(ref, peer)
            except P2PSchedError as error:
                log.info(
                    "blob-copy-failed",
                    extra={"blob": str(ref), "peer": peer, "error": str(error)},
                )
                await asyncio.sleep(COPY_RETRY_S)
            else:
                have.add(peer)
                break
        changed.set()


def _not_begun(ref: BlobRef) -> NotFound:
    return NotFound(f"no upload of blob {ref} was begun at this peer: begin it again")
