"""The large results of a simulated peer: what is on its disk, and what it says of it.

What `peer.copier` and `peer.keeper` are with asyncio. A copy is made in one moment, after a while;
what a peer fetches is checked, so that it never has a damaged blob without knowing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from p2psched.core.copies import held_by, lacking, live_peers, ranked, referenced
from p2psched.core.feed import members_of
from p2psched.core.owner import CopyBlobs
from p2psched.core.scheduler import Answered, Asked, Copied
from p2psched.core.state import LedgerState
from p2psched.model.blob import ResultBlob
from p2psched.model.commands import Held, JobForgotten, Stamped
from p2psched.model.ids import JobId
from p2psched.testing.sim_items import CopiesEnd
from p2psched.testing.sim_world import World

if TYPE_CHECKING:
    from p2psched.testing.sim_peer import SimPeer

COPY_US_MAX: Final = 1_000_000
LOOK_MS: Final = 400
REPAIR_AFTER_MS: Final = 1_000

Found = tuple[JobId, ResultBlob]


class SimKeeper:
    """Of one process. `peer.blobs` outlives it: digest -> False once the blob is not there any
    more."""

    TAG: Final = -1  # of its own proposals: callers count from 1

    def __init__(self, peer: SimPeer, world: World) -> None:
        self._peer = peer
        self._world = world
        self._look_at_ms = 0
        self._asked = False  # a report is on its way: one at a time, or an older one would win
        self._short_since: dict[tuple[JobId, int, str], int] = {}
        self._forgotten: dict[bytes, None] = {}

    @property
    def _state(self) -> LedgerState:
        return self._peer.scheduler.machine

    # --- copies before the result ---

    def perform(self, effect: CopyBlobs | Answered) -> None:
        if isinstance(effect, CopyBlobs):
            self._copy(effect)
        else:
            self._asked = False

    def _copy(self, effect: CopyBlobs) -> None:
        """They are on this disk now; elsewhere after a while, if this process lives."""
        for blob in effect.blobs:
            self._peer.blobs.put(blob.ref.digest)
        delay_us = 1 + int(self._world.rng.random() ** 3 * COPY_US_MAX)
        item = CopiesEnd(effect.number, effect.blobs, effect.copies)
        self._world.later(delay_us, self._peer, item)

    def end_copies(self, item: CopiesEnd) -> Copied:
        blobs = tuple(self._copied(blob, item.copies) for blob in item.blobs)
        return Copied(self._peer.now_ms, item.number, blobs)

    def _copied(self, blob: ResultBlob, copies: int) -> ResultBlob:
        me = self._peer.id
        holders = [me]
        others = [peer for peer in live_peers(self._state) if peer != me]
        for peer in ranked(blob.ref.digest, others):
            if len(holders) >= copies:
                break
            if self._world.carry_blob(me, peer, blob.ref.digest):
                holders.append(peer)
        return ResultBlob(blob.index, blob.name, blob.ref, tuple(sorted(holders)))

    # --- in step with the ledger ---

    def on_stored(self, events: Iterable[Stamped]) -> None:
        for stamped in events:
            if isinstance(stamped.event, JobForgotten):
                self._forgotten.update((ref.digest, None) for ref in stamped.event.blobs)

    def look(self, now_ms: int) -> None:
        if self._asked or self._peer.leaving or now_ms < self._look_at_ms:
            return
        self._look_at_ms = now_ms + LOOK_MS
        self._remove_forgotten()
        if not self._say(self._missing(), is_held=False, now_ms=now_ms):
            self._say(self._taken(now_ms), is_held=True, now_ms=now_ms)

    def _say(self, found: Iterable[Found], *, is_held: bool, now_ms: int) -> bool:
        """Report on one job; the next one later. True if there was one."""
        by_job: dict[JobId, list[tuple[int, str, bytes]]] = {}
        for job, blob in found:
            by_job.setdefault(job, []).append((blob.index, blob.name, blob.ref.digest))
        for job, names in by_job.items():
            self._asked = True
            command = Held(job, self._peer.id, tuple(names), is_held)
            self._peer.decide(Asked(now_ms, self.TAG, command))
            return True
        return False

    def _missing(self) -> Iterator[Found]:
        """What the ledger thinks we have and is not here."""
        for job, blob in held_by(self._state, self._peer.id):
            if not self._peer.blobs.get(blob.ref.digest):
                yield job, blob

    def _taken(self, now_ms: int) -> Iterator[Found]:
        """What has been short of copies for a while, falls to us, and came now."""
        since, self._short_since = self._short_since, {}
        me = self._peer.id
        for lack in lacking(
            self._state, {m.peer for m in members_of(self._peer.engine.raft.membership)}
        ):
            key = (lack.job, lack.blob.index, lack.blob.name)
            began_ms = self._short_since[key] = since.get(key, now_ms)
            digest = lack.blob.ref.digest
            if me in lack.takers and now_ms - began_ms >= REPAIR_AFTER_MS:
                here = self._peer.blobs.get(digest, False)
                if here or any(self._world.carry_blob(p, me, digest) for p in lack.blob.holders):
                    yield lack.job, lack.blob

    def _remove_forgotten(self) -> None:
        if not self._forgotten:
            return
        still = referenced(self._state, self._peer.id)
        for digest in self._forgotten:
            if digest not in still and digest in self._peer.blobs:
                self._peer.blobs[digest] = False
        self._forgotten.clear()
