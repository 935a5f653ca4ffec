"""The log after a loss of power: all that was synced, then a prefix of the rest, never damage."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2psched.model.errors import Damaged
from p2psched.model.ids import PeerId
from p2psched.model.raft import Entry, EntryKind, HardState
from p2psched.store.log import LogStore, Recovered
from p2psched.testing.sim_disk import SimDisk

SMALL = 700  # a few groups a segment, so that crashes meet rotations
State = tuple[HardState, tuple[Entry, ...]]


@dataclass(frozen=True)
class Write:
    with_hard_state: bool
    void: int  # how many entries of the tail are void first
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class Sync:
    pass


@dataclass(frozen=True)
class Restart:
    seed: int
    power_lost: bool
    steps: int | None  # power goes in the middle of what comes next


Op = Write | Sync | Restart
OPS = st.lists(
    st.one_of(
        st.builds(
            Write,
            with_hard_state=st.booleans(),
            void=st.sampled_from([0, 0, 0, 1, 3]),
            sizes=st.lists(st.sampled_from([0, 1, 50, 600]), max_size=4).map(tuple),
        ),
        st.just(Sync()),
        st.builds(
            Restart,
            seed=st.integers(0, 2**32),
            power_lost=st.booleans(),
            steps=st.none() | st.integers(0, 12),
        ),
    ),
    max_size=30,
)


@dataclass
class World:
    """A log beside the list of states that it went through, one for each record."""

    disk: SimDisk = field(default_factory=lambda: SimDisk(random.Random(0)))
    states: list[State] = field(default_factory=lambda: [(HardState(), ())])
    synced: int = 0  # position in `states` that a crash may not go behind
    count: int = 0  # makes every value that is written a different one
    log: LogStore | None = None

    def open(self) -> Recovered | None:
        try:
            self.log, found = LogStore.open(self.disk, segment_bytes_max=SMALL)
        except OSError:
            self.log = None
            return None
        return found

    def write(self, op: Write) -> None:
        hard_state, entries = self.states[-1]
        self.count += 1
        new_state = None
        if op.with_hard_state:
            new_state = hard_state = HardState(term=self.count, vote=PeerId(f"{self.count:032x}"))
            self.states.append((hard_state, entries))
        void = min(op.void, len(entries))
        if void:
            entries = entries[:-void]
            self.states.append((hard_state, entries))
        truncate_from = len(entries) + 1 if void else None
        new: list[Entry] = []
        for index, size in enumerate(op.sizes, start=len(entries) + 1):
            entry = Entry(index, self.count, EntryKind.COMMANDS, index, 0, b"\xf2p2r" * size)
            new.append(entry)
            entries = (*entries, entry)
            self.states.append((hard_state, entries))
        assert self.log is not None
        self.log.write(hard_state=new_state, truncate_from=truncate_from, entries=new)

    def restart(self, op: Restart) -> None:
        if op.power_lost or self.disk.steps_left is not None:
            crash_with(self.disk, op.seed)
        else:
            self.disk.kill()
        self.disk.steps_left = op.steps
        self.recover(seed=op.seed + 1)

    def recover(self, seed: int) -> None:
        while True:
            found = self.open()
            if found is not None:
                break
            crash_with(self.disk, seed)  # power went again while opening
            seed += 1
        reached = (found.hard_state, tuple(found.entries))
        allowed = self.states[self.synced :]
        assert reached in allowed, "neither what was synced nor a prefix of what came after"
        self.states = [reached]
        self.synced = 0


def crash_with(disk: SimDisk, seed: int) -> None:
    disk._rng.seed(seed)
    disk.crash()


def run(ops: list[Op]) -> World:
    world = World()
    assert world.open() is not None
    for op in ops:
        try:
            match op:
                case Write():
                    world.write(op)
                case Sync():
                    assert world.log is not None
                    world.log.sync()
                    world.synced = len(world.states) - 1
                case Restart():
                    world.restart(op)
        except OSError:  # the power is gone: all that a program can do is to start again
            assert world.disk.steps_left == 0
            world.restart(Restart(seed=world.count, power_lost=True, steps=None))
    return world


@settings(max_examples=400, deadline=None)
@given(OPS)
def test_after_crashes_all_that_was_synced_is_there_and_the_rest_is_a_prefix(ops: list[Op]) -> None:
    world = run(ops)
    crash_with(world.disk, 99)
    world.recover(seed=100)


@pytest.mark.parametrize("steps", range(24))
def test_power_lost_at_each_step_of_a_rotation_loses_nothing_synced(steps: int) -> None:
    write = Write(with_hard_state=True, void=0, sizes=(600, 50))
    ops: list[Op] = [write, Sync(), Restart(seed=1, power_lost=False, steps=steps)]
    ops += [write, Sync()] * 3
    for seed in range(10):
        world = run([*ops, Restart(seed=seed, power_lost=True, steps=None)])
        assert len(world.states[0][1]) >= 2


def test_what_an_open_returned_is_never_shortened_after_a_failed_sync() -> None:
    """The kernel forgets pages whose sync failed, yet shows them to the next process."""
    entry = Entry(1, 1, EntryKind.COMMANDS, 0, 0, b"x" * 900)
    outcomes: list[str] = []
    for seed in range(60):
        disk = SimDisk(random.Random(seed))
        log, _ = LogStore.open(disk)
        log.write(hard_state=None, truncate_from=None, entries=[entry])
        disk.fail_next_sync = True
        with pytest.raises(OSError, match="sync failed"):
            log.sync()
        disk.kill()
        _, found = LogStore.open(disk)
        assert found.entries == [entry]  # from the page cache; the peer now speaks of it
        disk.crash()
        try:
            _, found = LogStore.open(disk)
        except Damaged:
            outcomes.append("damaged")
        else:
            assert found.entries == [entry], seed
            outcomes.append("kept")
    assert set(outcomes) == {"damaged", "kept"}


def test_what_a_killed_process_left_unsynced_is_durable_once_it_was_returned() -> None:
    for seed in range(30):
        disk = SimDisk(random.Random(seed))
        log, _ = LogStore.open(disk)
        entry = Entry(1, 1, EntryKind.NOOP, 0, 0, b"")
        log.write(hard_state=HardState(term=4), truncate_from=None, entries=[entry])
        disk.kill()
        _, found = LogStore.open(disk)
        assert found.entries == [entry]
        disk.crash()
        _, found = LogStore.open(disk)
        assert (found.entries, found.hard_state.term) == ([entry], 4)
