"""Links that this peer opens to the others, by identity.

One connection a peer, made when there is something to send and made again, with a growing pause,
when it breaks. Sending never blocks: while a link is not up, up to QUEUE_LEN_MAX messages wait (the
oldest is dropped first), and all of them are dropped when an attempt fails, for consensus repeats
itself and old news helps nobody.

It refuses to talk to whoever answers at a peer's address without being that peer. Every task lives
in the group of `run`; when `run` ends, every link is closed.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from p2psched.model.errors import P2PSchedError, Unavailable
from p2psched.model.ids import PeerId, short
from p2psched.model.limits import KIB
from p2psched.model.messages import AnswerBody, CallBody, PeerMessage
from p2psched.net.auth import Identity
from p2psched.net.calls import CallClient
from p2psched.net.dial import connect
from p2psched.net.frames import Frame, encode
from p2psched.net.link import Connection, Handlers, State

log = logging.getLogger(__name__)

QUEUE_LEN_MAX: Final = 64  # messages for one peer while its link is not up
QUEUE_BYTES_MAX: Final = 1024 * KIB + 8
RETRY_MS_MIN: Final = 20
RETRY_MS_MAX: Final = 1_000
# Shorter than the limit of an opening: a lost first packet must not hold a link up for seconds.
ATTEMPT_TIMEOUT_S: Final = 2.0
# A poke leaves a younger attempt alone: it is likely to succeed already.
_ATTEMPT_FRESH_S: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkStatistics:
    """One outgoing link, for people. Counts are since the start of the process."""

    address: str
    connected: bool
    attempts: int
    connects: int
    sent: int  # messages handed to a connection
    dropped: int
    sent_bytes: int
    received_bytes: int
    backlog_bytes: int


class _Link:
    """The state of one link. Only its own task makes connections."""

    def __init__(self, peer: PeerId) -> None:
        self.peer = peer
        self.address = ""
        self.calls: CallClient | None = None  # there while the link is up
        self.queue: deque[Frame] = deque()
        self.queue_bytes = 0
        self.wanted = asyncio.Event()  # somebody wants the link up
        self.hurry = asyncio.Event()  # no pause before the next attempt
        self.attempt: asyncio.Timeout | None = None
        self.attempt_since = 0.0
        self.waiting: list[asyncio.Future[CallClient]] = []
        self.task: asyncio.Task[None] | None = None
        self.last_error = ""
        self.attempts = self.connects = self.failures = 0
        self.sent = self.dropped = 0
        self.past_sent_bytes = self.past_received_bytes = 0

    @property
    def connection(self) -> Connection | None:
        return self.calls.connection if self.calls is not None else None

    def enqueue(self, frame: Frame) -> None:
        self.queue.append(frame)
        self.queue_bytes += len(frame)
        while len(self.queue) > QUEUE_LEN_MAX or self.queue_bytes > QUEUE_BYTES_MAX:
            self.queue_bytes -= len(self.queue.popleft())
            self.dropped += 1

    def drop_queue(self) -> None:
        self.dropped += len(self.queue)
        self.queue.clear()
        self.queue_bytes = 0

    def cut_attempt(self) -> None:
        """End the attempt that is under way, as if its time were over."""
        if self.attempt is not None and not self.attempt.expired():
            self.attempt.reschedule(asyncio.get_running_loop().time())

    def fail(self, error: P2PSchedError) -> None:
        """An attempt failed: nobody waits for it any longer."""
        self.failures += 1
        self.drop_queue()
        waiting, self.waiting = self.waiting, []
        for future in waiting:
            if not future.done():
                future.set_exception(error)

    def up(self, calls: CallClient) -> None:
        self.calls = calls
        self.connects += 1
        self.failures = 0
        self.last_error = ""
        for frame in self.queue:
            self.sent += calls.connection.send_frame_nowait(frame)
        self.queue.clear()
        self.queue_bytes = 0
        waiting, self.waiting = self.waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(calls)

    def down(self, connection: Connection) -> None:
        self.calls = None
        self.past_sent_bytes += connection.sent_bytes
        self.past_received_bytes += connection.received_bytes

    def statistics(self) -> LinkStatistics:
        connection = self.connection
        return LinkStatistics(
            address=self.address,
            connected=connection is not None,
            attempts=self.attempts,
            connects=self.connects,
            sent=self.sent,
            dropped=self.dropped,
            sent_bytes=self.past_sent_bytes + (connection.sent_bytes if connection else 0),
            received_bytes=self.past_received_bytes
            + (connection.received_bytes if connection else 0),
            backlog_bytes=connection.backlog_bytes if connection else self.queue_bytes,
        )


class PeerLinks:
    """See the module. `identity` may be replaced while it runs: later attempts use the new one.

    `handlers` get what other peers send over these links. Unlike a server's, `on_closed` here is
    followed by another attempt as soon as there is something to send.
    """

    def __init__(
        self, *, identity: Identity, secret: bytes, handlers: Handlers, rng: random.Random
    ) -> None:
        assert identity.peer is not None
        self.identity = identity
        self._secret = secret
        self._handlers = handlers
        self._rng = rng
        self._links: dict[PeerId, _Link] = {}
        self._group: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Keep the links until cancelled. What was sent before waits as for a link not yet up."""
        assert self._group is None
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                for link in self._links.values():
                    link.task = group.create_task(self._keep(link))
                await asyncio.get_running_loop().create_future()
        finally:
            self._group = None
            for link in self._links.values():
                link.fail(Unavailable("this peer is stopping"))

    # --- the address book -------------------------------------------------------------------------

    def set_address(self, peer: PeerId, address: str) -> None:
        """Where `peer` is reached from now on. A new address is tried at once; a link that is up
        stays up, for identity decides, not the address."""
        assert peer != self.identity.peer
        link = self._links.get(peer)
        if link is None:
            link = self._links[peer] = _Link(peer)
            if self._group is not None:
                link.task = self._group.create_task(self._keep(link))
        if address != link.address:
            link.address = address
            link.hurry.set()
            if link.attempt is not None or link.failures:
                link.wanted.set()
            link.cut_attempt()

    def address(self, peer: PeerId) -> str | None:
        link = self._links.get(peer)
        return link.address if link is not None else None

    def remove(self, peer: PeerId) -> None:
        """Forget a peer and close its link. No error if it is unknown."""
        link = self._links.pop(peer, None)
        if link is not None:
            link.fail(Unavailable(f"peer {short(peer)} is not in the cluster any more"))
            if link.task is not None:
                link.task.cancel()

    def poke(self, peer: PeerId) -> None:
        """There is reason to believe that `peer` is reachable now, as when it has just connected
        to us: don't wait out the pause."""
        link = self._links.get(peer)
        if link is None or link.calls is not None:
            return
        link.wanted.set()
        link.hurry.set()
        if asyncio.get_running_loop().time() - link.attempt_since > _ATTEMPT_FRESH_S:
            link.cut_attempt()

    # --- sending ----------------------------------------------------------------------------------

    def send(self, peer: PeerId, message: PeerMessage) -> bool:
        """Send, or keep for a link that is coming up, or drop. False if it was dropped at once.

        Raises UsageError if the message fits no frame. A peer without an address is dropped.
        """
        link = self._links.get(peer)
        if link is None:
            return False
        connection = link.connection
        if connection is not None:
            sent = connection.send_nowait(message)
            link.sent += sent
            link.dropped += not sent
            return sent
        link.enqueue(encode(message))
        link.wanted.set()
        return True

    async def call(self, peer: PeerId, body: CallBody) -> AnswerBody:
        """Ask another peer; the caller owns the deadline. Waits for one attempt to connect.

        Raises Unavailable if that fails or the peer has no address, else as `CallClient.call`.
        """
        link = self._links.get(peer)
        if link is None or self._group is None:
            raise Unavailable(f"no way to peer {short(peer)} is known yet")
        calls = link.calls
        if calls is None:
            future: asyncio.Future[CallClient] = asyncio.get_running_loop().create_future()
            link.waiting.append(future)
            link.wanted.set()
            try:
                calls = await future
            finally:
                link.waiting = [other for other in link.waiting if other is not future]
                if future.done() and not future.cancelled():
                    future.exception()  # seen, should this call have been cancelled meanwhile
        return await calls.call(body)

    def flush(self) -> None:
        """Write now what was sent in this loop iteration, as before a blocking call."""
        for link in self._links.values():
            if (connection := link.connection) is not None:
                connection.flush()

    def connected(self) -> frozenset[PeerId]:
        return frozenset(peer for peer, link in self._links.items() if link.calls is not None)

    def statistics(self) -> Mapping[PeerId, LinkStatistics]:
        return {peer: link.statistics() for peer, link in sorted(self._links.items())}

    # --- one link ---------------------------------------------------------------------------------

    async def _keep(self, link: _Link) -> None:
        while True:
            await link.wanted.wait()
            link.wanted.clear()
            link.hurry.clear()
            try:
                connection = await self._attempt(link)
            except P2PSchedError as error:
                self._log_failure(link, error)
                link.fail(error)
            else:
                await self._hold(link, connection)
            await self._pause(link)

    async def _attempt(self, link: _Link) -> Connection:
        """A connection to exactly this peer, or a P2PSchedError."""
        link.attempts += 1
        link.attempt_since = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(ATTEMPT_TIMEOUT_S) as link.attempt:
                connection = await connect(
                    link.address,
                    identity=self.identity,
                    secret=self._secret,
                    handlers=self._handlers_of(link),
                )
        except TimeoutError as error:
            raise Unavailable(f"{link.address} did not answer in time") from error
        finally:
            link.attempt = None
        return connection

    def _handlers_of(self, link: _Link) -> Handlers:
        def on_opened(connection: Connection) -> None:
            # Before any message: another peer may have got the address of this one.
            if connection.peer != link.peer:
                found = short(connection.peer or "")
                connection.close(
                    Unavailable(f"{link.address} is peer {found} now, not {short(link.peer)}")
                )
                return
            link.up(CallClient(connection))
            if self._handlers.on_opened is not None:
                self._handlers.on_opened(connection)

        def on_closed(connection: Connection, error: P2PSchedError | None) -> None:
            if connection is not link.connection:
                return
            link.down(connection)
            if self._handlers.on_closed is not None:
                self._handlers.on_closed(connection, error)

        return Handlers(
            on_message=self._handlers.on_message, on_opened=on_opened, on_closed=on_closed
        )

    async def _hold(self, link: _Link, connection: Connection) -> None:
        """Until the connection is gone."""
        try:
            if connection.state is State.OPEN:
                log.info("link-up", extra={"peer": link.peer, "address": link.address})
            await connection.wait_closed()
        finally:
            connection.close()  # cancelled: the peer was removed, or `run` ends
            await connection.wait_closed()
        if connection.peer != link.peer:
            error = connection.error or connection.lost()
            self._log_failure(link, error)
            link.fail(error)
        else:
            log.info("link-down", extra={"peer": link.peer, "error": str(connection.error or "")})

    async def _pause(self, link: _Link) -> None:
        """Twice as long after each failure, and never in step with the others."""
        longest_ms = min(RETRY_MS_MIN * 2 ** min(link.failures, 10), RETRY_MS_MAX)
        pause_s = self._rng.uniform(longest_ms / 2, longest_ms) / 1000
        try:
            async with asyncio.timeout(pause_s):
                await link.hurry.wait()
        except TimeoutError:
            return

    def _log_failure(self, link: _Link, error: P2PSchedError) -> None:
        """Once for each reason in a row: a dead peer is tried every second."""
        if str(error) != link.last_error:
            link.last_error = str(error)
            log.warning("link-failed", extra={"peer": link.peer, "error": link.last_error})
