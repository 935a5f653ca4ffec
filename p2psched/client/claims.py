"""Claims of a client on locks: made, waited for, and let go of, whatever goes wrong meanwhile.

All claims of one client that ask for the same time to live hang on one lease, so to take a lock is
one command and to let go of it another. What could not be let go of is tried again in the
background; it is over when the client is closed, or when its lease has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Coroutine
from typing import Final, Protocol, TypeVar
from weakref import WeakKeyDictionary

import msgspec

from p2psched.client.acting import Acting
from p2psched.client.leases import Lease, Leases
from p2psched.model.errors import Deadlock, LockLost, P2PSchedError, Refused, UsageError
from p2psched.model.ids import new_id
from p2psched.model.lease_actions import KeepLeases, LeasesKept
from p2psched.model.lock_actions import (
    AcquireLock,
    ClaimId,
    LockBusy,
    LockHeld,
    LockReleased,
    LockWaiting,
    OwnerId,
    ReleaseLock,
)
from p2psched.model.lock_messages import AwaitLock, LockNow
from p2psched.model.messages import CallBody

T = TypeVar("T")

AWAIT_MS: Final = 20_000  # in one call
RETRY_S: Final = 0.5  # between two tries to let go
LOOK_S: Final = 5.0  # for leases that nothing hangs on
IDLE_S: Final = 30.0  # they are kept for so long
CLOSE_S: Final = 2.0  # for letting go of everything when the client is closed


class Calls(Protocol):
    """What it needs of a session."""

    async def call(self, body: CallBody, expect: type[T], *, spent_s: float = 0.0) -> T: ...


class Busy(Exception):
    """Somebody else holds it, and the caller did not want to wait."""

    def __init__(self, answer: LockBusy) -> None:
        self.answer = answer


class Footing:
    """A lease, and the claims that hang on it."""

    def __init__(self, lease: Lease, now_s: float) -> None:
        self.lease: Final = lease
        self.idle_since_s = now_s
        # Something that was asked for may be granted later than anybody waits for it: no more
        # hangs on this lease, and it ends as soon as nothing does.
        self.is_retired = False
        self._on_lost: dict[ClaimId, Callable[[], None]] = {}

    @property
    def is_used(self) -> bool:
        return bool(self._on_lost)

    def hang(self, claim: ClaimId, on_lost: Callable[[], None]) -> None:
        self._on_lost[claim] = on_lost

    def drop(self, claim: ClaimId, now_s: float) -> None:
        self._on_lost.pop(claim, None)
        self.idle_since_s = now_s

    async def watch(self) -> None:
        """Tell all that hangs on it when it is lost, or ended."""
        await self.lease.lost.wait()
        for on_lost in list(self._on_lost.values()):
            on_lost()


class HeldClaim:
    """On a lock, since its token was given. What it hangs on is renewed until `release`."""

    def __init__(self, wish: AcquireLock, token: int, footing: Footing) -> None:
        self.name: Final = wish.name
        self.id: Final = wish.claim
        self.token: Final = token
        self.footing: Final = footing


class Claims:
    """Of one session, in its event loop, while `keep` runs."""

    def __init__(self, calls: Calls, acting: Acting, leases: Leases) -> None:
        self._calls = calls
        self._acting = acting
        self._leases = leases
        self._newest: dict[int, Footing] = {}  # by time to live; new claims hang on these
        self._footings: list[Footing] = []  # all
        self._taking = asyncio.Lock()
        self._group: asyncio.TaskGroup | None = None
        self._rng = random.SystemRandom()
        self._owners: WeakKeyDictionary[asyncio.Task[object], OwnerId] = WeakKeyDictionary()

    def this_task(self) -> OwnerId:
        """Of whoever runs: while it waits for a lock it does nothing else."""
        task = asyncio.current_task()
        assert task is not None
        return self._owners.setdefault(task, new_id(self._rng))

    async def keep(self) -> None:
        """Until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            while True:
                await asyncio.sleep(LOOK_S)
                self._drop_idle()

    async def acquire(
        self, wish: AcquireLock, ttl_ms: int, on_lost: Callable[[], None]
    ) -> HeldClaim:
        """Wait for one's turn. `wish` comes without claim and lease. `on_lost` is called if the
        lease is lost before `release`. Raises Busy, Deadlock, Refused, UsageError, LockLost,
        Unavailable. Cancelled, it lets go in the background."""
        while True:
            footing = await self._footing(ttl_ms)
            asked = msgspec.structs.replace(wish, claim=new_id(self._rng), lease=footing.lease.id)
            footing.hang(asked.claim, on_lost)
            standing = await self._ask(asked, footing)
            if standing is not None:
                token = await self._wait_turn(asked, footing, standing)
                if token:
                    return HeldClaim(asked, token, footing)
                self._drop(footing, asked.claim)
                if footing.lease.is_held:
                    raise LockLost(f"somebody else let go of our claim on lock {asked.name}")
            # The lease has ended, and our place with it: to the end of the queue.

    async def _ask(self, wish: AcquireLock, footing: Footing) -> LockHeld | LockWaiting | None:
        """None: the lease has ended."""
        try:
            answer: object = await self._acting.act(wish, object)
        except (Deadlock, Refused, UsageError) as error:  # it has not acted
            self._drop(footing, wish.claim)
            if isinstance(error, Refused) and not footing.lease.is_held:
                return None
            raise
        except BaseException:
            footing.is_retired = True
            self.release_later(HeldClaim(wish, 0, footing))
            raise
        if isinstance(answer, LockHeld | LockWaiting):
            return answer
        self._drop(footing, wish.claim)
        if isinstance(answer, LockBusy):
            raise Busy(answer)
        raise Refused(f"a peer of another version answered {type(answer).__name__}")

    async def _wait_turn(
        self, wish: AcquireLock, footing: Footing, standing: LockHeld | LockWaiting
    ) -> int:
        """The token; 0 if the claim is over."""
        now: LockHeld | LockWaiting | None = standing
        try:
            while isinstance(now, LockWaiting):
                answer = await self._calls.call(AwaitLock(wish.claim, AWAIT_MS), LockNow)
                now = answer.standing
        except BaseException:
            self.release_later(HeldClaim(wish, 0, footing))
            raise
        return now.token if now is not None else 0

    async def release(self, held: HeldClaim) -> None:
        """Returns once somebody else may hold it; if nobody can be asked, goes on trying."""
        try:
            await self._acting.act(ReleaseLock(held.name, held.id), LockReleased)
        except P2PSchedError:
            self.release_later(held)
        except BaseException:
            self.release_later(held)
            raise
        else:
            self._drop(held.footing, held.id)

    def release_later(self, held: HeldClaim) -> None:
        """In the background, as often as it takes. Nobody is told any more that it is lost."""
        held.footing.hang(held.id, _nobody)
        self._start(self._go_on_releasing(held))

    async def _go_on_releasing(self, held: HeldClaim) -> None:
        while held.footing.lease.is_held:
            try:
                await self._acting.act(ReleaseLock(held.name, held.id), LockReleased)
            except P2PSchedError:
                await asyncio.sleep(RETRY_S)
            else:
                break
        self._drop(held.footing, held.id)

    # --- leases -----------------------------------------------------------------------------------

    async def _footing(self, ttl_ms: int) -> Footing:
        """A lease of this time to live, that new claims may hang on."""
        async with self._taking:
            footing = self._newest.get(ttl_ms)
            if footing is None or footing.is_retired or not footing.lease.is_held:
                footing = Footing(await self._leases.take(ttl_ms), self._now_s())
                self._newest[ttl_ms] = footing
                self._footings.append(footing)
                self._start(footing.watch())
            return footing

    def _drop(self, footing: Footing, claim: ClaimId) -> None:
        footing.drop(claim, self._now_s())
        if footing.is_retired and not footing.is_used:
            self._start(self._end(footing))

    def _drop_idle(self) -> None:
        for footing in self._footings:
            is_idle = not footing.is_used and self._now_s() - footing.idle_since_s > IDLE_S
            if is_idle or footing.lease.lost.is_set():
                footing.is_retired = True
                self._start(self._end(footing))

    async def _end(self, footing: Footing) -> None:
        """And all that hangs on it."""
        if footing in self._footings:
            self._footings.remove(footing)
            with contextlib.suppress(P2PSchedError):  # then it expires
                await footing.lease.end()

    async def leave(self, held: HeldClaim) -> None:
        """It stays held for the time of its lease from now on, whatever becomes of this client."""
        lease = held.footing.lease
        kept = await self._acting.act(KeepLeases((lease.id,)), LeasesKept)
        if kept.gone:
            raise LockLost(f"lock {held.name} was lost before it could be left held")
        self._footings.remove(held.footing)

    async def close(self) -> None:
        """Let go of everything, as far as somebody can be asked within a moment."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S), asyncio.TaskGroup() as group:
                for footing in list(self._footings):
                    group.create_task(self._end(footing))

    def _start(self, work: Coroutine[None, None, None]) -> None:
        """In the background, unless the client is being closed, which ends all leases."""
        assert self._group is not None, "`keep` runs"
        try:
            self._group.create_task(work)
        except RuntimeError:
            work.close()

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()


def _nobody() -> None:
    """Whoever had the claim has let go of it."""
