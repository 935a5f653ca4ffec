"""Many small inputs for a program that takes long to start: one process for a batch of them.

A batch is a task, a call of `client.batch_driver.run`, whose source travels with the job: workers
need nothing installed. The value of a task is a list of outcomes, one for each input of its batch.

    packed = pack_batches(["./score"], lines_of(file), batch=200)
    job = await client.submit_spec(packed.spec, uploads=packed.uploads)
    async for number, outcome in outcomes(client.session, await job.show()):
        ...
"""

from __future__ import annotations

import io
import itertools
import pickle
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from p2psched.client import batch_driver, blobs
from p2psched.client.functions import Calls, PackedFunction, PackedJob, pack
from p2psched.client.results import is_pickle, open_value
from p2psched.client.session import Session
from p2psched.client.shapes import MODULE, Shape, shape_of
from p2psched.model import items, limits, values
from p2psched.model.backing import Backing
from p2psched.model.blob import BlobRef
from p2psched.model.errors import ProtocolError, UsageError
from p2psched.model.hold import Hold
from p2psched.model.ids import short
from p2psched.model.isolation import Isolation
from p2psched.model.job import Cause, FunctionWork
from p2psched.model.messages import FetchItem, ItemAnswer, JobView
from p2psched.model.needs import Needs
from p2psched.model.once import Start
from p2psched.model.pace_rules import PaceRules
from p2psched.model.precedence import Precedence
from p2psched.model.retry import RetryPolicy, TimeLimits
from p2psched.net.together import together
from p2psched.run.host.files import File

BATCH_MAX: Final = 1000  # inputs; the longest list that is plain data, which opens without code
LINE_BYTES_MAX: Final = 1 * limits.MIB
AHEAD: Final = 16  # tasks whose outcomes are asked for, and held, at a time
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a program made of one input. `error` is empty if it succeeded."""

    out: bytes
    error: str

    @property
    def ok(self) -> bool:
        return not self.error


def lines_of(stream: BinaryIO) -> Iterator[bytes]:
    """Without their ends. Raises UsageError for one that is too long."""
    while line := stream.readline(LINE_BYTES_MAX + 1):
        if len(line) > LINE_BYTES_MAX:
            raise UsageError(
                f"an input is longer than {LINE_BYTES_MAX // limits.MIB} MiB: name files instead"
            )
        yield line.removesuffix(b"\n")


def pack_batches(
    argv: Sequence[str],
    inputs: Iterable[bytes],
    *,
    batch: int = 1,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    files: Sequence[tuple[Path, int]] = (),
    as_arguments: bool = False,
    name: str | None = None,
    retries: int = 0,
    timeout_s: float | None = None,
    cpus: int = 1,
    submitter: str = "",
    copies: int = 2,
    keep_ms: int | None = None,
    hold: Hold | None = None,
    policy: str = "",
    needs: Needs | None = None,
    retry: RetryPolicy | None = None,
    times: TimeLimits | None = None,
    isolation: Isolation | None = None,
    pace: PaceRules | None = None,
    start: Start = Start.LEAST,
    lease_ms: int = 0,
    backing: Backing | None = None,
    precedence: Precedence | None = None,
) -> PackedJob:
    """`files`: paths and modes, put into the folder of each process. `retries` are those of an
    input, and of a batch whose worker dies. Raises UsageError for what makes no sense."""
    if not 1 <= batch <= BATCH_MAX:
        raise UsageError(f"a batch has 1 to {BATCH_MAX:,} inputs, not {batch:,}")
    constants = {
        "argv": list(argv),
        "env": dict(env or {}),
        "cwd": cwd,
        "files": [(File(path), mode) for path, mode in files],
        "as_arguments": as_arguments,
        "single": batch == 1,
        "retries": retries,
    }
    counted = _Counted(inputs, batch)
    function = PackedFunction(f"{MODULE}:run", b"", MODULE, _archive())
    packed = pack(
        function,
        Calls(counted.calls(), constants, stable=False),
        name=name if name is not None else Path(argv[0]).name[:128],
        retries=retries,
        timeout_s=timeout_s,
        cpus=cpus,
        submitter=submitter,
        copies=copies,
        keep_ms=keep_ms,
        hold=hold,
        policy=policy,
        needs=needs,
        retry=retry,
        times=times,
        limits=isolation,
        pace=pace,
        start=start,
        lease=lease_ms / 1000 if lease_ms else None,
        replicas=backing.replicas if backing is not None else 1,
        speculate=backing is not None and backing.speculate,
    )
    assert isinstance(packed.spec.work, FunctionWork)
    path = f"{MODULE}:run_{counted.count}_by_{batch}"
    work = msgspec.structs.replace(packed.spec.work, path=path)
    spec = msgspec.structs.replace(packed.spec, work=work, precedence=precedence)
    return PackedJob(spec, packed.uploads)


class _Counted:
    """Cuts inputs into batches and knows how many there were."""

    def __init__(self, inputs: Iterable[bytes], batch: int) -> None:
        self._inputs = iter(inputs)
        self._batch = batch
        self.count = 0

    def calls(self) -> Iterator[tuple[tuple[object, ...], Mapping[str, object]]]:
        found: list[bytes] = []
        for one in self._inputs:
            found.append(one)
            self.count += 1
            if len(found) == self._batch:
                yield (found,), {}
                found = []
        if found:
            yield (found,), {}
        if not self.count:
            raise UsageError("there are no inputs: one a line makes a job")


def _archive() -> bytes:
    """The driver as a module; the same bytes each time."""
    import zipfile  # noqa: PLC0415 (who only reads results packs nothing)

    stream = io.BytesIO()
    source = Path(batch_driver.__file__).read_bytes()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo(f"{MODULE}.py", _EPOCH), source)
    return stream.getvalue()


# --- results --------------------------------------------------------------------------------------


async def outcomes(session: Session, view: JobView) -> AsyncIterator[tuple[int, Outcome]]:
    """The inputs of all tasks that have ended, in order, with their numbers. Memory holds AHEAD
    batches. A batch that failed as a whole fails each of its inputs."""
    shape = shape_of(view)
    assert shape is not None
    left = iter(view.task_set)
    while indices := list(itertools.islice(left, AHEAD)):
        for index, found in zip(
            indices, await _of_tasks(session, view, indices, shape), strict=True
        ):
            for number, outcome in zip(shape.of_task(index), found, strict=False):
                yield number, outcome


async def _of_tasks(
    session: Session, view: JobView, indices: Sequence[int], shape: Shape
) -> list[list[Outcome]]:
    return await together(lambda index: _of_task(session, view, index, shape), indices)


async def _of_task(session: Session, view: JobView, index: int, shape: Shape) -> list[Outcome]:
    """None of a task that has not ended."""
    answer = await session.call(FetchItem(view.job, index), ItemAnswer)
    numbers = shape.of_task(index)
    if not answer.item:
        ended = answer.state in {"failed", "cancelled"}
        return [Outcome(b"", answer.state)] * len(numbers) if ended else []
    try:
        header, value, _, _ = items.unpack(answer.item)
        if answer.cause != Cause.OK:
            text = f"{answer.cause}: {' '.join(str(header.get('message', '')).split())}"
            return [Outcome(b"", text.removesuffix(": "))] * len(numbers)
        if values.kind_of(value) == values.BLOB:
            value = bytes(await blobs.read(session, BlobRef(*values.blob_of(value))))
        found = outcomes_in(value)
    except ValueError as error:
        raise ProtocolError(
            f"the outcomes of task {short(view.job)}/{index} can't be read ({error}): use the "
            "version of p2psched that submitted the job"
        ) from error
    if len(found) != len(numbers):
        raise ProtocolError(f"task {short(view.job)}/{index} has {len(found)} outcomes")
    return found


def outcomes_in(value: bytes) -> list[Outcome]:
    """Runs no code, however the value was packed. Raises ValueError."""
    opened: object
    if is_pickle(value):  # of an interpreter without msgpack
        try:
            opened = _Closed(io.BytesIO(value)).load()
        except (pickle.UnpicklingError, EOFError, IndexError) as error:
            raise ValueError(str(error)) from error
    else:
        opened = open_value(value)
    if not isinstance(opened, list):
        raise ValueError("outcomes are a list")
    found = []
    for one in opened:
        match one:
            case {"ok": bool(), "out": str() | bytes() as out, "error": str(wrong)}:
                found.append(Outcome(out.encode() if isinstance(out, str) else out, wrong))
            case _:
                raise ValueError("an outcome has ok, out and error")
    return found


class _Closed(pickle.Unpickler):
    """Opens lists, maps, texts and numbers, nothing else."""

    def find_class(self, module: str, name: str, /) -> object:
        raise pickle.UnpicklingError(f"{module}.{name} is no plain data")
