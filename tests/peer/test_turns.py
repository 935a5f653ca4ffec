"""What comes first within a turn of the loop, where somebody waits for it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator, Sequence

import pytest

from p2psched.core.raft.engine import found_cluster
from p2psched.core.raft.timing import Timing
from p2psched.core.scheduler import Scheduler
from p2psched.model.commands import Envelope, PeerUp, Place, SubmitJob
from p2psched.model.execution import Batch, Committed, Standing, Tending
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause
from p2psched.model.messages import PeerMessage
from p2psched.model.raft import Append, AppendReply, Entry, EntryKind, Member
from p2psched.model.taskset import TaskSet
from p2psched.observe.clock import BootClock
from p2psched.peer.raft_loop import RaftLedger
from p2psched.peer.result_writer import ResultWriter
from p2psched.peer.scheduler_loop import SchedulerLoop
from p2psched.store.log import LogStore
from p2psched.testing.sim_disk import SimDisk
from p2psched.testing.sim_results import MemoryResults
from tests.core.test_machine import P, spec, up

LEADER, FOLLOWER = PeerId("1" * 32), PeerId("2" * 32)


class Started:
    """An executor that only takes note."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []

    def start(self, batch: Batch) -> None:
        self.batches.append(batch)

    def stop(self, batch: int, cause: Cause) -> None:
        raise AssertionError((batch, cause))

    def end_task(self, batch: int, index: int, cause: Cause, why: str) -> None:
        raise AssertionError((batch, index, cause, why))

    def take_back(self) -> None:
        raise AssertionError

    def standing(self) -> Standing:
        return Standing(frozenset(batch.id for batch in self.batches))

    def renew(self, batch: int, until_ms: int) -> None:
        pass

    def tend(self, how: Tending, batches: frozenset[int]) -> None:
        raise AssertionError((how, batches))


def _unexpected(error: BaseException) -> None:
    raise AssertionError from error


def test_tasks_that_were_granted_start_before_the_turn_is_over() -> None:
    async def run() -> None:
        executor = Started()
        peer_up = up(P)
        assert isinstance(peer_up, PeerUp)
        writer = ResultWriter(MemoryResults(), on_failed=_unexpected)
        loop = SchedulerLoop(
            Scheduler(peer_up.info),
            clock=BootClock(),
            executor=executor,
            results=writer,
            next_incarnation=lambda: 2,
            on_bug=_unexpected,
        )
        job, one = JobId("a" * 32), spec(TaskSet.of(0, 1))
        envelopes = (
            Envelope(P, 1, peer_up),
            Envelope(P, 2, SubmitJob(job, one)),
            Envelope(P, 3, Place(job, one.tasks, P, 1)),
        )
        loop.on_committed([Committed(1, 0, 0, envelopes)])
        assert [batch.job for batch in executor.batches] == [job]
        loop.stop()
        writer.close()

    asyncio.run(run())


class Follower:
    """The ledger of one, and what it says and applies, in order."""

    def __init__(self) -> None:
        self.did: list[tuple[str, int]] = []
        self._changed = asyncio.Event()
        store, recovered = LogStore.open(SimDisk(random.Random(1)))
        hard, self.first = found_cluster(Member(LEADER, "", ""), 0, 0)
        store.write(hard_state=hard, truncate_from=None, entries=[self.first])
        store.sync()
        recovered = type(recovered)(hard_state=hard, entries=[self.first], torn_bytes=0, files=1)
        self.ledger = RaftLedger(
            me=FOLLOWER,
            timing=Timing(),
            store=store,
            recovered=recovered,
            clock=BootClock(),
            rng=random.Random(1),
            send=self._send,
            listener=self,
            on_membership=lambda _: None,
            on_disk_failed=_unexpected,
            on_bug=_unexpected,
        )

    def _send(self, to: PeerId, message: PeerMessage) -> None:
        if isinstance(message, AppendReply):
            assert to == LEADER
            asyncio.get_running_loop().call_soon(self._note, "written", message.match)

    def on_committed(self, batches: Sequence[Committed]) -> None:
        for batch in batches:
            self._note("applied", batch.index)

    def _note(self, what: str, index: int) -> None:
        self.did.append((what, index))
        self._changed.set()

    async def until(self, count: int) -> None:
        while len(self.did) < count:
            self._changed.clear()
            await self._changed.wait()

    def on_restored(self, state: bytes | memoryview) -> None:
        raise AssertionError(state)

    def capture_state(self, index: int) -> Iterator[bytes]:
        raise AssertionError

    def on_coordinator(self, coordinator: PeerId | None, *, is_self: bool) -> None:
        assert not is_self, coordinator

    def decorate(self, envelopes: tuple[Envelope, ...]) -> tuple[Envelope, ...]:
        raise AssertionError(envelopes)


def test_a_follower_says_what_it_has_before_it_applies_what_came_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(time, "perf_counter", lambda: 0.0)  # each sync is quick

    async def run() -> None:
        follower = Follower()
        follower.ledger.start()
        for index in range(2, 40):
            entry = Entry(index, 1, EntryKind.NOOP, 0, 0, b"")
            message = Append(1, index - 1, 1, index - 1, 1, (entry,))
            follower.ledger.on_message(LEADER, message)
            await follower.until(2 * (index - 1))
        follower.ledger.stop()
        assert follower.did[-2:] == [("written", 39), ("applied", 38)]

    asyncio.run(run())
