"""What attempts have printed: calls and answers. Tags are for ever; fields are only appended, with
defaults.

An attempt is named by task and grant: a task ends at most once under a grant.
"""

from __future__ import annotations

import msgspec

from p2psched.model.commands import Retried
from p2psched.model.ids import JobId, PeerId


class FetchAttempt(msgspec.Struct, frozen=True, array_like=True, tag=145):
    """The item of an attempt that was not the last of its task."""

    job: JobId
    index: int
    grant: int
    here_only: bool = False  # not passed on


class ListAttempts(msgspec.Struct, frozen=True, array_like=True, tag=146):
    """All of a job's such attempts that a peer keeps, in order of grant and first task, behind
    these. One peer to another."""

    job: JobId
    after_grant: int = -1
    after_start: int = -1
    here_only: bool = True


class ReadOutput(msgspec.Struct, frozen=True, array_like=True, tag=147):
    """What `peer`, who ran the attempt, has on its disk of one of its streams, from byte `offset`
    on."""

    job: JobId
    index: int
    grant: int
    peer: PeerId
    stderr: bool
    offset: int = 0


class KeptAttempt(msgspec.Struct, frozen=True, array_like=True, tag=145):
    """No item: nobody within reach keeps it."""

    cause: str
    item: bytes | None
    busy_us: int = 0


class AttemptPage(msgspec.Struct, frozen=True, array_like=True, tag=146):
    """Empty: there are no more."""

    attempts: tuple[Retried, ...]


class OutputRead(msgspec.Struct, frozen=True, array_like=True, tag=147):
    """Not `known`: the peer has nothing of it. `data` is what lies before byte `offset` of the
    stream, which begins later than asked if something between was let go of."""

    known: bool
    total: int = 0  # bytes that were written
    offset: int = 0
    data: bytes = b""
    is_over: bool = True  # it does not run there now


LogCall = FetchAttempt | ListAttempts | ReadOutput
LogAnswer = KeptAttempt | AttemptPage | OutputRead
