"""The result store behind its thread: order, reads that see writes, entries handed over once."""

from __future__ import annotations

import asyncio

from p2psched.model.commands import Recorded, Stamped
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause, Segment
from p2psched.peer.result_writer import ResultWriter
from p2psched.ports.results import Results
from p2psched.testing.sim_results import MemoryResults

JOB, PEER = JobId("a" * 32), PeerId("b" * 32)


def recorded(position: int) -> Stamped:
    data = (1).to_bytes(4, "little") + bytes(4) + (1).to_bytes(4, "little") + b"x"
    segment = Segment(position, position + 1, Cause.OK, data)
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
