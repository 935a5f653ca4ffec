"""Large data of one peer, put together: its blobs, what it answers about them, and who keeps them.

Made before the scheduler (the executor needs blobs), attached to it after. Until then this peer has
blobs and knows nobody who has others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from p2psched.core.copies import holders_of, staying_peers
from p2psched.core.feed import members_of
from p2psched.core.state import LedgerState
from p2psched.model.blob import BlobRef
from p2psched.model.blob_messages import ReadBlob, StatBlob
from p2psched.model.checkpoint_messages import CheckpointCall, DataCall
from p2psched.model.errors import NotFound, ResultLost
from p2psched.model.ids import JobId, PeerId
from p2psched.model.messages import AnswerBody
from p2psched.model.raft import Membership
from p2psched.model.resumed import NoteResumed
from p2psched.peer.blob_api import BlobApi
from p2psched.peer.blobs import PeerBlobs
from p2psched.peer.checkpoint_ends import is_over, is_over_elsewhere
from p2psched.peer.checkpoints import Checkpoints
from p2psched.peer.copier import Copier, OnCopied
from p2psched.peer.others import Others
from p2psched.ports.clock import Clock
from p2psched.ports.engine import Standing
from p2psched.ports.executor import OnExecutorEvent
from p2psched.store.blobs import BlobFiles
from p2psched.store.checkpoints import CheckpointFiles

if TYPE_CHECKING:
    from p2psched.peer.keeper import Keeper
    from p2psched.peer.scheduler_loop import SchedulerLoop


class LargeData:
    """`group` outlives everything here; `close` after it."""

    def __init__(
        self,
        files: BlobFiles,
        *,
        me: PeerId,
        others: Others,
        group: asyncio.TaskGroup,
        on_disk_failed: Callable[[OSError], None],
        clock: Clock,
        checkpoint_budget: int = 0,
        on_forgotten: Callable[[JobId], None] = lambda _: None,
    ) -> None:
        """`checkpoint_budget`: bytes a minute for copies of them."""
        self._me = me
        self._others = others
        self._tasks = group
        self._state: LedgerState | None = None
        self._group: Callable[[], Membership] = Membership
        self._keeper: Keeper | None = None
        self._on_forgotten = on_forgotten
        self.blobs: Final = PeerBlobs(
            files,
            me=me,
            others=others,
            alive=self._alive,
            holders=self._holders,
            group=group,
            on_disk_failed=on_disk_failed,
        )
        self.checkpoints: Final = Checkpoints(
            CheckpointFiles(files.folder.parent / "checkpoints"),
            me=me,
            others=others,
            threads=self.blobs.threads,
            group=group,
            clock=clock,
            budget=checkpoint_budget,
        )
        self._api = BlobApi(self.blobs, me=me, others=others, voters=self._voters, group=group)

    def start(self, scheduling: SchedulerLoop, raft: Standing, clock: Clock) -> None:
        """Copy and keep from now on."""
        from p2psched.peer.keeper import Keeper  # noqa: PLC0415 (a follower never needs it)

        self._state, self._group = scheduling.scheduler.machine, lambda: raft.membership
        copier = self._copier(scheduling.on_copied)
        keeper = self._keeper = Keeper(
            me=self._me,
            scheduling=scheduling,
            blobs=self.blobs,
            is_voter=lambda: raft.membership.is_voter(self._me),
            clock=clock,
            takers=lambda: {member.peer for member in members_of(raft.membership)},
            on_forgotten=self._on_forgotten,
        )
        self.blobs.store.on_damaged = keeper.on_damaged
        self.blobs.places.catch_up = scheduling.wait_linearizable
        scheduling.attach_blobs(copy=copier.start, on_stored=keeper.on_stored)
        self._tasks.create_task(copier.run())
        self._tasks.create_task(keeper.run())
        self._attach_checkpoints(
            scheduling.on_executed,
            partial(is_over, scheduling),
            scheduling.note,
        )

    def follow(
        self,
        state: LedgerState,
        group: Callable[[], Membership],
        *,
        on_copied: OnCopied,
        on_executed: OnExecutorEvent,
        note: Callable[[NoteResumed], object],
        catch_up: Callable[[], Awaitable[None]],
    ) -> Copier:
        """As `start`, on a peer that holds no ledger: it copies, and others keep. `state` knows who
        holds the ledger, which has what jobs were submitted with."""
        self._state, self._group = state, group
        self.blobs.places.catch_up = catch_up
        copier = self._copier(on_copied)
        self._tasks.create_task(copier.run())
        over = partial(is_over_elsewhere, self._others, group)
        self._attach_checkpoints(on_executed, over, note)
        return copier

    def _copier(self, on_copied: OnCopied) -> Copier:
        assert self._state is not None
        return Copier(me=self._me, state=self._state, others=self._others, on_copied=on_copied)

    async def answer(self, body: DataCall) -> AnswerBody:
        """Raises a P2PSchedError for the caller."""
        if isinstance(body, CheckpointCall):
            return await self.checkpoints.answer(body)
        try:
            return await self._api.answer(body)
        except (NotFound, ResultLost):
            if isinstance(body, (StatBlob, ReadBlob)) and self._keeper is not None:
                self._keeper.on_missed(body.ref)
            raise

    async def secure(self, refs: Sequence[BlobRef]) -> None:
        """Before a job is accepted: what it refers to is durable on a majority of the voters."""
        await self._api.secure(refs)

    def are_secure(self, refs: Sequence[BlobRef]) -> bool:
        """True if `secure` would do nothing."""
        return all(map(self._api.is_secure, refs))

    def _attach_checkpoints(
        self,
        on_executed: OnExecutorEvent,
        over: Callable[[JobId, int], Awaitable[bool]],
        note: Callable[[NoteResumed], object],
    ) -> None:
        def around() -> tuple[list[PeerId], list[PeerId], list[PeerId]]:
            assert self._state is not None
            rows, holders = self._state.peers, {m.peer for m in members_of(self._group())}
            away = [peer for peer, row in rows.items() if not row.live]
            return self._alive(), away, [p for p in staying_peers(self._state) if p in holders]

        self.checkpoints.ways.space_left_min = self.blobs.store.space_left_min
        self.checkpoints.attach(on_executed, around, over, note)

    def close(self) -> None:
        """Blocks until running work has ended."""
        self.checkpoints.close()
        self.blobs.close()

    def _alive(self) -> list[PeerId]:
        state = self._state
        return [] if state is None else [peer for peer, row in state.peers.items() if row.live]

    def _holders(self, ref: BlobRef) -> Sequence[PeerId]:
        return () if self._state is None else holders_of(self._state, ref)

    def _voters(self) -> tuple[PeerId, ...]:
        return tuple(member.peer for member in self._group().voters)
