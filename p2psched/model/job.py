"""What a user submits.

A job is one spec and a set of tasks. Code, arguments and results are opaque bytes here: a peer
never opens them.
"""

from __future__ import annotations

import enum
import re
from typing import Final

import msgspec

from p2psched.model import limits
from p2psched.model.after import After
from p2psched.model.backing import Backing
from p2psched.model.blob import BlobRef
from p2psched.model.cause import Cause
from p2psched.model.hold import Hold
from p2psched.model.isolation import Isolation
from p2psched.model.needs import Needs, check_policy
from p2psched.model.once import Start, check_start
from p2psched.model.pace_rules import OnStall, PaceRules
from p2psched.model.precedence import Precedence
from p2psched.model.retry import RetryPolicy, TimeLimits
from p2psched.model.segment import Segment
from p2psched.model.taskset import TaskSet
from p2psched.model.text import utf8_bytes

__all__ = [
    "NAMELESS",
    "Cause",
    "FunctionWork",
    "JobSpec",
    "JobState",
    "ProgramWork",
    "Segment",
    "SentFile",
    "Work",
    "argument_size",
    "blobs_of",
]

_FILE_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
_FIRST_TASK: Final = ((0, 1),)
_SMALL_BYTES: Final = limits.JOB_ARGUMENT_BYTES_MAX // 2
NAMELESS: Final = "."  # a folder of checkpoints without a name in the task's own folder
_BLOBS_ALONE: Final = 3  # fields of `FunctionWork` that are one blob
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")


def _check_file_name(what: str, name: str) -> None:
    if not _FILE_NAME.fullmatch(name):
        raise ValueError(
            f"{what}'s name has 1 to 128 of letters, digits, '.', '_' and '-' and does "
            f"not start with a dot: {name[:128]!r} has not"
        )


class SentFile(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A file that is put into each task's folder before it starts."""

    name: str  # [A-Za-z0-9._-]{1,128}, not starting with a dot
    mode: int
    data: bytes | BlobRef

    def __post_init__(self) -> None:
        _check_file_name("a sent file", self.name)
        if not 0 <= self.mode <= 0o777:
            raise ValueError(f"a sent file's mode is 0 to 0o777, not {self.mode:#o}")


class ProgramWork(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=1):
    """Each task is one child process. `argv` never passes through a shell.

    `outputs` are files that a task leaves in its own folder and hands over with its result.
    """

    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    cwd: str | None = None  # None: the task's own folder
    files: tuple[SentFile, ...] = ()
    outputs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.argv or not self.argv[0]:
            raise ValueError("a program needs a name")
        if len(self.env) > limits.ENV_VARS_MAX:
            raise ValueError(
                f"a task gets up to {limits.ENV_VARS_MAX} variables, not {len(self.env)}"
            )
        for key, _ in self.env:
            if not _VARIABLE.fullmatch(key):
                raise ValueError(f"{key[:64]!r} is no name of an environment variable")
        if len(self.cwd or "") > limits.CWD_LEN_MAX:
            raise ValueError(f"a folder's path has up to {limits.CWD_LEN_MAX} characters")
        words = "".join((*self.argv, *[value for _, value in self.env], self.cwd or ""))
        if "\0" in words or not utf8_bytes(words):
            raise ValueError("a word of the command or of its environment is not plain text")
        self._check_files()

    def _check_files(self) -> None:
        names = [file.name for file in self.files]
        if len(set(names)) != len(names):
            raise ValueError("two sent files have the same name")
        if len(self.outputs) > limits.OUTPUTS_PER_TASK_MAX:
            raise ValueError(
                f"a task hands over up to {limits.OUTPUTS_PER_TASK_MAX} files, "
                f"not {len(self.outputs)}: pack them into an archive"
            )
        for name in self.outputs:
            _check_file_name("an output file", name)
        if len(set(self.outputs)) != len(self.outputs):
            raise ValueError("two output files have the same name")


class FunctionWork(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=2):
    """Each task is one call, `function(*args, **kwargs)`, in a warm worker process.

    `path` is `module:qualified.name`, or empty if `code` holds the function by value (cloudpickle).
    `chunks` hold the packed `(args, kwargs)` of every task (see `model.values`), in order of index:
    chunk k covers `chunk_tasks` tasks from k * chunk_tasks on (the last one may be shorter). A
    function job's tasks are always 0..n-1.

    Arguments that are much travel as the blob `arguments` instead of `chunks`: the chunks behind
    each other, then where each one ends (u64). `blobs` are what single arguments refer to.
    `modules` is a zip archive that workers put on `sys.path` before they look for the function.
    """

    path: str
    code: bytes | BlobRef
    chunks: tuple[bytes, ...]
    chunk_tasks: int
    python: str  # "3.11": values by pickle are only safe within one minor version
    arguments: BlobRef | None = None
    blobs: tuple[BlobRef, ...] = ()
    modules: bytes | BlobRef = b""


Work = ProgramWork | FunctionWork


class JobSpec(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One job as submitted; immutable for its whole life. Bounds are checked on construction."""

    name: str
    tasks: TaskSet
    work: Work
    retries: int = 0  # further attempts after a failure of the task itself; a lost peer costs none
    timeout_ms: int | None = None  # of one attempt, from its start
    cpus: int = 1  # slots that one task takes
    submitter: str = ""  # user@host, for people
    keep_ms: int | None = None  # of ledger time after its end; None: what the cluster keeps
    copies: int = 2  # disks that a large result is on before it counts, as far as there are peers
    hold: Hold | None = None  # of a lock, by each task as long as it runs
    policy: str = ""  # who says where its tasks go; empty: as the cluster does by itself
    needs: Needs | None = None  # of the peers that run its tasks
    retry: RetryPolicy | None = None  # besides `retries`, by cause
    times: TimeLimits | None = None
    isolation: Isolation | None = None  # what a task may use, and how far it is shut in
    # Its tasks save checkpoints: the name that their folder has in a program's own; empty: none.
    checkpoint: str = ""
    # How long a peer without a majority goes on with its tasks; None: as that peer was started.
    max_disconnect_ms: int | None = None
    pace: PaceRules | None = None
    start: Start = Start.LEAST  # how often a task may start
    lease_ms: int = 0  # of an exclusive task: so long it runs on without a word of the ledger
    backing: Backing | None = None  # on how many peers a task runs
    precedence: Precedence | None = None  # before whom it goes, and who makes it wait
    after: After | None = None  # which others

    def __post_init__(self) -> None:
        if self.isolation is not None:
            is_program = isinstance(self.work, ProgramWork)
            needs = self.needs
            self.isolation.check(needs.require if needs is not None else (), program=is_program)
        if self.backing is not None or self.pace is not None:
            self._check_backing()
        if self.precedence is not None and self.precedence.preemptible:
            self._check_preemptible()
        # At each decode on each peer, so what is in order is seen at a glance.
        if self._is_single_call():
            return
        self._check_tasks()
        self._check_words()
        self._check_numbers()
        self._check_size()
        rule = self.retry.rule_for(Cause.LEASE_LOST) if self.retry is not None else None
        check_start(self.start, self.lease_ms, self.hold, rule)

    @property
    def backs_up(self) -> bool:
        """Its tasks may run on several peers at a time."""
        return self.backing is not None or self.speculates

    @property
    def speculates(self) -> bool:
        """A task that is late may be begun once more."""
        backing, pace = self.backing, self.pace
        return (backing is not None and backing.speculate) or (
            pace is not None and pace.on_stall is OnStall.SPECULATE
        )

    def _check_backing(self) -> None:
        if not self.backs_up:
            return
        if self.start:
            raise ValueError(
                "a task that must not start twice can't run on several peers: leave replicas and "
                "speculation out, or let it start more than once"
            )
        if self.hold is not None:
            raise ValueError(
                "a task that holds a lock can't run on several peers, for they would wait for each "
                "other: leave replicas and speculation out, or take the lock in the task"
            )

    def _check_preemptible(self) -> None:
        if not self.checkpoint:
            raise ValueError(
                "a task that makes way for others goes on from a checkpoint: let it save some "
                "(--checkpoint DIR, or checkpoint=True of a function), or leave preemptible out"
            )
        if self.start or self.backs_up:
            raise ValueError(
                "a task that must not start twice, or runs on several peers, makes way for nobody: "
                "leave preemptible out, or start, replicas and speculation"
            )

    def _is_single_call(self) -> bool:
        """True if it is one call with few options, and in order: the most usual job."""
        work, name = self.work, self.name
        if type(work) is not FunctionWork or self.tasks.ranges != _FIRST_TASK:
            return False
        code, modules, chunks = work.code, work.modules, work.chunks
        return (
            name.isidentifier()  # of a function, and so printable
            and len(name) <= limits.JOB_NAME_LEN_MAX
            and self.timeout_ms is None
            and self.keep_ms is None
            and type(self.retries) is type(self.cpus) is type(self.copies) is int
            and 0 <= self.retries <= limits.RETRIES_MAX
            and self.cpus == 1
            and 1 <= self.copies <= limits.COPIES_MAX
            and len(self.submitter) <= limits.SUBMITTER_LEN_MAX
            and len(chunks) == 1 <= work.chunk_tasks
            and work.arguments is None
            and not work.blobs
            and type(code) is bytes
            and len(code) + len(chunks[0]) <= _SMALL_BYTES
            and (type(modules) is not bytes or len(modules) <= _SMALL_BYTES)
            and not self.policy
            and not self.checkpoint
            and self.max_disconnect_ms is None
            and not (self.start or self.lease_ms)
        )

    def _check_numbers(self) -> None:
        if (
            type(self.retries) is type(self.cpus) is type(self.copies) is int
            and 0 <= self.retries <= limits.RETRIES_MAX
            and 1 <= self.cpus <= limits.SLOTS_MAX
            and 1 <= self.copies <= limits.COPIES_MAX
            and self.timeout_ms is None
            and self.max_disconnect_ms is None
        ):
            keep_ms = 0 if self.keep_ms is None else self.keep_ms
            if type(keep_ms) is int and 0 <= keep_ms <= limits.KEEP_MS_MAX:
                return
        for field, value, low, high in (
            ("retries", self.retries, 0, limits.RETRIES_MAX),
            ("cpus", self.cpus, 1, limits.SLOTS_MAX),
            ("copies", self.copies, 1, limits.COPIES_MAX),
            ("milliseconds to keep", self.keep_ms or 0, 0, limits.KEEP_MS_MAX),
            ("milliseconds cut off", self.max_disconnect_ms or 0, 0, limits.KEEP_MS_MAX),
        ):
            if type(value) is not int or not low <= value <= high:
                raise ValueError(f"{field} are {low} to {high}, not {value!r}")
        if self.timeout_ms is not None and self.timeout_ms < 1:
            raise ValueError("a timeout must be longer than nothing")

    def _check_size(self) -> None:
        work = self.work
        named = len(work.files if isinstance(work, ProgramWork) else work.blobs) + _BLOBS_ALONE
        if named > limits.BLOBS_PER_JOB_MAX < len(blobs_of(work)):
            raise ValueError(
                f"a job has up to {limits.BLOBS_PER_JOB_MAX:,} large arguments and files: split "
                "the job, or pass paths"
            )
        argument_bytes = argument_size(work)
        if argument_bytes > limits.JOB_ARGUMENT_BYTES_MAX:
            raise ValueError(
                f"code, arguments and sent files of a job may take "
                f"{limits.JOB_ARGUMENT_BYTES_MAX // limits.KIB} KiB, these take "
                f"{-(-argument_bytes // limits.KIB)} KiB: split the job, or pass paths"
            )

    def _check_tasks(self) -> None:
        size, ranges, work = len(self.tasks), self.tasks.ranges, self.work
        if not 1 <= size <= limits.JOB_TASKS_MAX:
            raise ValueError(f"a job has 1 to {limits.JOB_TASKS_MAX:,} tasks, not {size:,}")
        if len(ranges) > limits.JOB_RANGES_MAX:
            raise ValueError(
                f"a job's tasks are at most {limits.JOB_RANGES_MAX:,} ranges of indices, these are "
                f"{len(ranges):,}: number the tasks without gaps"
            )
        if isinstance(work, FunctionWork) and (
            ranges != ((0, size),)
            or work.chunk_tasks < 1
            or len(work.chunks) != (0 if work.arguments else -(-size // work.chunk_tasks))
        ):
            raise ValueError("a function job needs the arguments of each of its tasks")

    def _check_words(self) -> None:
        name, most = self.name, limits.JOB_NAME_LEN_MAX
        if len(name) > most or not name.isprintable() or "/" in name:
            raise ValueError(f"a job's name has up to {most} printable characters, and no '/'")
        if len(self.submitter) > limits.SUBMITTER_LEN_MAX:
            raise ValueError(f"a submitter has up to {limits.SUBMITTER_LEN_MAX} characters")
        check_policy(self.policy)
        if self.checkpoint:
            self._check_checkpoint()

    def _check_checkpoint(self) -> None:
        name, work = self.checkpoint, self.work
        if name == NAMELESS:
            return
        _check_file_name("a folder of checkpoints", name)
        if isinstance(work, FunctionWork):
            raise ValueError("a function asks `p2psched.checkpoint` for its folder: give no name")
        if work.cwd is not None:
            raise ValueError(
                "with a working folder of your own name no folder of checkpoints: pass '.', and "
                "have the command write into $P2PSCHED_CHECKPOINT_DIR"
            )
        if any(name == file.name for file in work.files) or name in work.outputs:
            raise ValueError(f"the folder of checkpoints has the name of a file: {name!r}")


def argument_size(work: Work) -> int:
    """Bytes of code, arguments and files that a job carries in its entry; blobs don't count."""
    match work:
        case ProgramWork(argv=argv, env=env, files=files):
            size = sum(map(len, map(str.encode, argv)))
            size += sum(len(key.encode()) + len(value.encode()) for key, value in env) if env else 0
            return size + sum(_inline_size(file.data) for file in files)
        case FunctionWork(code=code, chunks=chunks, modules=modules):
            size = len(chunks[0]) if len(chunks) == 1 else sum(map(len, chunks))
            size += len(code) if isinstance(code, bytes) else 0
            return size + len(modules) if isinstance(modules, bytes) else size


def _inline_size(data: bytes | BlobRef) -> int:
    return len(data) if isinstance(data, bytes) else 0


def blobs_of(work: Work) -> tuple[BlobRef, ...]:
    """The blobs that must be there before the job may be accepted, each once."""
    parts: list[bytes | BlobRef | None]
    if isinstance(work, ProgramWork):
        parts = [file.data for file in work.files]
    elif work.arguments is None and not work.blobs and isinstance(work.code, bytes):
        return (work.modules,) if isinstance(work.modules, BlobRef) else ()  # the usual ones
    else:
        parts = [work.code, work.modules, work.arguments, *work.blobs]
    return tuple(dict.fromkeys(part for part in parts if isinstance(part, BlobRef)))


class JobState(enum.StrEnum):
    """The life of a job: running, then exactly one of the others, for ever."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    ABORTED = "aborted"  # before it began, for a job that it comes after did not succeed
