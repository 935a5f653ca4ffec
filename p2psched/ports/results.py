"""Port `Results`: what a peer keeps of the committed results and of history, for reading.

Everything in it can be rebuilt by applying the ledger again, so it need not be durable at once;
`applied_index` tells from where. What the ledger has dropped by then comes back from other peers:
see `Gap`. Calls block (a file, SQLite): loops call them in a thread, one at a time and in order, so
that a read sees every write before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from p2psched.model.commands import Retried, Stamped
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import JobSpec, Segment


class Page:
    """Some results of a job in commit order, and where the next page starts."""

    __slots__ = ("next_position", "position", "positions", "segments")

    def __init__(self, position: int) -> None:
        self.position = position  # where this one starts
        self.segments: list[Segment] = []
        self.positions: list[int] = []  # of each segment; parts of one share theirs
        self.next_position = position

    def add(self, position: int, segment: Segment) -> None:
        self.segments.append(segment)
        self.positions.append(position)
        self.next_position = position + 1


class Gap(msgspec.Struct, frozen=True):
    """What a store may lack of a job: events of commands up to `upto`, and results at positions
    below `positions`."""

    upto: int
    positions: int


class KnownJob(msgspec.Struct, frozen=True):
    """What the ledger's state says of a job whose making this peer may have missed."""

    positions: int  # how many there are
    ended_wall_ms: int | None
    spec: JobSpec | None  # of one that runs


class Fill(msgspec.Struct, frozen=True):
    """A piece of what another peer has of a job; pieces come in order."""

    events: tuple[Stamped, ...] = ()
    spec: JobSpec | None = None
    page: Page | None = None
    # Of the segments in `page`, by position: under which grant and by whom they came.
    grants: Mapping[int, tuple[int, PeerId]] = {}
    attempts: tuple[Retried, ...] = ()


class Results(Protocol):
    @property
    def applied_index(self) -> int:
        """Entry index up to which everything is stored; 0 for an empty store."""
        ...

    def store(self, events: Sequence[Stamped], applied_index: int) -> None:
        """Keep `events` and note `applied_index`, both or neither after a crash. Entries at or
        below the store's own applied index must not be handed over again. `JobAdded` is the first
        event of a job, if it comes. `JobForgotten` takes everything of a job away, `JobReopened`
        the results of its tasks so far."""
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

    def attempt(self, job: JobId, index: int, grant: int) -> tuple[Segment, bytes] | None:
        """The item of an attempt that was not the last of its task, as `item`; None if it is not
        kept any more, or did not end by a result. Those run again since are among them."""
        ...

    def attempts(self, job: JobId, after: tuple[int, int], bytes_max: int) -> list[Retried]:
        """Such attempts in order of grant and first task behind `after`: at least one if there is
        one, then about as many as fit `bytes_max`."""
        ...

    def history(self, job: JobId, after: int, limit: int) -> list[Stamped]:
        """Events of a job with a command index above `after`, oldest first; of results only
        range, cause and time (their data is left empty)."""
        ...

    def checkpoint(self, applied_index: int) -> None:
        """Make everything durable, and note that nothing of entries up to here is left to store:
        those entries may not come again."""
        ...

    def close(self) -> None: ...


class GapResults(Results, Protocol):
    """Results of a peer that may never have applied some entries, because it took a snapshot."""

    def jump(self, applied_index: int, jobs: Mapping[JobId, KnownJob], upto: int) -> None:
        """Note that nothing was stored of entries after the own applied index up to this one,
        whose last command is `upto`. `jobs` are all that there are now; others are removed."""
        ...

    def gaps(self) -> dict[JobId, Gap]:
        """Jobs of which something may be missing ("" for the history of peers). Nobody may read
        them until their gap is filled."""
        ...

    def begin_fill(self, job: JobId, gap: Gap) -> bool:
        """Empty the gap; False if it is not there any more."""
        ...

    def fill(self, job: JobId, gap: Gap, piece: Fill) -> bool:
        """Take what belongs into the gap; False as above."""
        ...

    def end_fill(self, job: JobId, gap: Gap) -> bool:
        """The gap is filled; False as above."""
        ...
