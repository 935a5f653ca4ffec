"""What a job's tasks hold while they run."""

from __future__ import annotations

import msgspec

from p2psched.model.lock_actions import LOCK_CAPACITY_MAX, fault_of_name


class Hold(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Each task holds one permit of a lock from before it starts until it has ended, or was lost.
    Clients may take the same lock; all who do name the same capacity while it is in use.

    `in_order`: the job holds the lock from its turn to its end, and its tasks run one at a time, by
    index: jobs that name the same lock run one after the other, as they were committed."""

    lock: str
    capacity: int = 1
    in_order: bool = False

    def __post_init__(self) -> None:
        fault = fault_of_name(self.lock)
        if fault:
            raise ValueError(fault)
        if type(self.capacity) is not int or not 1 <= self.capacity <= LOCK_CAPACITY_MAX:
            raise ValueError(
                f"the capacity of a lock is 1 to {LOCK_CAPACITY_MAX}, not {self.capacity!r}"
            )
        if self.in_order and self.capacity != 1:
            raise ValueError("tasks that run in order hold a lock of capacity 1")
