"""Port `Results`: what a peer keeps of the committed results and of history, for reading.

Everything in it can be rebuilt by applying the ledger again, so it need not be durable at once;
`applied_index` tells from where. Calls block (a file, SQLite): loops call them in a thread, one
at a time and in order, so that a read sees every write before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from p2psched.model.commands import Stamped
from p2psched.model.ids import JobId
from p2psched.model.job import JobSpec, Segment


class Page:
    """Some results of a job in commit order, and where the next page starts."""

    __slots__ = ("next_position", "positions", "segments")

    def __init__(self, position: int) -> None:
        self.segments: list[Segment] = []
        self.positions: list[int] = []  # of each segment; parts of one share theirs
        self.next_position = position

    def add(self, position: int, segment: Segment) -> None:
        self.segments.append(segment)
        self.positions.append(position)
        self.next_position = position + 1


class Results(Protocol):
    @property
    def applied_index(self) -> int:
        """Entry index up to which everything is stored; 0 for an empty store."""
        ...

    def store(self, events: Sequence[Stamped], applied_index: int) -> None:
        """Keep `events` and note `applied_index`, both or neither after a crash. Entries at or
        below the store's own applied index must not be handed over again. `JobForgotten` takes
        everything of a job away, `JobReopened` the results of its tasks so far."""
        ...

    def segments(self, job: JobId, position: int, bytes_max: int) -> Page:
        """Final results of a job in commit order from `position` on, at least one if there is
        one, then as many as fit `bytes_max`; without tasks that were run again since. Raises
        Damaged if a checksum does not match."""
        ...

    def spec(self, job: JobId) -> JobSpec | None:
        """What a job was submitted as; None if it is not known here."""
        ...

    def item(self, job: JobId, index: int) -> tuple[Segment, bytes] | None:
        """The final item of one task with its segment (whose data is left empty), or None."""
        ...

    def history(self, job: JobId, after: int, limit: int) -> list[Stamped]:
        """Events of a job with a command index above `after`, oldest first; of results only
        range, cause and time (their data is left empty)."""
        ...

    def close(self) -> None: ...
