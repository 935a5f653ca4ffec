"""A limit of one length for many waits at once.

`asyncio.timeout` makes a timer for each wait: 5 to 8 us with uvloop, a fifth of what a short call
costs its peer. Waits of equal length end in the order in which they began, so one timer, for the
oldest of them, is enough, and a wait that is over in time costs a dictionary's entry.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final, Protocol


class Waits(Protocol):
    """What a limit is for."""

    def expire(self) -> None:
        """Its time is over."""
        ...


class Patience:
    """`async with patience.limit():` does what `async with asyncio.timeout(seconds):` does: what is
    inside is cancelled when its time is over, and TimeoutError comes out.

    For one event loop. Once nobody waits any more the timer is left for up to `seconds`; `close`
    takes it away at once, where the loop goes on.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds: Final = seconds
        self._waits: dict[Waits, float] = {}  # -> when it is over; oldest first
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None  # of the first wait

    def limit(self) -> Limit:
        """For one block, in a task."""
        return Limit(self)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def begin(self, wait: Waits) -> asyncio.AbstractEventLoop:
        """From now on, until `end` or until it expires: for who waits without a task, too."""
        loop = self._loop
        if loop is None:  # asked for once: each time costs a system call (getpid)
            loop = self._loop = asyncio.get_running_loop()
        self._waits[wait] = due = loop.time() + self.seconds
        if self._timer is None:
            self._timer = loop.call_at(due, self._on_due, loop)
        return loop

    def end(self, wait: Waits) -> None:
        """In time. Nothing to do for one that has expired."""
        self._waits.pop(wait, None)

    def _on_due(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = loop.time()
        try:
            while self._waits and self._next_due() <= now:
                wait = next(iter(self._waits))
                del self._waits[wait]
                wait.expire()
        finally:  # whoever raises fails alone
            if self._waits and self._timer is None:
                self._timer = loop.call_at(self._next_due(), self._on_due, loop)

    def _next_due(self) -> float:
        return next(iter(self._waits.values()))


class Limit:
    """One wait. Made by `Patience.limit`, used once."""

    __slots__ = ("_cancelling", "_expired", "_patience", "_task")

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._expired = False

    async def __aenter__(self) -> None:
        self._task = asyncio.current_task(self._patience.begin(self))
        assert self._task is not None, "only a task of this loop can be cancelled"
        self._cancelling = self._task.cancelling()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._patience.end(self)
        task, self._task = self._task, None
        # As asyncio.timeout: somebody else's cancellation goes on.
        if (
            self._expired
            and task is not None
            and task.uncancel() <= self._cancelling
            and kind is asyncio.CancelledError
        ):
            raise TimeoutError from error

    def expire(self) -> None:
        if self._task is not None:
            self._expired = True
            self._task.cancel()
