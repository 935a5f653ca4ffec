"""What the Raft core wants on disk, in the order that it says."""

from __future__ import annotations

from p2psched.core.raft.effects import Persist
from p2psched.store.log import LogStore
from p2psched.store.regain import end_regain


def perform(store: LogStore, persist: Persist) -> None:
    """Write; durable only after `store.sync`, but for a snapshot that is put in the log's place.
    Raises NoRoom (do the same again later), OSError, or Damaged if the disk gives back another
    snapshot than it was given."""
    # A piece that finds no space is taken again, and what was written before it too: a hard state
    # may be written twice, entries may not.
    assert persist.piece is None or not persist.entries
    store.write(
        hard_state=persist.hard_state,
        truncate_from=persist.truncate_from,
        entries=persist.entries,
    )
    if persist.piece is not None:
        store.snapshots.take_piece(persist.piece.snapshot, persist.piece.offset, persist.piece.data)
    if persist.install is not None:
        store.snapshots.install(persist.install)
        store.reset(persist.install)
        store.snapshots.end_install()
    if persist.regained:
        end_regain(store)
