"""Keeps this peer's blobs in step with the ledger, in the background.

It takes copies that are lacking and fall to this peer, fetches what jobs refer to if it votes, says
so when it does not have what the ledger thinks it has, and removes what nobody refers to any more.
It refuses to judge before it has caught up with a majority: to a peer that knows nothing
everything looks like garbage.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Container, Iterable, Sequence
from itertools import islice
from typing import Final, Protocol

from p2psched.core.copies import Lack, held_by, lacking, referenced, without_holders
from p2psched.core.state import LedgerState
from p2psched.model.blob import BlobRef, ResultBlob
from p2psched.model.commands import Held, JobForgotten, Stamped
from p2psched.model.errors import P2PSchedError
from p2psched.model.ids import JobId, PeerId
from p2psched.model.limits import MIB
from p2psched.observe.beat import until_beat
from p2psched.peer.scheduler_loop import SchedulerLoop
from p2psched.ports.blobs import Blobs
from p2psched.ports.clock import Clock

log = logging.getLogger(__name__)

PERIOD_S: Final = 1.0  # between two looks at what lacks copies
REPAIR_AFTER_S: Final = 3.0  # a peer that restarts is back before anything is copied for it
REPAIRS_MAX: Final = 64  # blobs in one look; the next one goes on
REPAIR_BYTES_MAX: Final = 512 * MIB
COLLECT_EVERY: Final = 60  # looks
WHOLE_EVERY: Final = 10  # looks, where nothing lacked anything and the ledger has not gone on
QUORUM_PATIENCE_S: Final = 10.0


class KeptBlobs(Blobs, Protocol):
    """What the keeper asks beyond the port."""

    async def remove(self, refs: Iterable[BlobRef]) -> list[BlobRef]:
        """Delete these, but for what a client has pinned for a submit, which is returned."""
        ...

    async def collect(self, referenced: Callable[[], set[bytes]], *, wall_ms: int) -> int:
        """Delete old blobs that are not referenced; the bytes that are free."""
        ...


class Keeper:
    """`run` it beside the scheduler's loop; tell it of events and of damage."""

    def __init__(
        self,
        *,
        me: PeerId,
        scheduling: SchedulerLoop,
        blobs: KeptBlobs,
        is_voter: Callable[[], bool],
        clock: Clock,
        takers: Callable[[], Container[PeerId] | None] = lambda: None,
        on_forgotten: Callable[[JobId], None] = lambda _: None,
    ) -> None:
        """`takers`: who makes up for lost copies; None: every peer. `on_forgotten` hears which
        jobs are gone."""
        self._on_forgotten = on_forgotten
        self._me = me
        self._scheduling = scheduling
        self._blobs = blobs
        self._is_voter = is_voter
        self._clock = clock
        self._takers = takers
        self._since: dict[tuple[JobId, int, str], float] = {}  # short of copies, seen since
        self._forgotten: dict[BlobRef, None] = {}  # may go, if nobody else refers to them
        self._pinned: dict[BlobRef, None] = {}  # forgotten, and kept for a while: see `remove`
        self._suspect = True  # look whether all that we should have is here
        self._whole = -1  # entry of the ledger as of which nothing lacked anything
        self._wake: asyncio.Event | None = None  # at once, while it runs

    @property
    def _state(self) -> LedgerState:
        return self._scheduling.scheduler.machine

    def on_stored(self, events: Sequence[Stamped]) -> None:
        for stamped in events:
            if isinstance(stamped.event, JobForgotten):
                self._forgotten.update(dict.fromkeys(stamped.event.blobs))
                self._on_forgotten(stamped.event.job)

    def on_damaged(self, ref: BlobRef) -> None:
        """A blob that was here is not, or not any more."""
        log.warning("blob-missing", extra={"blob": str(ref)})
        self._suspect = True

    def on_missed(self, ref: BlobRef) -> None:
        """Somebody asked in vain for a blob. If the ledger thinks that it is here, it hears so
        at once: whoever is told that a result is lost may have it computed again right away."""
        if self._wake is None or self._wake.is_set():
            return
        if any(blob.ref == ref for _, blob in held_by(self._state, self._me)):
            self._suspect = True
            self._wake.set()

    async def run(self) -> None:
        looks = 0
        wake = self._wake = asyncio.Event()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(until_beat(PERIOD_S)):
                    await wake.wait()
            wake.clear()
            try:
                if self._has_work(looks) or looks % COLLECT_EVERY == 0:
                    await self._look(collect=looks % COLLECT_EVERY == 0)
                looks += 1
            except (P2PSchedError, TimeoutError) as error:  # no quorum, no space: later
                log.info("keeper-waits", extra={"reason": str(error)})

    def _has_work(self, looks: int) -> bool:
        """What was whole stays so until the ledger goes on: then a look, for which a majority is
        asked, is only for what somebody took away from this disk."""
        if self._forgotten:
            return True
        if self._whole == self._state.applied_index and not self._suspect and looks % WHOLE_EVERY:
            return False
        return bool(self._state.with_blobs or self._state.sent)

    async def _look(self, *, collect: bool) -> None:
        async with asyncio.timeout(QUORUM_PATIENCE_S):
            await self._scheduling.wait_linearizable()
        index, self._whole = self._state.applied_index, -1
        if self._suspect or collect:
            self._suspect = False
            await self._confess()
        await self._take_copies()
        is_whole = not self._since
        if self._is_voter():
            is_whole &= await self._fetch_specs()
        if collect:
            self._forgotten.update(self._pinned)
            self._pinned.clear()
        await self._remove_forgotten()
        if collect:
            await self._blobs.collect(self._referenced, wall_ms=self._clock.wall_ms())
        if is_whole:
            self._whole = index

    def _referenced(self) -> set[bytes]:
        """By the ledger, or by results that are on their way to it."""
        own = self._scheduling.scheduler.owner.blobs()
        return referenced(self._state, self._me) | {ref.digest for ref in own}

    async def _confess(self) -> None:
        """Say what the ledger thinks we have and is not here, and what it thinks is lost and is."""
        missing: dict[JobId, list[ResultBlob]] = {}
        for job, blob in held_by(self._state, self._me):
            if not self._blobs.is_here(blob.ref):
                missing.setdefault(job, []).append(blob)
        found: dict[JobId, list[ResultBlob]] = {}
        for job, blob in without_holders(self._state):
            if self._blobs.is_here(blob.ref):
                found.setdefault(job, []).append(blob)
        for job, blobs in missing.items():
            log.warning("blobs-missing", extra={"job": job, "count": len(blobs)})
            await self._say(job, blobs, held=False)
        for job, blobs in found.items():
            await self._say(job, blobs, held=True)

    async def _take_copies(self) -> None:
        taken: dict[JobId, list[ResultBlob]] = {}
        for lack in self._mine():
            with contextlib.suppress(P2PSchedError):  # its holders may be going, too
                await self._blobs.fetch((lack.blob.ref,))
                taken.setdefault(lack.job, []).append(lack.blob)
        for job, blobs in taken.items():
            log.info("copies-taken", extra={"job": job, "count": len(blobs)})
            await self._say(job, blobs, held=True)

    def _mine(self) -> list[Lack]:
        """What has been short of copies for a while, and falls to us."""
        now = asyncio.get_running_loop().time()
        mine: list[Lack] = []
        size = 0
        since, self._since = self._since, {}
        for lack in lacking(self._state, self._takers()):
            key = (lack.job, lack.blob.index, lack.blob.name)
            began = self._since[key] = since.get(key, now)
            if self._me not in lack.takers or now - began < REPAIR_AFTER_S:
                continue
            size += lack.blob.ref.size
            if len(mine) < REPAIRS_MAX and (not mine or size <= REPAIR_BYTES_MAX):
                mine.append(lack)
        return mine

    async def _fetch_specs(self) -> bool:
        """Code and arguments stay on a majority of the voters, whoever votes now. True if nothing
        of them was missing."""
        absent = (ref for ref in list(self._state.sent) if not self._blobs.is_here(ref))
        missing = list(islice(absent, REPAIRS_MAX))
        for ref in missing:
            with contextlib.suppress(P2PSchedError):  # nobody else is there who has it
                await self._blobs.fetch((ref,))
        return not missing

    async def _remove_forgotten(self) -> None:
        if not self._forgotten:
            return
        forgotten, self._forgotten = self._forgotten, {}
        still = self._referenced()
        free = [ref for ref in forgotten if ref.digest not in still]
        self._pinned.update(dict.fromkeys(await self._blobs.remove(free)))

    async def _say(self, job: JobId, blobs: Sequence[ResultBlob], *, held: bool) -> None:
        names = tuple((blob.index, blob.name, blob.ref.digest) for blob in blobs)
        # However long it takes: given up, it might commit after a newer report of ours.
        await self._scheduling.propose(Held(job, self._me, names, held))
