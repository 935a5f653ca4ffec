"""The stages of a full disk, on a disk that is one."""

from __future__ import annotations

import asyncio
import errno
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from p2psched.core.raft.effects import Persist, StorePiece
from p2psched.model.errors import NoSpace, Refused
from p2psched.model.ids import JobId
from p2psched.model.job import JobSpec, ProgramWork
from p2psched.model.limits import KIB, MIB
from p2psched.model.messages import AnswerBody, CallBody, Done, GetStatus, Submit
from p2psched.model.raft import Entry, EntryKind, HardState, Member, Membership, Room, Snapshot
from p2psched.model.taskset import TaskSet
from p2psched.peer import log_writer
from p2psched.peer.log_writer import LogWriter
from p2psched.peer.space import FAR, FAR_LOOK_S, LOOK_S, SpaceKeeper, SpaceWatch
from p2psched.store.log import LogStore
from p2psched.store.snapshots import described
from p2psched.store.space import BALLAST_BYTES, LEAST_BYTES, Ballast, ballast_of, least_of
from p2psched.testing.sim_disk import SimDisk
from tests.integration.rig import until
from tests.small_disk import small_disk
from tests.store.test_late_space import LateDisk

LEAST = 100


def note(told: list[int]) -> Callable[[int, float], None]:
    return lambda token, took_ms: told.append(token)


def persist(token: int, size: int = 100) -> Persist:
    entry = Entry(token, 1, EntryKind.COMMANDS, token, 0, bytes(size))
    return Persist(token, HardState(1, None) if token == 1 else None, None, (entry,))


# --- pure -----------------------------------------------------------------------------------------


def test_room_comes_back_only_well_above_where_it_went() -> None:
    watch = SpaceWatch(LEAST)
    free = (100, 99, 100, 149, 150, 100, 99)
    found = [watch.look(n, stalled=False, has_ballast=True) for n in free]
    low, enough = Room.LOW, Room.ENOUGH
    assert found == [enough, low, low, low, enough, enough, low]


def test_without_its_ballast_a_peer_has_little_room_whatever_is_free() -> None:
    watch = SpaceWatch(LEAST)
    assert watch.look(10_000, stalled=False, has_ballast=False) is Room.LOW


def test_what_waits_for_space_is_no_room_until_it_is_written() -> None:
    watch = SpaceWatch(LEAST)
    assert watch.look(10_000, stalled=True, has_ballast=True) is Room.NONE
    assert watch.look(120, stalled=False, has_ballast=True) is Room.LOW
    assert watch.look(150, stalled=False, has_ballast=True) is Room.ENOUGH


def test_small_disks_keep_less() -> None:
    assert (least_of(2**40), ballast_of(2**40)) == (LEAST_BYTES, BALLAST_BYTES)
    assert (least_of(160 * MIB), ballast_of(160 * MIB)) == (10 * MIB, 5 * MIB)


# --- the log --------------------------------------------------------------------------------------


class Listener:
    """`ballast`: room that the disk gets when it is asked for."""

    def __init__(self, disk: SimDisk, ballast: int = 0) -> None:
        self.on_room = lambda _room: None
        self._disk = disk
        self._ballast = ballast
        self.stalls: list[bool] = []

    def give_back(self) -> bool:
        given, self._ballast = self._ballast, 0
        assert self._disk.free_bytes is not None
        self._disk.free_bytes += given
        return given > 0

    def on_stalled(self, *, stalled: bool) -> None:
        self.stalls.append(stalled)


def unexpected(error: Exception) -> None:
    raise AssertionError from error


def test_the_ballast_lets_the_write_through_that_found_no_space() -> None:
    disk = SimDisk(random.Random(1))
    told: list[int] = []

    async def run() -> None:
        store, _ = LogStore.open(disk)
        disk.free_bytes = 50
        listener = Listener(disk, ballast=10_000)
        writer = LogWriter(store, on_synced=note(told), on_failed=unexpected, space=listener)
        for token in (1, 2, 3):
            writer.write(persist(token))
        await until(lambda: told[-1:] == [3])
        assert listener.stalls == []
        writer.close()

    asyncio.run(run())


def test_what_finds_no_space_waits_in_order_and_is_told_when_it_is_durable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(log_writer, "STALL_RETRY_S", 0.01)
    disk = SimDisk(random.Random(1))
    told: list[int] = []

    async def run() -> None:
        store, _ = LogStore.open(disk)
        disk.free_bytes = 500  # for the first two of four
        listener = Listener(disk)
        writer = LogWriter(store, on_synced=note(told), on_failed=unexpected, space=listener)
        for token in (1, 2, 3, 4):
            writer.write(persist(token))
        await until(lambda: listener.stalls == [True])
        before = list(told)
        image = disk.copy(random.Random(2))
        image.crash()
        _, found = LogStore.open(image)
        assert [entry.index for entry in found.entries] == list(range(1, max(before) + 1))
        writer.write(persist(5))
        disk.free_bytes = None
        await until(lambda: told[-1:] == [5])
        assert told == sorted(told)
        assert before == told[: len(before)]
        assert listener.stalls == [True, False]
        writer.close()
        _, found = LogStore.open(disk)
        assert [entry.index for entry in found.entries] == [1, 2, 3, 4, 5]

    asyncio.run(run())


@pytest.mark.parametrize("seed", range(12))
def test_what_a_sync_finds_no_space_for_is_told_when_it_is_durable(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a filesystem that allocates late. Told is what a loss of power at that moment leaves."""
    monkeypatch.setattr(log_writer, "STALL_RETRY_S", 0.001)
    rng = random.Random(seed)
    disk = LateDisk(rng)
    disk.free_bytes = 1_000_000  # as far as its writes are told
    told: list[int] = []

    def on_synced(token: int, took_ms: float) -> None:
        told.append(token)
        image = disk.copy(random.Random(seed))
        image.crash()
        assert LogStore.open(image, segment_bytes_max=1_000)[1].last_index >= token

    async def run() -> None:
        store, _ = LogStore.open(disk, segment_bytes_max=1_000)
        listener = Listener(disk)
        writer = LogWriter(store, on_synced=on_synced, on_failed=unexpected, space=listener)
        for token in range(1, 41):
            disk.full = rng.random() < 0.4
            writer.write(persist(token))
            if rng.random() < 0.5:
                await asyncio.sleep(0)
            if disk.full:
                await until(lambda: listener.stalls[-1:] == [True])
        disk.full = False
        await until(lambda: told[-1:] == [40])
        assert told == sorted(told)
        writer.close()
        _, found = LogStore.open(disk, segment_bytes_max=1_000)
        assert [entry.index for entry in found.entries] == list(range(1, 41))

    asyncio.run(run())


def test_a_failed_sync_is_final_also_while_writes_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_writer, "STALL_RETRY_S", 0.01)
    disk = SimDisk(random.Random(1))
    failures: list[Exception] = []

    async def run() -> None:
        store, _ = LogStore.open(disk)
        listener = Listener(disk)
        writer = LogWriter(
            store, on_synced=lambda token, took_ms: None, on_failed=failures.append, space=listener
        )
        disk.free_bytes = 0
        writer.write(persist(1))
        await until(lambda: listener.stalls == [True])
        disk.fail_next_sync = True
        disk.free_bytes = None
        await until(lambda: bool(failures))
        writes = disk.writes
        writer.write(persist(2))
        for _ in range(5):
            await asyncio.sleep(0)
        assert disk.writes == writes
        writer.close()

    asyncio.run(run())
    (failure,) = failures
    assert isinstance(failure, OSError)
    assert failure.errno == errno.EIO


def test_what_waits_for_space_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_writer, "STALLED_BYTES_MAX", 1_000)
    disk = SimDisk(random.Random(1))
    failures: list[Exception] = []

    async def run() -> None:
        store, _ = LogStore.open(disk)
        listener = Listener(disk)
        writer = LogWriter(
            store, on_synced=lambda token, took_ms: None, on_failed=failures.append, space=listener
        )
        disk.free_bytes = 0
        writer.write(persist(1))
        await until(lambda: listener.stalls == [True])
        for token in range(2, 20):
            writer.write(persist(token))
        writer.close()

    asyncio.run(run())
    (failure,) = failures
    assert isinstance(failure, OSError)
    assert failure.errno == errno.ENOSPC


def test_a_piece_of_a_snapshot_that_finds_no_space_is_taken_again_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(log_writer, "STALL_RETRY_S", 0.01)
    disk = SimDisk(random.Random(1))
    state = random.Random(3).randbytes(3_000)
    membership = Membership((Member(peer="a", name="a", address="a:1"),))  # type: ignore[arg-type]
    snapshot = described(Snapshot(9, 1, 0, membership), state)
    told: list[int] = []

    async def run() -> None:
        store, _ = LogStore.open(disk)
        listener = Listener(disk)
        writer = LogWriter(store, on_synced=note(told), on_failed=unexpected, space=listener)
        for token, offset in enumerate(range(0, 3_000, 1_000), start=1):
            disk.free_bytes = 400  # for the hard state and the beginning of a piece
            piece = StorePiece(snapshot, offset, state[offset : offset + 1_000])
            last = snapshot if offset == 2_000 else None
            writer.write(Persist(token, HardState(1, None), None, (), piece, last))
            await until(lambda: listener.stalls[-1:] == [True])
            disk.free_bytes = None
            await until(lambda token=token: told[-1:] == [token])  # type: ignore[misc]
        writer.close()
        _, found = LogStore.open(disk)
        assert (found.snapshot, found.state) == (snapshot, state)

    asyncio.run(run())


def test_a_disk_is_looked_at_seldom_only_where_much_more_is_free_than_it_needs(
    tmp_path: Path,
) -> None:
    keeper = SpaceKeeper(tmp_path, least=LEAST, ballast=0)
    far = FAR * keeper.watch.enough
    waits = []
    for free in (far, far - 1, LEAST - 1, far):
        keeper._note(free, has_ballast=True)
        waits.append(keeper.until_look_s)
    assert waits == [FAR_LOOK_S, LOOK_S, LOOK_S, FAR_LOOK_S]
    keeper.on_stalled(stalled=True)  # a write waits for space, whatever was free
    keeper._note(far, has_ballast=True)
    assert keeper.until_look_s == LOOK_S


# --- a real disk ----------------------------------------------------------------------------------


def test_a_ballast_takes_its_space_and_gives_it_back(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 8 * MIB) as disk:
        before = disk.free_bytes
        ballast = Ballast(disk.folder / "ballast", 2 * MIB)
        assert ballast.make()
        assert before - disk.free_bytes >= 2 * MIB
        assert ballast.make()  # it is there
        disk.fill()
        assert ballast.release()
        assert disk.free_bytes >= 2 * MIB
        assert not ballast.release()
        disk.fill(leave=1 * MIB)
        assert not ballast.make()
        assert not ballast.is_there
        assert disk.free_bytes >= 1 * MIB - 64 * KIB  # nothing half made is left


async def answer(_: CallBody) -> AnswerBody:
    return Done()


@pytest.mark.smoke
@pytest.mark.process
def test_a_disk_that_fills_and_empties_is_noticed_without_a_restart(tmp_path: Path) -> None:
    spec = JobSpec(name="", tasks=TaskSet.of(0, 1), work=ProgramWork(("true",)))
    submit = Submit(JobId("0" * 32), spec)
    rooms: list[Room] = []

    async def run() -> None:
        keeper = SpaceKeeper(disk.folder, least=None, ballast=None)
        keeper.on_room = rooms.append
        gated = keeper.gate(answer)
        looking = asyncio.create_task(keeper.run())  # noqa: TID251 - ended below
        await until((disk.folder / "ballast").exists)
        assert keeper.room is Room.ENOUGH
        assert isinstance(await gated(submit), Done)
        disk.fill()
        await until(lambda: rooms == [Room.LOW])
        with pytest.raises(NoSpace, match="free some there"):
            await gated(submit)
        assert isinstance(await gated(GetStatus()), Done)
        assert keeper.give_back()
        disk.fill()
        keeper.on_stalled(stalled=True)
        await until(lambda: rooms == [Room.LOW, Room.NONE])
        assert not keeper.give_back()
        keeper.on_stalled(stalled=False)
        await until(lambda: rooms[-1] is Room.LOW)
        disk.empty()
        await until(lambda: rooms[-1] is Room.ENOUGH)
        assert (disk.folder / "ballast").exists()
        assert isinstance(await gated(submit), Done)
        looking.cancel()

    with small_disk(tmp_path / "disk", 32 * MIB) as disk:
        asyncio.run(run())


def test_what_finds_no_space_is_tried_once_more_with_that_of_the_ballast(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 8 * MIB) as disk:
        keeper = SpaceKeeper(disk.folder, least=0, ballast=1 * MIB)
        assert Ballast(disk.folder / "ballast", 1 * MIB).make()
        disk.fill()
        tries: list[int] = []

        def write() -> int:
            tries.append(1)
            try:
                (disk.folder / "file").write_bytes(bytes(100 * KIB))
            except OSError as error:
                raise Refused("no") from error
            return 7

        assert keeper.patiently(write) == 7
        assert len(tries) == 2
        disk.fill()
        (disk.folder / "file").unlink()
        disk.fill()
        with pytest.raises(NoSpace):
            keeper.patiently(write)
