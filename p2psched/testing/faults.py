"""What goes wrong in a simulation, and how often.

`Faults.draw` draws every rate afresh for each seed, and each may be nothing: a run with all faults
at once hides the bugs that need a quiet minute before the one fault that matters (Groce et al.,
"Swarm testing", 2012).
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final

TAIL_US_MAX: Final = 400_000  # the slowest messages
VALUE_MAX: Final = 10_000_000  # of a length or a count
CUTS: Final = ("split", "one-way", "bridge", "alone")

Value = bool | int | float | tuple[str, ...]
Changes = tuple[tuple[str, Value], ...]  # fields of `Faults`, and what they shall be


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """Shares are 0..1 and means are over the whole cluster; the default is a good day."""

    drop: float = 0.0
    duplicate: float = 0.0
    in_order: bool = True  # of the messages of one link, as in a TCP connection
    delay_us: int = 500  # most messages take up to this
    tail: float = 0.0  # share of messages that take up to `TAIL_US_MAX`
    cut_every_ms: int = 0  # mean time between partitions; 0: never
    cut_ms_max: int = 5_000
    cuts: tuple[str, ...] = CUTS
    crash_every_ms: int = 0  # mean time between crashes at any moment; 0: never
    crash_all: float = 0.0  # share of those that take every peer
    crash_at_disk: float = 0.0  # at each durable point: before and after each write and sync
    crash_starting: float = 0.0  # of a start, somewhere between two steps of its disk
    crashes_max: int = 60
    power_loss: float = 0.5  # share of crashes that lose unsynced bytes; others kill the process
    restart_ms_max: int = 2_000
    sync_us_max: int = 500
    sync_fails: float = 0.0
    pause_every_ms: int = 0  # mean time between pauses of one peer (SIGSTOP); 0: never
    pause_ms_max: int = 3_000
    leave_every_ms: int = 0  # mean time between clean stops of one peer; 0: never
    damage_every_ms: int = 0  # mean time between losses of one large result on one disk; 0: never
    stale: float = 0.0  # share of what is sent into a cut that arrives once the cut is over
    clog_every_ms: int = 0  # mean time between clogs: see `SimNetwork.clog`; 0: never
    suspend_every_ms: int = 0  # mean time between naps of one machine; 0: never
    wipe_every_ms: int = 0  # mean time between losses of one whole disk; 0: never
    rot_every_ms: int = 0  # mean time between damages of durable bytes (`sim_rot`); 0: never
    full_every_ms: int = 0  # mean time between two disks that are full for a while; 0: never
    full_ms_max: int = 5_000
    write_fails: float = 0.0  # of the writes: cut short by an error
    read_fails: float = 0.0  # of the starts, and of the pieces of snapshots that are sent
    wall_step_every_ms: int = 0  # mean time between steps of a wall clock, of up to an hour
    replace_every_ms: int = 0  # mean time between replacements of one member (`sim_members`)
    regroup_every_ms: int = 0  # mean time between two wishes of people (`sim_group`)
    drain_every_ms: int = 0  # mean time between drains of one peer (`sim_drains`); 0: never
    misplace_every_ms: int = 0  # mean time between bad placements (`sim_stealing`); 0: never
    doubt_every_ms: int = 0  # mean time between two whims of gossip (`sim_doubts`); 0: never
    stall_every_ms: int = 0  # mean time between two that stand still (`sim_stalls`); 0: never
    hurt: float = 0.0  # of a restart: what its log had synced is damaged (`sim_hurt`)
    drift_ppm: int = 0  # each clock runs too fast or too slow by up to this
    turn_us: int = 0  # the loop of a peer takes in events for so long before it acts on them

    @staticmethod
    def draw(rng: random.Random) -> Faults:
        """Any mix of faults, from none to all."""
        return Faults(
            drop=rng.choice((0, 0, 0.01, 0.1, 0.3)),
            duplicate=rng.choice((0, 0, 0.05, 0.3)),
            in_order=rng.random() < 0.5,
            delay_us=rng.choice((200, 2_000, 20_000)),
            tail=rng.choice((0, 0, 0.02, 0.2)),
            cut_every_ms=rng.choice((0, 1_000, 4_000)),
            cut_ms_max=rng.choice((500, 3_000, 10_000)),
            crash_every_ms=rng.choice((0, 0, 1_500, 5_000)),
            crash_all=rng.choice((0, 0.1, 0.5)),
            crash_at_disk=rng.choice((0, 0, 0.01, 0.05, 0.15)),
            crash_starting=rng.choice((0, 0.2)),
            crashes_max=rng.choice((10, 30, 60)),
            power_loss=rng.choice((0.0, 0.5, 1.0)),
            restart_ms_max=rng.choice((5, 200, 2_000)),
            sync_us_max=rng.choice((300, 5_000, 50_000, 500_000)),
            sync_fails=rng.choice((0, 0, 0.01)),
            pause_every_ms=rng.choice((0, 0, 2_000, 6_000)),
            pause_ms_max=rng.choice((300, 3_000, 10_000, 60_000)),
            leave_every_ms=rng.choice((0, 0, 2_000)),
            stale=rng.choice((0, 0, 0.5, 1.0)),
            clog_every_ms=rng.choice((0, 0, 3_000, 10_000)),
            suspend_every_ms=rng.choice((0, 0, 0, 6_000)),
            wipe_every_ms=rng.choice((0, 0, 0, 5_000)),
            rot_every_ms=rng.choice((0, 300, 2_000)),
            full_every_ms=rng.choice((0, 0, 1_000, 4_000)),
            full_ms_max=rng.choice((500, 5_000)),
            write_fails=rng.choice((0, 0, 0.01)),
            read_fails=rng.choice((0, 0, 0.1)),
            wall_step_every_ms=rng.choice((0, 1_000)),
            drift_ppm=rng.choice((0, 500)),
            turn_us=rng.choice((0, 0, 300, 3_000)),
        )


DEFAULTS: Final[dict[str, Value]] = {
    field.name: getattr(Faults(), field.name) for field in fields(Faults)
}


def changed(faults: Faults, changes: Mapping[str, Value]) -> Faults:
    """Names and kinds of the values must be right: see `parse_change`."""
    values: dict[str, Any] = dict(changes)
    return replace(faults, **values)


def changes_of(faults: Faults) -> dict[str, Value]:
    """What is not as on a good day."""
    values = {name: getattr(faults, name) for name in DEFAULTS}
    return {name: value for name, value in values.items() if value != DEFAULTS[name]}


def text_of(value: Value) -> str:
    """As `parse_change` reads it."""
    return ",".join(value) if isinstance(value, tuple) else str(value)


def parse_change(text: str) -> tuple[str, Value]:
    """`NAME=VALUE`. Raises ValueError."""
    name, found, word = text.partition("=")
    if not found or name not in DEFAULTS:
        wrong = "names no fault" if found else "is no NAME=VALUE"
        raise ValueError(f"{text!r} {wrong}; names are {', '.join(DEFAULTS)}")
    default = DEFAULTS[name]
    if isinstance(default, tuple):
        cuts = tuple(word.split(","))
        if not set(cuts) <= set(CUTS):
            raise ValueError(f"{text!r}: cuts are {', '.join(CUTS)}")
        return name, cuts
    if isinstance(default, bool):
        if word not in {"True", "False"}:
            raise ValueError(f"{text!r}: it is True or False")
        return name, word == "True"
    try:
        value = type(default)(word)
    except ValueError:
        raise ValueError(f"{text!r}: {word!r} is no number") from None
    most = 1.0 if isinstance(default, float) else VALUE_MAX
    # What has a length on a good day can't be without one.
    least = 1 if default and isinstance(default, int) else 0
    if not least <= value <= most:
        raise ValueError(f"{text!r}: it is {least} to {most:g}")
    return name, value
