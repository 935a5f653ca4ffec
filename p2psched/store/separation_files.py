"""What a peer keeps on its disk for when it is cut off: what it owns, results that nobody has
judged, jobs that wait in the spool, and reports of earlier times.

    DATA/cutoff/owned     what it works on: a note, not synced at once
    DATA/cutoff/heard     until when a majority was heard, written in place each second
    DATA/cutoff/specs/    the jobs of these, each once
    DATA/cutoff/results   one frame after another; a torn end is cut
    DATA/cutoff/spool/    one file a job, in order of their names
    DATA/cutoff/reports   the newest few

Each is read again or is damaged and left out: nothing here is a promise but the spool, whose files
are synced before anybody is told of them. Blocks; for one thread.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from p2psched.model.errors import Damaged
from p2psched.model.ids import JobId, is_id
from p2psched.model.job import JobSpec
from p2psched.model.limits import MIB
from p2psched.model.raft import Membership
from p2psched.model.reconcile import KeptResult, OwnedPart, Recollection, Reconciliation
from p2psched.store.files import read_file, replace_file, sync_folder

FILE_BYTES_MAX: Final = 4 * MIB  # of a note, a spec, or all reports
RESULTS_BYTES_MAX: Final = 128 * MIB  # what comes then is lost with the process
SPECS_BYTES_MAX: Final = 64 * MIB  # tasks of further jobs are not begun again
REPORTS_MAX: Final = 20  # the oldest go
_MAGIC: Final = b"p2pc\x01"
_FRAME: Final = struct.Struct(">II")  # length, checksum
_HEARD: Final = struct.Struct(">16sQQQ")  # boot, its clock, wall clock, time cut off by then

T = TypeVar("T")
_encode: Final = msgspec.msgpack.Encoder().encode


class Note(msgspec.Struct, frozen=True, array_like=True):
    """What is in `owned`."""

    owned: tuple[OwnedPart, ...] = ()
    incarnation: int = 0
    since: int = 0  # see `Recollection`
    cursor: int = 0
    group: Membership = Membership()  # who holds the ledger, for who follows


class Moment(msgspec.Struct, frozen=True):
    """Now, by the clocks of this machine. `boot`: which boot the first one counts from."""

    boot: bytes  # 16
    now_ms: int
    wall_ms: int


class Spooled(msgspec.Struct, frozen=True, array_like=True):
    """What is in a file of the spool."""

    job: JobId
    spec: JobSpec
    wall_ms: int


def this_boot() -> bytes:
    """Names the time since the machine was started; nothing, if the system doesn't say."""
    with contextlib.suppress(OSError, ValueError):
        text = Path("/proc/sys/kernel/random/boot_id").read_text("ascii")
        return bytes.fromhex(text.strip().replace("-", ""))[:16].ljust(16, b"\0")
    return bytes(16)


def passed_ms(then: Moment, now: Moment) -> int:
    """Time between two moments, of which a boot may lie between. While the machine was off only its
    wall clock has counted: that counts as far as it went forward, and all since the boot does."""
    if then.boot == now.boot:
        return max(0, now.now_ms - then.now_ms)
    return max(now.now_ms, now.wall_ms - then.wall_ms, 0)


class SeparationFiles:
    """Of one data folder, which is locked."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "cutoff"
        self._specs: dict[JobId, int] = {}  # on the disk -> bytes
        self._results_bytes = 0
        self._next_place = 1
        self.dropped = 0  # results that found no place

    def open(self) -> None:
        for path in (self._path, self._path / "specs", self._path / "spool"):
            path.mkdir(mode=0o700, exist_ok=True)
        for path in (self._path / "specs").iterdir():
            self._specs[JobId(path.name)] = path.stat().st_size
        places = [_place_of(path) for path in (self._path / "spool").iterdir()]
        self._next_place = max(places, default=0) + 1

    # --- what it owns ---

    def note(self, note: Note, specs: dict[JobId, JobSpec]) -> None:
        for job, spec in specs.items():
            if job not in self._specs:
                data = _sealed(spec)
                if sum(self._specs.values()) + len(data) <= SPECS_BYTES_MAX:
                    replace_file(self._path / "specs" / job, data, durable=False)
                    self._specs[job] = len(data)
        replace_file(self._path / "owned", _sealed(note), durable=True)
        for job in [job for job in self._specs if job not in specs]:
            (self._path / "specs" / job).unlink(missing_ok=True)
            del self._specs[job]

    def mark(self, now: Moment, away_ms: int) -> None:
        """So long no majority was heard, now."""
        data = _HEARD.pack(now.boot, now.now_ms, max(0, now.wall_ms), away_ms)
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self._path / "heard", flags, 0o600)
        try:
            os.pwrite(descriptor, data + _FRAME.pack(0, zlib.crc32(data)), 0)
        finally:
            os.close(descriptor)

    def read_note(self) -> Note:
        return self._read(self._path / "owned", Note) or Note()

    def _away_ms(self, now: Moment) -> int:
        size = _HEARD.size
        try:
            data, _ = read_file(self._path / "heard", size + _FRAME.size)
        except (OSError, ValueError):
            return 0
        if len(data) != size + _FRAME.size or data[size:] != _FRAME.pack(
            0, zlib.crc32(data[:size])
        ):
            return 0
        boot, now_ms, wall_ms, away_ms = _HEARD.unpack(data[:size])
        return int(away_ms) + passed_ms(Moment(boot, now_ms, wall_ms), now)

    def recollect(self, now: Moment) -> Recollection:
        """What a process finds that starts now."""
        note = self.read_note()
        specs: dict[JobId, JobSpec] = {}
        for job in dict.fromkeys(part.job for part in note.owned):
            spec = self._read(self._path / "specs" / job, JobSpec)
            if spec is not None:
                specs[job] = spec
        results = tuple(self._read_results())
        return Recollection(
            away_ms=self._away_ms(now) if note.owned or results else 0,
            incarnation=note.incarnation,
            since=note.since,
            cursor=note.cursor,
            owned=note.owned,
            results=results,
            specs=specs,
            spool=tuple((one.job, one.spec) for one in self.spooled()),
        )

    # --- results ---

    def keep(self, results: tuple[KeptResult, ...], *, anew: bool) -> None:
        path = self._path / "results"
        frames = []
        size = 0 if anew else self._results_bytes
        for kept in results:
            data = _encode(kept)
            size += _FRAME.size + len(data)
            if size > RESULTS_BYTES_MAX:
                self.dropped += 1
                continue
            frames += [_FRAME.pack(len(data), zlib.crc32(data)), data]
            self._results_bytes = size
        data = b"".join(frames)
        if anew:
            replace_file(path, data, durable=True)
            self._results_bytes = len(data)
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        with os.fdopen(os.open(path, flags, 0o600), "ab") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def _read_results(self) -> Iterator[KeptResult]:
        try:
            data, _ = read_file(self._path / "results", RESULTS_BYTES_MAX + MIB)
        except (OSError, ValueError):
            return
        self._results_bytes = len(data)
        decoder = msgspec.msgpack.Decoder(KeptResult)
        at = 0
        while at + _FRAME.size <= len(data):
            size, crc = _FRAME.unpack_from(data, at)
            piece = data[at + _FRAME.size : at + _FRAME.size + size]
            if len(piece) != size or zlib.crc32(piece) != crc:
                return  # torn: what comes behind it was written later
            with contextlib.suppress(msgspec.MsgspecError):
                yield decoder.decode(piece)
            at += _FRAME.size + size

    def drop_results(self) -> None:
        (self._path / "results").unlink(missing_ok=True)
        self._results_bytes = 0

    # --- the spool ---

    def put(self, spooled: Spooled) -> int:
        """Durable on return. The place of the job."""
        place, self._next_place = self._next_place, self._next_place + 1
        path = self._path / "spool" / f"{place:08}-{spooled.job}"
        replace_file(path, _sealed(spooled), durable=True)
        return place

    def spooled(self) -> list[Spooled]:
        """In order. Raises Damaged, with the file: a receipt was given for it."""
        found = []
        for path in sorted((self._path / "spool").iterdir()):
            if path.name.endswith(".new"):
                path.unlink(missing_ok=True)  # nobody was told of it
                continue
            spooled = self._read(path, Spooled)
            if spooled is None:
                raise Damaged(
                    f"{path} is damaged: a job was kept there for when the cluster is back. Move "
                    "the file away to go on without it, and submit the job again"
                )
            found.append(spooled)
        return found

    def take_out(self, job: JobId) -> bool:
        """False if it is not there."""
        paths = [p for p in (self._path / "spool").iterdir() if p.name.endswith(f"-{job}")]
        for path in paths:
            path.unlink(missing_ok=True)
        if paths:
            sync_folder(self._path / "spool")
        return bool(paths)

    # --- reports ---

    def reports(self) -> list[Reconciliation]:
        """Oldest first."""
        return self._read(self._path / "reports", list[Reconciliation]) or []

    def report(self, report: Reconciliation) -> Reconciliation:
        """Keep it, under its number. Durable on return."""
        known = self.reports()
        number = known[-1].number + 1 if known else 1
        report = msgspec.structs.replace(report, number=number)
        kept = [*known, report][-REPORTS_MAX:]
        while len(data := _sealed(kept)) > FILE_BYTES_MAX and len(kept) > 1:
            del kept[0]
        replace_file(self._path / "reports", data, durable=True)
        return report

    # --- files ---

    def _read(self, path: Path, kind: type[T]) -> T | None:
        """None: there is none, or none that is whole."""
        try:
            data, _ = read_file(path, FILE_BYTES_MAX + MIB)
        except (OSError, ValueError):
            return None
        head = len(_MAGIC) + _FRAME.size
        if not data.startswith(_MAGIC) or len(data) < head:
            return None
        size, crc = _FRAME.unpack_from(data, len(_MAGIC))
        body = data[head:]
        if len(body) != size or zlib.crc32(body) != crc:
            return None
        with contextlib.suppress(msgspec.MsgspecError):
            return msgspec.msgpack.decode(body, type=kind)
        return None


def _sealed(value: object) -> bytes:
    data = _encode(value)
    return _MAGIC + _FRAME.pack(len(data), zlib.crc32(data)) + data


def _place_of(path: Path) -> int:
    place, _, job = path.name.removesuffix(".new").partition("-")
    return int(place) if place.isdigit() and is_id(job) else 0
