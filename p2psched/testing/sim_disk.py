"""A disk in memory that loses power the way that real ones do.

For: simulations and tests, also of users who wrote a store of their own behind the port `Disk`.
What was synced survives `crash()`; of everything else a random part does, drawn from the `rng`
that the disk was given: bytes are lost, kept, torn, kept by 512-byte sectors with holes of zeros
between them, or end in garbage; new names, renames, removals and cuts that were not synced happen
or don't. It refuses to be used through handles of before a crash.

    disk = SimDisk(random.Random(7))
    file = disk.open_append("log")
    file.write(b"kept")
    file.sync()
    file.write(b"perhaps")
    disk.crash()
    assert disk.read("log").startswith(b"kept")

Invariants: the same calls and the same seed give the same bytes; only `crash()` draws from the
`rng`; a failed sync is never made good by a later one (the kernel forgets such pages, see
Rebello et al., "Can applications recover from fsync failures?", 2020).
"""

from __future__ import annotations

import errno
import random
from typing import Final

from p2psched.testing.sim_new_file import SimNewFile

SECTOR_BYTES: Final = 512


class _Inode:
    """The bytes of one file, and how much of them would survive a loss of power."""

    __slots__ = ("cut_off", "data", "doubtful", "durable_len", "settled_len")

    def __init__(self) -> None:
        self.data = bytearray()
        self.durable_len = 0
        self.settled_len = 0  # durable before what was synced last
        self.cut_off = b""  # durable bytes behind `data` that an unsynced truncation removed
        self.doubtful: list[tuple[int, int]] = []  # ranges (start, end) whose sync failed

    def synced(self) -> None:
        if self.durable_len < len(self.data):
            self.settled_len = self.durable_len
        self.durable_len = len(self.data)
        self.cut_off = b""

    def sync_failed(self) -> None:
        if self.durable_len < len(self.data):
            self.doubtful.append((self.durable_len, len(self.data)))
        # A later sync that works reports success for these bytes, too: that is the trap.
        self.durable_len = len(self.data)

    def cut(self, size: int) -> None:
        if size < self.durable_len:
            self.cut_off = bytes(self.data[size : self.durable_len]) + self.cut_off
            self.durable_len = size
        self.settled_len = min(self.settled_len, size)
        del self.data[size:]
        self.doubtful = [(a, min(b, size)) for a, b in self.doubtful if a < size]

    def copy(self) -> _Inode:
        twin = _Inode()
        twin.data = bytearray(self.data)
        twin.durable_len = self.durable_len
        twin.settled_len = self.settled_len
        twin.cut_off = self.cut_off
        twin.doubtful = list(self.doubtful)
        return twin


class SimAppendFile:
    """Handle of `SimDisk.open_append`; dead after `crash()`, `kill()`, or a failed sync."""

    __slots__ = ("_alive", "_disk", "_epoch", "_inode", "_name")

    def __init__(self, disk: SimDisk, name: str, inode: _Inode) -> None:
        self._disk = disk
        self._epoch = disk.epoch
        self._inode = inode
        self._name = name
        self._alive = True

    @property
    def size(self) -> int:
        return len(self._inode.data)

    def write(self, data: bytes) -> None:
        self._check()
        self._disk.append_to(self._inode, data, self._name)

    def sync(self) -> None:
        self._check()
        try:
            self._disk.sync_inode(self._inode, self._name)
        except OSError:
            self._alive = False
            raise

    def close(self) -> None:
        self._alive = False

    def _check(self) -> None:
        if not self._alive:
            raise OSError(errno.EBADF, "closed, or its sync failed: open it again", self._name)
        if self._epoch != self._disk.epoch:
            raise OSError(errno.EBADF, "a handle of before the crash: open it again", self._name)


class SimDisk:
    """The port `Disk` in memory. Set its public attributes to make it fail:

    `fail_next_sync`: the next sync of a file raises EIO, once; the bytes are in doubt from then on.
    `free_bytes`: room left, None for no limit; a write beyond it stores what fits, then ENOSPC.
    `fail_next_read`: the next read of a file raises EIO, once.
    `short_write`: the next write stores at most this many bytes, then raises EIO, once.
    `steps_left`: elementary steps (write, sync, make, rename, remove, cut, sync of the folder)
    until the power goes, None for never; from then on every call raises until `crash()`.

    `writes` and `syncs` count the writes and the syncs of files, `refused` the writes that found no
    space, `steps` all elementary steps.
    """

    def __init__(self, rng: random.Random) -> None:
        self.fail_next_sync = False
        self.fail_next_read = False
        self.free_bytes: int | None = None
        self.short_write: int | None = None
        self.steps_left: int | None = None
        self.writes = 0
        self.syncs = 0
        self.refused = 0
        self.steps = 0
        self.epoch = 0  # handles of an earlier epoch are dead
        self._rng = rng
        self._names: dict[str, _Inode] = {}  # what programs see
        self._durable_names: dict[str, _Inode] = {}  # what the folder holds on the platter

    # The port

    def names(self) -> list[str]:
        self._check_power("")
        return sorted(self._names)

    def read(self, name: str) -> bytes:
        self._check_read(name)
        return bytes(self._inode(name).data)

    def read_part(self, name: str, offset: int, size: int) -> bytes:
        self._check_read(name)
        return bytes(self._inode(name).data[offset : offset + size])

    def map(self, name: str) -> memoryview:
        return memoryview(self.read(name))

    def make(self, name: str, start_bytes: int) -> SimNewFile:
        _check_name(name)
        return SimNewFile(self, name, start_bytes)

    def open_append(self, name: str) -> SimAppendFile:
        _check_name(name)
        inode = self._names.get(name)
        if inode is None:
            self._step(name)
            inode = self._names[name] = _Inode()
        self._sync_folder(name)
        return SimAppendFile(self, name, inode)

    def replace(self, name: str, data: bytes) -> None:
        _check_name(name)
        inode = _Inode()
        try:
            self.append_to(inode, data, name)
            self.sync_inode(inode, name)
        except OSError:
            self._give_back(len(inode.data))
            raise
        self._step(name)
        self._drop(name)
        self._names[name] = inode
        self._sync_folder(name)

    def rename(self, old: str, new: str) -> None:
        _check_name(new)
        inode = self._inode(old)
        self._step(old)
        self._drop(new)
        del self._names[old]
        self._names[new] = inode
        self._sync_folder(new)

    def truncate(self, name: str, size: int) -> None:
        inode = self._inode(name)
        assert 0 <= size <= len(inode.data), (name, size)
        self._step(name)
        self._give_back(len(inode.data) - size)
        inode.cut(size)
        self.sync_inode(inode, name)

    def remove(self, name: str) -> None:
        self._step(name)
        self._drop(name)
        self._sync_folder(name)

    # Faults

    def crash(self) -> None:
        """Lose power: keep what was synced and a random part of the rest. Handles die."""
        self.kill()
        self.steps_left = None
        kept: dict[str, _Inode] = {}
        for name in sorted({*self._names, *self._durable_names}):
            seen, durable = self._names.get(name), self._durable_names.get(name)
            inode = seen if seen is durable or self._rng.random() < 0.5 else durable
            if inode is not None:
                kept[name] = inode
        self._names = {name: self._after_crash(inode) for name, inode in kept.items()}
        self._durable_names = dict(self._names)

    def kill(self) -> None:
        """The process dies, the machine lives: nothing is lost, nothing more is synced, and
        handles die."""
        self.fail_next_read = False
        self.epoch += 1

    def flip_bit(self, name: str, bit_offset: int) -> None:
        """Turn over one bit of a file; it is synced or not as it was before."""
        data = self._inode(name).data
        assert 0 <= bit_offset < 8 * len(data), (name, bit_offset, len(data))
        data[bit_offset // 8] ^= 1 << (bit_offset % 8)

    def overwrite(self, name: str, offset: int, data: bytes) -> None:
        """Put other bytes in the place of those that are there; durable or not as they were."""
        inode = self._inode(name)
        assert offset + len(data) <= len(inode.data), (name, offset, len(data))
        inode.data[offset : offset + len(data)] = data

    def durable_bytes(self, name: str) -> tuple[int, int]:
        """How many bytes of a file were synced; and how many before what was synced last."""
        inode = self._inode(name)
        return inode.durable_len, inode.settled_len

    def lose_end(self, name: str, size: int) -> None:
        """All of a file behind its first `size` bytes is gone, synced or not."""
        inode = self._inode(name)
        inode.cut(size)
        inode.cut_off = b""

    def lose(self, name: str) -> None:
        """A whole file is gone, for good."""
        del self._names[name]
        self._durable_names.pop(name, None)

    def copy(self, rng: random.Random) -> SimDisk:
        """The same files in the same state on another disk, to look at several crashes of one
        moment. Faults that were set and counters stay behind."""
        twins: dict[int, _Inode] = {}
        for inode in (*self._names.values(), *self._durable_names.values()):
            if id(inode) not in twins:
                twins[id(inode)] = inode.copy()
        twin = SimDisk(rng)
        twin._names = {name: twins[id(inode)] for name, inode in self._names.items()}
        twin._durable_names = {n: twins[id(inode)] for n, inode in self._durable_names.items()}
        return twin

    # For the handles

    def append_to(self, inode: _Inode, data: bytes, name: str) -> None:
        if self.free_bytes is None and self.short_write is None and self.steps_left is None:
            self.steps += 1
            self.writes += 1
            inode.data += data
            return
        self._step(name)
        self.writes += 1
        room = len(data) if self.free_bytes is None else min(len(data), self.free_bytes)
        short, self.short_write = self.short_write, None
        stored = room if short is None else min(room, short)
        inode.data += data[:stored]
        if self.free_bytes is not None:
            self.free_bytes -= stored
        if stored < room:
            raise OSError(errno.EIO, f"short write, {stored} of {len(data)} bytes", name)
        if room < len(data):
            self.refused += 1
            raise OSError(errno.ENOSPC, f"no space, {stored} of {len(data)} bytes", name)

    def sync_inode(self, inode: _Inode, name: str) -> None:
        self._step(name)
        self.syncs += 1
        if self.fail_next_sync:
            self.fail_next_sync = False
            inode.sync_failed()
            raise OSError(errno.EIO, "sync failed as asked for", name)
        inode.synced()

    # Below

    def _inode(self, name: str) -> _Inode:
        inode = self._names.get(name)
        if inode is None:
            raise FileNotFoundError(errno.ENOENT, "no such file on the simulated disk", name)
        return inode

    @property
    def has_power(self) -> bool:
        return self.steps_left != 0

    def _check_power(self, name: str) -> None:
        if not self.has_power:
            raise OSError(errno.EIO, "the power is off: call crash()", name)

    def _check_read(self, name: str) -> None:
        self._check_power(name)
        if self.fail_next_read:
            self.fail_next_read = False
            raise OSError(errno.EIO, "a read failed as asked for", name)

    def _step(self, name: str) -> None:
        self._check_power(name)
        if self.steps_left is not None:
            self.steps_left -= 1
        self.steps += 1

    def _sync_folder(self, name: str) -> None:
        self._step(name)
        self._durable_names = dict(self._names)

    def _drop(self, name: str) -> None:
        dropped = self._names.pop(name, None)
        if dropped is not None:
            self._give_back(len(dropped.data))

    def _give_back(self, size: int) -> None:
        if self.free_bytes is not None:
            self.free_bytes += size

    def _after_crash(self, inode: _Inode) -> _Inode:
        """What is left of a file, all of it durable."""
        rng = self._rng
        if inode.cut_off and rng.random() < 0.5:  # the truncation never reached the disk
            data = inode.data[: inode.durable_len] + inode.cut_off
        else:
            data = _torn(rng, inode.data, inode.durable_len)
        for start, end in inode.doubtful:
            end = min(end, len(data))
            if start < end:
                left = _torn(rng, data[:end], start)
                data[start:end] = left[start:] + bytes(end - len(left))
        survivor = _Inode()
        survivor.data = data
        survivor.durable_len = len(data)
        survivor.settled_len = min(inode.settled_len, len(data))
        return survivor


def _check_name(name: str) -> None:
    # The same names as a real folder of ours takes: plain ones that are not hidden.
    assert name[:1] not in {"", "."}, name
    assert "/" not in name, name


def _torn(rng: random.Random, data: bytearray, durable_len: int) -> bytearray:
    """One of the ways in which `data[durable_len:]`, written but not synced, may survive."""
    if durable_len == len(data):
        return bytearray(data)
    end = rng.randint(durable_len, len(data))
    match rng.randrange(6):
        case 0:
            return data[:durable_len]
        case 1:
            return bytearray(data)
        case 2:
            return data[:end]
        case 3:  # the size got there, the bytes did not
            return data[:durable_len] + bytes(end - durable_len)
        case 4:  # the sector that was being written is garbage
            return data[:end] + rng.randbytes(min(-end % SECTOR_BYTES, len(data) - end))
        case _:
            return _some_sectors(rng, data, durable_len)


def _some_sectors(rng: random.Random, data: bytearray, durable_len: int) -> bytearray:
    """Each sector that holds unsynced bytes arrives or stays as it was (zeros beyond the end)."""
    left = bytearray(data)
    for start in range(durable_len - durable_len % SECTOR_BYTES, len(data), SECTOR_BYTES):
        if rng.random() < 0.5:
            first, end = max(start, durable_len), min(start + SECTOR_BYTES, len(data))
            left[first:end] = bytes(end - first)
    return left
