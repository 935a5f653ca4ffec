"""Fetches what this peer's result store lacks from peers that have it, one job after another.

A peer that took a snapshot has the ledger's state and not what led there; its results and history
come from others, through the calls that clients use: positions and command indices are the same
everywhere. Meanwhile reads of such a job are passed on (`Source.ask`). It refuses to take half a
job for a whole one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from p2psched.core.state import LedgerState
from p2psched.model.commands import Recorded
from p2psched.model.errors import NotFound, P2PSchedError, Unavailable
from p2psched.model.event_messages import FetchEvents, ListHooks, ReadPast
from p2psched.model.ids import JobId, PeerId, short
from p2psched.model.log_messages import AttemptPage, FetchAttempt, ListAttempts
from p2psched.model.messages import (
    AnswerBody,
    FetchHistory,
    FetchItem,
    FetchResults,
    History,
    ResultPage,
)
from p2psched.peer.others import Others
from p2psched.peer.result_writer import ResultWriter
from p2psched.ports.results import Fill, Gap, Page

log = logging.getLogger(__name__)

HISTORY_PAGE: Final = 200  # events; the first page carries the job's spec, too
CALL_PATIENCE_S: Final = 5.0
ATTEMPTS_LEVEL: Final = 5  # whoever knows this one keeps attempts that were not the last
RETRY_S: Final = 0.5  # after nobody had what is missing

Fetch = FetchResults | FetchItem | FetchHistory


class Source:
    """Other peers, as those that have what is missing here."""

    def __init__(
        self, others: Others, coordinator: Callable[[], PeerId | None], state: LedgerState
    ) -> None:
        self._others = others
        self._coordinator = coordinator
        self._state = state

    @property
    def knows_attempts(self) -> bool:
        """Older peers close the connection that asks them."""
        return self._state.level >= ATTEMPTS_LEVEL

    def peers(self) -> list[PeerId]:
        """Those within reach; the one that coordinates last, for it has most to do."""
        leader = self._coordinator()
        return sorted(self._others.connected(), key=lambda peer: (peer == leader, peer))

    async def ask(self, body: Fetch) -> AnswerBody:
        """The answer of a peer that has the whole job. `body` says `here_only`. Raises Unavailable
        if none is within reach."""
        for peer in self.peers():
            try:
                return await self.call(peer, body)
            except (Unavailable, TimeoutError):
                continue
        raise Unavailable(
            f"this peer still fetches results of job {short(body.job)}, and no other peer within "
            "reach has them all: `p2psched peers` shows who is missing",
            retry_after_s=1.0,
        )

    async def call(
        self,
        peer: PeerId,
        body: Fetch | FetchEvents | ReadPast | ListHooks | FetchAttempt | ListAttempts,
    ) -> AnswerBody:
        assert body.here_only
        async with asyncio.timeout(CALL_PATIENCE_S):
            return await self._others.call(peer, body)


class BackFill:
    """`run` it beside the loops."""

    def __init__(self, results: ResultWriter, source: Source) -> None:
        self._results = results
        self._source = source

    async def run(self) -> None:
        while True:
            job, gap = await self._results.wait_gap()
            if not await self._fill_from_anybody(job, gap):
                self._results.postpone_gap(job)
                await asyncio.sleep(RETRY_S)

    async def _fill_from_anybody(self, job: JobId, gap: Gap) -> bool:
        for peer in self._source.peers():
            try:
                await self._fill(peer, job, gap)
            except (Unavailable, NotFound, TimeoutError) as error:
                log.info("not-filled", extra={"job": job, "peer": peer, "reason": str(error)})
            except P2PSchedError as error:
                log.warning("not-filled", extra={"job": job, "peer": peer, "reason": str(error)})
            else:
                return True
        return False

    async def _fill(self, peer: PeerId, job: JobId, gap: Gap) -> None:
        """All of the gap from one peer; a gap that is not there any more ends it too."""
        if not await self._results.read(lambda results: results.begin_fill(job, gap)):
            return
        # History first: to answer it a peer waits until it has applied what is committed now.
        grants = await self._fill_history(peer, job, gap)
        position = 0
        while position < gap.positions:
            answer = await self._source.call(peer, FetchResults(job, position, here_only=True))
            assert isinstance(answer, ResultPage)
            if answer.next_position <= position:
                raise Unavailable(f"peer {short(peer)} lacks results from {position} on")
            page = Page(position)
            for at, segment in zip(answer.positions, answer.segments, strict=True):
                page.add(at, segment)
            page.next_position = position = answer.next_position
            await self._put(job, gap, Fill(page=page, grants=grants))
        await self._fill_attempts(peer, job, gap)
        await self._results.close_gap(job, gap)

    async def _fill_attempts(self, peer: PeerId, job: JobId, gap: Gap) -> None:
        after = (-1, -1)
        while job and self._source.knows_attempts:
            answer = await self._source.call(peer, ListAttempts(job, *after))
            assert isinstance(answer, AttemptPage)
            if not answer.attempts:
                return
            await self._put(job, gap, Fill(attempts=answer.attempts))
            after = (answer.attempts[-1].grant, answer.attempts[-1].segment.start)

    async def _fill_history(
        self, peer: PeerId, job: JobId, gap: Gap
    ) -> dict[int, tuple[int, PeerId]]:
        """Returns which grant and whom the result at each position came from."""
        grants: dict[int, tuple[int, PeerId]] = {}
        after, more = 0, True
        while more and after < gap.upto:
            body = FetchHistory(job, after, HISTORY_PAGE, here_only=True)
            answer = await self._source.call(peer, body)
            assert isinstance(answer, History)
            await self._put(job, gap, Fill(events=answer.events, spec=answer.spec))
            for event in (stamped.event for stamped in answer.events):
                if isinstance(event, Recorded):
                    grants[event.position] = (event.grant, event.peer)
            more = answer.more
            if answer.events:
                after = answer.events[-1].index
        return grants

    async def _put(self, job: JobId, gap: Gap, piece: Fill) -> None:
        await self._results.read(lambda results: results.fill(job, gap, piece))
