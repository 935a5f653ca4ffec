"""How much work an owner hands over at once: a pure rule over what tasks are expected to take."""

from __future__ import annotations

from typing import Final, NamedTuple

from p2psched.core.owned import PROGRAM_BATCH_US

BATCH_US: Final = 50_000  # expected work in one batch: cost is paid per batch, loss is at most one
BATCH_US_MIN: Final = 2_000  # expected work worth a message to a worker
READY_US: Final = BATCH_US // 2  # a slot: expected work that runs or stands ready in short batches
READY_MAX: Final = 32  # a slot: such batches
# What a batch may take by a guess from other jobs of the same function: if this job's tasks take a
# hundred times as long, the batch is as long as any.
GUESSED_US: Final = BATCH_US // 100
FUNCTION_BATCH_MAX: Final = 1024
PROGRAM_BATCH_US_MIN: Final = 20_000
PROGRAM_BATCH_MAX: Final = 256


def batch_size(
    kind: str, queued_count: int, task_us: int | None, *, is_guess: bool, slots: int
) -> int:
    """Tasks, at least 1. `kind` is that of the job's head."""
    if task_us is None or queued_count == 1:
        return 1
    is_function = kind == "function"
    most = FUNCTION_BATCH_MAX if is_function else PROGRAM_BATCH_MAX
    most_us = BATCH_US if is_function else PROGRAM_BATCH_US
    least_us = BATCH_US_MIN if is_function else PROGRAM_BATCH_US_MIN
    fair = -(-queued_count // slots)
    # Leave some for the other slots, unless it is too little to be worth a message.
    share = max(-(-fair // 2), min(fair, least_us // task_us))
    return max(1, min(most, share, (GUESSED_US if is_guess else most_us) // task_us))


class Full(NamedTuple):
    """How full a peer's slots are."""

    slots: int
    busy: int  # slots that batches take, one behind another
    batches: int
    short_us: int  # what the short ones of these are expected to take


def has_room(full: Full, cpus: int, task_us: int | None, expected_us: int | None) -> bool:
    """True if one more batch may start: without `expected_us` not more than one stands ready behind
    each slot."""
    slots = full.slots
    busy = full.busy + cpus
    if busy <= slots:
        return True
    if task_us is None or task_us * 2 > BATCH_US:
        return False
    if busy <= slots * 2:
        return True
    if expected_us is None or full.batches >= slots * READY_MAX:
        return False
    return full.short_us + expected_us <= slots * READY_US
