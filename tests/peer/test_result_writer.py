"""The result store behind its thread: order, reads that see writes, entries handed over once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from p2psched.core.machine import Machine
from p2psched.model import chunks
from p2psched.model.commands import Recorded, Stamped
from p2psched.model.errors import NoSpace, Unavailable
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause, Segment
from p2psched.peer import result_writer
from p2psched.peer.result_writer import GROUP_BYTES_MAX, GROUP_EVENTS_MAX, ResultWriter
from p2psched.ports.results import KnownJob, Results
from p2psched.testing.sim_results import MemoryResults

JOB, PEER = JobId("a" * 32), PeerId("b" * 32)


def recorded(position: int, size: int = 1) -> Stamped:
    segment = Segment(position, position + 1, Cause.OK, chunks.pack([bytes(size)]))
    return Stamped(position + 1, 0, 0, Recorded(JOB, 1, PEER, position, segment))


def count(results: Results) -> int:
    return len(results.segments(JOB, 0, 1 << 20).segments)


def failed(error: BaseException) -> None:
    raise AssertionError from error


def test_a_read_sees_every_write_before_it_and_each_entry_is_stored_once() -> None:
    async def run() -> None:
        results = MemoryResults()
        writer = ResultWriter(results, on_failed=failed)
        for number in range(50):
            writer.store([recorded(number)], number + 1)
            if number % 3 == 0:
                assert await writer.read(count) == number + 1
            writer.store([], number + 1)
        assert await writer.read(count) == 50
        writer.close()

    asyncio.run(run())


def test_what_an_earlier_run_has_stored_is_passed_over_at_replay() -> None:
    async def run() -> None:
        results = MemoryResults()
        results.store([recorded(0), recorded(1)], 2)
        writer = ResultWriter(results, on_failed=failed)
        for number in range(4):
            writer.store([recorded(number)], number + 1)
        assert await writer.read(count) == 4
        assert results.applied_index == 4
        writer.close()

    asyncio.run(run())


class Telling(MemoryResults):
    """Says when something was stored."""

    def __init__(self, stored: asyncio.Event) -> None:
        super().__init__()
        self._stored = stored
        self._loop = asyncio.get_running_loop()

    def store(self, events: Sequence[Stamped], applied_index: int) -> None:
        super().store(events, applied_index)
        self._loop.call_soon_threadsafe(self._stored.set)


@pytest.mark.parametrize(
    ("events", "size"), [(GROUP_EVENTS_MAX, 1), (5, GROUP_BYTES_MAX // 4)], ids=["events", "bytes"]
)
def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch, events: int, size: int) -> None:
    """The group's time does not come to its end here."""
    monkeypatch.setattr(result_writer, "GROUP_S", 1e6)

    async def run() -> None:
        stored = asyncio.Event()
        writer = ResultWriter(Telling(stored), on_failed=failed)
        for number in range(events):
            writer.store([recorded(number, size)], number + 1)
        async with asyncio.timeout(30):
            await stored.wait()
        writer.close()

    asyncio.run(run())


class Full(MemoryResults):
    """A store that has no space for a jump, a few times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times_left = times

    def jump(self, applied_index: int, jobs: Mapping[JobId, KnownJob], upto: int) -> None:
        if self.times_left:
            self.times_left -= 1
            raise NoSpace("full")
        super().jump(applied_index, jobs, upto)


class Shut(MemoryResults):
    """A store that has no space for anything, for now."""

    is_full = True

    def store(self, events: Sequence[Stamped], applied_index: int) -> None:
        if self.is_full:
            raise NoSpace("full")
        super().store(events, applied_index)


def test_who_reads_what_found_no_space_hears_so_and_not_that_there_is_nothing() -> None:
    async def run() -> None:
        results = Shut()
        writer = ResultWriter(results, on_failed=failed)
        writer.store([recorded(0)], 1)
        with pytest.raises(NoSpace, match="not stored"):
            await writer.read_of(JOB, count)
        assert await writer.read_of(JobId("c" * 32), count) == 0  # nothing of it waits
        assert (await writer.segments(JOB, 0, 1 << 20)).segments  # memory has it
        results.is_full = False
        assert await writer.read_of(JOB, count) == 1
        writer.close()

    asyncio.run(run())


def restored(applied_index: int) -> Machine:
    state = Machine()
    state.applied_index = applied_index
    return state


def test_a_state_of_a_leader_waits_for_space_too_and_so_does_whoever_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(result_writer, "SPACE_RETRY_S", 0.001)

    async def run() -> None:
        results = Full(times=3)
        writer = ResultWriter(results, on_failed=failed)
        writer.on_restored(restored(5))
        assert await writer.gap_of(JOB) is None
        assert (results.times_left, results.applied_index) == (0, 5)
        results.times_left = 2
        writer.on_restored(restored(7))
        writer.on_restored(restored(9))  # stands for the one that still waits
        assert await writer.gap_of(JOB) is None
        assert results.applied_index == 9
        writer.close()

    asyncio.run(run())


def test_who_reads_hears_of_a_stop_while_a_state_waits_for_space() -> None:
    async def read(writer: ResultWriter) -> None:
        with pytest.raises(Unavailable):
            await writer.gap_of(JOB)

    async def run() -> None:
        writer = ResultWriter(Full(times=1_000_000), on_failed=failed)
        writer.on_restored(restored(5))
        async with asyncio.TaskGroup() as group:
            group.create_task(read(writer))
            await asyncio.sleep(0)
            writer.close()

    asyncio.run(run())
