"""One tree of errors. The first question it answers: whose fault, and is it worth another try?

P2PSchedError
├── UsageError      the caller's mistake; the same call fails again        exit 2
│   └── NotFound    no such job, task or peer, or a prefix that fits several
├── Refused         understood and denied: wrong secret, other cluster,
│   │               folder in use, a limit of the cluster                  exit 5
│   ├── Forgotten   the ledger knows this client no more: whether its last
│   │               operation acted is unknown                           exit 5
│   ├── Deadlock    whoever holds this lock waits for one that you hold    exit 5
│   ├── Removed     this peer's identity is no member any more, for good   exit 5
│   ├── Static      the group of the ledger takes no members               exit 5
│   ├── TooOld      what is asked for is gone from all peers               exit 5
│   └── Redelivered an item of a queue is not the caller's any more        exit 5
├── Conflict        somebody else has changed it: look, and try again      exit 1
├── Unavailable     no quorum, nobody answers, busy; retry after a while   exit 3
│   └── NoSpace     the peer's disk is full; another peer, or free some
├── TimedOut        the caller's own deadline passed                       exit 4
├── LockLost        the lease that a lock hung on is over                 exit 7
├── TaskFailed      a task ended without a result; carries how             exit 1
├── ResultLost      a result was committed and its last copy is gone       exit 1
├── ProtocolError   bytes that are no valid frame; the link is closed      exit 3
└── Damaged         a checksum on disk does not match; the peer stops      exit 6
"""

from __future__ import annotations

from typing import ClassVar


class P2PSchedError(Exception):
    """Base of all errors that this package raises on purpose."""

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1


class UsageError(P2PSchedError):
    """The caller's mistake: do not retry, the message says what to change."""

    code = "usage"
    exit_code = 2


class NotFound(UsageError):
    """No such job, task or peer; or a prefix that fits more than one."""

    code = "not-found"


class Refused(P2PSchedError):
    """Understood and denied. Retrying without a change is refused again."""

    code = "refused"
    exit_code = 5


class Forgotten(Refused):
    """The ledger has forgotten this client, or this operation of it: whether it acted is unknown.
    Look, and decide."""

    code = "forgotten"


class Deadlock(Refused):
    """To wait for this lock would be for ever: whoever is in the way waits for one that the caller
    holds. Let go of that, and begin again."""

    code = "deadlock"


class Removed(Refused):
    """The peer was removed from its cluster. It may come back with an empty folder."""

    code = "removed"


class Static(Refused):
    """The members of the ledger's group are those that its peers were started with."""

    code = "static"


class Redelivered(Refused):
    """These deliveries of items of a queue are over: nothing was done to the items, which are with
    others, wait again, or are done. `items`: their ids."""

    code = "redelivered"

    def __init__(self, message: str, *, items: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.items = items


class TooOld(Refused):
    """Changes that somebody wants to follow are gone. `oldest`: a version from which it can."""

    code = "too-old"

    def __init__(self, message: str, *, oldest: int = 0) -> None:
        super().__init__(message)
        self.oldest = oldest


class Conflict(P2PSchedError):
    """Nothing was changed: it is not what the caller took it for. `current`: what is there, None if
    nothing is."""

    code = "conflict"
    exit_code = 1

    def __init__(self, message: str, *, current: object = None) -> None:
        super().__init__(message)
        self.current = current


class Unavailable(P2PSchedError):
    """Nobody can answer now: no quorum, no connection, or busy. Retry after `retry_after_s`."""

    code = "unavailable"
    exit_code = 3

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Busy(Unavailable):
    """A peer has too much to do just now, and will take it later: ask it again, not before
    `retry_after_s`. Others of its cluster have as much to do."""


class NoSpace(Unavailable):
    """The disk of the peer that was asked is full: another peer may do it, or this one once there
    is space. The message says where to free some."""

    code = "no-space"


class TimedOut(P2PSchedError):
    """The caller's own deadline passed. The work it waited for goes on."""

    code = "timed-out"
    exit_code = 4


class LockLost(P2PSchedError):
    """A lock is not held any more, and somebody else may hold it: stop what it was for."""

    code = "lock-lost"
    exit_code = 7


class TaskFailed(P2PSchedError):
    """A task ended without a result. `cause` is one of `model.job.Cause`."""

    code = "task-failed"
    exit_code = 1

    def __init__(self, message: str, *, task: str = "", cause: str = "") -> None:
        super().__init__(message)
        self.task = task
        self.cause = cause


class ResultLost(P2PSchedError):
    """A task succeeded, and no disk that can be asked has its large result any more. `job retry`
    computes it again."""

    code = "result-lost"
    exit_code = 1


class ProtocolError(P2PSchedError):
    """Bytes from outside that are no valid frame. The connection that sent them is closed."""

    code = "protocol"
    exit_code = 3


class Damaged(P2PSchedError):
    """A file of the peer fails its checksum before its last valid record. Never cut, never used."""

    code = "damaged"
    exit_code = 6

    def __init__(self, message: str, *, file: str = "", offset: int | None = None) -> None:
        super().__init__(message)
        self.file = file  # the name alone; empty if it is not one file, or not known here
        self.offset = offset  # of the first byte that is bad, as far as that can be told


class InternalError(P2PSchedError):
    """A bug of ours: what must hold does not. The peer stops, others take over its tasks."""

    code = "internal"
    exit_code = 70


def first_of(errors: BaseExceptionGroup[P2PSchedError]) -> P2PSchedError:
    """The first error of a task group that failed, however deep it lies."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, P2PSchedError)
    return error


_BY_CODE = {
    kind.code: kind
    for kind in (
        UsageError,
        NotFound,
        Refused,
        Forgotten,
        Deadlock,
        Removed,
        Static,
        TooOld,
        Redelivered,
        Conflict,
        Unavailable,
        NoSpace,
        TimedOut,
        LockLost,
        TaskFailed,
        ResultLost,
        ProtocolError,
        Damaged,
        InternalError,
    )
}


def from_wire(code: str, message: str, retry_after_ms: int, *, busy: bool = False) -> P2PSchedError:
    """The error that a peer's failure answer stands for."""
    kind = _BY_CODE.get(code, P2PSchedError)
    if kind is Unavailable:
        unavailable = Busy if busy else Unavailable
        return unavailable(message, retry_after_s=retry_after_ms / 1000)
    if kind is NoSpace:
        return NoSpace(message, retry_after_s=retry_after_ms / 1000)
    return kind(message)
