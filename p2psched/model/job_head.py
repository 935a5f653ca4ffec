"""What is kept in memory of a job's spec, for as long as the job is known."""

from __future__ import annotations

import hashlib
import operator
import shlex
from typing import Final

import msgspec

from p2psched.model import limits
from p2psched.model.after import After
from p2psched.model.backing import Backing
from p2psched.model.blob import BlobRef
from p2psched.model.hold import Hold
from p2psched.model.job import FunctionWork, JobSpec, Work, blobs_of
from p2psched.model.needs import Needs
from p2psched.model.once import Start
from p2psched.model.precedence import Precedence
from p2psched.model.retry import RetryPolicy, TimeLimits
from p2psched.model.taskset import TaskSet

_encode: Final = msgspec.msgpack.Encoder().encode
_FIELDS: Final = JobSpec.__struct_fields__
# As it was before jobs could hold a lock, before they could choose their peers, before they had
# rules for retries, or limits, before their tasks could be backed up, before any had a precedence,
# and before any came after others.
_HOLD: Final = _FIELDS.index("hold")
_first_fields: Final = operator.attrgetter(*_FIELDS[:_HOLD])
_held_fields: Final = operator.attrgetter(*_FIELDS[: _HOLD + 1])
assert _FIELDS[_HOLD:] == (
    "hold",
    "policy",
    "needs",
    "retry",
    "times",
    "isolation",
    "checkpoint",
    "max_disconnect_ms",
    "pace",
    "start",
    "lease_ms",
    "backing",
    "precedence",
    "after",
)
_older_fields: Final = operator.attrgetter(*_FIELDS[:-4])  # of level 5
_backed_fields: Final = operator.attrgetter(*_FIELDS[:-2])  # of level 6
_ranked_fields: Final = operator.attrgetter(*_FIELDS[:-1])


class JobHead(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A spec without its work."""

    name: str
    tasks: TaskSet
    kind: str  # "program" or "function"
    command: str  # what runs, for people; at most COMMAND_LEN_MAX characters
    digest: bytes  # of the whole spec: two submits with one id are one job if it is equal
    retries: int
    cpus: int
    submitter: str
    keep_ms: int | None
    copies: int
    blobs: tuple[BlobRef, ...]  # what the work refers to: a retry needs them again
    hold: Hold | None = None
    policy: str = ""
    needs: Needs | None = None
    retry: RetryPolicy | None = None
    times: TimeLimits | None = None
    checkpoint: str = ""
    start: Start = Start.LEAST
    lease_ms: int = 0
    backing: Backing | None = None
    precedence: Precedence | None = None
    after: After | None = None

    @property
    def priority(self) -> int:
        return self.precedence.priority if self.precedence is not None else 0

    @property
    def is_choosy(self) -> bool:
        """It says something of where its tasks may go."""
        return self.needs is not None or bool(self.policy)

    @property
    def replicas(self) -> int:
        """Peers that each task shall run on."""
        return self.backing.replicas if self.backing is not None else 1


def head_of(spec: JobSpec) -> JobHead:
    """Cost O(bytes of the spec)."""
    work = spec.work
    return JobHead(  # by position: names cost as much as all else
        spec.name,
        spec.tasks,
        "function" if isinstance(work, FunctionWork) else "program",
        _command(work),
        digest_of(spec),
        spec.retries,
        spec.cpus,
        spec.submitter,
        spec.keep_ms,
        spec.copies,
        blobs_of(work),
        spec.hold,
        spec.policy,
        spec.needs,
        spec.retry,
        spec.times,
        spec.checkpoint,
        spec.start,
        spec.lease_ms,
        spec.backing,
        spec.precedence,
        spec.after,
    )


def digest_of(spec: JobSpec) -> bytes:
    """Sixteen bytes that tell two specs apart; the same in all versions."""
    is_new = spec.lease_ms or spec.backing is not None
    said: object = _backed_fields(spec) if is_new else _older_fields(spec)
    is_plain = spec.retry is None and spec.times is None and spec.isolation is None
    is_plain = is_plain and spec.max_disconnect_ms is None and spec.pace is None
    is_plain = is_plain and not spec.start and spec.backing is None
    if is_plain and spec.needs is None and not spec.policy and not spec.checkpoint:
        said = _first_fields(spec) if spec.hold is None else _held_fields(spec)
    if spec.precedence is not None:
        said = _ranked_fields(spec)
    if spec.after is not None:
        said = spec
    return hashlib.blake2b(_encode(said), digest_size=16).digest()


def _command(work: Work) -> str:
    if isinstance(work, FunctionWork):
        text = f"{work.path or 'a function'}()"
    else:
        text = shlex.join(work.argv)
    most = limits.COMMAND_LEN_MAX
    return text if len(text) <= most else text[: most - 1] + "…"
