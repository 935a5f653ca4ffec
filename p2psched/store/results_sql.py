"""What the result store asks of its file."""

from __future__ import annotations

from typing import Final

from p2psched.store.results_jobs import PEERS
from p2psched.store.results_rows import SEGMENT_COLUMNS

SELECT: Final = f"SELECT {SEGMENT_COLUMNS} FROM segment"  # noqa: S608
SEGMENTS: Final = f"{SELECT} WHERE job = ? AND position >= ? ORDER BY position, start"
# What starts where is looked up in two places: parts at position 0 by the key of the table, those
# behind by an index. So jobs of one segment, which are most, are in no second index.
PLACES: Final = ("INDEXED BY segment_start WHERE position > 0", "WHERE position = 0")
# Final results of a job never overlap (what is run again is cut out), so the last start at or
# before an index decides, in each of the two.
ITEM: Final = tuple(
    f"{SELECT} {place} AND job = ? AND start <= ? ORDER BY start DESC LIMIT 1" for place in PLACES
)
# For the same reason no segment before the last one that starts at or before them is looked at.
OVERLAPPING: Final = tuple(
    f"{SELECT} {place} AND job = ? AND start < ? AND stop > ?"  # noqa: S608
    f" AND start >= max(0, coalesce((SELECT max(start) FROM segment {place}"
    " AND job = ? AND start <= ?), 0))"
    for place in PLACES
)
PRUNE: Final = (
    f"DELETE FROM history WHERE job = {PEERS} AND (last, place) <= (SELECT last, place"  # noqa: S608
    f" FROM history WHERE job = {PEERS} ORDER BY last DESC, place DESC LIMIT 1 OFFSET ?)"
)
HISTORY: Final = (
    "SELECT last, place, crc, events FROM history WHERE job = ? AND last > ? ORDER BY last, place"
)
PUT_JOB: Final = "INSERT OR REPLACE INTO job VALUES (?, ?, ?, ?)"
PUT_SEGMENT: Final = "INSERT INTO segment VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
PUT_HISTORY: Final = "INSERT INTO history VALUES (?, ?, ?, ?, ?)"
