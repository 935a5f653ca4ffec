"""Checkpoints on their way between peers: asked for, answered, brought here whole or not at all.

What comes is verified once it is all on this disk, synced, and only then has its name. A source
that sends something else, or nothing for a while, is left.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import BinaryIO, Final

from p2psched.core.resuming import Ask, Search, Take, Wait, Without
from p2psched.model.blob import wait_s
from p2psched.model.checkpoint_messages import (
    PIECE_BYTES,
    CheckpointCall,
    CheckpointList,
    CheckpointPiece,
    CopyCheckpoint,
    FindCheckpoints,
    ReadCheckpoint,
)
from p2psched.model.checkpoints import Head
from p2psched.model.errors import Damaged, NoSpace, NotFound, P2PSchedError, Unavailable
from p2psched.model.ids import JobId, PeerId, short
from p2psched.model.messages import AnswerBody, Done
from p2psched.net.together import together
from p2psched.peer.blobs import Threads
from p2psched.peer.others import Others
from p2psched.peer.shared_runs import SharedRuns
from p2psched.ports.clock import Clock
from p2psched.store.checkpoints import CheckpointFiles
from p2psched.store.space import LEAST_BYTES, space_of

log = logging.getLogger(__name__)

PATIENCE_S: Final = 5.0  # for one piece, and for an answer beside what the bytes take
ASK_S: Final = 2.0  # for one peer to say what it has
PIECES_MAX: Final = 4  # on their way from one source
FETCHES_MAX: Final = 4  # checkpoints on their way here; further ones wait


class CheckpointWays:
    """`threads` do what blocks; `group` outlives all calls."""

    def __init__(
        self,
        files: CheckpointFiles,
        *,
        me: PeerId,
        others: Others,
        threads: Threads,
        group: asyncio.TaskGroup,
        clock: Clock,
    ) -> None:
        self._files = files
        self._me = me
        self._others = others
        self._threads = threads
        self._group = group
        self._clock = clock
        self._runs: SharedRuns[tuple[str, int, tuple[int, int]], None] = SharedRuns(group)
        self._places = asyncio.Semaphore(FETCHES_MAX)
        self.space_left_min = LEAST_BYTES  # as for blobs

    async def answer(self, body: CheckpointCall) -> AnswerBody:
        """Raises a P2PSchedError for the caller."""
        match body:
            case FindCheckpoints(job=job, task=task):
                return CheckpointList(
                    tuple(await self._threads.quick(self._files.saved, job, task))
                )
            case ReadCheckpoint(head=head, offset=offset):
                data = await self._threads.quick(self._files.read, head, offset, PIECE_BYTES)
                if not data:
                    raise _gone(head)
                return CheckpointPiece(data)
            case CopyCheckpoint(head=head, source=source):
                await self.fetch(head, source)
                return Done()

    async def copy_to(self, head: Head, peer: PeerId) -> None:
        """Raises what that one answers; Unavailable after a while without an answer."""
        try:
            async with asyncio.timeout(PATIENCE_S + wait_s(head.file_bytes)):
                await self._others.call(peer, CopyCheckpoint(head, self._me))
        except TimeoutError as error:
            raise Unavailable(f"peer {short(peer)} has not taken the checkpoint in time") from error

    # --- what comes here ---

    async def fetch(self, head: Head, source: PeerId) -> None:
        """Until it is durable here. Raises Damaged if what came is not what it should be, NoSpace,
        or what the source answers."""
        heads = await self._threads.quick(self._files.saved, JobId(head.job), head.task)
        if head not in heads:
            what = head.job, head.task, head.key
            await self._runs.join(what, lambda: self._fetch(head, source))

    async def _fetch(self, head: Head, source: PeerId) -> None:
        async with self._places:
            free = (await self._threads.quick(space_of, self._files.folder.parent)).free_bytes
            if free < head.file_bytes + self.space_left_min:
                raise NoSpace(f"no space for a checkpoint of {head.file_bytes:,} bytes here")
            await self._threads.slow(self._files.make, JobId(head.job), head.task)
            file = self._files.begin(head)  # not in a thread: who is cancelled would not close it
            try:
                await self._fill(file, head, source)
            except BaseException:
                self._files.drop(head, file)
                raise
            try:
                await self._threads.slow(self._files.finish, head, file)
            except ValueError as error:
                raise Damaged(
                    f"the checkpoint of peer {short(source)} is damaged: {error}"
                ) from error

    async def _fill(self, file: BinaryIO, head: Head, source: PeerId) -> None:
        descriptor = file.fileno()

        async def bring(offset: int) -> None:
            data = await self._ask_piece(head, offset, source)
            if len(data) != min(PIECE_BYTES, head.file_bytes - offset):
                raise Unavailable(f"peer {short(source)} sent a piece of another length")
            await self._threads.quick(os.pwrite, descriptor, data, offset)

        await together(bring, range(0, head.file_bytes, PIECE_BYTES), at_most=PIECES_MAX)

    async def _ask_piece(self, head: Head, offset: int, source: PeerId) -> bytes:
        try:
            async with asyncio.timeout(PATIENCE_S):
                answer = await self._others.call(source, ReadCheckpoint(head, offset))
        except TimeoutError as error:
            raise Unavailable(f"peer {short(source)} sends nothing") from error
        if not isinstance(answer, CheckpointPiece):
            raise Unavailable(f"peer {short(source)} answered {type(answer).__name__}")
        return answer.data

    # --- which one to go on from ---

    async def find(self, search: Search, job: JobId, task: int) -> Take | Without:
        """The newest that can be had whole, and is here then; or why there is none."""
        news = asyncio.Event()
        while True:
            step = search.next(self._clock.now_ms())
            match step:
                case Ask(peers=peers):
                    for peer in peers:
                        self._group.create_task(self._ask(search, job, task, peer, news))
                case Wait(until_ms=until_ms):
                    await _wait(news, until_ms - self._clock.now_ms())
                case Take():
                    if await self._have(search, step):
                        return step
                case Without():
                    return step

    async def _ask(
        self, search: Search, job: JobId, task: int, peer: PeerId, news: asyncio.Event
    ) -> None:
        try:
            async with asyncio.timeout(ASK_S):
                answer = await self._others.call(peer, FindCheckpoints(job, task))
        except (TimeoutError, P2PSchedError):
            return  # it may be asked again
        if isinstance(answer, CheckpointList):
            of_it = (head for head in answer.heads if (head.job, head.task) == (job, task))
            search.on_heads(peer, of_it)
            news.set()

    async def _have(self, search: Search, take: Take) -> bool:
        head, peer = take.head, take.peer
        damaged = True
        try:
            if peer == self._me:
                if await self._threads.slow(self._files.is_sound, head):
                    return True
            else:
                await self.fetch(head, peer)
                return True
        except Damaged as error:
            log.warning("checkpoint-damaged", extra={"peer": peer, "error": str(error)})
        except P2PSchedError as error:
            damaged = False
            log.info("checkpoint-source-failed", extra={"peer": peer, "error": str(error)})
        search.on_bad(head, peer, damaged=damaged)
        return False


async def _wait(news: asyncio.Event, ms: int) -> None:
    try:
        async with asyncio.timeout(max(0, ms) / 1000):
            await news.wait()
    except TimeoutError:
        return
    news.clear()


def _gone(head: Head) -> NotFound:
    return NotFound(
        f"this peer has no checkpoint {head.number} of task {short(head.job)}/{head.task} (any "
        "more): a newer one has taken its place"
    )
