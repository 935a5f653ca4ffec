"""The state machine as bytes while it goes on: a snapshot of one entry, taken in small pieces.

A capture gives the bytes that `encode_machine` would have given at its start, without holding up
the loop for all of them. At its start it encodes what any command may change (peers, the youngest
ended jobs); all other jobs are encoded a slice at a time, and before an entry is applied
those first that it may change (`before`). Which these are:

- what names a job changes that job, and ends it at most, which changes the youngest ended ones,
  and those that wait for it (`dependencies`);
- what is about a peer may change every job that has not ended, a new generation all of them;
- what is about webhooks changes those, which are encoded at the start;
- what clients do to leases, and to what hangs on them, replaces
  values that never change themselves;
- what is due by time may change the jobs of which something is due, and those that wait.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Final

from p2psched.core.jobs import Job
from p2psched.core.machine import Machine
from p2psched.core.snapshot import FORMAT, MachineImage, encode_part
from p2psched.model.actions import Act, Elapsed
from p2psched.model.commands import (
    Command,
    Drain,
    ForgetPeer,
    NewGeneration,
    PeerDown,
    PeerUp,
    RaiseLevel,
)
from p2psched.model.execution import Committed
from p2psched.model.ids import JobId
from p2psched.model.limits import KIB
from p2psched.model.needs import Offer
from p2psched.model.reconciled import Reconciled
from p2psched.model.webhook import AckWebhook, AddWebhook, RemoveWebhook

SLICE_JOBS: Final = 500  # encoded in one go: about a millisecond
SLICE_BYTES: Final = 256 * KIB  # and no more than that, but for one job

_FIELDS: Final = MachineImage.__struct_fields__
# Of ids, which never change: a copy is enough, and takes a millisecond for 100,000 of them.
_ORDERS: Final = frozenset({"running", "ended", "whole", "unplaced", "with_blobs", "suspected"})
# Of values that never change: a copy is enough, and is encoded a slice at a time.
_VALUES: Final = frozenset(
    {
        *("callers", "acted", "leases", "keys", "lock_claims"),
        *("queue_heads", "queue_items", "queue_claims"),
    }
)
_OF_NO_JOB: Final = (
    *(RaiseLevel, Drain, AddWebhook, RemoveWebhook, AckWebhook, ForgetPeer),
    *(Act, Offer, Reconciled),
)
assert _FIELDS[0] == "jobs", "jobs come first, so that they can be told before all is known"


class Capture:
    """Of a machine between two entries. Take `pieces` one after another, in any time; tell it
    `before` each entry that the machine applies meanwhile."""

    def __init__(self, machine: Machine) -> None:
        assert not machine.events
        self._machine = machine
        self._jobs = list(machine.jobs)
        self._left = machine.jobs.held()  # not told yet; what ended a while ago is bytes already
        self._running = list(machine.running)
        self._timed = list(map(JobId, machine.job_dues.keys()))
        self._early: dict[JobId, bytes] = {}  # encoded out of turn
        self._rest = [
            (name, dict(value) if name in _ORDERS or name in _VALUES else encode_part(value))
            for name in _FIELDS[1:]
            for value in (getattr(machine, name),)
        ]
        for job in machine.whole:
            self._encode_early(job)

    def before(self, batches: Iterable[Committed]) -> None:
        """These will be applied next. Costs what they touch, at most once for each job."""
        if self._left:
            for batch in batches:
                for envelope in batch.envelopes:
                    for job in self._touched(envelope.command):
                        self._encode_early(job)

    def _touched(self, command: Command) -> Iterable[JobId]:
        if isinstance(command, PeerUp | PeerDown):
            return self._running
        if isinstance(command, NewGeneration):
            return self._jobs
        if isinstance(command, Elapsed):
            return [*self._timed, *self._machine.lineage.awaiting]
        if isinstance(command, _OF_NO_JOB):
            return ()
        return (command.job, *self._machine.lineage.descendants(command.job))

    def _encode_early(self, name: JobId) -> None:
        job = self._left.pop(name, None)
        if job is not None:
            self._early[name] = _bytes_of(job)

    def pieces(self) -> Iterator[bytes]:
        """Together they are the state. Once."""
        yield b"\x92" + encode_part(FORMAT) + _array_head(len(_FIELDS)) + _map_head(len(self._jobs))
        parts: list[bytes] = []
        size = 0
        for name in self._jobs:
            parts.append(self._encoded(name))
            size += len(parts[-1])
            if len(parts) >= SLICE_JOBS or size >= SLICE_BYTES:
                yield b"".join(parts)
                parts.clear()
                size = 0
        yield b"".join(parts)
        for field, rest in self._rest:
            if field in _VALUES and isinstance(rest, dict):
                yield from _slices(rest)
            else:
                yield rest if isinstance(rest, bytes) else encode_part(rest)

    def _encoded(self, name: JobId) -> bytes:
        early = self._early.pop(name, None)
        return encode_part(name) + (early or _bytes_of(self._left.pop(name)))


def _bytes_of(job: Job | bytes) -> bytes:
    return job if isinstance(job, bytes) else encode_part(job)


def _slices(values: dict[object, object]) -> Iterator[bytes]:
    parts = [_map_head(len(values))]
    size = 0
    for key, value in values.items():
        parts.append(encode_part(key) + encode_part(value))
        size += len(parts[-1])
        if len(parts) >= SLICE_JOBS or size >= SLICE_BYTES:
            yield b"".join(parts)
            parts.clear()
            size = 0
    yield b"".join(parts)


def _array_head(count: int) -> bytes:
    return bytes([0x90 | count]) if count < 16 else b"\xdc" + struct.pack(">H", count)


def _map_head(count: int) -> bytes:
    if count < 16:
        return bytes([0x80 | count])
    return (
        b"\xde" + struct.pack(">H", count)
        if count < 1 << 16
        else b"\xdf" + struct.pack(">I", count)
    )
