"""A state is never in memory as a whole, on neither side, while it goes to one far behind."""

from __future__ import annotations

import asyncio
import hashlib
import random
import tracemalloc
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from p2psched.core.capture import Capture
from p2psched.core.machine import Machine
from p2psched.core.raft.engine import found_cluster
from p2psched.core.raft.timing import Timing
from p2psched.core.snapshot import encode_machine, restore_machine
from p2psched.model.commands import Envelope, SubmitJob
from p2psched.model.execution import Committed
from p2psched.model.ids import JobId, PeerId
from p2psched.model.limits import KIB, MIB
from p2psched.model.messages import Forward
from p2psched.model.raft import Entry, EntryKind, Member, RaftMessage
from p2psched.model.taskset import TaskSet
from p2psched.observe.clock import BootClock
from p2psched.peer.raft_loop import RaftLedger
from p2psched.store.disk import OsDisk
from p2psched.store.log import LogStore
from p2psched.testing.sim_jobs import sim_job

BEHIND = 100_000
STATE_BYTES = 48 * MIB
PIECE_BYTES = 128 * KIB
A, B = PeerId("a" * 32), PeerId("b" * 32)


class Grown:
    """How much more memory was in use at once than before, and is still in use."""

    peak_bytes = 0
    kept_bytes = 0


@contextmanager
def growth() -> Iterator[Grown]:
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    grown = Grown()
    try:
        yield grown
        after, peak = tracemalloc.get_traced_memory()
        grown.peak_bytes, grown.kept_bytes = peak - before, after - before
    finally:
        tracemalloc.stop()


class Listener:
    """Its state is many bytes that only come into being piece by piece."""

    def __init__(self) -> None:
        self.index = 0
        self.leads = False
        self.restored = ""

    def on_committed(self, batches: Sequence[Committed]) -> None:
        self.index = batches[-1].index

    def on_restored(self, state: bytes | memoryview) -> None:
        assert len(state) == STATE_BYTES
        self.restored = digest(state[at : at + PIECE_BYTES] for at in offsets())

    def capture_state(self, index: int) -> Iterator[bytes]:
        return pieces()

    def on_coordinator(self, coordinator: PeerId | None, *, is_self: bool) -> None:
        self.leads = is_self

    def decorate(self, envelopes: tuple[Envelope, ...]) -> tuple[Envelope, ...]:
        return envelopes


def offsets() -> range:
    return range(0, STATE_BYTES, PIECE_BYTES)


def pieces() -> Iterator[bytes]:
    rng = random.Random(5)
    return (rng.randbytes(PIECE_BYTES) for _ in offsets())


def digest(parts: Iterable[bytes | memoryview]) -> str:
    hasher = hashlib.blake2b()
    for part in parts:
        hasher.update(part)
    return hasher.hexdigest()


class Two:
    """A leader with many entries, and one that joins it. They reach each other directly."""

    def __init__(self, folder: Path) -> None:
        self.listeners = {A: Listener(), B: Listener()}
        self.failures: list[Exception] = []
        self.ledgers = {peer: self._make(peer, folder / peer) for peer in (A, B)}

    def _make(self, peer: PeerId, folder: Path) -> RaftLedger:
        store, _ = LogStore.open(OsDisk(folder))
        if peer == A:
            hard, first = found_cluster(Member(A, "", ""), 0, 0)
            more = [
                Entry(index, first.term, EntryKind.COMMANDS, 0, 0, b"\x90")
                for index in range(2, BEHIND + 1)
            ]
            store.write(hard_state=hard, truncate_from=None, entries=[first, *more])
            store.sync()
        store.close()
        store, recovered = LogStore.open(OsDisk(folder))
        return RaftLedger(
            me=peer,
            timing=Timing(heartbeat_ms=50, election_ms_min=500, election_ms_max=1_000),
            store=store,
            recovered=recovered,
            clock=BootClock(),
            rng=random.Random(peer),
            send=self._send_from(peer),
            listener=self.listeners[peer],
            on_membership=lambda _: None,
            on_disk_failed=self.failures.append,
            on_bug=self.failures.append,
        )

    def _send_from(self, peer: PeerId) -> Callable[[PeerId, RaftMessage | Forward], None]:
        def send(to: PeerId, message: RaftMessage | Forward) -> None:
            asyncio.get_running_loop().call_soon(self.ledgers[to].on_message, peer, message)

        return send

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(120):
            while not condition():
                assert not self.failures
                await asyncio.sleep(0.001)


def test_a_large_state_goes_to_one_who_is_100_000_entries_behind_in_little_memory(
    tmp_path: Path,
) -> None:
    async def run() -> None:
        two = Two(tmp_path)
        for ledger in two.ledgers.values():
            ledger.start()
        leader = two.ledgers[A]
        await two.until(lambda: two.listeners[A].leads and two.listeners[A].index >= BEHIND)
        with growth() as making:
            await leader.compact()
            assert leader.engine.raft.base_index > BEHIND - 2_000
        with growth() as taking:
            leader.add_member(Member(B, "", ""))
            await two.until(lambda: two.listeners[B].restored != "")
        for ledger in two.ledgers.values():
            ledger.stop()
        assert two.listeners[B].restored == digest(pieces())
        assert making.peak_bytes < STATE_BYTES // 16
        assert taking.peak_bytes < STATE_BYTES // 8  # both sides in one process

    asyncio.run(run())


def test_the_state_of_many_jobs_is_encoded_and_decoded_job_by_job() -> None:
    machine = Machine()
    for number in range(1, 8_001):
        job = SubmitJob(JobId(f"{number:032x}"), sim_job(TaskSet.of(0, 1), mean_us=number))
        machine.apply(Committed(number, number, 0, (Envelope(A, number, job),)))
    state = encode_machine(machine)
    with growth() as encoding:
        size = sum(map(len, Capture(machine).pieces()))
    assert size == len(state)
    assert encoding.peak_bytes < len(state)
    again = Machine()
    with growth() as decoding:
        restore_machine(again, memoryview(state))
    assert encode_machine(again) == state
    # Beside the new machine there are a name and a place in the file for each job.
    assert decoding.peak_bytes - decoding.kept_bytes < len(state)
