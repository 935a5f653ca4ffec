"""What attempts have printed, as calls. A part of the API, see `peer.api`.

Of each attempt that ended with a result the peers that hold the ledger keep what came with it: the
first and the last of each stream. The peer that ran it may have more on its disk, for a while.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from p2psched.model.errors import NoSpace, P2PSchedError
from p2psched.model.ids import PeerId
from p2psched.model.limits import KIB
from p2psched.model.log_messages import (
    AttemptPage,
    FetchAttempt,
    KeptAttempt,
    ListAttempts,
    LogAnswer,
    LogCall,
    OutputRead,
    ReadOutput,
)
from p2psched.peer.backfill import Source
from p2psched.peer.others import Others
from p2psched.peer.result_writer import ResultWriter
from p2psched.run.live_output import Outputs

PAGE_BYTES_MAX: Final = 256 * KIB


class LogsApi:
    def __init__(
        self,
        *,
        me: PeerId,
        results: ResultWriter,
        source: Source,
        others: Others,
        output: Outputs,
        linearize: Callable[[], Awaitable[None]],
    ) -> None:
        self._me = me
        self._others = others
        self._output = output
        self._results = results
        self._source = source
        self._linearize = linearize

    async def answer(self, body: LogCall) -> LogAnswer:
        """Raises a P2PSchedError for the caller."""
        match body:
            case FetchAttempt():
                return await self._attempt(body)
            case ListAttempts(job=job, after_grant=grant, after_start=start):
                found = await self._results.read_of(
                    job, lambda results: results.attempts(job, (grant, start), PAGE_BYTES_MAX)
                )
                return AttemptPage(tuple(found))
            case ReadOutput(peer=peer) if peer != self._me:
                if not self._source.knows_attempts:
                    return OutputRead(False)
                answer = await self._others.call(peer, body)
                assert isinstance(answer, OutputRead)
                return answer
            case ReadOutput():
                return await self._output.read(body)

    async def _attempt(self, body: FetchAttempt) -> KeptAttempt:
        if not body.here_only:
            await self._linearize()
        try:
            found = await self._results.read_of(
                body.job, lambda results: results.attempt(body.job, body.index, body.grant)
            )
        except NoSpace:
            if body.here_only:
                raise
            found = None
        if found is not None:
            segment, item = found
            return KeptAttempt(segment.cause, item, segment.busy_us)
        if body.here_only or not self._source.knows_attempts:
            return KeptAttempt("", None)
        return await self._of_others(body)

    async def _of_others(self, body: FetchAttempt) -> KeptAttempt:
        """This one may have taken a snapshot instead of what led there."""
        asked = msgspec.structs.replace(body, here_only=True)
        for peer in self._source.peers():
            try:
                answer = await self._source.call(peer, asked)
            except (P2PSchedError, TimeoutError):
                continue
            assert isinstance(answer, KeptAttempt)
            if answer.item is not None:
                return answer
        return KeptAttempt("", None)
