"""What of a peer's slots is left for the cluster: others compute there, too, or it may not work all
the time. Read out of what it says of itself, so it is advice, and some seconds old.
"""

from __future__ import annotations

from typing import Final

from p2psched.model.load import LoadReport

WHOLE: Final = 1_000  # per mille: all of it
NOISE: Final = 100  # of the processors, by other programs: less is there on any machine
SPARE_MIN: Final = 20  # nobody is given up


def spare(report: LoadReport | None, slots: int) -> int:
    """Per mille of each slot, as long as all are in use. A peer with more slots than processors has
    whole ones if nobody else is there: that is how it was set up."""
    if report is None:
        return WHOLE
    left = report.duty
    if report.cores and report.foreign_cpu >= NOISE:
        free = report.cores * (WHOLE - report.foreign_cpu)
        left = min(left, free // max(1, min(slots, report.cores)))
    return max(SPARE_MIN, min(WHOLE, left))


def usable(slots: int, share: int, *, cpus: int = 1) -> int:
    """Slots that so much is left of: enough for one task of `cpus`."""
    return min(slots, max(cpus, round(slots * share / WHOLE)))
