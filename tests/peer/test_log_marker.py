"""The marker follows the log in a thread of its own: soon, rarely, and never before an answer."""

from __future__ import annotations

import asyncio
import errno
import random
import threading
from collections.abc import Callable

import pytest

from p2psched.core.raft.effects import Persist
from p2psched.model.raft import Entry, EntryKind
from p2psched.peer import log_marker
from p2psched.peer.log_writer import LogWriter
from p2psched.store.log import LogStore
from p2psched.store.marker import MARKER, Mark, decode_marked
from p2psched.testing.sim_disk import SimDisk


class MarkedDisk(SimDisk):
    """Counts the markers, and says where they were written. Held back while `may_write` is not
    set; `fails` is what the next ones end with."""

    def __init__(self) -> None:
        super().__init__(random.Random(1))
        self.marks: list[Mark] = []
        self.threads: set[str] = set()
        self.may_write = threading.Event()
        self.may_write.set()
        self.fails: list[OSError] = []

    def replace(self, name: str, data: bytes) -> None:
        if name == MARKER:
            assert self.may_write.wait(10)
            if self.fails:
                raise self.fails.pop()
            self.threads.add(threading.current_thread().name)
            marked = decode_marked(data)
            assert marked is not None
            self.marks.append(marked.mark)
        super().replace(name, data)


def persist(token: int) -> Persist:
    return Persist(token, None, None, (Entry(token, 1, EntryKind.COMMANDS, token, 0, b"x"),))


class Rig:
    def __init__(self) -> None:
        self.disk = MarkedDisk()
        self.store, _ = LogStore.open(self.disk)
        self.disk.marks.clear()
        self.disk.threads.clear()
        self.synced = 0
        self.failures: list[Exception] = []
        self.writer = LogWriter(
            self.store, on_synced=self._on_synced, on_failed=self.failures.append
        )

    def _on_synced(self, token: int, took_ms: float) -> None:
        del took_ms
        self.synced = token

    async def write(self, token: int) -> None:
        self.writer.write(persist(token))
        await until(lambda: self.synced >= token)

    async def marked(self, index: int) -> None:
        await until(lambda: bool(self.disk.marks) and self.disk.marks[-1].index >= index)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 (it looks at what threads do)
            await asyncio.sleep(0.001)


def test_the_marker_follows_and_an_idle_log_costs_nothing() -> None:
    async def run() -> None:
        rig = Rig()
        await rig.write(1)
        await rig.marked(1)
        await until(lambda: rig.store.is_marked)
        assert rig.writer._marker._timer is None  # nothing is due any more
        await rig.write(2)
        await rig.marked(2)
        assert rig.disk.threads == {"log-marker_0"}
        rig.writer.close()
        assert [mark.index for mark in rig.disk.marks] == [1, 2]

    asyncio.run(run())


def test_many_groups_share_a_marker_and_none_waits_for_it() -> None:
    async def run() -> None:
        rig = Rig()
        rig.disk.may_write.clear()  # a disk that takes ever so long for it
        for token in range(1, 101):
            await rig.write(token)
        rig.disk.may_write.set()
        await rig.marked(100)
        assert len(rig.disk.marks) <= 3
        rig.writer.close()

    asyncio.run(run())


def test_a_clean_stop_leaves_the_marker_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_marker, "MARK_AFTER_S", 3600.0)

    async def run() -> None:
        rig = Rig()
        await rig.write(1)
        assert rig.disk.marks == []
        rig.writer.close()
        assert [mark.index for mark in rig.disk.marks] == [1]

    asyncio.run(run())


def test_a_marker_that_finds_no_space_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_marker, "FULL_RETRY_S", 0.001)

    async def run() -> None:
        rig = Rig()
        rig.disk.fails = [OSError(errno.ENOSPC, "no space"), OSError(errno.EDQUOT, "no space")]
        await rig.write(1)
        await rig.marked(1)
        assert rig.failures == []
        rig.writer.close()

    asyncio.run(run())


def test_a_marker_that_can_not_be_synced_is_a_failed_disk_and_is_not_tried_again() -> None:
    async def run() -> None:
        rig = Rig()
        rig.disk.fails = [OSError(errno.EIO, "sync failed")]
        await rig.write(1)
        await until(lambda: bool(rig.failures))
        rig.writer.write(persist(2))
        rig.writer.close()
        assert [str(error) for error in rig.failures] == ["[Errno 5] sync failed"]
        assert rig.disk.marks == []
        assert rig.synced == 1

    asyncio.run(run())
