"""A small backup, made without a cluster: a job that has ended, with a large result, and one whose
tasks are granted to a peer of before."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from p2psched.core.machine import Machine
from p2psched.core.snapshot import encode_machine
from p2psched.model import chunks, digests
from p2psched.model.blob import BlobRef, ResultBlob
from p2psched.model.commands import (
    Command,
    Complete,
    Envelope,
    Forget,
    Place,
    Recorded,
    Retry,
    Stamped,
    SubmitJob,
)
from p2psched.model.execution import Committed
from p2psched.model.ids import ClusterId, JobId, PeerId
from p2psched.model.job import Cause, JobSpec, ProgramWork, Segment
from p2psched.model.raft import Member, Membership, Snapshot
from p2psched.model.taskset import TaskSet
from p2psched.store.backup_file import (
    FORMAT,
    BackupWriter,
    BlobPart,
    Head,
    JobPart,
    Record,
    Rest,
    StatePart,
)
from p2psched.store.snapshots import described
from tests.core.test_machine import up

OLD: Final = PeerId("aa" * 16)
CLUSTER: Final = ClusterId("cc" * 16)
ENDED, RUNNING = JobId("e" * 32), JobId("f" * 32)
LARGE: Final = b"large" * 20_000
REF: Final = BlobRef(digests.digest_of(LARGE), len(LARGE))
SPEC: Final = JobSpec(name="j", tasks=TaskSet.of(0, 2), work=ProgramWork(("true",)))
SECRET: Final = bytes(32)


class Source:
    """What a cluster knew."""

    def __init__(self) -> None:
        self.machine = Machine()
        self.events: list[Stamped] = []
        self.do(up(OLD))
        self.do(SubmitJob(ENDED, SPEC))
        first = self.do(Place(ENDED, SPEC.tasks, OLD, 1))
        blob = ResultBlob(1, "", REF, (OLD,))
        data = chunks.pack([b"one", b"two"])
        self.do(Complete(ENDED, first, (Segment(0, 2, Cause.OK, data, 9, (blob,)),)))
        self.do(SubmitJob(RUNNING, SPEC))
        self.grant = self.do(Place(RUNNING, SPEC.tasks, OLD, 1))
        self.state = encode_machine(self.machine)
        members = Membership((Member(OLD, "old", "old:1"),))
        index = self.machine.applied_index
        self.snapshot = described(Snapshot(index, 3, index, members), self.state)

    def do(self, command: Command) -> int:
        index = self.machine.applied_index + 1
        batch = Committed(index, index, 1_000 * index, (Envelope(OLD, index, command),))
        _, events = self.machine.apply(batch)
        self.events += events
        return self.machine.command_index

    def records(self, after: tuple[Forget | Retry, ...] = ()) -> list[Record]:
        head = Head(
            format=FORMAT,
            version="0",
            made_ms=1,
            cluster=CLUSTER,
            peer="old",
            generation=1,
            level=1,
            command_index=self.machine.command_index,
            snapshot=self.snapshot,
            jobs=2,
            blob_bytes=REF.size,
        )
        half = len(self.state) // 2
        return [
            head,
            StatePart(self.state[:half]),
            StatePart(self.state[half:]),
            *(part for job in (ENDED, RUNNING, JobId("")) for part in self._parts(job)),
            BlobPart(REF, 0, LARGE[:40_000]),
            BlobPart(REF, 40_000, LARGE[40_000:]),
            Rest(after, (), 2, 1, REF.size),
        ]

    def _parts(self, job: JobId) -> list[JobPart]:
        positions = self.machine.jobs[job].segments if job else 0
        mine = [e for e in self.events if getattr(e.event, "job", JobId("")) == job]
        told = [e.event for e in mine if isinstance(e.event, Recorded)]
        return [
            JobPart(job, False, positions, events=tuple(mine), spec=SPEC if job else None),
            JobPart(
                job,
                True,
                positions,
                next_position=positions,
                at=tuple(event.position for event in told),
                segments=tuple(event.segment for event in told),
                grants={event.position: (event.grant, event.peer) for event in told},
            ),
        ]

    def write(self, path: Path, after: tuple[Forget | Retry, ...] = ()) -> Path:
        with BackupWriter(path) as writer:
            for record in self.records(after):
                writer.add(record)
            writer.finish()
        return path
