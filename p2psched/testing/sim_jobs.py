"""Jobs of a simulation: how long their tasks take, how they end and what they leave, by the words
of their names, so that whoever looks at a job knows.
"""

from __future__ import annotations

import enum
import hashlib
import zlib
from typing import Final

import msgspec

from p2psched.model import chunks
from p2psched.model.blob import BlobRef, ResultBlob
from p2psched.model.execution import (
    Batch,
)
from p2psched.model.hold import Hold
from p2psched.model.ids import JobId
from p2psched.model.job import FunctionWork, JobSpec, ProgramWork
from p2psched.model.taskset import TaskSet

_LARGE, _KILLS, _HANGS, _LENGTHS = 2, 3, 4, 5  # words of a job's name, if it has so many
STRAGGLING_PERMILLE: Final = 100  # of the tasks of jobs that speculate


class Lengths(enum.IntEnum):
    """How long the tasks of a simulated job take."""

    DRAWN = 0  # up to twice `mean_us`, each time anew
    EVEN = 1  # all as long as it
    UNEVEN = 2  # as long, and one in ten, anywhere, fifty times


UNEVEN_TIMES: Final = 50


def sim_job(
    tasks: TaskSet,
    *,
    mean_us: int,
    fail_permille: int = 0,
    retries: int = 0,
    cpus: int = 1,
    function: bool = False,
    large_permille: int = 0,
    kill_permille: int = 0,
    hang_permille: int = 0,
    lengths: Lengths = Lengths.DRAWN,
    timeout_ms: int | None = None,
    copies: int = 2,
    keep_ms: int | None = None,
    hold: Hold | None = None,
) -> JobSpec:
    """A job for a simulated cluster. With `function` the tasks must be 0..n-1. `large_permille` of
    the tasks have large results: those of a function are the same whenever it runs, those of a
    program are others under each grant. `kill_permille` of the tasks kill their peer, always.
    `hang_permille` of them never end by themselves, drawn for each grant anew."""
    size = len(tasks)
    work = (
        FunctionWork("sim:task", b"", (chunks.pack([b""] * size),), size, "3.11")
        if function
        else ProgramWork(("task",))
    )
    words = [mean_us, fail_permille, large_permille, kill_permille, hang_permille, lengths]
    while not words[-1] and len(words) > _LARGE:
        words.pop()
    return JobSpec(
        name=" ".join(map(str, words)),
        tasks=tasks,
        work=work,
        retries=retries,
        timeout_ms=timeout_ms,
        cpus=cpus,
        copies=copies,
        keep_ms=keep_ms,
        hold=hold,
    )


def with_hangs(spec: JobSpec, *, hang_permille: int, timeout_ms: int | None) -> JobSpec:
    """The same simulated job, and so many of its tasks hang."""
    words = [str(_word(spec.name, position)) for position in range(_HANGS)]
    name = " ".join([*words, str(hang_permille)])
    return msgspec.structs.replace(spec, name=name, timeout_ms=timeout_ms)


def with_kills(name: str, permille: int) -> str:
    """The name of a job of which so many tasks kill their peers."""
    words = [str(_word(name, position)) for position in range(_KILLS)]
    return " ".join([*words, str(permille), *name.split()[_KILLS + 1 :]])


def with_mean(name: str, mean_us: int) -> str:
    """The name of a job whose tasks take so long."""
    return " ".join([str(mean_us), *name.split()[1:]])


def may_hang(name: str) -> bool:
    return _word(name, _HANGS) > 0


def kills_none(name: str) -> bool:
    return not _word(name, _KILLS)


def _word(name: str, position: int) -> int:
    words = name.split()
    return int(words[position]) if len(words) > position else 0


def kills_its_peer(name: str, job: JobId, index: int) -> bool:
    """True if this task of a simulated job kills whatever peer runs it; `name`: the job's."""
    draw = hashlib.sha256(f"{job}:{index}:kills".encode()).digest()
    return int.from_bytes(draw[:4]) % 1000 < _word(name, _KILLS)


def hangs(name: str, job: JobId, index: int, grant: int) -> bool:
    """True if this task never ends under this grant, unless it is ended."""
    share = _word(name, _HANGS)
    if not share:
        return False
    draw = hashlib.sha256(f"{job}:{index}:{grant}:hangs".encode()).digest()
    return int.from_bytes(draw[:4]) % 1000 < share


def straggles(batch: Batch, index: int) -> bool:
    """True if this task takes far longer under this grant than it should."""
    draw = hashlib.sha256(f"{batch.job}:{index}:{batch.grant}:straggles".encode()).digest()
    return int.from_bytes(draw[:4]) % 1000 < STRAGGLING_PERMILLE


def length_us(name: str, index: int) -> int | None:
    """Of a task of a simulated job of this name; None: drawn when it begins."""
    lengths = Lengths(_word(name, _LENGTHS))
    if lengths is Lengths.DRAWN:
        return None
    is_long = lengths is Lengths.UNEVEN and zlib.crc32(b"%d" % index) % 10 == 0
    return _word(name, 0) * (UNEVEN_TIMES if is_long else 1)


class KilledByTaskError(Exception):
    """A task has ended the process that runs it."""


def value_of(batch: Batch, index: int) -> bytes:
    """What a task of a simulated job returns."""
    return f"{batch.job}:{index}:{batch.grant}".encode()


def blobs_of(batch: Batch, index: int) -> tuple[ResultBlob, ...]:
    """The large parts of a task's result: its value, a file, both, or none; drawn from its name."""
    draw = hashlib.sha256(f"{batch.job}:{index}".encode()).digest()
    if int.from_bytes(draw[:4]) % 1000 >= _word(batch.spec.name, _LARGE):
        return ()
    names = (("",), ("weights",), ("", "weights"))[draw[4] % 3]
    run = "" if isinstance(batch.spec.work, FunctionWork) else batch.grant
    return tuple(
        ResultBlob(
            index,
            name,
            BlobRef(hashlib.sha256(f"{batch.job}:{index}:{name}:{run}".encode()).digest(), 1000),
        )
        for name in names
    )
