"""Whether a peer takes one more proposal of a caller, or says `busy`.

Whoever waits in a long line waits for nothing: a submit that is answered late is asked again, and
makes the line longer. So the line of a peer is as long as the ledger serves in about half a second,
which it finds out by itself (additive increase, multiplicative decrease; Jacobson 1988): while
outcomes come in time the line may grow, once they come late it shrinks. What all peers together ask
of the leader is bounded by that, too, since each of them sees how late its own outcomes are.

It refuses what comes beyond the line, in bytes too, and jobs beyond those that the ledger may hold
at a time; never what was taken. Time is passed in. Nothing here is replicated: peers may differ.
"""

from __future__ import annotations

from typing import Final

import msgspec

from p2psched.model.limits import (
    MIB,
    PENDING_PROPOSALS_MAX,
    RUNNING_BYTES_MAX,
    RUNNING_JOBS_MAX,
)
from p2psched.model.status_messages import DoorStatus

LATE_MS: Final = 250  # an outcome that takes longer than the quickest by this shortens the line
SOON_MS: Final = LATE_MS // 2  # one that takes less lets it grow
# What the quickest takes may be the way to the others and their disks: no shorter line helps that.
QUICKEST_MS_MAX: Final = 200
QUICKEST_OF_MS: Final = 5_000  # twice that: the quickest of this span and the one before
# Of the line. It begins with what one connection may ask at a time, and always has room for a few.
LINE_START: Final = 256
LINE_MIN: Final = 32
LINE_BYTES_MAX: Final = 32 * MIB  # of code, arguments and values that wait in it
SHRINK: Final = 0.7  # by a late outcome, or to what would have been in time
SHRINK_MOST: Final = 0.25  # but no further at once: it may have been a single stall
GROW: Final = 0.1  # by each outcome that comes soon; by one, as long as none has been late
RETRY_MS_MIN: Final = 100
RETRY_MS_MAX: Final = 1_000
RETRY_FULL_MS: Final = 1_000  # while the ledger holds as many jobs as it may
_WEIGHT: Final = 0.1  # of the newest outcome in the moving average


class Busy(msgspec.Struct, frozen=True):
    """Ask again, not before `retry_ms`."""

    why: str
    retry_ms: int


class Door:
    """Of one peer, for all of its callers."""

    def __init__(self) -> None:
        self._line = float(LINE_START)
        self._waiting = self._bytes = 0
        self._wait_ms = 0.0
        self._cut_ms = 0  # when the line was shortened last
        self._quickest = (QUICKEST_MS_MAX, QUICKEST_MS_MAX)  # of this span, and of the one before
        self._span_ms = 0  # when it began
        self._refused = self._refused_bytes = self._refused_jobs = 0

    def refusal(self, size: int) -> Busy | None:
        """None: it may come in, and `enter` is next."""
        if self._waiting >= int(self._line):
            return self._refuse(f"{self._waiting:,} proposals wait for the ledger here")
        if self._waiting and self._bytes + size > LINE_BYTES_MAX:
            self._refused_bytes += 1
            waiting_mib = self._bytes / MIB
            return self._refuse(f"{waiting_mib:.1f} MiB of proposals wait for the ledger here")
        return None

    def job_refusal(self, running: int, running_bytes: int, size: int) -> Busy | None:
        """As `refusal`, for a job. `running`: jobs that have not ended."""
        if running >= RUNNING_JOBS_MAX or (running and running_bytes + size > RUNNING_BYTES_MAX):
            self._refused += 1
            self._refused_jobs += 1
            held = f"{running:,} jobs of {running_bytes / MIB:.0f} MiB have not ended"
            return Busy(held, RETRY_FULL_MS)
        return self.refusal(size)

    def enter(self, size: int) -> None:
        self._waiting += 1
        self._bytes += size

    def leave(self, size: int) -> None:
        """It waits no more, and what came of it says nothing of the ledger."""
        self._waiting -= 1
        self._bytes -= size
        assert self._waiting >= 0 <= self._bytes, "who leaves has entered"

    def served(self, size: int, *, since_ms: int, now_ms: int) -> None:
        """As `leave`, with an outcome. It entered at `since_ms`."""
        took_ms = now_ms - since_ms
        self._wait_ms += _WEIGHT * (took_ms - self._wait_ms)
        over_ms = took_ms - self._note_quickest(took_ms, now_ms)
        if over_ms > LATE_MS:
            # Those that entered before the last cut say nothing of what it has changed.
            if since_ms >= self._cut_ms:
                self._cut_ms = now_ms
                in_time = (took_ms - over_ms + LATE_MS) / took_ms
                self._line = max(LINE_MIN, self._line * max(SHRINK_MOST, min(SHRINK, in_time)))
        elif over_ms < SOON_MS and 2 * self._waiting >= self._line:
            step = GROW if self._cut_ms else 1.0
            self._line = min(self._line + step, PENDING_PROPOSALS_MAX)
        self.leave(size)

    def status(self) -> DoorStatus:
        return DoorStatus(
            refused=self._refused,
            refused_bytes=self._refused_bytes,
            refused_jobs=self._refused_jobs,
            waiting=self._waiting,
            waiting_bytes=self._bytes,
            line=int(self._line),
            wait_ms=round(self._wait_ms),
        )

    def _note_quickest(self, took_ms: int, now_ms: int) -> int:
        if now_ms - self._span_ms >= QUICKEST_OF_MS:
            self._span_ms = now_ms
            self._quickest = (QUICKEST_MS_MAX, self._quickest[0])
        quickest, before = self._quickest
        if took_ms < quickest:
            self._quickest = (took_ms, before)
        return min(took_ms, quickest, before)

    def _refuse(self, why: str) -> Busy:
        self._refused += 1
        return Busy(why, retry_ms(self._wait_ms))


def retry_ms(wait_ms: float) -> int:
    """When to come back, to where others wait so long."""
    return min(max(RETRY_MS_MIN, int(2 * wait_ms)), RETRY_MS_MAX)
