"""Makes the data folder of a new cluster out of a backup.

It takes another identity, another cluster and the next generation: peers of before can't join, and
no grant of before counts. All of it is made beside the place where it is to be, checked, synced,
and only then gets its name: a restore that was killed leaves nothing that starts, and the next one
removes it. Nothing else is touched.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from p2psched.core.levels import check_known
from p2psched.core.machine import Machine
from p2psched.core.snapshot import restore_machine
from p2psched.model.blob import BlobRef
from p2psched.model.commands import Forget
from p2psched.model.digests import Hasher
from p2psched.model.errors import NoSpace, Refused
from p2psched.model.ids import ClusterId, JobId, PeerId, new_id
from p2psched.model.raft import Member
from p2psched.peer import new_generation
from p2psched.peer.result_writer import known_jobs
from p2psched.ports.results import Fill, Gap, Page
from p2psched.store.backup_file import (
    BackupReader,
    BlobPart,
    Head,
    JobPart,
    Rest,
    StatePart,
)
from p2psched.store.blobs import BlobFiles
from p2psched.store.disk import OsDisk
from p2psched.store.files import refusing, replace_file, sync_folder
from p2psched.store.folder import Identity, write_identity
from p2psched.store.results_gaps import SqliteGapResults
from p2psched.store.snapshots import NewSnapshot, SnapshotFiles
from p2psched.store.space import is_no_space

ADOPTED_TOGETHER: Final = 64  # blobs of one round of syncs
_OURS: Final = frozenset({"lock", "ledger", "run", "blobs", "secret", "identity", "secret.new"})

Progress = Callable[[int], None]


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """What was made, or, of a backup that was only looked at, what would be."""

    head: Head
    cluster: ClusterId | None
    peer: PeerId | None
    name: str
    generation: int
    jobs: int
    jobs_running: int
    blobs: int
    blob_bytes: int
    missing: int  # large results of which the backup has no copy


def check(path: Path, progress: Progress) -> Restored:
    """Read all of a backup and see that it fits together; nothing is written but a state that is
    taken apart in memory. Raises Damaged, Refused, UsageError."""
    with BackupReader(path) as reader:
        parts = bytearray()
        machine: Machine | None = None
        blobs = _BlobCheck(reader)
        rest = Rest((), (), 0, 0, 0)
        jobs = 0
        for record in _with_progress(reader, progress):
            if isinstance(record, StatePart):
                parts += record.data
                continue
            machine = machine or _opened(reader, bytes(parts))
            match record:
                case JobPart():
                    jobs += record.is_last and bool(record.job)
                case BlobPart():
                    blobs.take(record)
                case Rest():
                    rest = record
        assert machine is not None, "a rest comes last"
        _check_counts(reader, rest, jobs, blobs)
        return _told(reader.head, machine, rest, None)


def restore(path: Path, target: Path, *, name: str, secret: bytes, progress: Progress) -> Restored:
    """Raises Damaged, Refused (something is there already, another restore is under way), NoSpace,
    UsageError. `target` is there whole on return, and not at all if this raises."""
    with BackupReader(path) as reader:
        check_known(reader.head.level, Machine().known_level)
        with _aside(target) as folder:
            made = _Making(folder, reader, name).run(secret, progress)
            with refusing(f"make {target}"):
                sync_folder(folder)
                folder.rename(target)
                sync_folder(target.parent)
        return made


@contextlib.contextmanager
def _aside(target: Path) -> Iterator[Path]:
    """A folder that becomes `target`; what is left of it goes, also what a killed one has left."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise Refused(f"{target} is not empty: name a folder that is, or that is not there")
    folder = target.with_name(f".{target.name}.restoring")
    with refusing(f"make {target}"):
        target.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        lock = os.open(
            folder / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
    try:
        with refusing(f"use {folder}"):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Refused(f"another restore makes {target}: wait for it, or end it") from None
            _empty(folder)
        try:
            yield folder
        except OSError as error:
            if is_no_space(error):
                raise NoSpace(
                    f"no space for {target}: free some, or choose another disk"
                ) from error
            raise
        finally:
            if folder.exists():
                shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)


def _empty(folder: Path) -> None:
    others = [p.name for p in folder.iterdir() if p.name not in _OURS and "results" not in p.name]
    if others:
        raise Refused(f"{folder} holds files that are none of ours: remove it first")
    for path in folder.iterdir():
        if path.name == "lock":
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _with_progress(
    reader: BackupReader, progress: Progress
) -> Iterator[StatePart | JobPart | BlobPart | Rest]:
    told = 0
    for record in reader.records():
        yield record
        progress(reader.read_bytes - told)
        told = reader.read_bytes


def _opened(reader: BackupReader, state: bytes | memoryview) -> Machine:
    machine = Machine()
    restore_machine(machine, state)
    head = reader.head
    if (machine.applied_index, machine.command_index) != (head.snapshot.index, head.command_index):
        raise reader.damaged("its state is not the one that its head tells of")
    return machine


def _told(head: Head, machine: Machine, rest: Rest, identity: Identity | None) -> Restored:
    return Restored(
        head=head,
        cluster=identity.cluster if identity is not None else None,
        peer=identity.peer if identity is not None else None,
        name=identity.name if identity is not None else "",
        generation=machine.generation + 1,
        jobs=rest.jobs,
        jobs_running=len(machine.running),
        blobs=rest.blobs,
        blob_bytes=rest.blob_bytes,
        missing=len(rest.missing),
    )


class _BlobCheck:
    """Blobs come in order, piece by piece, and are what their names say."""

    def __init__(self, reader: BackupReader) -> None:
        self._reader = reader
        self._ref: BlobRef | None = None
        self._hasher = Hasher()
        self.count = 0
        self.bytes = 0

    def take(self, part: BlobPart) -> bool:
        """True if it was the last one of its blob."""
        if self._ref is None:
            self._ref, self._hasher = part.ref, Hasher()
        if part.ref != self._ref or part.offset != self._hasher.size:
            raise self._reader.damaged(f"blob {self._ref} is not whole")
        self._hasher.update(part.data)
        if self._hasher.size < part.ref.size:
            return False
        if self._hasher.size > part.ref.size or self._hasher.finish() != part.ref.digest:
            raise self._reader.damaged(f"blob {part.ref} fails its checksum")
        self._ref = None
        self.count += 1
        self.bytes += part.ref.size
        return True


def _check_counts(reader: BackupReader, rest: Rest, jobs: int, blobs: _BlobCheck) -> None:
    if (rest.jobs, rest.blobs, rest.blob_bytes) != (jobs, blobs.count, blobs.bytes):
        raise reader.damaged("it does not hold what it says at its end")


class _Making:
    """One restore."""

    def __init__(self, folder: Path, reader: BackupReader, name: str) -> None:
        rng = random.SystemRandom()
        self._folder = folder
        self._reader = reader
        self._head: Final = reader.head
        self._peer = PeerId(new_id(rng))
        cluster = ClusterId(new_id(rng))
        self._identity = Identity(peer=self._peer, cluster=cluster, name=name)
        for sub in ("ledger", "run"):
            (folder / sub).mkdir(mode=0o700)
        self._disk = OsDisk(folder / "ledger")
        self._snapshots = SnapshotFiles(self._disk)
        self._blobs = BlobFiles(folder / "blobs", now_ms=lambda: time.monotonic_ns() // 1_000_000)
        self._results = SqliteGapResults(folder / "results.db")
        self._machine = Machine()
        self._job: tuple[JobId, Gap] | None = None  # whose parts are coming
        self._jobs = 0
        self._blob: tuple[BlobRef, Path] | None = None
        self._checked = _BlobCheck(reader)
        self._whole: list[tuple[BlobRef, Path]] = []

    def run(self, secret: bytes, progress: Progress) -> Restored:
        try:
            rest = self._take_all(progress)
            self._results.checkpoint(self._head.snapshot.index)
        finally:
            self._results.close()
            self._blobs.close()
        self._begin_generation(rest)
        replace_file(self._folder / "secret", f"{secret.hex()}\n".encode(), durable=True)
        for sub in ("ledger", "run", "blobs"):
            sync_folder(self._folder / sub)
        write_identity(self._folder, self._identity)  # last: without it nobody starts from here
        return _told(self._head, self._machine, rest, self._identity)

    def _take_all(self, progress: Progress) -> Rest:
        new: NewSnapshot | None = self._snapshots.begin(self._head.snapshot)
        rest = Rest((), (), 0, 0, 0)
        for record in _with_progress(self._reader, progress):
            if isinstance(record, StatePart):
                assert new is not None, "the reader keeps them in order"
                new.write(record.data)
                continue
            if new is not None:
                self._take_state(new)
                new = None
            match record:
                case JobPart():
                    self._take_job(record)
                case BlobPart():
                    self._take_blob(record)
                case Rest():
                    rest = record
        self._adopt()
        _check_counts(self._reader, rest, self._jobs, self._checked)
        forgotten = {command.job for command in rest.after if isinstance(command, Forget)}
        lacking = self._results.gaps().keys() - forgotten
        if lacking:
            raise self._reader.damaged(f"it lacks the results of {len(lacking)} jobs")
        return rest

    def _take_state(self, new: NewSnapshot) -> None:
        made = new.finish()
        if made != self._head.snapshot:
            raise self._reader.damaged("its state fails its checksum")
        _, state = self._snapshots.read(made.index)
        self._machine = _opened(self._reader, state)
        self._results.jump(made.index, known_jobs(self._machine), self._machine.command_index)

    def _take_job(self, part: JobPart) -> None:
        if self._job is None:
            self._job = part.job, Gap(self._machine.command_index, part.positions)
            if not self._results.begin_fill(*self._job):
                raise self._reader.damaged(f"job {part.job} is not in its state")
        job, gap = self._job
        if part.job != job:
            raise self._reader.damaged(f"job {job} is not whole")
        page = Page(part.position)
        for at, segment in zip(part.at, part.segments, strict=True):
            page.add(at, segment)
        page.next_position = part.next_position
        piece = Fill(events=part.events, spec=part.spec, page=page, grants=part.grants)
        self._results.fill(job, gap, piece)
        if part.is_last:
            self._results.end_fill(job, gap)
            self._job = None
            self._jobs += bool(job)

    def _take_blob(self, part: BlobPart) -> None:
        if self._blob is None:
            path = self._folder / "blobs" / "incoming" / f"{part.ref}.restored"
            self._blob = part.ref, path
            path.touch(mode=0o600)
        _, path = self._blob
        with path.open("ab") as file:
            file.write(part.data)
        if self._checked.take(part):
            self._whole.append(self._blob)
            self._blob = None
            if len(self._whole) >= ADOPTED_TOGETHER:
                self._adopt()

    def _adopt(self) -> None:
        if self._whole:
            self._blobs.adopt(self._whole)
            self._whole.clear()

    def _begin_generation(self, rest: Rest) -> None:
        new_generation.begin_with(
            self._disk,
            self._head.snapshot,
            member=Member(self._peer, self._identity.name, ""),
            generation=self._machine.generation + 1,
            after=rest.after,
            rng=random.SystemRandom(),
            wall_ms=time.time_ns() // 1_000_000,
        )
