"""The loop around the scheduler gives out no state that is not the one it is asked for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import pytest

from p2psched.core.scheduler import Scheduler
from p2psched.core.separation_effects import SeparationEffect
from p2psched.core.snapshot import restore_machine
from p2psched.model.commands import Cancel, Envelope, PeerInfo, Stamped, SubmitJob
from p2psched.model.execution import Committed, Standing
from p2psched.model.ids import PeerId
from p2psched.observe.clock import BootClock
from p2psched.peer.result_writer import ResultWriter
from p2psched.peer.scheduler_loop import SchedulerLoop
from p2psched.ports.executor import Executor
from p2psched.ports.ledger import Ledger
from p2psched.testing.virtual_time import run_virtually
from tests.core.test_machine import JOB, spec
from tests.core.test_scheduler import FOUR

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


class VirtualClock:
    def now_ms(self) -> int:
        return round(asyncio.get_running_loop().time() * 1000)

    def wall_ms(self) -> int:
        return self.now_ms()


class LedgerOfAnother:
    """What is proposed is committed at the end of the turn; somebody else leads."""

    def __init__(self) -> None:
        self.loop: SchedulerLoop | None = None
        self._index = 0

    def append(self, envelopes: Sequence[Envelope]) -> None:
        asyncio.get_running_loop().call_soon(self.commit, tuple(envelopes))

    def commit(self, envelopes: tuple[Envelope, ...]) -> None:
        assert self.loop is not None
        self._index += 1
        self.loop.on_committed([Committed(self._index, self._index, 0, envelopes)])

    def contacts(self) -> Mapping[PeerId, int]:
        return {}

    def removed(self) -> tuple[PeerId, ...]:
        return ()

    def full(self) -> frozenset[PeerId]:
        return frozenset()


class KeepsNothing:
    def store(self, events: Sequence[Stamped], applied_index: int) -> None:
        pass

    def standing(self) -> Standing:
        return Standing()


def test_a_loop_looks_at_its_clock_seldom_while_all_is_quiet_and_often_once_there_is_a_job() -> (
    None
):
    looks: list[float] = []

    async def main() -> list[int]:
        ledger, time = LedgerOfAnother(), asyncio.get_running_loop().time

        def look() -> dict[PeerId, object]:
            looks.append(time())
            return {}

        loop = ledger.loop = SchedulerLoop(
            Scheduler(INFO),
            clock=VirtualClock(),
            executor=cast("Executor", KeepsNothing()),
            results=cast("ResultWriter", KeepsNothing()),
            next_incarnation=lambda: 2,
            on_bug=bugs.append,
        )
        loop.look = look  # type: ignore[assignment]  # it is always empty
        loop.keep = kept.append
        loop.attach(cast("Ledger", ledger), send=lambda _to, _message: None)
        loop.on_coordinator(PeerId("b"), is_self=False)
        counts: list[int] = []
        running = asyncio.get_running_loop().create_task(loop.run())
        for act in (None, None, SubmitJob(JOB, spec(FOUR)), Cancel(JOB), None):
            if act is not None:
                ledger.commit((Envelope(PeerId("b"), 1 + len(counts), act),))
            looks.clear()
            await asyncio.sleep(10)
            counts.append(len(looks))
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        return counts

    bugs: list[Exception] = []
    kept: list[SeparationEffect] = []
    arriving, quiet, job, ended, quiet_again = run_virtually(main())
    assert bugs == []
    assert job >= 95
    for count in (arriving, quiet, ended, quiet_again):
        assert 15 <= count <= 30, (arriving, quiet, job, ended, quiet_again)
