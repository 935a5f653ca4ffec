"""The loop around the scheduler gives out no state that is not the one it is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import cast

import pytest

from p2psched.core.scheduler import Scheduler
from p2psched.core.snapshot import restore_machine
from p2psched.model.commands import PeerInfo, Stamped
from p2psched.model.execution import Committed
from p2psched.model.ids import PeerId
from p2psched.observe.clock import BootClock
from p2psched.peer.result_writer import ResultWriter
from p2psched.peer.scheduler_loop import SchedulerLoop
from p2psched.ports.executor import Executor

INFO = PeerInfo(PeerId("a"), 1, "a", "a:1", pid=1, slots=1, version="1", python="3.11")


class NoResults:
    def store(self, events: Sequence[Stamped], applied_index: int) -> None:
        assert not events


def entry(index: int) -> Committed:
    return Committed(index, 0, 0, ())


async def loop_at(index: int) -> tuple[SchedulerLoop, list[Exception]]:
    """It has applied so many entries; and the bugs that it has told of."""
    bugs: list[Exception] = []
    loop = SchedulerLoop(
        Scheduler(INFO),
        clock=BootClock(),
        executor=cast("Executor", None),
        results=cast("ResultWriter", NoResults()),
        next_incarnation=lambda: 2,
        on_bug=bugs.append,
    )
    loop.on_committed([entry(number) for number in range(1, index + 1)])
    return loop, bugs


def test_a_state_is_given_out_as_of_the_entry_that_was_applied_last() -> None:
    async def main() -> None:
        loop, bugs = await loop_at(3)
        pieces = loop.capture_state(3)
        assert pieces is not None
        state = b"".join(pieces)
        assert not bugs
        machine = Scheduler(INFO).machine
        restore_machine(machine, state)
        assert machine.applied_index == 3

    asyncio.run(main())


def stops(loop: SchedulerLoop) -> None:
    loop.stop()
    loop.on_committed([entry(4)])


def fails(loop: SchedulerLoop) -> None:
    loop.on_committed([entry(5)])


@pytest.mark.parametrize("ends", [stops, fails])
def test_whoever_has_stopped_gives_no_state_out(ends: Callable[[SchedulerLoop], None]) -> None:
    """What the ledger delivers then is applied nowhere, or was applied by half."""

    async def main() -> None:
        loop, bugs = await loop_at(3)
        ends(loop)
        assert [loop.capture_state(index) for index in (3, 4, 5)] == [None, None, None]
        assert len(bugs) == (ends is fails)

    asyncio.run(main())
