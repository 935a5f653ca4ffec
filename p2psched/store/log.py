"""The Raft log and the hard state of a peer, on its disk, in segment files that only grow.

For: the peer's Raft loop, which writes groups and syncs before it speaks. Damage stops it (see
`store.recovery`), and after a failed sync every call raises, for what the disk holds is unknown.

Invariants
- What `sync` returned for is there after any crash; what was only written survives as a prefix of
  its records (hard state first, then the truncation, then entries in order), never with a gap.
- What `open` returned is synced, and so is a record behind it: if it is lost or changes later,
  the next `open` raises Damaged instead of returning less. This also holds if an earlier process
  was told of a failed sync and its pages never reached the disk.
- The synced end is told by a file of its own (`mark_end`), which lags by as much as its caller lets
  it: what is lost up to there is Damaged, too, and is never taken for a torn tail.
- A segment is synced whole before the next one exists, and its header before its first record.
- After a write or a sync that found no space the store is as it was before, and what it was for may
  be written again. A failed sync is never tried again on its descriptor.
- Each segment but number 1 says first where the log stands and what the hard state is, so that the
  ones before it can go (`compact`) once a snapshot stands for them.

Calls block and belong to one thread at a time: `sync` may run in another thread than `write`, but
never while a `write` runs. `mark_end` may run in any thread beside both.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Final

from p2psched.model.errors import Damaged
from p2psched.model.limits import MIB
from p2psched.model.raft import Entry, HardState, Snapshot
from p2psched.ports.disk import AppendFile, Disk
from p2psched.store.marker import Mark, MarkerFile, how_late
from p2psched.store.recovered import Recovered as Recovered  # noqa: PLC0414 (what `open` returns)
from p2psched.store.recovered import recovered_of
from p2psched.store.recovery import ADVICE, Findings, check_end, read_segments
from p2psched.store.segments import HEADER_BYTES, GroupEncoder, encode_header, segment_name
from p2psched.store.snapshots import KEPT, SnapshotFiles, entries_beside, find_standing
from p2psched.store.space import NO_SPACE, NoRoom, no_room, space_or_not

# Compaction removes whole segments: they must be small beside what is kept.
SEGMENT_BYTES_MAX: Final = 8 * MIB
# Offsets are 32 bits; a segment ends with the group that goes over its maximum.
_SEGMENT_BYTES_LIMIT: Final = 1 << 30


class LogStore:
    """Made by `open` only. Several `write` may precede one `sync`."""

    def __init__(self, disk: Disk, found: Findings, segment_bytes_max: int) -> None:
        self.disk = disk
        self._segment_bytes_max = segment_bytes_max
        self._last_index = found.last_index
        self._hard_state = found.hard_state
        self._number = max(found.sizes, default=0)
        self._older = dict(found.sizes)  # segments before the current one: number -> bytes
        self._older.pop(self._number, None)
        self._older_bytes = sum(self._older.values())
        self._starts = found.starts  # segment -> last index before it, where it says so
        self._previous = found.previous
        self._seed = found.seed
        self._poison = ""
        self.written_bytes = 0  # by this process, without the snapshots
        self.snapshots = SnapshotFiles(disk)
        self._marker = MarkerFile(disk, found.marked)
        self._file: AppendFile
        if self._number == 0:
            self._file = self._new_segment()
            self._number = 1
        else:
            self._file = disk.open_append(segment_name(self._number))
        self._size = self._file.size
        self._group = self._size  # where the group that is being written starts
        self._seals = False  # what is written now says whether there is a marker
        self._synced = self._here()  # true once `open` has synced it
        self._synced_hard_state = self._hard_state
        self.writes = self._synced_writes = 0  # calls whose bytes are in the log

    @staticmethod
    def open(
        disk: Disk, *, segment_bytes_max: int = SEGMENT_BYTES_MAX
    ) -> tuple[LogStore, Recovered]:
        """Read the log, cut a torn tail, and make what is returned durable.

        Raises Damaged (nothing was changed), Refused for a newer format (nothing was changed), or
        OSError. On a full disk an existing log still opens.
        """
        assert HEADER_BYTES < segment_bytes_max <= _SEGMENT_BYTES_LIMIT, segment_bytes_max
        found = read_segments(disk)
        standing = find_standing(disk, found)
        if standing.snapshot is not None and not found.sizes:
            raise Damaged(f"There are snapshots and no log beside them. {ADVICE}")
        if found.remove is not None:
            disk.remove(found.remove)
        elif found.torn_bytes:
            number = max(found.sizes)
            disk.truncate(segment_name(number), found.sizes[number])
        store = LogStore(disk, found, segment_bytes_max)
        try:
            store.snapshots.drop_unfinished()
            store._seal()
            entries = entries_beside(standing, found)
            if entries is None:
                assert standing.snapshot is not None
                store.reset(standing.snapshot)
        except BaseException:
            store.close()
            raise
        return store, recovered_of(found, standing, entries or [], files=len(store._older) + 1)

    def write(
        self,
        *,
        hard_state: HardState | None,
        truncate_from: int | None,
        entries: Sequence[Entry],
    ) -> None:
        """Append, in this order: the hard state, "entries from `truncate_from` on are void",
        `entries`. One write call; not durable before `sync`.

        Raises NoRoom if there is no space: then nothing was stored, and the same call may be
        repeated. OSError for all else, and the store is poisoned.
        """
        self._check()
        last_index = self._last_index
        if truncate_from is not None:
            assert 1 <= truncate_from <= last_index + 1, (truncate_from, last_index)
            last_index = truncate_from - 1
        for position, entry in enumerate(entries, start=last_index + 1):
            assert entry.index == position, (entry.index, position)
        if hard_state is not None:
            self._promise(hard_state)
        if self._size >= self._segment_bytes_max:
            self._rotate()
        group = GroupEncoder(
            offset=self._size, group=self._group, previous=self._previous, seed=self._seed
        )
        if self._number > 1 and self._size == HEADER_BYTES:
            group.start(self._last_index)
            group.hard_state(self._hard_state, marked=self._marker.mark is not None)
        if hard_state is not None:
            group.hard_state(hard_state, marked=self._seals)
        if last_index < self._last_index:
            group.truncate(last_index + 1)
        group.entries(entries)
        self._append(group)
        self._last_index = last_index + len(entries)
        self._hard_state = hard_state or self._hard_state
        self.writes += 1

    def _promise(self, hard_state: HardState) -> None:
        """The second copy comes first: if the log is damaged, nothing that was spoken is lost."""
        try:
            self._marker.promise(hard_state)
        except OSError as error:
            if error.errno in NO_SPACE:
                raise no_room(error) from error
            self._poison = f"the marker could not be written: {error}"
            raise

    # --- snapshots ---

    def reset(self, snapshot: Snapshot) -> None:
        """A durable snapshot stands for the whole log: begin anew behind it. Durable on return;
        what it stands for is removed. Raises NoRoom, and may be repeated; OSError, and then the
        store is poisoned."""
        self._check()
        try:
            if self._size > HEADER_BYTES or self._number == 1:
                self._rotate()
            group = GroupEncoder(
                offset=self._size, group=self._group, previous=self._previous, seed=self._seed
            )
            group.reset(snapshot.index, snapshot.term)
            group.hard_state(self._hard_state)
            self._append(group)
            self._starts[self._number] = snapshot.index
            self._last_index = snapshot.index
            self.sync()
            self._let_go_before(self._number)
            self.snapshots.prune(kept=1)
        except NoRoom:
            raise
        except OSError as error:
            self._poison = self._poison or f"it could not begin anew: {error}"
            raise

    def begin_segment(self) -> int:
        """End the segment that is written, so that it can be let go of as a whole. The last index
        before the new one. Durable on return. Raises NoRoom or OSError."""
        self._check()
        if self._size > HEADER_BYTES:
            self._rotate()
        self.write(hard_state=None, truncate_from=None, entries=())  # where the log stands
        self.sync()
        return self._last_index

    def disk_bytes(self) -> int:
        """Of all segments and snapshots."""
        return self.size_bytes + self.snapshots.total_bytes()

    def compact(self, kept: int = KEPT) -> None:
        """Remove segments and snapshots that nobody needs: the log is kept from the last but one
        on, in case that the newest is damaged; from that on if there are others to ask (1)."""
        self.sync()  # the start of the segment that is to be the first must be durable
        self.snapshots.prune(kept=kept)
        indices = self.snapshots.indices()
        if len(indices) < kept:
            return
        # A segment that starts behind a committed entry may still void entries from before its
        # start; those were not committed, and what took their place follows in it.
        first = [number for number, start in self._starts.items() if start <= indices[0]]
        self._let_go_before(max(first, default=0))

    def _let_go_before(self, number: int) -> None:
        """The marker leaves what goes first. Where there is no space for it, it is what it is in
        that stays: to remove the rest makes some."""
        try:
            self.mark_end()
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            mark = self._marker.mark
            number = min(number, mark.segment if mark is not None else number)
        self._remove_before(number)

    def _remove_before(self, number: int) -> None:
        """Oldest first: a crash on the way leaves no hole."""
        for older in sorted(self._older):
            if older < number:
                self.disk.remove(segment_name(older))
                self._older_bytes -= self._older.pop(older)
                self._starts.pop(older, None)

    def sync(self) -> None:
        """Make everything written durable: one fdatasync, none if there is nothing to do.

        Raises NoRoom if the filesystem tells only now that there is no space: then what was written
        since the last sync is taken back (`writes` tells how much), and may be written again.
        OSError for all else: the store is poisoned, nothing of that may be spoken of, the peer
        must stop.
        """
        self._check()
        if self._group != self._size:
            try:
                self._sync_file()
            except OSError as error:
                self._take_back(error)
                raise no_room(error) from error
            self._group = self._size
            self._synced = self._here()
        self._synced_hard_state = self._hard_state
        self._synced_writes = self.writes

    def _take_back(self, error: OSError) -> None:
        """What the failed sync was for is in doubt, and nobody heard of it. It is cut off, by
        another descriptor, and what is left is read again. Raises any other error, or Damaged."""
        if error.errno not in NO_SPACE:
            raise error
        self._file.close()
        self.disk.truncate(segment_name(self._number), self._group)
        is_new = self._synced.segment != self._number
        self._size = self._group
        self._previous = self._seed if is_new else self._synced.checksum
        self._last_index = self._synced.index
        self._hard_state = self._synced_hard_state
        self.writes = self._synced_writes
        if self._size == HEADER_BYTES:
            self._starts.pop(self._number, None)
        check_end(self.disk, self._here())
        self._file = self.disk.open_append(segment_name(self._number))
        self._poison = ""

    def _here(self) -> Mark:
        return Mark(self._number, self._size, self._previous, self._last_index)

    @property
    def is_marked(self) -> bool:
        """True if the marker tells the whole synced end. From any thread."""
        return self._marker.mark == self._synced

    def mark_end(self) -> None:
        """Let the marker tell what `sync` last returned for; durable on return. From any thread.

        Raises OSError, and then the mark before stands; without space it may be tried again.
        """
        self._marker.write(self._synced)

    @property
    def size_bytes(self) -> int:
        """Of all segments, synced or not. From any thread."""
        return self._older_bytes + self._size

    def close(self) -> None:
        """Let go of the file. Does not sync: what was only written may be lost in a crash."""
        self._poison = self._poison or "it was closed"
        self._file.close()
        self.snapshots.close()

    def _append(self, group: GroupEncoder) -> None:
        data = group.data()
        assert self._size + len(data) <= 2 * _SEGMENT_BYTES_LIMIT, len(data)
        if not data:
            return
        try:
            self._file.write(data)
        except OSError as error:
            self._on_write_failed(error)
            raise no_room(error) from error
        if self._size == HEADER_BYTES and self._number > 1:
            self._starts.setdefault(self._number, self._last_index)
        self._size += len(data)
        self.written_bytes += len(data)
        self._previous = group.previous

    def _on_write_failed(self, error: OSError) -> None:
        """Take back a part of a group that found no space. Raises any other error, and one of
        taking back, and poisons the store then."""
        self._poison = f"a write failed: {error}"
        if error.errno not in NO_SPACE:
            raise error
        name = segment_name(self._number)
        self._file.close()
        self.disk.truncate(name, self._size)
        self._file = self.disk.open_append(name)
        self._poison = ""

    def _rotate(self) -> None:
        # The old segment must be whole on the disk before the name of the new one is: that a later
        # segment exists is the proof that every byte of this one was synced.
        self.sync()
        try:
            file = self._new_segment()
        except OSError as error:
            self._poison = f"a new segment could not be made: {error}"
            if error.errno not in NO_SPACE:
                raise
            self.disk.remove(segment_name(self._number + 1))
            self._poison = ""
            raise no_room(error) from error
        self._file.close()
        self._file = file
        self._older[self._number] = self._size
        self._older_bytes += self._size
        self._number += 1
        self._size = self._group = file.size

    def _new_segment(self) -> AppendFile:
        """Make the next segment with its header synced. Changes the chain only if it works."""
        number = self._number + 1
        header = encode_header(number, self._previous)
        file = self.disk.open_append(segment_name(number))
        try:
            assert file.size == 0, segment_name(number)
            file.write(header)
            file.sync()
        except BaseException:
            file.close()
            raise
        self._seed = self._previous = int.from_bytes(header[-4:], "little")
        return file

    def _seal(self) -> None:
        """Sync what recovery read, and then put a record of a later group behind it.

        The bytes may never have been synced (the process was killed) or their sync may have
        failed, and the caller is about to speak of them. The record is what turns their loss from
        a torn tail into damage. Two syncs: its group claims that all before it is on the disk.
        It says, too, that there is a marker, for whoever finds none.
        """
        self._sync_file()
        if how_late(self._marker.promised) < how_late(self._hard_state):
            with space_or_not():  # an older version ran since, or there is none yet
                self._marker.promise(self._hard_state)
        if self._marker.mark is None:  # and of an older version: from now on there is one
            with space_or_not():
                self.mark_end()
        if self.size_bytes == HEADER_BYTES:
            return
        with space_or_not():
            self._seals = self._marker.mark is not None
            self.write(hard_state=self._hard_state, truncate_from=None, entries=())
        self._seals = False
        self.sync()
        with space_or_not():
            self.mark_end()

    def _sync_file(self) -> None:
        try:
            self._file.sync()
        except OSError as error:
            self._poison = f"a sync failed: {error}"
            raise

    def _check(self) -> None:
        if self._poison:
            raise OSError(
                errno.EIO, f"the log can't be used, {self._poison}; stop the peer and start it anew"
            )
