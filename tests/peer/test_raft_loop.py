"""The contract of port `Ledger`, on the embedded engine driven by its asyncio loop.

Three members in one event loop, messages handed over directly, logs on simulated disks.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from unittest.mock import patch

import pytest

from p2psched.core.raft.engine import found_cluster
from p2psched.core.raft.timing import Timing
from p2psched.model.commands import Cancel, Envelope
from p2psched.model.execution import Committed
from p2psched.model.ids import JobId, PeerId
from p2psched.model.limits import SNAPSHOT_LOG_BYTES
from p2psched.model.messages import Forward
from p2psched.model.raft import Member, RaftMessage
from p2psched.observe.clock import BootClock
from p2psched.peer.raft_loop import RaftLedger
from p2psched.store.log import LogStore
from p2psched.testing.sim_disk import SimDisk

TIMING = Timing(heartbeat_ms=20, election_ms_min=60, election_ms_max=120)


class Listener:
    """Records what the ledger says."""

    def __init__(self, me: PeerId) -> None:
        self.me = me
        self.batches: list[Committed] = []
        self.restored: list[int] = []  # up to which entry a state stood for them
        self.coordinator: PeerId | None = None
        self.led_at: list[int] = []  # how much had been delivered when we began to coordinate
        self.decorated = 0

    def on_committed(self, batches: Sequence[Committed]) -> None:
        self.batches += batches

    def on_restored(self, state: bytes | memoryview) -> None:
        self.restored.append(int(state))

    def capture_state(self, index: int) -> Iterator[bytes] | None:
        assert index == self.batches[-1].index
        return iter([b"%d" % index])

    def on_coordinator(self, coordinator: PeerId | None, *, is_self: bool) -> None:
        assert is_self == (coordinator == self.me)
        self.coordinator = coordinator
        if is_self:
            self.led_at.append(len(self.batches))

    def decorate(self, envelopes: tuple[Envelope, ...]) -> tuple[Envelope, ...]:
        assert self.coordinator == self.me
        self.decorated += 1
        return envelopes

    @property
    def requests(self) -> list[int]:
        return [e.request for batch in self.batches for e in batch.envelopes]


class Group:
    """Ledgers that reach each other unless cut off."""

    def __init__(self, size: int, snapshot_log_bytes: int) -> None:
        self._snapshot_log_bytes = snapshot_log_bytes
        self.durable: dict[PeerId, int] = {}  # how much a listener was asked to make durable
        self.ids = [PeerId(f"{number:032x}") for number in range(1, size + 1)]
        self.listeners = {peer: Listener(peer) for peer in self.ids}
        self.cut: set[PeerId] = set()
        self.failures: list[Exception] = []  # of disks
        self.bugs: list[Exception] = []
        self.ledgers = {peer: self._make(peer) for peer in self.ids}

    def _make(self, peer: PeerId) -> RaftLedger:
        store, recovered = LogStore.open(SimDisk(random.Random(peer)))
        if peer == self.ids[0]:
            hard, entry = found_cluster(Member(peer, "", ""), 0, 0)
            store.write(hard_state=hard, truncate_from=None, entries=[entry])
            store.sync()
            recovered = type(recovered)(hard_state=hard, entries=[entry], torn_bytes=0, files=1)
        return RaftLedger(
            me=peer,
            timing=TIMING,
            store=store,
            recovered=recovered,
            clock=BootClock(),
            rng=random.Random(peer),
            send=lambda to, message: self._send(peer, to, message),
            listener=self.listeners[peer],
            on_membership=lambda _: None,
            on_disk_failed=self.failures.append,
            on_bug=self.bugs.append,
            make_durable=lambda done: self._make_durable(peer, done),
            snapshot_log_bytes=self._snapshot_log_bytes,
        )

    def _make_durable(self, peer: PeerId, done: Callable[[], None]) -> None:
        self.durable[peer] = self.listeners[peer].batches[-1].index
        asyncio.get_running_loop().call_soon(done)

    def _send(self, sender: PeerId, to: PeerId, message: RaftMessage | Forward) -> None:
        if not {sender, to} & self.cut and to in self.ledgers:
            asyncio.get_running_loop().call_soon(self.ledgers[to].on_message, sender, message)

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                assert not self.failures + self.bugs, self.failures + self.bugs
                await asyncio.sleep(0.001)

    async def lead(self) -> PeerId:
        """Everybody alive follows one leader that speaks; returns it."""

        def leaders() -> set[PeerId | None]:
            return {self.listeners[p].coordinator for p in self.ids if p not in self.cut}

        await self.until(lambda: len(leaders()) == 1 and None not in leaders())
        (leader,) = leaders()
        assert leader is not None
        return leader

    def voters(self) -> int:
        return len(self.ledgers[self.ids[0]].engine.raft.membership.voters)


def run(
    size: int,
    scenario: Callable[[Group], Awaitable[None]],
    *,
    snapshot_log_bytes: int = SNAPSHOT_LOG_BYTES,
) -> None:
    async def main() -> None:
        group = Group(size, snapshot_log_bytes)
        for ledger in group.ledgers.values():
            ledger.start()
        await group.until(lambda: group.listeners[group.ids[0]].coordinator == group.ids[0])
        first = group.ledgers[group.ids[0]]
        for peer in group.ids[1:]:
            while first.engine.raft.membership.member(peer) is None:
                first.add_member(Member(peer, "", ""))
                await asyncio.sleep(0.001)
        await group.until(lambda: group.voters() == (3 if size >= 3 else 1))
        try:
            await scenario(group)
        finally:
            for ledger in group.ledgers.values():
                ledger.stop()
        assert not group.failures + group.bugs

    asyncio.run(main())


def envelopes(proposer: PeerId, first: int, count: int) -> list[Envelope]:
    job = JobId("a" * 32)
    return [Envelope(proposer, number, Cancel(job)) for number in range(first, first + count)]


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_everybody_sees_the_same_entries_in_the_same_order_without_gaps(size: int) -> None:
    async def scenario(group: Group) -> None:
        await group.lead()
        for number, peer in enumerate(group.ids):
            group.ledgers[peer].append(envelopes(peer, 100 * number, 50))
        await group.until(
            lambda: all(len(x.requests) == 50 * size for x in group.listeners.values())
        )
        histories = [listener.batches for listener in group.listeners.values()]
        assert [batch.index for batch in histories[0]] == list(range(1, len(histories[0]) + 1))
        assert all(history == histories[0] for history in histories)
        stamps = [batch.stamp_ms for batch in histories[0]]
        assert stamps == sorted(stamps)
        requests = group.listeners[group.ids[0]].requests
        for number in range(size):  # one call's proposals are never reordered
            own = [r for r in requests if 100 * number <= r < 100 * number + 50]
            assert own == sorted(own)

    run(size, scenario)


def test_proposals_that_pile_up_travel_in_few_entries() -> None:
    async def scenario(group: Group) -> None:
        leader = await group.lead()
        before = len(group.listeners[leader].batches)
        for number in range(1000):
            group.ledgers[leader].append(envelopes(leader, number, 1))
        await group.until(lambda: len(group.listeners[leader].requests) == 1000)
        assert len(group.listeners[leader].batches) - before <= 10
        assert group.listeners[leader].decorated >= 1

    run(3, scenario)


@pytest.mark.parametrize("member", [0, 1, 2, 3])
def test_a_read_index_covers_everything_committed_before_it_on_any_member(member: int) -> None:
    async def scenario(group: Group) -> None:
        leader = await group.lead()
        group.ledgers[leader].append(envelopes(leader, 0, 5))
        await group.until(lambda: len(group.listeners[leader].requests) == 5)
        committed = group.listeners[leader].batches[-1].index
        found: list[int | None] = []
        group.ledgers[group.ids[member]].read_index(found.append)
        await group.until(lambda: found)
        assert found[0] is not None
        assert found[0] >= committed

    run(4, scenario)


def test_a_new_leader_coordinates_only_after_everything_older_was_delivered() -> None:
    async def scenario(group: Group) -> None:
        first = await group.lead()
        group.ledgers[first].append(envelopes(first, 0, 20))
        await group.until(lambda: len(group.listeners[first].requests) == 20)
        committed = len(group.listeners[first].batches)
        group.cut.add(first)
        others = [listener for peer, listener in group.listeners.items() if peer != first]
        await group.until(lambda: all(x.coordinator not in (first, None) for x in others))
        second = await group.lead()
        assert group.listeners[second].led_at[-1] >= committed
        await group.until(lambda: group.listeners[first].coordinator is None)

    run(3, scenario)


def test_without_a_majority_reads_are_refused_and_nothing_commits() -> None:
    async def scenario(group: Group) -> None:
        leader = await group.lead()
        group.cut |= {peer for peer in group.ids if peer != leader}
        await group.until(lambda: group.listeners[leader].coordinator is None)
        before = len(group.listeners[leader].requests)
        group.ledgers[leader].append(envelopes(leader, 0, 1))
        found: list[int | None] = []
        group.ledgers[leader].read_index(found.append)
        await group.until(lambda: found)
        assert found == [None]
        assert len(group.listeners[leader].requests) == before

    run(3, scenario)


async def ten_more(group: Group, leader: PeerId) -> None:
    listener = group.listeners[leader]
    before = len(listener.requests)
    group.ledgers[leader].append(envelopes(leader, before, 10))
    await group.until(lambda: len(listener.requests) == before + 10)


def test_who_lacks_what_others_have_dropped_is_given_a_state_instead() -> None:
    async def scenario(group: Group) -> None:
        leader = await group.lead()
        behind = next(peer for peer in group.ids if peer != leader)
        group.cut.add(behind)
        other = group.listeners[behind]
        seen = len(other.batches)
        ledger, listener = group.ledgers[leader], group.listeners[leader]
        while ledger.engine.raft.base_index <= other.batches[-1].index + 10:
            await ten_more(group, leader)
        snapshot = ledger.engine.raft.snapshot
        assert snapshot is not None
        assert snapshot.index <= group.durable[leader]  # first what is kept elsewhere
        group.cut.clear()
        await ten_more(group, leader)  # perhaps the snapshot stands for all so far
        last = listener.batches[-1].index
        await group.until(lambda: other.restored and other.batches[-1].index >= last)
        (stood_for,) = other.restored
        later = [batch for batch in other.batches[seen:] if batch.index > stood_for]
        assert [batch.index for batch in later] == list(range(stood_for + 1, later[-1].index + 1))
        assert later == [b for b in listener.batches if stood_for < b.index <= later[-1].index]
        assert group.ledgers[behind].engine.raft.base_index >= stood_for

    run(3, scenario, snapshot_log_bytes=20_000)


@pytest.mark.parametrize(("error", "is_disk"), [(OSError(5, "EIO"), True), (KeyError(5), False)])
def test_a_disk_that_can_not_be_read_is_no_bug(error: Exception, is_disk: bool) -> None:
    """As when a piece of a snapshot is to be sent. Either way the peer goes on no more."""

    async def scenario(group: Group) -> None:
        ledger = group.ledgers[await group.lead()]
        with patch.object(ledger.engine, "step", side_effect=error):
            ledger.add_member(Member(PeerId("f" * 32), "", ""))
        assert (group.failures, group.bugs) == (([error], []) if is_disk else ([], [error]))
        index = ledger.engine.raft.last_index
        ledger.add_member(Member(PeerId("f" * 32), "", ""))
        assert ledger.engine.raft.last_index == index
        group.failures.clear()  # it was wanted
        group.bugs.clear()

    run(1, scenario)
