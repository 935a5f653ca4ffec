"""The past of the ledger: a second state machine, folded from a snapshot and the log on this disk.

For: events that are older than the feed in memory, and the state as of an entry. It runs in a
thread of its own kind, gives the interpreter away often, and changes nothing. What it may take is
bounded: a state of its own for at most REPLAYS_MAX readers, one thread at work, so many entries at
a time. How far back the past goes is up to the snapshots that are left and the log behind them.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final, TypeVar

import msgspec

from p2psched.core.event_log import records_of
from p2psched.core.levels import KNOWN_LEVEL
from p2psched.core.machine import Machine
from p2psched.core.raft.made import open_entry
from p2psched.core.replica import fold
from p2psched.core.snapshot import restore_machine
from p2psched.model.errors import Damaged, Refused, Unavailable
from p2psched.model.event_messages import EventFilter, EventPage, EventRecord, Place
from p2psched.model.execution import Committed
from p2psched.model.limits import MIB
from p2psched.model.raft import Entry, Membership
from p2psched.peer.engines import embedded
from p2psched.peer.event_feed import PageMaker
from p2psched.peer.raft_loop import RaftLedger
from p2psched.ports.disk import Disk
from p2psched.ports.engine import Engine
from p2psched.store.past import Scan, entries, scan
from p2psched.store.snapshots import check_file, snapshot_indices

REPLAYS_MAX: Final = 2
STATE_BYTES_MAX: Final = 256 * MIB  # of the snapshot that one begins from
ENTRIES_MAX: Final = 5_000  # folded in one go
YIELD_ENTRIES: Final = 16  # after so many, whoever waits for the interpreter gets it
IDLE_S: Final = 30.0  # then a state that nobody goes on with is let go of
OPEN_S: Final = 4.0  # as long as a reader waits for a state in one call

T = TypeVar("T")


class HistoryGone(Exception):
    """The place is older than what is left; `oldest` is the first entry that can be had."""

    def __init__(self, oldest: int) -> None:
        super().__init__(oldest)
        self.oldest = oldest


class Tail(msgspec.Struct, frozen=True):
    """What memory has of the log: where it begins, and entries of it."""

    base: int  # the last entry that it has let go of, and its term
    base_term: int
    entries: Sequence[Entry]  # committed and applied


class Replay:
    """A machine on its way from a snapshot to now. Made and moved in a thread."""

    def __init__(
        self, disk: Disk, tail: Tail, behind: int, *, known_level: int = KNOWN_LEVEL
    ) -> None:
        """At the newest snapshot up to entry `behind`. Raises HistoryGone, Unavailable, Refused,
        FileNotFoundError."""
        self._disk = disk
        self.machine = Machine(known_level)
        self.members = Membership()
        self._seen: Scan | None = None
        self._older: Iterator[Entry] | None = None
        self._records: list[EventRecord] = []  # of the last entry, once it was folded
        self.following: Place | None = None  # where the reader goes on whose it is
        self.used_s = 0.0
        self._restore(tail, behind)

    def _restore(self, tail: Tail, behind: int) -> None:
        known = snapshot_indices(self._disk)
        recent = [name for index, name in known if tail.base <= index <= behind]
        if self._restore_newest(recent):
            return
        first = 1
        if tail.base:
            first = scan(self._disk, upto=tail.base, term=tail.base_term).first
        usable = [(index, name) for index, name in known if index + 1 >= first]
        older = [name for index, name in usable if index <= behind]
        if not self._restore_newest(older) and first > 1:
            newer = [(index, name) for index, name in usable if index > behind]
            raise HistoryGone(self._first_sound(newer) + 1)

    def _first_sound(self, known: Sequence[tuple[int, str]]) -> int:
        """Whoever is told of a damaged one would come back for ever."""
        for index, name in known:
            try:
                check_file(self._disk, name)
            except Damaged:
                continue
            return index
        raise Unavailable("no sound snapshot is on this disk just now", retry_after_s=1.0)

    def _restore_newest(self, names: Sequence[str]) -> bool:
        """From the last that is sound; False if there is none."""
        for name in reversed(names):
            try:
                snapshot, start = check_file(self._disk, name)
            except Damaged:
                continue
            if snapshot.size > STATE_BYTES_MAX:
                raise Refused(
                    f"the state is over {STATE_BYTES_MAX // MIB} MiB: a peer does not hold another "
                    "one of that size to look at the past"
                )
            restore_machine(self.machine, self._disk.map(name)[start:])
            self.members = snapshot.membership
            return True
        return False

    @property
    def index(self) -> int:
        return self.machine.applied_index

    def read(self, tail: Tail, start: Place, wanted: EventFilter, limit: int) -> EventPage:
        """Fold on, ENTRIES_MAX entries at most. What comes before `start` is passed over."""
        maker = PageMaker(start, wanted, limit)
        is_done = self.index and not maker.take(self._records, self.index)
        for entry in () if is_done else self._next(tail, ENTRIES_MAX):
            self._records = records_of(fold(self.machine, self._open(entry)))
            if not maker.take(self._records, entry.index):
                break
        self.following = maker.following
        return maker.page()

    def go_on(self, tail: Tail, index: int) -> None:
        """Fold up to entry `index`, ENTRIES_MAX at most."""
        self.following = None
        for entry in self._next(tail, min(ENTRIES_MAX, index - self.index)):
            self.machine.apply(self._open(entry))
        self._records = []

    def _open(self, entry: Entry) -> Committed:
        batch = open_entry(entry)
        self.members = batch.membership or self.members
        return batch

    def _next(self, tail: Tail, count: int) -> Iterator[Entry]:
        for number in range(count):
            entry = self._entry(tail)
            if entry is None:
                return
            if number % YIELD_ENTRIES == YIELD_ENTRIES - 1:
                time.sleep(0)
            yield entry

    def _entry(self, tail: Tail) -> Entry | None:
        wanted = self.index + 1
        if wanted > tail.base:
            self._older = None
            place = wanted - tail.entries[0].index if tail.entries else 0
            return tail.entries[place] if 0 <= place < len(tail.entries) else None
        if self._older is not None:
            entry = next(self._older, None)
            if entry is not None:
                return entry
        seen = scan(self._disk, upto=tail.base, term=tail.base_term)
        if seen.first > wanted:
            raise Unavailable("this peer's log is cut just now: ask again", retry_after_s=0.2)
        self._older = entries(self._disk, seen, first=wanted)
        return next(self._older, None)


class Replays:
    """Of one peer. Belongs to its loop."""

    def __init__(self, ledger: Engine) -> None:
        self._ledger = ledger
        self._idle: list[Replay] = []
        self._opening: dict[int, asyncio.Future[Replay]] = {}
        self._one = threading.Lock()  # thread at work
        self._timer: asyncio.TimerHandle | None = None

    async def events(self, start: Place, wanted: EventFilter, limit: int) -> EventPage:
        """A page from a place on, maybe an empty one. Raises HistoryGone, Unavailable."""
        replay = next((idle for idle in self._idle if idle.following == start), None)
        if replay is not None:
            self._idle.remove(replay)
        else:
            replay = await self._opened(max(0, start.index - 1))
            if replay is None:
                return EventPage((), start)
        tail = self._tail(replay.index + 1)
        page = await self._in_thread(partial(replay.read, tail, start, wanted, limit))
        self._keep(replay)
        return page

    async def look(self, index: int, look: Callable[[Machine, Membership], T]) -> T:
        """What `look` finds in the state as of entry `index`. Raises HistoryGone, Unavailable."""
        replay = next((idle for idle in self._idle if idle.index == index), None)
        if replay is not None:
            self._idle.remove(replay)
        while replay is None:
            replay = await self._opened(index)
        while replay.index < index:
            before = replay.index
            await self._in_thread(partial(replay.go_on, self._tail(before + 1), index))
            if replay.index == before:
                raise Unavailable(f"entry {before + 1} is not here yet", retry_after_s=0.2)
        assert replay.index == index
        found = look(replay.machine, replay.members)
        self._keep(replay)
        return found

    @property
    def _embedded(self) -> RaftLedger:
        return embedded(self._ledger, "has no past that can be read")

    def _tail(self, first: int) -> Tail:
        engine = self._embedded.engine
        base = engine.raft.base_index
        start = max(first, base + 1)
        stop = min(engine.delivered, start + ENTRIES_MAX - 1) + 1
        held = engine.raft.entries(start, stop) if start < stop else []
        return Tail(base, engine.raft.term_at(base) or 0, held)

    async def _opened(self, behind: int) -> Replay | None:
        """None if that takes longer: ask again."""
        future = self._opening.get(behind)
        if future is None:
            if len(self._opening) >= REPLAYS_MAX:
                raise Unavailable("busy: others read the past of the ledger", retry_after_s=1.0)
            del self._idle[: max(0, len(self._idle) + len(self._opening) + 1 - REPLAYS_MAX)]
            disk, tail = self._embedded.store.disk, self._tail(1)
            tail = Tail(tail.base, tail.base_term, ())
            future = self._opening[behind] = self._start(partial(Replay, disk, tail, behind))
            future.add_done_callback(partial(self._expire, behind))
        await asyncio.wait({future}, timeout=OPEN_S)
        if not future.done():
            return None
        if self._opening.get(behind) is not future:  # another reader of the same place was first
            return None
        del self._opening[behind]
        return _settled(future)

    def _expire(self, behind: int, opened: asyncio.Future[Replay]) -> None:
        """If nobody has come for it by then."""

        def drop() -> None:
            if self._opening.get(behind) is opened:
                del self._opening[behind]
                opened.exception()  # has been seen

        asyncio.get_running_loop().call_later(IDLE_S, drop)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        future = self._start(work)
        await asyncio.wait({future})
        return _settled(future)

    def _start(self, work: Callable[[], T]) -> asyncio.Future[T]:
        def alone() -> T:
            with self._one:
                return work()

        return asyncio.get_running_loop().run_in_executor(None, alone)

    def _keep(self, replay: Replay) -> None:
        loop = asyncio.get_running_loop()
        replay.used_s = loop.time()
        self._idle.append(replay)
        del self._idle[:-REPLAYS_MAX]
        if self._timer is None:
            self._timer = loop.call_later(IDLE_S, self._let_go)

    def _let_go(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        self._idle = [idle for idle in self._idle if loop.time() - idle.used_s < IDLE_S]
        if self._idle:
            self._timer = loop.call_later(IDLE_S, self._let_go)


def _settled(future: asyncio.Future[T]) -> T:
    try:
        return future.result()
    except FileNotFoundError as error:
        raise Unavailable(
            "this peer's log is cut just now: ask again", retry_after_s=0.2
        ) from error
