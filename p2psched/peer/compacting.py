"""A ledger made as small as it can be, when somebody asks for it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from p2psched.model.errors import NoSpace
from p2psched.model.messages import LedgerCompacted
from p2psched.peer.log_writer import LogWriter
from p2psched.store.snapshots import KEPT
from p2psched.store.space import NoRoom

if TYPE_CHECKING:
    from p2psched.peer.raft_loop import RaftLedger

APPLIED_WAITS_MAX: Final = 100
APPLIED_WAIT_S: Final = 0.05


async def compact(ledger: RaftLedger, writer: LogWriter) -> LedgerCompacted:
    """Make a snapshot of what is applied, and let go of the log behind it. Where a majority of
    others could fill the log again, of the snapshot before, too. Raises NoSpace."""
    store = ledger.store
    try:
        before, upto = await writer.run(lambda: (store.disk_bytes(), store.begin_segment()))
        for _ in range(APPLIED_WAITS_MAX):  # else the segment before stays for now
            if ledger.engine.delivered >= upto:
                break
            await asyncio.sleep(APPLIED_WAIT_S)
        newest = await ledger.make_snapshot()
        has_others = len(ledger.engine.raft.membership.voters) > 2
        await writer.run(lambda: store.compact(1 if has_others else KEPT))
    except NoRoom as error:
        raise NoSpace(
            "the ledger found no space for a new segment: free some, then try again"
        ) from error
    return LedgerCompacted(
        before_bytes=before,
        after_bytes=store.disk_bytes(),
        snapshot_index=newest.index if newest is not None else 0,
        log_bytes=store.size_bytes,
        snapshots=len(store.snapshots.indices()),
    )
