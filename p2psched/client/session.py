"""One conversation with a cluster, whichever peer answers.

Any peer answers any call, so a call that fails because a peer is gone, or has no leader just now,
is repeated at another until the session's patience ends. That is safe: every call may be repeated
(a submit carries the id of its job). Addresses of further peers are learned from those that answer.

More calls at once than one connection takes wait here, in order. Calls that wait for results have
places of their own, so that they can't keep a submit or a cancel waiting; once many are open, new
ones ask for a short wait, so that each job that is followed gets its turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Sequence
from typing import Final, Protocol, TypeVar

import msgspec

from p2psched.client.acting import Acting
from p2psched.client.claims import Claims
from p2psched.client.consumer import Consumer
from p2psched.client.holdback import Holdback
from p2psched.client.leading import LeaderLink
from p2psched.client.leases import Leases
from p2psched.client.sent import Sent
from p2psched.model.blob import BlobRef, wait_s
from p2psched.model.blob_messages import BeginUpload, EndUpload, StatBlob
from p2psched.model.errors import Busy, P2PSchedError, Refused, Unavailable, UsageError
from p2psched.model.event_messages import FetchEvents, ReadPast
from p2psched.model.key_messages import WatchKeys
from p2psched.model.limits import CALLS_IN_FLIGHT_MAX
from p2psched.model.lock_messages import AwaitLock
from p2psched.model.messages import (
    AnswerBody,
    CallBody,
    FetchResults,
    ListPeers,
    ReadBody,
    Stale,
    StaleAnswer,
)
from p2psched.model.peer_messages import PeerList
from p2psched.model.queue_messages import AwaitItems
from p2psched.model.staleness import Staleness
from p2psched.net.address import parse
from p2psched.net.auth import Identity
from p2psched.net.calls import CallClient, Heard
from p2psched.net.dial import connect
from p2psched.net.link import Handlers, State
from p2psched.net.patience import Limit, Patience

T = TypeVar("T")

PATIENCE_S: Final = 30.0  # for a peer that can answer
CONNECT_TIMEOUT_S: Final = 3.0
LEARN_TIMEOUT_S: Final = 0.5  # for the other addresses, at the start; without a quorum nobody knows
ANSWER_TIMEOUT_S: Final = 8.0  # a peer waits up to 5 s for a quorum before it says that it has none
RETRY_S: Final = 0.2
PAST_S: Final = 25.0  # for a state of the past to be folded, besides
# Open calls on one connection; what is over waits for its turn. The rest up to the connection's own
# limit is for calls that were given up here and that the peer still answers.
POLLS_MAX: Final = 160
# Calls with a chunk of a blob, of the asks below: more would only wait in the same connection.
CHUNK_CALLS_MAX: Final = 16
QUICK_CALLS_MAX: Final = 16  # open calls that have no task
ASKS_MAX: Final = 64
assert POLLS_MAX + ASKS_MAX + QUICK_CALLS_MAX < CALLS_IN_FLIGHT_MAX
POLLS_LONG_MAX: Final = 96  # calls that may wait for results as long as they wish
POLL_SHORT_MS: Final = 250  # the wait of those beyond
_Polls = FetchResults | FetchEvents | WatchKeys | AwaitLock | AwaitItems


class Asker(Protocol):
    """What the rest of the client needs of a session."""

    async def call(self, body: CallBody, expect: type[T], *, spent_s: float = 0.0) -> T: ...

    def call_nowait(self, body: CallBody, heard: Heard) -> bool: ...

    def has_sent(self, ref: BlobRef) -> bool: ...


class Session:
    """Not for several event loops at once. Use as an async context manager."""

    def __init__(
        self,
        addresses: Sequence[str],
        *,
        secret: bytes,
        patience_s: float = PATIENCE_S,
        stale: bool = False,
    ) -> None:
        """`stale`: reads are answered by whichever peer is there, from what it knows."""
        self._stale = stale
        self.staleness: Staleness | None = None  # of the oldest such answer
        self._addresses = [str(parse(address)) for address in addresses]
        if not self._addresses:
            raise Unavailable("no address of a peer is known")
        self._secret = secret
        self.patience_s = patience_s
        self._calls: CallClient | None = None
        self._connecting = asyncio.Lock()
        self._polls = asyncio.Semaphore(POLLS_MAX)
        self._asks = asyncio.Semaphore(ASKS_MAX)
        self._answers = Patience(ANSWER_TIMEOUT_S)
        self._polls_open = self._quick_open = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self.leader: Final = LeaderLink(self.connection, self._connect)
        self.acting: Final = Acting(self)
        self.leases: Final = Leases(self.acting)
        self.claims: Final = Claims(self, self.acting, self.leases)
        self.consumer: Final = Consumer(self.leases)
        self.sent: Final = Sent()
        self.held: Final = Holdback(random.SystemRandom())
        self.chunk_calls: Final = asyncio.Semaphore(CHUNK_CALLS_MAX)

    def twin(self) -> Session:
        """Another session with the same cluster, for another event loop. Not open yet."""
        return Session(
            self._addresses, secret=self._secret, patience_s=self.patience_s, stale=self._stale
        )

    async def __aenter__(self) -> Session:
        await self.connection()
        with contextlib.suppress(Unavailable, TimeoutError):
            async with asyncio.timeout(LEARN_TIMEOUT_S):
                await self.learn_addresses()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._answers.close()
        await self.leader.close()
        if self._calls is not None:
            await self._calls.close()

    @property
    def address(self) -> str:
        """Of the peer that we talk to."""
        return self._addresses[0]

    async def learn_addresses(self) -> None:
        """Remember the other peers, for when this one is gone."""
        answer = await (await self.connection()).call(ListPeers(here_only=True))
        assert isinstance(answer, PeerList)
        for view in answer.peers:
            if view.state != "dead" and view.info.address not in self._addresses:
                self._addresses.append(view.info.address)

    async def call(self, body: CallBody, expect: type[T], *, spent_s: float = 0.0) -> T:
        """The answer of any peer. Raises Unavailable once the patience is over, at once what the
        cluster answered if it is another error; UsageError in another event loop than before.
        `spent_s` of the patience are over already."""
        loop = self._own_loop()
        if self._stale and isinstance(body, ReadBody):
            return await self._call_stale(loop, body, expect, spent_s)
        if isinstance(body, _Polls) and body.wait_ms:
            async with self._polls:
                self._polls_open += 1
                try:
                    if self._polls_open > POLLS_LONG_MAX:
                        body = msgspec.structs.replace(
                            body, wait_ms=min(body.wait_ms, POLL_SHORT_MS)
                        )
                    return await self._call(loop, body, expect, spent_s)
                finally:
                    self._polls_open -= 1
        async with self._asks:
            return await self._call(loop, body, expect, spent_s)

    async def _call_stale(
        self, loop: asyncio.AbstractEventLoop, body: ReadBody, expect: type[T], spent_s: float
    ) -> T:
        answer = await self._call(loop, Stale(body), StaleAnswer, spent_s)
        self.staleness = answer.staleness.older(self.staleness)
        if not isinstance(answer.body, expect):
            raise _other_version(answer.body)
        return answer.body

    def call_nowait(self, body: CallBody, heard: Heard) -> bool:
        """Ask the peer that we are connected to, or the leader, once and without a task: `heard`
        gets the answer or the error, which for Unavailable means to ask again with `call`. False if
        that can't be done just now. Raises UsageError if the call fits no frame."""
        calls = self.leader.choose(self._calls)
        if (
            calls is None
            or not calls.connection.has_room
            or self._quick_open >= QUICK_CALLS_MAX
            or self.patience_s < ANSWER_TIMEOUT_S
            or self.held.holds(body, self._own_loop().time())
        ):
            return False
        quick = _QuickCall(self, calls, heard)
        try:
            quick.number = calls.call_nowait(body, quick.on_answer)
        except Unavailable:
            return False
        self._quick_open += 1
        self._answers.begin(quick)
        return True

    def has_sent(self, ref: BlobRef) -> bool:
        """True if a job may name this blob without an upload before it."""
        return self.sent.knows(ref)

    def end_quick(self, quick: _QuickCall, *, failed: bool) -> None:
        self._answers.end(quick)
        self._quick_open -= 1
        if failed:
            self.leader.give_up(quick.calls)
            if self._calls is quick.calls:
                self._turn_away()
            quick.calls.connection.close()

    def _own_loop(self) -> asyncio.AbstractEventLoop:
        """Raises UsageError if another one runs."""
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        if self._loop is not loop:
            raise UsageError(
                "a Client belongs to the event loop in which it was opened: open another one here"
            )
        return loop

    async def _call(
        self, loop: asyncio.AbstractEventLoop, body: CallBody, expect: type[T], spent_s: float
    ) -> T:
        deadline = loop.time() + self.patience_s - spent_s
        asked = 0
        while True:
            waits = True
            await self.held.wait(body, deadline)
            try:
                calls = self._calls
                if calls is None or calls.connection.state is not State.OPEN:
                    calls = await self.connection()
                # A peer that is going has named its successor: the next one is asked at once.
                asked += 1
                waits = asked % len(self._addresses) == 0
                answer = await self._ask(loop, calls, body, deadline)
            except Busy as error:
                await self.held.back(error, deadline)
            except Unavailable as error:
                if loop.time() + RETRY_S >= deadline:
                    raise
                if waits:
                    await asyncio.sleep(min(RETRY_S, error.retry_after_s))
            else:
                if not isinstance(answer, expect):
                    raise _other_version(answer)
                return answer

    async def _ask(
        self, loop: asyncio.AbstractEventLoop, calls: CallClient, body: CallBody, deadline: float
    ) -> AnswerBody:
        """One try, at the peer that we are connected to. A peer that is frozen keeps its connection
        and never answers, so an answer has a limit: a peer's own, and some more."""
        try:
            async with self._limit(loop, body, deadline):
                return await calls.call(body)
        except TimeoutError as error:
            silence = _silence(self.address, body)
            await self._turn(calls)
            raise silence from error
        except Busy:
            raise  # the others are as busy
        except Unavailable:
            await self._turn(calls)
            raise

    def _limit(
        self, loop: asyncio.AbstractEventLoop, body: CallBody, deadline: float
    ) -> Limit | asyncio.Timeout:
        now_s, more_s = loop.time(), _more_s(body)
        if not more_s and now_s + ANSWER_TIMEOUT_S <= deadline:
            return self._answers.limit()
        limit_s = min(now_s + ANSWER_TIMEOUT_S, max(deadline, now_s + RETRY_S))
        return asyncio.timeout_at(limit_s + more_s)

    async def _turn(self, failed: CallClient) -> None:
        """Ask another peer next: the one behind this connection is gone, or cut off from the
        majority. Many calls fail with it at once, and the first of them turns for all."""
        if self._calls is not failed:
            return
        self._turn_away()
        await failed.close()  # other calls on it turn too

    def _turn_away(self) -> None:
        self._calls = None
        self._addresses.append(self._addresses.pop(0))

    async def connection(self) -> CallClient:
        """An open connection, to the first address that lets us in."""
        self._own_loop()
        async with self._connecting:
            if self._calls is not None:
                if self._calls.connection.state is State.OPEN:
                    return self._calls
                self._turn_away()  # it goes, and those whose calls it takes along are yet to hear
            failure: Unavailable | Refused | None = None
            for _ in range(len(self._addresses)):
                try:
                    self._calls = await self._connect(self.address)
                except (Unavailable, Refused) as error:
                    # One that refuses us may be another cluster's by now: others may be ours.
                    failure = failure or error
                    self._addresses.append(self._addresses.pop(0))
                else:
                    return self._calls
            assert failure is not None
            raise failure

    async def _connect(self, address: str) -> CallClient:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                connection = await connect(
                    address,
                    identity=Identity(),
                    secret=self._secret,
                    handlers=Handlers(on_message=lambda _connection, _message: None),
                )
        except TimeoutError as error:
            raise Unavailable(f"{address} does not answer") from error
        return CallClient(connection)


class _QuickCall:
    """A call without a task. Made by `Session.call_nowait`."""

    __slots__ = ("_address", "_heard", "_session", "calls", "number")

    def __init__(self, session: Session, calls: CallClient, heard: Heard) -> None:
        self._session = session
        self._address = calls.connection.address
        self._heard = heard
        self.calls: Final = calls
        self.number = 0

    def on_answer(self, answer: AnswerBody | P2PSchedError) -> None:
        is_busy = isinstance(answer, Busy)
        if isinstance(answer, Busy):
            self._session.held.note(answer, asyncio.get_running_loop().time())
        self._session.end_quick(self, failed=not is_busy and isinstance(answer, Unavailable))
        self._heard(answer)

    def expire(self) -> None:
        self.calls.forget(self.number)
        self.on_answer(_silence(self._address))


def _other_version(answer: AnswerBody) -> Refused:
    return Refused(f"a peer of another version answered {type(answer).__name__}")


def _silence(address: str, body: CallBody | None = None) -> Unavailable:
    advice = "; a read with --stale needs no quorum" if isinstance(body, ReadBody) else ""
    return Unavailable(f"{address} gives no answer: there is no quorum, or it is frozen{advice}")


def _more_s(body: CallBody) -> float:
    """What a peer may wait besides: for results to come, for the bytes of a blob to move."""
    match body:
        case (
            FetchResults(wait_ms=wait_ms)
            | Stale(body=FetchResults(wait_ms=wait_ms))
            | FetchEvents(wait_ms=wait_ms)
            | WatchKeys(wait_ms=wait_ms)
            | AwaitLock(wait_ms=wait_ms)
            | AwaitItems(wait_ms=wait_ms)
        ):
            return wait_ms / 1000
        case ReadPast():
            return PAST_S
        case BeginUpload(ref=ref) | EndUpload(ref=ref) | StatBlob(ref=ref):
            return wait_s(ref.size)
        case _:
            return 0.0
