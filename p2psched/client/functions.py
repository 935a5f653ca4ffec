"""Calls as they travel: a function and the arguments of each task, packed into a job.

    packed = pack("module:name", calls(items))
    await upload_all(session, packed.uploads)   # what is large; nothing for most jobs
    await session.call(Submit(job, packed.spec), JobAccepted)

Shapes of calls: `calls(xs)`, `calls(xs, ys)` like the built-in `map`, `star_calls(tuples)`. They
are made one by one, so millions of items may come from a generator.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from p2psched.client.after import ABORT, OnParentFail, Parents, after_of
from p2psched.client.backing import backing_of
from p2psched.client.isolation import Limits, shut_in
from p2psched.client.map_options import MapOptions
from p2psched.client.modules import ARCHIVES, Choice, importable_as, is_local, named_in
from p2psched.client.pacing import Pace, pace_rules, refuse_pattern, with_stalls
from p2psched.client.packing import (
    IN_MEMORY_BYTES_MAX,
    MODULES_INLINE_BYTES_MAX,
    Arguments,
    LargeCall,
    Packer,
)
from p2psched.client.precedence import Preemptible, precedence_of
from p2psched.client.resolving import starting
from p2psched.client.retries import Retry
from p2psched.client.retries import policy as retry_policy
from p2psched.client.spool import Section, Spool, Upload
from p2psched.model import chunks, limits
from p2psched.model.blob import BlobRef
from p2psched.model.errors import UsageError
from p2psched.model.hold import Hold
from p2psched.model.job import NAMELESS, FunctionWork, JobSpec, SentFile
from p2psched.model.limits import JOB_ARGUMENT_BYTES_MAX
from p2psched.model.needs import Needs
from p2psched.model.once import Start
from p2psched.model.retry import TimeLimits
from p2psched.model.taskset import TaskSet
from p2psched.run.host.pickling import PROTOCOL, PYTHON
from p2psched.run.host.tasks import TaskFunction, TaskOptions

CHUNK_TASKS: Final = 512
# The same modules go with job after job: as a blob they travel once, in an entry each time.
TIMEOUT_S_MAX: Final = 10 * 365 * 86_400

_ONE: Final = TaskSet.of(0, 1)

Function = Callable[..., object] | TaskFunction[..., object] | str

__all__ = [
    "Arguments",
    "Calls",
    "MapOptions",
    "PackedFunction",
    "PackedJob",
    "calls",
    "large_files",
    "one_call",
    "pack",
    "pack_call",
    "pack_function",
    "pack_single",
    "packed_calls",
    "star_calls",
    "timeout_ms",
]


class PackedFunction(NamedTuple):
    """A function as it travels: by `path`, or by value in `code`."""

    path: str
    code: bytes
    name: str
    modules: bytes = b""  # an archive

    @property
    def inline_bytes(self) -> int:
        """What it takes in a job's entry; code and modules that are large are blobs."""
        code = len(self.code) if len(self.code) < limits.ARGUMENT_INLINE_BYTES_MAX else 0
        return code + (len(self.modules) if len(self.modules) < MODULES_INLINE_BYTES_MAX else 0)


@dataclass(frozen=True, slots=True)
class PackedJob:
    """What to submit, and the blobs that must be in the cluster before."""

    spec: JobSpec
    uploads: tuple[Upload, ...]


@dataclass(frozen=True, slots=True)
class Calls:
    """The arguments of all tasks. `stable`: nothing of the caller's runs while they are read; then
    `count` may say how many there are."""

    each: Iterable[Arguments | bytes]  # or what `pack_call` made
    constants: Mapping[str, object]
    stable: bool
    count: int = 0


def calls(
    items: Iterable[object], *more: Iterable[object], kwargs: Mapping[str, object] | None = None
) -> Calls:
    """One task for each item; with several iterables as the built-in `map` does it, up to the end
    of the shortest. `kwargs` are the same for all."""
    stable = all(type(each) in {list, tuple, range} for each in (items, *more))
    each: Iterator[Arguments] = ((args, {}) for args in zip(items, *more, strict=False))
    count = len(items) if stable else 0  # type: ignore[arg-type]  # checked above
    return Calls(each, kwargs or {}, stable, count)


def star_calls(
    tuples: Iterable[Sequence[object]], *, kwargs: Mapping[str, object] | None = None
) -> Calls:
    """One task for each tuple of positional arguments, as `itertools.starmap` does it."""
    each: Iterator[Arguments] = ((tuple(args), {}) for args in tuples)
    stable = type(tuples) in {list, tuple}
    count = len(tuples) if stable else 0  # type: ignore[arg-type]  # checked above
    return Calls(each, kwargs or {}, stable, count)


def one_call(*args: object, **kwargs: object) -> Calls:
    """One task."""
    return Calls([(args, kwargs)], {}, stable=True)


def packed_calls(each: Iterable[bytes]) -> Calls:
    """What `pack_call` made, one task each."""
    return Calls(each, {}, stable=False)


def pack(
    function: Function | PackedFunction,
    arguments: Calls,
    *,
    name: str | None = None,
    retries: int | None = None,
    timeout_s: float | None = None,
    cpus: int | None = None,
    submitter: str = "",
    copies: int = 2,
    keep_ms: int | None = None,
    hold: Hold | None = None,
    policy: str = "",
    needs: Needs | None = None,
    modules: Choice = "auto",
    retry: Retry | None = None,
    times: TimeLimits | None = None,
    limits: Limits | None = None,
    checkpoint: bool | None = None,
    max_disconnect_ms: int | None = None,
    pace: Pace | None = None,
    start: Start | str = Start.LEAST,
    lease: float | str | None = None,
    replicas: int = 1,
    speculate: bool = False,
    priority: int = 0,
    preemptible: Preemptible = False,
    after: Parents = (),
    on_parent_fail: OnParentFail = ABORT,
) -> PackedJob:
    """A job of one call of `function` for each of `arguments`. Blocks; reads files that are sent.
    `function` is `"module:name"`, looked up by the workers, or an object that travels by path or by
    value. One with `@task` brings its own options, for those that are None here. Of the caller's
    `modules` "auto" sends what it needs. Raises UsageError for what is too large."""
    isolation, needs = shut_in(limits, needs)
    rules = refuse_pattern(pace_rules(pace))
    options = function.settings if isinstance(function, TaskFunction) else TaskOptions()
    saves = options.checkpoint if checkpoint is None else checkpoint
    packed, packer = function, Packer()
    if not isinstance(packed, PackedFunction):
        packed = pack_function(packed, modules=modules)
    stream = _Arguments.of(arguments, JOB_ARGUMENT_BYTES_MAX - packed.inline_bytes, packer)
    try:
        work = stream.work(packed, packer)
        spec = JobSpec(
            *(name or options.name or packed.name, TaskSet.of(0, stream.count), work),
            retries=options.retries if retries is None else retries,
            timeout_ms=timeout_ms(options.timeout_s if timeout_s is None else timeout_s),
            cpus=options.cpus if cpus is None else cpus,
            submitter=submitter,
            copies=copies,
            keep_ms=keep_ms,
            hold=hold,
            policy=policy,
            needs=needs,
            retry=with_stalls(retry_policy(retry), rules),
            times=times,
            isolation=isolation,
            checkpoint=NAMELESS if saves else "",
            max_disconnect_ms=max_disconnect_ms,
            pace=rules,
            **starting(start, lease),
            backing=backing_of(replicas, speculate=speculate),
            precedence=precedence_of(priority, preemptible),
            after=after_of(after, on_parent_fail),
        )
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from error
    return PackedJob(spec, tuple(packer.uploads.values()))


def pack_single(
    packed: PackedFunction,
    call: bytes,
    *,
    name: str | None,
    retries: int,
    timeout_s: float | None,
    cpus: int,
    submitter: str,
) -> PackedJob | None:
    """What `pack` makes of this one call, in half the time. None if some of it may be large."""
    chunk = chunks.pack((call,))
    if type(call) is not bytes or len(chunk) + packed.inline_bytes > limits.JOB_ARGUMENT_BYTES_MAX:
        return None
    packer = Packer()
    code, modules = packer.large(packed.code), packer.archive(packed.modules)
    work = FunctionWork(packed.path, code, (chunk,), CHUNK_TASKS, PYTHON, None, (), modules)
    try:
        limit_ms = timeout_ms(timeout_s)
        spec = JobSpec(name or packed.name, _ONE, work, retries, limit_ms, cpus, submitter)
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from error
    return PackedJob(spec, tuple(packer.uploads.values()))


def pack_call(call: Arguments) -> bytes:
    """The arguments of one task as `pack` takes them; a LargeCall if they name blobs. Raises
    UsageError for what can't be serialised."""
    packer = Packer(in_memory_max=IN_MEMORY_BYTES_MAX)
    item = packer.item(call, stable=False)
    return LargeCall.of(item, packer) if packer.named else item


def large_files(files: Sequence[SentFile]) -> tuple[tuple[SentFile, ...], tuple[Upload, ...]]:
    """Files of a program as they are sent: large ones as blobs."""
    packer = Packer()
    sent = []
    for file in files:
        data = packer.large(file.data) if isinstance(file.data, bytes) else file.data
        sent.append(SentFile(file.name, file.mode, data))
    return tuple(sent), tuple(packer.uploads.values())


class _Arguments:
    """Packed arguments: chunks in memory while they fit into the job's entry, else in a spool."""

    def __init__(self, room: int) -> None:
        self.chunks: list[bytes] = []
        self.count = 0
        self._room = room
        self._items: list[bytes] = []
        self._spool: Spool | None = None
        self._section: Section | None = None
        self._ends = array("Q")

    @classmethod
    def of(cls, arguments: Calls, room: int, packer: Packer) -> _Arguments:
        taken = cls(room)
        taken.take(arguments, packer)
        return taken

    def add(self, item: bytes) -> None:
        self._items.append(item)
        self.count += 1
        if self.count > limits.JOB_TASKS_MAX:
            most = limits.JOB_TASKS_MAX
            raise UsageError(f"a job has 1 to {most:,} tasks, these are more: split it")
        if len(self._items) == CHUNK_TASKS:
            self._close_chunk()

    def take(self, arguments: Calls, packer: Packer) -> None:
        """All of them."""
        packer.set_constants(arguments.constants)
        for call in arguments.each:
            if isinstance(call, bytes):
                self.add(packer.take(call) if isinstance(call, LargeCall) else call)
            else:
                self.add(packer.item(call, stable=arguments.stable))

    def work(self, packed: PackedFunction, packer: Packer) -> FunctionWork:
        """Of `packed`, called with these."""
        blob = self.finish(packer)
        return FunctionWork(
            path=packed.path,
            code=packer.large(packed.code),
            chunks=tuple(self.chunks),
            chunk_tasks=CHUNK_TASKS,
            python=PYTHON,
            arguments=blob,
            blobs=tuple(packer.named),
            modules=packer.archive(packed.modules),
        )

    def finish(self, packer: Packer) -> BlobRef | None:
        """The blob of all arguments, or None if `chunks` has them."""
        if self._items:
            self._close_chunk()
        if self._section is None:
            return None
        self._section.write(struct.pack(f"<{len(self._ends)}Q", *self._ends))
        upload = self._section.finish()
        packer.uploads[upload.ref] = upload
        return upload.ref

    def _close_chunk(self) -> None:
        chunk = chunks.pack(self._items)
        self._items.clear()
        if self._section is None:
            self._room -= len(chunk)
            if self._room >= 0:
                self.chunks.append(chunk)
                return
            self._spool = Spool()
            self._section = Section(self._spool)
            for earlier in self.chunks:
                self._write(earlier)
            self.chunks.clear()
        self._write(chunk)

    def _write(self, chunk: bytes) -> None:
        assert self._section is not None
        self._section.write(chunk)
        self._ends.append(self._section.size)


def _archive(path: str, code: bytes, choice: Choice) -> bytes:
    if choice == "none":
        return b""
    if choice == "auto":
        named = {path.partition(":")[0]} if path else named_in(code)
        names = [name for name in named if is_local(name)]
    elif isinstance(choice, str):
        raise UsageError(f"modules are 'auto', 'none' or a list of names, not {choice!r}")
    else:
        names = list(choice)
    return ARCHIVES.of(names) if names else b""


def timeout_ms(timeout_s: float | None) -> int | None:
    """Raises ValueError for what is no duration."""
    if timeout_s is None:
        return None
    if not 0 < timeout_s <= TIMEOUT_S_MAX:
        raise ValueError(f"a timeout is more than 0 and at most {TIMEOUT_S_MAX} s, not {timeout_s}")
    return max(1, round(timeout_s * 1000))


def pack_function(function: Function, *, modules: Choice = "auto") -> PackedFunction:
    """Raises UsageError for what is no function, or can't travel."""
    path, code = _by_path_or_value(function, modules)
    name = getattr(function, "__name__", type(function).__name__)
    name = function.rpartition(":")[2] if isinstance(function, str) else str(name)
    return PackedFunction(path, code, name[:128], _archive(path, code, modules))


def _by_path_or_value(function: Function, choice: Choice) -> tuple[str, bytes]:
    if isinstance(function, str):
        module, colon, attribute = function.partition(":")
        if not (colon and module and attribute):
            raise UsageError(f"{function!r} is no import path: write it like package.module:name")
        return function, b""
    plain = function.function if isinstance(function, TaskFunction) else function
    if not callable(plain):
        raise UsageError(f"{function!r} is not a function")
    path = importable_as(plain)
    if path and choice != "none" and is_local(path.partition(":")[0]):
        return path, b""
    try:
        import cloudpickle  # noqa: PLC0415 (most commands pack nothing)

        code: bytes = cloudpickle.dumps(plain, protocol=PROTOCOL)
    except Exception as error:
        raise UsageError(
            f"the function can't be serialised ({type(error).__name__}: {error}): pass plain "
            "data, and open files, sockets or locks inside the function"
        ) from error
    return "", code
