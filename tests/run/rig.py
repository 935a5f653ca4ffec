"""A pool with a listener that remembers, for tests."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from p2psched.client.functions import Calls, Function, pack
from p2psched.client.results import open_value
from p2psched.model import chunks, items
from p2psched.model.blob import BlobRef, ResultBlob
from p2psched.model.execution import (
    Batch,
    Ended,
    ExecutorEvent,
    GaveBack,
    Progress,
    Reports,
    TakenBack,
    TaskReport,
)
from p2psched.model.ids import JobId
from p2psched.model.job import Cause, FunctionWork, JobSpec, ProgramWork, SentFile
from p2psched.model.pace_rules import PaceRules
from p2psched.model.retry import TimeLimits
from p2psched.model.taskset import EMPTY, TaskSet
from p2psched.run.host.files import File, Ref, file_of
from p2psched.run.host.pickling import Source
from p2psched.run.means import Setup
from p2psched.run.pool import WorkerPool
from tests.run.disk_blobs import DiskBlobs

ROOT: Final = Path(__file__).resolve().parents[2]
PYTHON: Final = f"{sys.version_info.major}.{sys.version_info.minor}"
CHUNK_TASKS: Final = 256


@dataclass(frozen=True)
class TaskEnd:
    cause: Cause
    header: dict[str, int | str]
    value: bytes
    stdout: bytes
    stderr: bytes
    busy_us: int

    source: Source | None = None
    blobs: tuple[ResultBlob, ...] = ()

    def open(self) -> object:
        return open_value(self.value, self.source)


@dataclass
class Outcome:
    tasks: dict[int, TaskEnd] = field(default_factory=dict)
    unstarted: TaskSet | None = None
    given_back: TaskSet = EMPTY
    messages: int = 0


def functions(
    path: str = "",
    arguments: Sequence[tuple[object, ...]] = ((),),
    *,
    code: bytes = b"",
    timeout_ms: int | None = None,
    cpus: int = 1,
    python: str = PYTHON,
) -> JobSpec:
    """A job of one call for each element of `arguments`. `path` without a module: of `samples`."""
    packed = [pickle.dumps((args, {})) for args in arguments]
    pieces = tuple(
        chunks.pack(packed[start : start + CHUNK_TASKS])
        for start in range(0, len(packed), CHUNK_TASKS)
    )
    where = path if ":" in path or not path else f"tests.run.samples:{path}"
    work = FunctionWork(where, code, pieces, CHUNK_TASKS, python)
    tasks = TaskSet.of(0, len(packed))
    return JobSpec("job", tasks, work, timeout_ms=timeout_ms, cpus=cpus)


def program(
    *argv: str,
    tasks: int = 1,
    timeout_ms: int | None = None,
    times: TimeLimits | None = None,
    pace: PaceRules | None = None,
    files: tuple[SentFile, ...] = (),
    cwd: str | None = None,
    env: tuple[tuple[str, str], ...] = (),
    outputs: tuple[str, ...] = (),
) -> JobSpec:
    work = ProgramWork(argv, env, cwd, files, outputs)
    return JobSpec("job", TaskSet.of(0, tasks), work, timeout_ms=timeout_ms, times=times, pace=pace)


def packed(blobs: DiskBlobs, function: Function, arguments: Calls, **options: object) -> JobSpec:
    """A job as a client packs it, and its blobs where the peer has them."""
    job = pack(function, arguments, **options)  # type: ignore[arg-type]  # any of its options
    for upload in job.uploads:
        with upload.opened() as read_at:
            data = read_at(upload.ref.size, 0)
        assert blobs.put(data) == upload.ref
    return job.spec


class FromDisk:
    """What a caller has downloaded."""

    def __init__(self, blobs: DiskBlobs) -> None:
        self._blobs = blobs

    def map(self, ref: Ref) -> memoryview:
        return memoryview(bytearray(self._blobs.path(BlobRef(*ref)).read_bytes()))

    def file(self, name: str, ref: Ref) -> File:
        return file_of(name, ref, path=str(self._blobs.path(BlobRef(*ref))))


class Rig:
    def __init__(
        self,
        folder: Path,
        *,
        slots: int,
        python: str,
        grace_s: float,
        blobs: DiskBlobs | None = None,
        setup: Setup | None = None,
    ) -> None:
        self.folder = folder
        self._blobs = blobs
        self.pool = WorkerPool(
            slots=slots,
            folder=folder,
            on_event=self._on_event,
            peer_name="peer-1",
            python=python,
            grace_s=grace_s,
            blobs_folder=None if blobs is None else blobs.folder,
            setup=setup,
        )
        self.outcomes: dict[int, Outcome] = {}
        self.taken_back = 0  # times that all of it was said
        self.reports: list[dict[tuple[int, int], TaskReport]] = []
        self._changed = asyncio.Event()
        self._job_of: dict[int, JobId] = {}
        self._jobs: list[JobSpec] = []  # the same spec is the same job

    def start(
        self,
        spec: JobSpec,
        tasks: TaskSet | None = None,
        *,
        attempt: int = 1,
        expected_us: int | None = None,
    ) -> int:
        known = [number for number, other in enumerate(self._jobs) if other is spec]
        number = known[0] if known else len(self._jobs)
        if not known:
            self._jobs.append(spec)
        batch = len(self.outcomes)
        self.outcomes[batch] = Outcome()
        self._job_of[batch] = job = JobId(f"{number + 1:08x}{0:024x}")
        fence = f"1.9.{attempt}"
        self.pool.start(
            Batch(batch, job, spec, tasks or spec.tasks, 9, attempt, fence, expected_us)
        )
        return batch

    def job(self, batch: int) -> JobId:
        return self._job_of[batch]

    async def ended(self, batch: int) -> Outcome:
        outcome = self.outcomes[batch]
        await self.until(lambda: outcome.unstarted is not None)
        return outcome

    async def run(self, spec: JobSpec) -> Outcome:
        return await self.ended(self.start(spec))

    def watch(self) -> None:
        """As if the task of each host took long: the starter is told to empty its output."""
        for host in self.pool._hosts:
            state = host.shared.read()
            for running in list(host.batches.values())[:1]:
                self.pool._hosts.watch(host, running, state.index if state is not None else 0)

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for a condition that an event or the outside world makes true."""
        while not condition():
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.01):
                    await self._changed.wait()

    def _on_event(self, event: ExecutorEvent) -> None:
        self._changed.set()
        if isinstance(event, Reports):
            self.reports.append({(each.batch, each.index): each for each in event.reports})
            return
        if isinstance(event, TakenBack):
            self.taken_back += 1
            return
        outcome = self.outcomes[event.batch]
        outcome.messages += 1
        assert outcome.unstarted is None, "Ended is the last event of a batch"
        match event:
            case Ended(unstarted=unstarted):
                assert not unstarted & TaskSet.from_indices(outcome.tasks)
                assert not unstarted & outcome.given_back
                outcome.unstarted = unstarted
            case GaveBack(tasks=tasks):
                assert not tasks & TaskSet.from_indices(outcome.tasks)
                assert not tasks & outcome.given_back
                outcome.given_back |= tasks
            case Progress(segments=segments):
                for segment in segments:
                    unpacked = chunks.unpack(segment.data)
                    assert len(unpacked) == len(segment.tasks)
                    for index, item in zip(segment.tasks, unpacked, strict=True):
                        assert index not in outcome.tasks, "a task is named once"
                        assert index not in outcome.given_back, "it does not begin here"
                        mine = tuple(blob for blob in segment.blobs if blob.index == index)
                        assert all(self._blobs and self._blobs.is_here(blob.ref) for blob in mine)
                        outcome.tasks[index] = TaskEnd(
                            segment.cause,
                            *items.unpack(item),
                            segment.busy_us,
                            FromDisk(self._blobs) if self._blobs else None,
                            mine,
                        )


def with_pool(
    folder: Path,
    scenario: Callable[[Rig], Awaitable[None]],
    *,
    slots: int = 2,
    python: str = sys.executable,
    grace_s: float = 0.2,
    blobs: DiskBlobs | None = None,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
    setup: Setup | None = None,
) -> None:
    """Run a scenario beside a pool that is up, and end the pool."""

    async def main() -> None:
        rig = Rig(
            folder / "pool", slots=slots, python=python, grace_s=grace_s, blobs=blobs, setup=setup
        )
        async with asyncio.timeout(40), asyncio.TaskGroup() as group:
            lives = [group.create_task(rig.pool.run())]
            if blobs is not None:
                lives.append(group.create_task(rig.pool.keep(blobs)))
            await rig.pool.wait_ready()
            try:
                await scenario(rig)
            finally:
                for life in lives:
                    life.cancel()

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())


def alive(pid: int) -> bool:
    """True unless it is gone, or dead and only waits to be reaped."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


def pids_in(path: Path) -> list[int]:
    """Process numbers that a task wrote, or none yet."""
    text = path.read_text() if path.exists() else ""
    return [int(word) for word in text.split()]


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
