"""What `LogStore.open` found."""

from __future__ import annotations

from dataclasses import dataclass

from p2psched.model.errors import Damaged
from p2psched.model.raft import Entry, HardState, Snapshot
from p2psched.store.marker import MarkerState
from p2psched.store.recovery import Findings
from p2psched.store.snapshots import Standing


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """What the disk held when the log was opened."""

    hard_state: HardState
    entries: list[Entry]  # contiguous; from index 1, or none missing behind the snapshot
    torn_bytes: int  # cut from the tail: never synced, or of the last group
    files: int
    snapshot: Snapshot | None = None
    state: bytes | memoryview = b""  # that the snapshot stands for
    removed: str = ""  # the last segment, of which not even the header was whole
    damaged: tuple[str, ...] = ()  # newer snapshots that were not sound; an older one stood in
    marker: MarkerState = MarkerState.NONE
    marked_index: int = 0  # of the last entry that the marker vouched for
    lost: Damaged | None = None  # all this is less than the peer knew: see `store.regain`

    @property
    def last_index(self) -> int:
        snapshot = self.snapshot.index if self.snapshot is not None else 0
        return self.entries[-1].index if self.entries else snapshot


def recovered_of(
    found: Findings, standing: Standing, entries: list[Entry], *, files: int
) -> Recovered:
    return Recovered(
        hard_state=found.hard_state,
        entries=entries,
        torn_bytes=found.torn_bytes,
        removed=found.remove or "",
        files=files,
        snapshot=standing.snapshot,
        state=standing.state,
        damaged=standing.damaged,
        marker=found.marker,
        marked_index=found.mark.index if found.mark is not None else 0,
    )
