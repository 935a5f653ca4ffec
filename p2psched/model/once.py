"""How often a task may start, and what is said of tasks that may not start twice: the command and
its steps, and what follows (`commands`).
"""

from __future__ import annotations

import enum
from typing import Final

import msgspec

from p2psched.model.after import AfterEvent
from p2psched.model.errors import UsageError
from p2psched.model.ids import JobId, PeerId
from p2psched.model.retry_events import RetryEvent
from p2psched.model.taskset import EMPTY, TaskSet

Grant = int  # as in `commands`
REASON_LEN_MAX: Final = 1_000
BY_LEN_MAX: Final = 255
RESULT_BYTES_MAX: Final = 256 * 1024  # of all results that one decision brings
DECIDED_MAX: Final = 10_000  # tasks of one decision


# Of a lease: below it an election, or a peer's look at who is silent, would cost tasks their lives.
LEASE_MS_MIN: Final = 3_000
LEASE_MS_MAX: Final = 24 * 3600 * 1000
LEASE_MS: Final = 15_000  # where nobody says otherwise
# Clocks that run apart by 1 % of the lease (those of machines do by a twentieth of that), and
# what ends a task may be so late and take so long.
DRIFT: Final = 100
GUARD_MS: Final = 500


class Start(enum.IntEnum):
    """What a task's start costs before, and what its owner's loss means."""

    LEAST = 0  # nothing; it runs again
    ONCE = 1  # a commit; nobody knows, so it runs again only if a person says so
    EXCLUSIVE = 2  # a commit, and more while it runs; it runs again once its lease has lapsed


def margin_ms(lease_ms: int) -> int:
    """Ledger time from where a lease is over to where its task may run elsewhere."""
    return lease_ms // DRIFT + GUARD_MS


def check_start(start: Start, lease_ms: int, hold: object, on_lapse: object) -> None:
    """Raises ValueError if no job can be so. `hold`: of a lock; `on_lapse`: a rule for leases that
    lapse; None if it has none."""
    if start and hold is not None:
        raise ValueError(
            "a task that must not start twice, or is exclusive, holds no lock, for nobody could "
            "say when to let go of it: take the lock in the task, with a lease"
        )
    if start is not Start.EXCLUSIVE:
        if lease_ms or on_lapse is not None:
            raise ValueError("a lease, and a rule for lease-lost, are for `start exclusive`")
    elif type(lease_ms) is not int or not LEASE_MS_MIN <= lease_ms <= LEASE_MS_MAX:
        raise ValueError(f"a lease is {LEASE_MS_MIN // 1000} s to 24 h, not {lease_ms} ms")


class Verdict(enum.IntEnum):
    """What a person says of a task that is unknown."""

    SUCCEEDED = 0
    FAILED = 1
    RUN_AGAIN = 2


def word_of(verdict: Verdict) -> str:
    return verdict.name.lower().replace("_", "-")


class Started(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=1):
    """Its owner is about to start these, and starts none before this is committed. Of exclusive
    tasks: they have a lease from now on, or another one."""

    grant: Grant
    tasks: TaskSet
    peer: PeerId
    incarnation: int


class Unsure(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=2):
    """Its owner has begun these, runs them no more, and does not know how they ended."""

    grant: Grant
    tasks: TaskSet


class Decide(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=3):
    """What a person says of tasks that are unknown. `data`: of successes, a chunk of an item
    each."""

    tasks: TaskSet
    verdict: Verdict
    by: str
    reason: str = ""
    data: bytes = b""


class Gone(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=4):
    """Its owner has ended these before they were done, and saw that no process of them is left:
    nobody has to wait for the rest of their lease."""

    grant: Grant
    tasks: TaskSet


Step = Started | Unsure | Decide | Gone


class Once(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=58):
    """About tasks of a job that must not start twice."""

    job: JobId
    step: Step


class Doubted(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=92):
    """`peer` may have begun these tasks and is lost, or does not know how they ended: they are
    unknown. What it brings under this grant counts until somebody has decided."""

    job: JobId
    grant: Grant
    peer: PeerId
    tasks: TaskSet


class Decided(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=93):
    """A person has said what became of tasks that were unknown."""

    job: JobId
    tasks: TaskSet
    verdict: Verdict
    by: str
    reason: str


EndEvent = RetryEvent | Doubted | Decided | AfterEvent  # what follows ends, and losses


class OnceView(msgspec.Struct, frozen=True, array_like=True):
    """How often tasks of a job may start, and which are unknown, for who looks at it."""

    start: Start = Start.LEAST
    unknown: int = 0
    tasks: TaskSet = EMPTY  # only in a whole view
    at: tuple[tuple[PeerId, int], ...] = ()  # how many where
    lease_ms: int = 0  # of exclusive tasks
    lapse_ms: int = 0  # until the first of the unknown may run elsewhere, in ledger time


class ResolveTasks(msgspec.Struct, frozen=True, array_like=True, tag=143):
    """A caller decides: see `Decide`. Refused unless all of `tasks` are unknown."""

    job: JobId
    tasks: TaskSet
    verdict: Verdict
    by: str
    reason: str = ""
    data: bytes = b""


def decision_of(body: ResolveTasks) -> Decide:
    """As it may be proposed. Raises UsageError."""
    tasks, verdict = body.tasks, body.verdict
    if not 1 <= len(tasks) <= DECIDED_MAX:
        raise UsageError(f"one decision is about 1 to {DECIDED_MAX:,} tasks")
    if len(body.by) > BY_LEN_MAX or len(body.reason) > REASON_LEN_MAX:
        raise UsageError(f"a reason has up to {REASON_LEN_MAX:,} characters")
    if len(body.data) > RESULT_BYTES_MAX:
        raise UsageError(
            f"results that are given by hand take up to {RESULT_BYTES_MAX // 1024} KiB together: "
            "decide about fewer tasks at a time, or give the path of a file as the result"
        )
    if verdict is Verdict.SUCCEEDED and not body.data:
        raise UsageError("a task that has succeeded needs a result, which may be an empty one")
    return Decide(tasks, verdict, body.by, body.reason, body.data)
