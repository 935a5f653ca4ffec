"""What an owner gives to a peer that asks for tasks: a pure rule over its queue.

From the end, for what is at the front is begun soon; at most half of the expected work, so that
several may ask, and one task at least; only what would wait here for longer than it takes to move.
The more often a task has moved, the longer it must wait to move again: each move has to save twice
what the one before did, so no task goes back and forth. Who is slower, since others compute there,
gets less, and only what would end later here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from p2psched.core.spare import WHOLE

ROUND_US: Final = 10_000  # what a move takes: two messages and a round of the ledger, and some
CARRY_BYTES_PER_S: Final = (
    50_000_000  # of what the taker has to fetch: a slow disk's or a quick net's
)
LOTS_MAX: Final = 8  # entries of the queue that one answer takes from: each is a command
DOUBLINGS_MAX: Final = 20  # beyond it everything waits too short


class Lot(NamedTuple):
    """An entry of the queue."""

    tasks: int
    task_us: int  # expected, of one task
    cpus: int
    moves: int = 0  # that it has behind it
    may_go: bool = True
    carry_bytes: int = 0  # that its tasks can't start without, wherever they are

    @property
    def work_us(self) -> int:
        """Of one task, on all its slots."""
        return max(1, self.task_us * self.cpus)


def choose(
    lots: Sequence[Lot],
    *,
    slots: int,
    busy_us: int,
    taker_slots: int,
    most: int = 0,
    spare: int = WHOLE,
    taker_spare: int = WHOLE,
) -> list[tuple[int, int]]:
    """Which entries, and how many of the last tasks of each. `busy_us`: expected work of what has
    begun. `most`: tasks that the taker wants, if it says so. `spare`: per mille of each slot."""
    if not slots:  # nothing is ever here, or it is given back
        return []
    queue_us = sum(lot.tasks * lot.work_us for lot in lots)
    power, taker_power = slots * spare, taker_slots * taker_spare
    fair_us = (busy_us + queue_us) * taker_power // (power + taker_power)
    slower = max(0, spare * WHOLE // taker_spare - WHOLE)  # per mille: so much longer it takes
    left_us = min(queue_us // 2, fair_us)
    wait_us = (busy_us + queue_us) // slots
    chosen: list[tuple[int, int]] = []
    for position in range(len(lots) - 1, -1, -1):
        lot = lots[position]
        if lot.may_go and lot.cpus <= taker_slots and wait_us >= worth_us(lot, slower):
            count = min(lot.tasks, left_us // lot.work_us) or (0 if chosen else 1)
            count = min(count, most) if most else count
            if not count:
                break
            chosen.append((position, count))
            left_us -= count * lot.work_us
            if most:
                break
        wait_us -= lot.tasks * lot.work_us // slots
        if left_us <= 0 or len(chosen) >= LOTS_MAX:
            break
    return chosen


def worth_us(lot: Lot, slower: int = 0) -> int:
    """How long its tasks have to wait here that a move pays. `slower`: per mille of the time of a
    task here, that it takes longer there."""
    carry_us = lot.carry_bytes * 1_000_000 // CARRY_BYTES_PER_S
    return (ROUND_US << min(lot.moves, DOUBLINGS_MAX)) + carry_us + lot.task_us * slower // WHOLE
