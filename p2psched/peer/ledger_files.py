"""The ledger's files at start and at their end: what opening and failing mean for a peer."""

from __future__ import annotations

import logging
from typing import Final

from p2psched.core.raft.engine import found_cluster
from p2psched.model.errors import Damaged, Refused
from p2psched.model.limits import KIB, SNAPSHOT_LOG_BYTES
from p2psched.model.raft import Member
from p2psched.peer.static_group import is_static
from p2psched.store.disk import OsDisk
from p2psched.store.folder import DataFolder
from p2psched.store.log import SEGMENT_BYTES_MAX, LogStore, Recovered
from p2psched.store.marker import MarkerState
from p2psched.store.regain import open_or_regain

log = logging.getLogger(__name__)

SEGMENT_BYTES_MIN: Final = 4 * KIB


def open_log(
    folder: DataFolder,
    member: Member,
    *,
    founded_ms: int | None,
    snapshot_log_bytes: int = SNAPSHOT_LOG_BYTES,
) -> tuple[LogStore, Recovered]:
    """The log of this peer; that of a new cluster begins with `member` as its first voter, at
    `founded_ms` of Unix time (None: it founds none).

    Blocks. Raises Refused if the disk can't be used, and Damaged if there is nobody to ask for
    what is lost, or promises are lost too; else see `Recovered.lost`.
    """
    disk = OsDisk(folder.ledger_path)
    if folder.identity.incarnation > 0 and not disk.names() and not folder.following.is_set:
        # It may have voted and promised: with an empty log it would do both again.
        raise Damaged(
            f"the ledger of this peer is gone from {folder.ledger_path} and its identity is not: "
            "put it back, or join as a new peer with another --data"
        )
    try:
        store, recovered = open_or_regain(
            disk,
            has_others=bool(folder.address_book.load()) and not is_static(folder),
            segment_bytes_max=_segment_bytes(snapshot_log_bytes),
        )
        is_empty = not recovered.entries and recovered.snapshot is None and recovered.lost is None
        if founded_ms is not None and is_empty:
            hard, entry = found_cluster(member, 0, founded_ms)
            store.write(hard_state=hard, truncate_from=None, entries=[entry])
            store.sync()
            recovered = Recovered(
                hard_state=hard,
                entries=[entry],
                torn_bytes=recovered.torn_bytes,
                removed=recovered.removed,
                files=1,
                marker=recovered.marker,
            )
    except OSError as error:
        raise Refused(
            f"the ledger in {folder.ledger_path} can't be opened: {error.strerror}"
        ) from error
    folder.end_founding()
    folder.following.clear()  # before anything is promised
    _tell(recovered)
    for name in recovered.damaged:  # an older one and the log stood in for it
        log.critical("snapshot-damaged", extra={"file": name})
    return store, recovered


def _tell(recovered: Recovered) -> None:
    """What was not as a clean stop leaves it. Of what was cut no more can be claimed than that all
    up to the marker is there: it was either never synced, or damaged within the marker's lag."""
    if recovered.lost is not None:
        damage = recovered.lost
        where = {"file": damage.file, "offset": damage.offset, "error": str(damage)}
        log.critical("log-damaged", extra=where)
    if recovered.torn_bytes or recovered.removed:
        cut = {
            "bytes": recovered.torn_bytes,
            "removed": recovered.removed,
            "last_index": recovered.last_index,
            "synced_index": recovered.marked_index,
        }
        log.warning("log-tail-cut", extra=cut)
    match recovered.marker:
        case MarkerState.MISSING | MarkerState.DAMAGED:
            # The log is whole as far as it shows; that it ends where it should nobody can say.
            state = {"state": str(recovered.marker), "last_index": recovered.last_index}
            log.critical("log-marker-lost", extra=state)
        case MarkerState.NONE if recovered.entries:
            log.info("log-marker-begun", extra={"last_index": recovered.last_index})
        case _:
            pass


def _segment_bytes(snapshot_log_bytes: int) -> int:
    """Whole segments are removed: they must be small beside the log between two snapshots."""
    return min(SEGMENT_BYTES_MAX, max(SEGMENT_BYTES_MIN, snapshot_log_bytes // 2))
