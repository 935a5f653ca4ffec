"""Groups of ledgers for the contract of port `Ledger`: one kind for each engine.

Members reach each other unless cut off; killed ones lose what was not synced.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from p2psched.model.commands import Cancel, Command, Envelope, PeerDown
from p2psched.model.execution import Committed
from p2psched.model.ids import JobId, PeerId

NOBODY: Final = PeerId("f" * 32)  # proposes what is ours: a twin has a scheduler of its own
FIRST: Final = 1  # of our requests
PATIENCE_S: Final = 30.0


class Listener:
    """Records what the ledger says to one process."""

    def __init__(self, me: PeerId) -> None:
        self.me = me
        self.batches: list[Committed] = []
        self.coordinator: PeerId | None = None
        self.led_at: list[int] = []  # how much had been delivered when we began to coordinate

    def on_committed(self, batches: Sequence[Committed]) -> None:
        for batch in batches:
            assert batch.index == len(self.batches) + 1
            self.batches.append(batch)

    def on_restored(self, state: bytes | memoryview) -> None:
        raise AssertionError(f"nobody made a snapshot: {bytes(state)!r}")

    def capture_state(self, index: int) -> Iterator[bytes] | None:
        raise AssertionError(f"nobody wants a snapshot: {index}")

    def on_coordinator(self, coordinator: PeerId | None, *, is_self: bool) -> None:
        assert is_self == (coordinator == self.me)
        self.coordinator = coordinator
        if is_self:
            self.led_at.append(len(self.batches))

    def decorate(self, envelopes: tuple[Envelope, ...]) -> tuple[Envelope, ...]:
        assert self.coordinator == self.me
        return envelopes

    @property
    def ours(self) -> list[Envelope]:
        every = (e for batch in self.batches for e in batch.envelopes)
        return [e for e in every if e.proposer == NOBODY]

    @property
    def requests(self) -> list[int]:
        return [envelope.request for envelope in self.ours]


class Group(ABC):
    """`ids` in the order of their numbers."""

    ids: list[PeerId]
    listeners: dict[PeerId, Listener]

    def __init__(self) -> None:
        self.cut: set[PeerId] = set()
        self.dead: set[PeerId] = set()

    @abstractmethod
    def append(self, peer: PeerId, envelopes: Sequence[Envelope]) -> None: ...

    @abstractmethod
    def read_index(self, peer: PeerId, done: Callable[[int | None], None]) -> None: ...

    @abstractmethod
    async def kill(self, peer: PeerId) -> None: ...

    @abstractmethod
    async def start(self, peer: PeerId) -> None:
        """A new process on the disk of a killed one, with a new listener."""

    @abstractmethod
    async def until(self, condition: Callable[[], object]) -> None:
        """Let time go by until it holds, or fail."""

    @abstractmethod
    async def found(self) -> None:
        """All members, for the first time."""

    @abstractmethod
    async def close(self) -> None: ...

    def well(self) -> list[Listener]:
        gone = self.cut | self.dead
        return [listener for peer, listener in self.listeners.items() if peer not in gone]

    async def lead(self) -> PeerId:
        """Everybody well follows one leader that speaks; returns it."""
        leaders: set[PeerId | None] = set()

        def agreed() -> bool:
            nonlocal leaders
            leaders = {listener.coordinator for listener in self.well()}
            return len(leaders) == 1 and leaders <= {listener.me for listener in self.well()}

        await self.until(agreed)
        (leader,) = leaders
        assert leader is not None
        return leader

    async def commit(self, first: int, count: int = 1, *, size: int = 0) -> PeerId:
        """Our proposals number `first` and on, until all who are well have them, each proposed anew
        for each leader that failed. Returns the leader."""
        return await self._commit(envelopes(first, count, size=size))

    async def commit_all(self, commands: Sequence[Command]) -> PeerId:
        return await self._commit(
            [Envelope(NOBODY, n, command) for n, command in enumerate(commands, start=FIRST)]
        )

    async def _commit(self, wanted: list[Envelope]) -> PeerId:
        leader = await self.lead()

        def lacking() -> list[Envelope]:
            had = set(self.listeners[leader].requests)
            return [e for e in wanted if e.request not in had]

        def leads() -> bool:
            return self.listeners[leader].coordinator == leader

        while lacking():
            self.append(leader, lacking())
            await self.until(lambda: not lacking() or not leads())
            leader = await self.lead()
        last = {e.request for e in wanted}
        await self.until(lambda: all(last <= set(x.requests) for x in self.well()))
        return leader


def envelopes(first: int, count: int, *, size: int = 0) -> list[Envelope]:
    """Proposals that change nothing. `size`: bytes of each, about."""
    command = PeerDown(NOBODY, 1, "x" * size) if size else Cancel(JobId("a" * 32))
    numbers = range(FIRST + first, FIRST + first + count)
    return [Envelope(NOBODY, number, command) for number in numbers]
