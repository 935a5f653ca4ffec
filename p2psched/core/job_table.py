"""The jobs of a ledger, by id; those that ended a while ago as bytes.

A cluster may remember a hundred thousand jobs that have ended, and hardly anybody asks for one. As
bytes, as it stands in a snapshot, a job takes a fifth of what it takes as an object. Whoever asks
for one gets an object again, and may change it; it is packed once more when UNPACKED_MAX others
were asked for since. So nobody may keep a job that has ended from one command to the next.

What is packed just now is no part of the state, and peers may differ.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import ItemsView, Iterator, MutableMapping, ValuesView
from typing import Final, TypeVar, overload

import msgspec

from p2psched.core.jobs import Job
from p2psched.model.ids import JobId

UNPACKED_MAX = 256  # more than one command touches that were packed before it

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Job).decode
_D = TypeVar("_D")


class JobTable(MutableMapping[JobId, Job]):
    """In order of submission. Its views unpack one after another and keep none of them, so who
    goes through them only looks."""

    __slots__ = ("_jobs", "_unpacked")

    def __init__(self) -> None:
        self._jobs: dict[JobId, Job | bytes] = {}
        # Asked for, and not packed since; oldest first, each once: who has just come must not go.
        self._unpacked: OrderedDict[JobId, None] = OrderedDict()

    def __getitem__(self, name: JobId) -> Job:
        held = self._jobs[name]
        return held if isinstance(held, Job) else self._unpack(name, held)

    @overload
    def get(self, name: JobId, /) -> Job | None: ...
    @overload
    def get(self, name: JobId, /, default: Job | _D) -> Job | _D: ...
    def get(self, name: JobId, /, default: Job | _D | None = None) -> Job | _D | None:
        held = self._jobs.get(name)
        if isinstance(held, Job):
            return held
        return default if held is None else self._unpack(name, held)

    def __setitem__(self, name: JobId, job: Job) -> None:
        self._jobs[name] = job

    def __delitem__(self, name: JobId) -> None:
        del self._jobs[name]
        self._unpacked.pop(name, None)

    def __contains__(self, name: object) -> bool:
        return name in self._jobs

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[JobId]:
        return iter(self._jobs)

    def peek(self, name: JobId) -> Job:
        """To look at and not to keep. Raises KeyError."""
        return _job(self._jobs[name])

    def values(self) -> ValuesView[Job]:
        return _Jobs(self)

    def items(self) -> ItemsView[JobId, Job]:
        return _Items(self)

    def newest(self) -> Iterator[Job]:
        """As `values`, from the newest on."""
        return map(_job, reversed(self._jobs.values()))

    def named(self, name: str) -> Job | None:
        """The newest of that name. Costs a look at the bytes of each job that has ended."""
        said = name.encode(errors="replace")
        for held in reversed(self._jobs.values()):
            if isinstance(held, Job) or said in held:
                job = _job(held)
                if job.spec.name == name:
                    return job
        return None

    def pack(self, name: JobId) -> None:
        """Nobody has anything to do with it any more. One with large results stays as it is: who
        looks after these goes through all of them."""
        job = self._jobs.get(name)
        if isinstance(job, Job) and job.ended and not job.blobs:
            self._jobs[name] = _encode(job)
            self._unpacked.pop(name, None)

    def held(self) -> dict[JobId, Job | bytes]:
        """A copy: what is packed, and what is not."""
        return dict(self._jobs)

    def _unpack(self, name: JobId, packed: bytes) -> Job:
        job = self._jobs[name] = _decode(packed)
        self._unpacked[name] = None
        if len(self._unpacked) > UNPACKED_MAX:
            oldest, _ = self._unpacked.popitem(last=False)
            self.pack(oldest)
        return job


def _job(held: Job | bytes) -> Job:
    return held if isinstance(held, Job) else _decode(held)


class _Jobs(ValuesView[Job]):
    def __init__(self, table: JobTable) -> None:
        super().__init__(table)
        self._table = table

    def __iter__(self) -> Iterator[Job]:
        return map(_job, self._table._jobs.values())


class _Items(ItemsView[JobId, Job]):
    def __init__(self, table: JobTable) -> None:
        super().__init__(table)
        self._table = table

    def __iter__(self) -> Iterator[tuple[JobId, Job]]:
        for name, held in self._table._jobs.items():
            yield name, _job(held)
