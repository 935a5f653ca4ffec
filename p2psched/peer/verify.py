"""Looks through the ledger of a peer that does not run, and changes nothing.

For: `p2psched ledger verify`. Checks all that a start would check (segments with their chain, the
vote in them, snapshots, identity) and goes on where a start would stop, so that one look tells of
all files that are damaged. Then it folds the ledger up to its last entry: the state hash there is
to be compared with that of another peer at the same entry. The last entries may not be committed.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import msgspec

from p2psched.core.machine import Machine
from p2psched.core.parts import Opener
from p2psched.core.snapshot import restore_machine
from p2psched.model.errors import Damaged, NotFound, Refused
from p2psched.store.files import refusing
from p2psched.store.folder import read_identity
from p2psched.store.marker import MARKER, MarkerState
from p2psched.store.recovery import Findings, read_segments
from p2psched.store.regain import read_note
from p2psched.store.segments import segment_name
from p2psched.store.snapshots import Standing, check_file, find_standing, snapshot_indices


class Fault(msgspec.Struct, frozen=True):
    """Something that is not as it was written. `offset`: of the first bad byte, if it is known."""

    file: str
    offset: int | None
    what: str


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """What was found. Without `faults` a peer would start from it; also with no other one than a
    marker that is lost."""

    folder: str
    peer: str = ""
    name: str = ""
    segments: tuple[tuple[str, int], ...] = ()  # file, bytes that are sound
    snapshots: tuple[tuple[str, bool], ...] = ()  # file, sound?
    first_index: int = 0  # of the entries that the log holds
    last_index: int = 0
    term: int = 0
    vote: str = ""
    torn_bytes: int = 0  # behind the synced end as far as it is known: a start cuts them
    marker: str = "none"  # `store.marker.MarkerState`
    synced_index: int = 0  # of the last entry that the marker vouches for
    unfinished: str = ""  # a last segment without a header: a start removes it
    snapshot_index: int = 0  # of the snapshot that a start would begin from
    lost: str = ""  # what was damaged earlier, and is not whole again
    state_hash: str = ""  # at `last_index`; empty if the ledger can't be folded that far
    faults: tuple[Fault, ...] = ()


class ReadOnlyDisk:
    """The port `Disk` on a folder that is only read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self) -> list[str]:
        return sorted(item.name for item in self._folder.iterdir() if item.is_file())

    def read(self, name: str) -> bytes:
        return (self._folder / name).read_bytes()

    def read_part(self, name: str, offset: int, size: int) -> bytes:
        with (self._folder / name).open("rb") as file:
            file.seek(offset)
            return file.read(size)

    def map(self, name: str) -> memoryview:
        return memoryview(self.read(name))

    def make(self, name: str, start_bytes: int) -> NoReturn:
        raise AssertionError(f"{name} is only read, not made with {start_bytes} bytes in front")

    def open_append(self, name: str) -> NoReturn:
        raise AssertionError(f"{name} is only read")

    def replace(self, name: str, data: bytes) -> NoReturn:
        raise AssertionError(f"{name} is only read, not written with {len(data)} bytes")

    def rename(self, old: str, new: str) -> NoReturn:
        raise AssertionError(f"{old} is only read, not called {new}")

    def truncate(self, name: str, size: int) -> NoReturn:
        raise AssertionError(f"{name} is only read, not cut to {size} bytes")

    def remove(self, name: str) -> NoReturn:
        raise AssertionError(f"{name} is only read")


def verify(folder: Path) -> Verified:
    """Blocks, and takes as long as a start. Raises NotFound if no peer keeps its data there,
    Refused if one runs on it, if it can't be read, or if a newer version wrote it."""
    if not (folder / "identity").is_file():
        raise NotFound(
            f"no peer keeps its data in {folder}: name a data folder, as --data of start"
        )
    with refusing(f"read {folder}"), _at_rest(folder):
        return _verify(folder)


@contextmanager
def _at_rest(folder: Path) -> Iterator[None]:
    """While nobody runs on it, and keeps others from it. Leaves no trace."""
    try:
        lock = os.open(folder / "lock", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:  # a copy of a folder
        yield
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise Refused(f"a peer runs on {folder}: stop it first, `p2psched stop`") from None
    finally:
        os.close(lock)


def _verify(folder: Path) -> Verified:
    faults: list[Fault] = []
    found = Verified(folder=str(folder))
    incarnation = 0
    try:
        identity = read_identity(folder)
    except Damaged as damage:
        faults.append(_fault(damage, "identity"))
    else:
        incarnation = identity.incarnation
        found = msgspec.structs.replace(found, peer=identity.peer, name=identity.name)
    ledger = folder / "ledger"
    disk = ReadOnlyDisk(ledger)
    if not ledger.is_dir() or not disk.names():
        if incarnation:
            faults.append(Fault("ledger", None, "it is gone, and the identity is not"))
        return msgspec.structs.replace(found, faults=tuple(faults))
    found = _with_snapshots(disk, found, faults)
    try:
        note = read_note(disk)
        if note is not None:
            found = msgspec.structs.replace(found, lost=str(note.damage))
        log = read_segments(disk)
        standing = find_standing(disk, log)
    except Damaged as damage:
        faults.append(_fault(damage, "ledger"))
        return msgspec.structs.replace(found, faults=_once(faults))
    if log.marker in (MarkerState.MISSING, MarkerState.DAMAGED):
        what = f"it is {log.marker}: the log is whole as far as it shows, and its end is not known"
        faults.append(Fault(MARKER, None, what))
    if standing.snapshot is not None and not log.sizes:
        faults.append(Fault("ledger", None, "there are snapshots and no log beside them"))
    return _with_log(found, log, standing, faults)


def _with_snapshots(disk: ReadOnlyDisk, found: Verified, faults: list[Fault]) -> Verified:
    """Each is looked at, also those that a start would not need."""
    sound: list[tuple[str, bool]] = []
    for index, name in snapshot_indices(disk):
        before = len(faults)
        try:
            snapshot, _ = check_file(disk, name)
            if snapshot.index != index:
                faults.append(Fault(name, 0, f"it says that it is of entry {snapshot.index}"))
        except Damaged as damage:
            faults.append(_fault(damage, name))
        sound.append((name, len(faults) == before))
    return msgspec.structs.replace(found, snapshots=tuple(sound))


def _with_log(found: Verified, log: Findings, standing: Standing, faults: list[Fault]) -> Verified:
    start = standing.snapshot.index if standing.snapshot is not None else 0
    machine = fold(log, standing)
    state_hash = ""
    if machine.applied_index == max(start, log.last_index):
        state_hash = machine.state_hash
    else:
        faults.append(Fault("ledger", None, f"it can't be followed beyond entry {start}"))
    return msgspec.structs.replace(
        found,
        segments=tuple((segment_name(number), size) for number, size in sorted(log.sizes.items())),
        first_index=log.first,
        last_index=max(start, log.last_index),
        term=log.hard_state.term,
        vote=log.hard_state.vote or "",
        torn_bytes=log.torn_bytes,
        marker=str(log.marker),
        synced_index=log.mark.index if log.mark is not None else 0,
        unfinished=log.remove or "",
        snapshot_index=start,
        state_hash=state_hash,
        faults=_once(faults),
    )


def fold(log: Findings, standing: Standing) -> Machine:
    """The state at the last entry, which may not be committed."""
    machine, opener = Machine(), Opener()
    if standing.snapshot is not None:
        restore_machine(machine, standing.state)
    # A log that says something else than the snapshot holds what was never committed.
    start = machine.applied_index
    goes_on = log.first <= start + 1 <= log.last_index + 1
    for entry in log.entries[start + 1 - log.first :] if goes_on else []:
        machine.apply(opener.open(entry))
    return machine


def _fault(damage: Damaged, file: str) -> Fault:
    return Fault(damage.file or file, damage.offset, str(damage))


def _once(faults: list[Fault]) -> tuple[Fault, ...]:
    return tuple(dict.fromkeys(faults))
