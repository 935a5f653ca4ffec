"""When a peer makes a snapshot, and that its loop goes on meanwhile."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from itertools import pairwise

import pytest

from p2psched.core.raft.effects import Persist, Propose, RoomChanged, Synced, Tick
from p2psched.core.raft.engine import RaftEngine, Round, found_cluster
from p2psched.core.raft.timing import Timing
from p2psched.model.errors import Unavailable
from p2psched.model.ids import PeerId
from p2psched.model.raft import Member, Room, Snapshot
from p2psched.peer.snapshots import OLD_S, OLD_SHARE, SnapshotMaker
from p2psched.store.log import LogStore
from p2psched.testing.sim_disk import SimDisk

LOG_BYTES = 64 * 1024
PIECES = 20


class Rig:
    """A lone voter that applies what it commits, and says how much of a state was asked for."""

    def __init__(self) -> None:
        hard, entry = found_cluster(Member(PeerId("a"), "a", "a:1"), 0, 0)
        self.engine = RaftEngine(
            me=PeerId("a"),
            rng=random.Random(1),
            timing=Timing(),
            hard_state=hard,
            entries=[entry],
            now_ms=0,
            decorate=lambda envelopes: envelopes,
        )
        self.store, _ = LogStore.open(SimDisk(random.Random(1)))
        self.now_s = 0.0
        self.saved: list[Snapshot] = []
        self.captures = 0
        self.breaks = False  # a piece
        self.failures: list[Exception] = []
        self.pieces_taken = 0
        self.stopped = False  # whoever applies
        self.done = asyncio.Event()
        self.maker = SnapshotMaker(
            self.engine,
            self.store.snapshots,
            log_bytes=LOG_BYTES,
            capture_state=self._capture,
            make_durable=lambda done: done(),
            on_saved=self._on_saved,
            on_failed=self._on_failed,
            now_s=lambda: self.now_s,
        )
        self._step(list(self.engine.step(Tick(10_000, 0))))

    def _capture(self, index: int) -> Iterator[bytes] | None:
        assert index == self.engine.delivered
        self.captures += 1
        return None if self.stopped else self._pieces()

    def _pieces(self) -> Iterator[bytes]:
        for number in range(PIECES):
            self.pieces_taken += 1
            assert not self.breaks
            yield b"%d," % number

    def _on_saved(self, snapshot: Snapshot) -> None:
        self.saved.append(snapshot)
        self.done.set()

    def _on_failed(self, error: Exception) -> None:
        self.failures.append(error)
        self.done.set()

    def _step(self, effects: list[object]) -> None:
        for effect in effects:
            if isinstance(effect, Persist):
                self._step(list(self.engine.step(Synced(10_000, effect.token))))

    def commit(self, size: int) -> None:
        """Entries of so many bytes, committed and delivered."""
        raft = self.engine.raft
        for _ in range(size // 1_000):
            self._step(list(raft.step(Propose(10_000, 0, b"\x90"))))
        self.engine.step(Round(10_000, 0))
        self.engine.bytes_since_snapshot = size


def test_between_two_pieces_of_a_state_the_loop_sees_to_others() -> None:
    async def run() -> None:
        rig = Rig()
        rig.commit(LOG_BYTES)
        turns: list[int] = []

        def turn() -> None:
            turns.append(rig.pieces_taken)
            if not rig.saved:
                asyncio.get_running_loop().call_soon(turn)

        turn()
        rig.maker.look()
        await rig.done.wait()
        rig.maker.close()
        steps = {b - a for a, b in pairwise(turns)}
        assert max(steps) == 1
        assert rig.failures == []
        head, state = rig.store.snapshots.read(rig.saved[0].index)
        assert head == rig.saved[0]
        assert state == b"".join(b"%d," % number for number in range(PIECES))

    asyncio.run(run())


def test_a_state_that_cannot_be_taken_is_a_failure_of_the_peer() -> None:
    async def run() -> None:
        rig = Rig()
        rig.commit(LOG_BYTES)
        rig.breaks = True
        rig.maker.look()
        await rig.done.wait()
        rig.maker.close()
        assert [type(error) for error in rig.failures] == [AssertionError]
        with pytest.raises(Unavailable):
            await rig.maker.make()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("size", "age_s", "due"),
    [
        (LOG_BYTES - 1, 0, False),
        (LOG_BYTES, 0, True),
        (LOG_BYTES // OLD_SHARE, OLD_S - 1, False),
        (LOG_BYTES // OLD_SHARE, OLD_S, True),
        (LOG_BYTES // OLD_SHARE - 1, OLD_S, False),
    ],
)
def test_a_snapshot_is_due_by_size_or_by_age(size: int, age_s: float, *, due: bool) -> None:
    async def run() -> None:
        rig = Rig()
        rig.commit(size)
        rig.now_s += age_s
        rig.maker.look()
        assert (rig.captures > 0) == due
        if due:
            await rig.done.wait()
        rig.maker.close()

    asyncio.run(run())


def test_no_snapshot_is_made_where_what_was_delivered_is_not_applied() -> None:
    async def run() -> None:
        rig = Rig()
        rig.stopped = True
        rig.commit(LOG_BYTES)
        rig.maker.look()
        assert rig.pieces_taken == 0
        rig.stopped = False
        rig.maker.look()
        await rig.done.wait()
        rig.maker.close()
        assert len(rig.saved) == 1

    asyncio.run(run())


def test_age_counts_from_the_newest_one() -> None:
    async def run() -> None:
        rig = Rig()
        rig.commit(LOG_BYTES)
        rig.now_s += OLD_S
        rig.maker.look()
        await rig.done.wait()
        rig.engine.bytes_since_snapshot = LOG_BYTES // OLD_SHARE
        rig.maker.look()
        assert rig.captures == 1
        rig.maker.close()

    asyncio.run(run())


@pytest.mark.parametrize(("room", "due"), [(Room.LOW, True), (Room.ENOUGH, False)])
def test_with_little_space_a_little_of_the_log_is_worth_one(room: Room, *, due: bool) -> None:
    async def run() -> None:
        rig = Rig()
        rig.commit(LOG_BYTES // OLD_SHARE)
        rig.engine.step(RoomChanged(10_000, room))
        rig.maker.look()
        assert (rig.captures > 0) == due
        if due:
            await rig.done.wait()
        rig.maker.close()

    asyncio.run(run())
