"""Group commit: tokens are told only after their sync, in order; a failed disk ends it."""

from __future__ import annotations

import asyncio
import random
import threading
import time

import pytest

from p2psched.core.raft.effects import Persist
from p2psched.model.raft import Entry, EntryKind, HardState
from p2psched.peer.log_writer import INLINE_SYNC_MS_MAX, THREAD_GROUPS_MAX, LogWriter
from p2psched.store.log import LogStore
from p2psched.testing.sim_disk import SimDisk, _Inode


def persist(token: int) -> Persist:
    entry = Entry(token, 1, EntryKind.COMMANDS, token, 0, b"payload")
    return Persist(token, HardState(1, None) if token == 1 else None, None, (entry,))


def test_a_token_is_told_after_everything_up_to_it_is_synced() -> None:
    disk = SimDisk(random.Random(1))
    told: list[int] = []

    async def run() -> None:
        store, _ = LogStore.open(disk)
        done = asyncio.Event()

        def on_synced(token: int, took_ms: float) -> None:
            assert took_ms >= 0
            told.append(token)
            image = disk.copy(random.Random(token))
            image.crash()
            _, recovered = LogStore.open(image)
            assert len(recovered.entries) >= token
            if token == 20:
                done.set()

        writer = LogWriter(store, on_synced=on_synced, on_failed=_unexpected)
        for token in range(1, 21):
            writer.write(persist(token))
            if token % 4 == 0:
                await asyncio.sleep(0)
        await done.wait()
        writer.close()

    asyncio.run(run())
    assert told == sorted(told)
    assert told[-1] == 20


class SegmentSyncs(SimDisk):
    """Counts the syncs of the log's own files, without its marker's."""

    def __init__(self) -> None:
        super().__init__(random.Random(1))
        self.of_segments = 0

    def sync_inode(self, inode: _Inode, name: str) -> None:
        super().sync_inode(inode, name)
        self.of_segments += name.endswith(".seg")


def test_every_group_that_is_synced_is_counted_and_an_empty_one_is_not() -> None:
    disk = SegmentSyncs()

    async def run() -> None:
        store, _ = LogStore.open(disk)
        before, done = disk.of_segments, asyncio.Event()

        def on_synced(token: int, took_ms: float) -> None:
            del took_ms
            if token == 9:
                done.set()

        writer = LogWriter(store, on_synced=on_synced, on_failed=_unexpected)
        for token in range(1, 10):
            writer.write(persist(token))
            if token % 3 == 0:
                await asyncio.sleep(0)
        await done.wait()
        writer.compact()
        writer.close()
        assert 0 < writer.syncs == disk.of_segments - before < 9

    asyncio.run(run())


class ClockedDisk(SimDisk):
    """Its syncs take a set time, by a clock of their own; it remembers which were inline."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(random.Random(1))
        self.sync_ms = 0.1
        self.inline: list[bool] = []
        self._now_ms = 0.0
        monkeypatch.setattr(time, "perf_counter", lambda: self._now_ms / 1000)

    def sync_inode(self, inode: _Inode, name: str) -> None:
        super().sync_inode(inode, name)
        if name.endswith(".seg"):
            self._now_ms += self.sync_ms
            self.inline.append(threading.current_thread() is threading.main_thread())


class Writing:
    """A writer whose next sync will be inline."""

    def __init__(self, disk: ClockedDisk) -> None:
        store, _ = LogStore.open(disk)
        self._told: asyncio.Queue[int] = asyncio.Queue()
        self.writer = LogWriter(
            store, on_synced=lambda token, _: self._told.put_nowait(token), on_failed=_unexpected
        )
        self._count = 0
        self._disk = disk

    async def __aenter__(self) -> Writing:
        self._disk.inline.clear()
        while not any(self._disk.inline):
            await self.write()
        self._disk.inline.clear()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()

    def put(self, *, first: bool = False) -> int:
        self._count += 1
        self.writer.write(persist(self._count), first=first)
        return self._count

    async def write(self) -> None:
        token = self.put()
        while await self._told.get() < token:
            pass


@pytest.mark.parametrize("slow_ms", [2.1, 8.1, 1_000.0])
def test_after_a_slow_inline_sync_the_thread_has_groups_by_how_slow_it_was(
    monkeypatch: pytest.MonkeyPatch, slow_ms: float
) -> None:
    disk = ClockedDisk(monkeypatch)

    async def run() -> None:
        async with Writing(disk) as writing:
            disk.sync_ms = slow_ms
            await writing.write()
            disk.sync_ms = 0.1
            while disk.inline.count(True) < 2:
                await writing.write()

    asyncio.run(run())
    groups = min(int(slow_ms / INLINE_SYNC_MS_MAX), THREAD_GROUPS_MAX)
    assert disk.inline == [True, *[False] * groups, True]


@pytest.mark.parametrize("first", [True, False])
def test_who_has_nothing_to_send_syncs_before_anything_else_of_the_turn(
    monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    disk = ClockedDisk(monkeypatch)
    seen: list[int] = []

    async def run() -> None:
        async with Writing(disk) as writing:
            writing.put(first=first)
            asyncio.get_running_loop().call_soon(lambda: seen.append(len(disk.inline)))
            await writing.write()

    asyncio.run(run())
    assert seen == [first]


def test_after_a_failed_sync_nothing_is_told_and_nothing_more_is_written() -> None:
    disk = SimDisk(random.Random(1))
    told: list[int] = []
    failures: list[Exception] = []

    async def run() -> None:
        store, _ = LogStore.open(disk)
        disk.fail_next_sync = True
        failed = asyncio.Event()

        def on_failed(error: Exception) -> None:
            failures.append(error)
            failed.set()

        def on_synced(token: int, took_ms: float) -> None:
            assert took_ms >= 0
            told.append(token)

        writer = LogWriter(store, on_synced=on_synced, on_failed=on_failed)
        writer.write(persist(1))
        await failed.wait()
        writes = disk.writes
        writer.write(persist(2))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert disk.writes == writes
        writer.close()

    asyncio.run(run())
    assert told == []
    assert len(failures) == 1


def _unexpected(error: Exception) -> None:
    raise AssertionError from error


def test_any_other_failure_ends_it_too_and_is_told() -> None:
    """A writer that went silent would leave a leader that commits nothing and keeps its role."""
    failures: list[Exception] = []

    async def run() -> None:
        store, _ = LogStore.open(SimDisk(random.Random(1)))
        failed = asyncio.Event()

        def on_failed(error: Exception) -> None:
            failures.append(error)
            failed.set()

        writer = LogWriter(store, on_synced=_unexpected_token, on_failed=on_failed)
        gap = persist(7)  # the store asserts that entries follow each other
        writer.write(gap)
        async with asyncio.timeout(10):
            await failed.wait()
        writer.close()

    asyncio.run(run())
    assert [type(error) for error in failures] == [AssertionError]


def _unexpected_token(token: int, took_ms: float) -> None:
    raise AssertionError(token, took_ms)
