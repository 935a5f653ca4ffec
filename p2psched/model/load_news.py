"""Load reports on their way: whole, or what differs from one that was told whole before.

A delta says all that differs from its base, so of several the newest is enough. Fields that a newer
version appends stand behind those that are known here, and are skipped.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import msgspec

from p2psched.model.load import LoadReport, TypeSpeed

SPEEDS_MAX: Final = 16  # of kinds of work in a report; those measured last
QUEUED_MAX: Final = 8
WARM_MAX: Final = 32
FIELDS: Final = tuple(field.name for field in msgspec.structs.fields(LoadReport))
_SPEEDS: Final = FIELDS.index("speeds")


class WholeLoad(msgspec.Struct, frozen=True, array_like=True, tag=110):
    report: LoadReport


class LoadDelta(msgspec.Struct, frozen=True, array_like=True, tag=111):
    base: int  # the number of the whole report
    number: int
    mask: int  # of the fields that differ
    values: tuple[object, ...]  # theirs, in order; of speeds only those that differ


LoadNews = WholeLoad | LoadDelta


def delta(base: LoadReport, now: LoadReport, names: Collection[str]) -> LoadDelta:
    """With the named fields of `now`."""
    mask = 0
    values: list[object] = []
    for position, name in enumerate(FIELDS):
        if name in names and name != "number":
            mask |= 1 << position
            values.append(getattr(now, name))
    if "speeds" in names:
        known = set(base.speeds)
        at = (mask & ((1 << _SPEEDS) - 1)).bit_count()
        values[at] = tuple(speed for speed in now.speeds if speed not in known)
    return LoadDelta(base.number, now.number, mask, tuple(values))


def applied(base: LoadReport, change: LoadDelta) -> LoadReport:
    """The report that a delta stands for. Raises ValueError if it stands for none."""
    values: list[object] = list(msgspec.to_builtins(base))
    rest = iter(change.values)
    for position, name in enumerate(FIELDS):
        if change.mask >> position & 1:
            try:
                values[position] = next(rest)
            except StopIteration:
                raise ValueError(f"a delta lacks a value for {name}") from None
    values[0] = change.number
    report = msgspec.convert(values, LoadReport)
    if change.mask >> _SPEEDS & 1:
        report = msgspec.structs.replace(report, speeds=merged(base.speeds, report.speeds))
    return report


def merged(old: tuple[TypeSpeed, ...], new: tuple[TypeSpeed, ...]) -> tuple[TypeSpeed, ...]:
    """The newest of each kind, SPEEDS_MAX at most."""
    kinds = {speed.kind for speed in new}
    return (*(speed for speed in old if speed.kind not in kinds), *new)[-SPEEDS_MAX:]
