"""How far running tasks are, for whoever asks this peer.

What runs here it knows; owners elsewhere it asks, each of them at most once a second however many
clients ask, and each answers with what is new since. Nothing is asked while nobody looks.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import msgspec

from p2psched.core.pacing import Pacing
from p2psched.model.errors import NotFound, P2PSchedError
from p2psched.model.ids import JobId, PeerId
from p2psched.model.progress_messages import (
    ROWS_MAX,
    GetProgress,
    JobProgress,
    ProgressAnswer,
    ProgressCall,
    ProgressOf,
    ProgressTold,
    TaskProgress,
)
from p2psched.net.together import together
from p2psched.peer.others import Others

FRESH_MS: Final = 1_000  # a peer is asked again after this
PATIENCE_S: Final = 1.0
ASKED_AT_ONCE_MAX: Final = 16
OWNERS_MAX: Final = 64  # of one job that are asked; who asks sees that there are more
KNOWN_MAX: Final = 256  # peers whose answers are kept; who was asked longest ago is forgotten


def told(pacing: Pacing, asked: ProgressOf) -> ProgressTold:
    """To another peer: all that runs here, if it is news."""
    if asked.seen == pacing.version:
        return ProgressTold(pacing.version)
    return ProgressTold(pacing.version, tuple(pacing.rows()[:ROWS_MAX]))


@dataclass(slots=True)
class _Known:
    asked_ms: int = 0
    told_ms: int = 0  # the age of what it said counts from here
    version: int = 0
    tasks: tuple[TaskProgress, ...] = ()
    is_silent: bool = False


class ProgressApi:
    def __init__(
        self,
        me: PeerId,
        pacing: Pacing,
        others: Others,
        owners: Callable[[JobId], Iterable[PeerId] | None],
        now_ms: Callable[[], int],
    ) -> None:
        """`owners`: who owns tasks of a job; None if there is no such job."""
        self._me = me
        self._pacing = pacing
        self._others = others
        self._owners = owners
        self._now_ms = now_ms
        self._known: dict[PeerId, _Known] = {}
        self._asking: dict[PeerId, asyncio.Event] = {}  # set once it has said, or has not

    async def answer(self, body: ProgressCall) -> ProgressAnswer:
        """Raises NotFound."""
        if isinstance(body, ProgressOf):
            return told(self._pacing, body)
        owners = self._owners(body.job)
        if owners is None:
            raise NotFound(f"there is no job {body.job}")
        return await self._of_job(body, sorted(set(owners)))

    async def _of_job(self, body: GetProgress, owners: list[PeerId]) -> JobProgress:
        others = [peer for peer in owners if peer != self._me][:OWNERS_MAX]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2 * PATIENCE_S):
                await self._hear(others)
        rows = [msgspec.structs.replace(row, peer=self._me) for row in self._pacing.rows()]
        for peer in others:
            known = self._of(peer)
            rows += _aged(known.tasks, peer, self._now_ms() - known.told_ms)
        mine = [row for row in rows if row.job == body.job]
        mine.sort(key=lambda row: row.index)
        silent = tuple(peer for peer in others if self._of(peer).is_silent)
        return JobProgress(tuple(mine[:ROWS_MAX]), silent)

    async def _hear(self, peers: list[PeerId]) -> None:
        """Ask those that were not asked lately, and wait for those whom others are asking."""
        now_ms = self._now_ms()
        under_way = [self._asking[peer] for peer in peers if peer in self._asking]
        due = [
            peer
            for peer in peers
            if peer not in self._asking and now_ms - self._of(peer).asked_ms >= FRESH_MS
        ]
        for peer in due:
            self._of(peer).asked_ms, self._asking[peer] = now_ms, asyncio.Event()
        try:
            await together(self._ask, due, at_most=ASKED_AT_ONCE_MAX)
            for said in under_way:
                await said.wait()
        finally:
            for peer in due:  # time may have been over before it was their turn
                self._end_asking(peer)

    async def _ask(self, peer: PeerId) -> None:
        known = self._of(peer)
        try:
            async with asyncio.timeout(PATIENCE_S):
                answer = await self._others.call(peer, ProgressOf(known.version))
        except (TimeoutError, P2PSchedError):
            known.is_silent = True
            return
        finally:
            self._end_asking(peer)
        assert isinstance(answer, ProgressTold)
        known.is_silent = False
        if answer.tasks is not None:
            known.version, known.tasks = answer.version, answer.tasks
            known.told_ms = self._now_ms()

    def _end_asking(self, peer: PeerId) -> None:
        said = self._asking.pop(peer, None)
        if said is not None:
            said.set()

    def _of(self, peer: PeerId) -> _Known:
        known = self._known.get(peer)
        if known is None:
            if len(self._known) >= KNOWN_MAX:
                del self._known[min(self._known, key=lambda each: self._known[each].asked_ms)]
            known = self._known[peer] = _Known(asked_ms=-FRESH_MS)
        return known


def _aged(tasks: Iterable[TaskProgress], peer: PeerId, age_ms: int) -> list[TaskProgress]:
    return [
        msgspec.structs.replace(
            row,
            peer=peer,
            ran_ms=row.ran_ms + age_ms,
            quiet_ms=row.quiet_ms + age_ms,
            left_ms=None if row.left_ms is None else max(0, row.left_ms - age_ms),
        )
        for row in tasks
    ]
