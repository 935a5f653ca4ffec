"""What a follower answers: of what is on its disk and in its workers by itself, all else as one of
those who hold the ledger does. It passes a call on to its feeder, then to the others.

A call of a peer is never passed on: who holds the ledger may have passed it here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from p2psched.core.follower import Follower
from p2psched.model.blob_messages import ReadBlob, StatBlob
from p2psched.model.checkpoint_messages import DataCall
from p2psched.model.errors import Busy, Unavailable, UsageError
from p2psched.model.explain_messages import DecisionsOf, DecisionsTold, WallOf
from p2psched.model.load_messages import GetLoads, LoadTable
from p2psched.model.log_messages import ReadOutput
from p2psched.model.member_messages import GetStanding, Standing
from p2psched.model.messages import (
    AnswerBody,
    CallBody,
    CompactLedger,
    ContactList,
    Contacts,
    Done,
    GetStatus,
    OutputPiece,
    StopPeer,
    TailOutput,
)
from p2psched.model.progress_messages import ProgressOf
from p2psched.model.separation_messages import SeparationCall
from p2psched.model.sighting_messages import Sightings, WhereAre
from p2psched.model.status_messages import StatusAnswer
from p2psched.peer.large_data import LargeData
from p2psched.peer.others import Others
from p2psched.peer.progress import told
from p2psched.peer.separation import SeparationKeeper
from p2psched.run.live_output import Outputs

_NOWHERE: Final = (
    "this peer follows a feed, and reaches nobody who holds the ledger: `p2psched status` tells "
    "whom it tries"
)


class FollowerApi:
    def __init__(
        self,
        follower: Follower,
        *,
        others: Others,
        data: LargeData,
        output: Outputs,
        status: Callable[[], StatusAnswer],
        stop: Callable[[], None],
        where: Callable[[WhereAre], Sightings],
        loads: Callable[[], LoadTable],
        separation: SeparationKeeper,
        wall_of: WallOf,
    ) -> None:
        self._follower = follower
        self._others = others
        self._data = data
        self._output = output
        self._status = status
        self._stop = stop
        self._where = where
        self._loads = loads
        self._separation = separation
        self._wall_of = wall_of

    async def answer(self, body: CallBody) -> AnswerBody:
        """To a client. Raises a P2PSchedError for it."""
        answer = await self._answer_here(body)
        return answer if answer is not None else await self.ask(body)

    async def answer_peer(self, body: CallBody) -> AnswerBody:
        """Raises a P2PSchedError for the caller."""
        if isinstance(body, DataCall):
            return await self._data.answer(body)
        if isinstance(body, DecisionsOf):
            which = body.job, body.index
            given = self._follower.stealing.remembered(*which, self._wall_of)
            stood = self._follower.watching.remembered(*which, self._wall_of)
            return DecisionsTold((*given, *stood))
        if isinstance(body, ProgressOf):
            return told(self._follower.owner.pacing, body)
        answer = await self._answer_here(body)
        if answer is not None:
            return answer
        if isinstance(body, TailOutput):
            return OutputPiece(False, body.offset, b"")
        raise Unavailable("this peer holds no ledger: ask another")

    async def _answer_here(self, body: CallBody) -> AnswerBody | None:
        """None: others know."""
        if isinstance(body, GetStanding):
            return Standing(0, self._follower.cursor)
        match body:
            case GetStatus() | GetLoads():
                return self._status() if isinstance(body, GetStatus) else self._loads()
            case _ if isinstance(body, SeparationCall):
                return await self._separation.answer(body)
            case StopPeer():
                self._stop()
                return Done()
            case WhereAre():
                return self._where(body)
            case Contacts():
                return ContactList(())
            case CompactLedger():
                raise UsageError("this peer follows a feed and holds no ledger to compact")
            case TailOutput() | ReadOutput():
                return await self._output_here(body)
            case StatBlob() | ReadBlob():
                is_here = body.here or self._data.blobs.is_here(body.ref)
                return await self._data.answer(body) if is_here else None
            case _:
                return await self._data.answer(body) if isinstance(body, DataCall) else None

    async def _output_here(self, body: TailOutput | ReadOutput) -> AnswerBody | None:
        if isinstance(body, ReadOutput):
            is_ours = body.peer == self._follower.info.peer
            return await self._output.read(body) if is_ours else None
        piece = await self._output.tail(body.job, body.index, body.stderr, body.offset)
        return OutputPiece(True, *piece) if piece is not None else None

    async def ask(self, body: CallBody) -> AnswerBody:
        """The answer of a peer that holds the ledger. Raises what that one raises; Unavailable if
        none is within reach."""
        ranked = self._follower.feeders()
        feeder = self._follower.feeder
        last = Unavailable(_NOWHERE, retry_after_s=0.5)
        for peer in sorted(ranked, key=lambda peer: peer != feeder):
            try:
                return await self._others.call(peer, body)
            except Busy:
                raise  # the others are as busy
            except Unavailable as error:
                last = error
        raise last
