"""One connection between two processes: the opening, then messages both ways.

An adapter of asyncio transports (stdlib and uvloop), without streams and without tasks: bytes
become messages inside `buffer_updated` and are handed to the handlers at once, in order.

It refuses to hold more than LINK_BACKLOG_BYTES_MAX for a slow reader: `send_nowait` then drops and
says so, `send` waits. It closes on any invalid frame, on a frame that dribbles, on an opening that
takes too long, on one-way messages between peers that come from a client, and when a handler fails.

Invariants: no handler sees a byte of a side that didn't prove the secret; `on_opened` comes before
the first `on_message`, `on_closed` once and last, and only if there was `on_opened`; nothing is
handed over after `close` or `abort` was called.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, cast

from p2psched.model.errors import P2PSchedError, ProtocolError, Unavailable
from p2psched.model.ids import PeerId
from p2psched.model.limits import FRAME_TIMEOUT_S, HANDSHAKE_TIMEOUT_S
from p2psched.model.messages import Answer, Call, Failure, Message, PeerMessage
from p2psched.model.opening_messages import Goodbye
from p2psched.net.auth import ClientOpening, Identity, ServerOpening, Step, farewell
from p2psched.net.frames import Frame, FrameDecoder, encode
from p2psched.net.gates import AnswerSink, Gate
from p2psched.net.outbox import Outbox
from p2psched.net.reading import Reading
from p2psched.net.sockets import is_here, peer_name, tune
from p2psched.net.turns import BYTES_A_TURN_MAX, CALLS_AT_ONCE_MAX, Turns

log = logging.getLogger(__name__)

# From `close` to a hard end: time for a goodbye to leave, not for a reader that never reads.
CLOSE_TIMEOUT_S: Final = 1.0
_PEER_KINDS: Final = frozenset(PeerMessage.__args__)
_Answers = Answer | Failure


class State(enum.Enum):
    OPENING = enum.auto()
    OPEN = enum.auto()
    CLOSING = enum.auto()
    CLOSED = enum.auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Handlers:
    """What a connection calls, from its loop, and never after `on_closed`.

    A handler that raises ends its connection. `on_closed` gets None if this side closed without an
    error, or the other side simply went away.
    """

    on_message: Callable[[Connection, PeerMessage | Call], None]
    on_opened: Callable[[Connection], None] | None = None
    on_closed: Callable[[Connection, P2PSchedError | None], None] | None = None


class Connection(asyncio.BufferedProtocol):
    """See the module. Made by `net.server.Server` and `net.dial.connect`."""

    def __init__(
        self,
        opening: ClientOpening | ServerOpening,
        handlers: Handlers,
        *,
        gate: Gate | None = None,
        address: str = "",
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._opening = opening
        self._handlers = handlers
        self._gate = gate
        self._address = address
        self._state = State.OPENING
        self._was_open = False
        self._transport: asyncio.Transport | None = None
        self._is_here = False  # the other end is on this machine
        self._decoder = FrameDecoder()
        self._remote = Identity()
        self._error: P2PSchedError | None = None
        self._outbox = Outbox(self._loop)
        self._reading = Reading()
        self._closed = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None  # of the opening, then of the close
        self._frame_timer: asyncio.TimerHandle | None = None
        self._frame_since: float | None = None
        self.answers: AnswerSink | None = None
        self.opened: asyncio.Future[None] | None = None  # for the side that connects
        self.received_bytes = 0
        self.received_count = 0

    # --- what others see --------------------------------------------------------------------------

    @property
    def state(self) -> State:
        return self._state

    @property
    def peer(self) -> PeerId | None:
        """Who is at the other end; None for a client, or before the opening is done."""
        return self._remote.peer

    @property
    def address(self) -> str:
        """Where the other side is reached: what it advertised, or what we connected to."""
        return self._remote.address or self._address

    @property
    def remote(self) -> Identity:
        return self._remote

    @property
    def error(self) -> P2PSchedError | None:
        """Why the connection ended, if not by a plain close."""
        return self._error

    @property
    def backlog_bytes(self) -> int:
        """Bytes that wait to be written."""
        return self._outbox.backlog_bytes

    @property
    def sent_bytes(self) -> int:
        return self._outbox.sent_bytes

    @property
    def sent_count(self) -> int:
        return self._outbox.sent_count

    @property
    def dropped_count(self) -> int:
        return self._outbox.dropped_count

    @property
    def has_room(self) -> bool:
        """True if `send` would not wait."""
        return self._state is State.OPEN and not self._outbox.is_full

    def send_nowait(self, message: Message) -> bool:
        """Send, or drop and return False if the link is not open or its backlog is full.

        Raises UsageError if the message fits no frame.
        """
        return self._state is State.OPEN and self._outbox.put_nowait(self.encode(message))

    def send_frame_nowait(self, frame: Frame) -> bool:
        """As `send_nowait`, for what `frames.encode` made: one message to many, encoded once."""
        return self._state is State.OPEN and self._outbox.put_nowait(frame)

    async def send(self, message: Message) -> None:
        """Send once the link has room. Raises Unavailable if it closes first, UsageError if the
        message fits no frame. Cancelled while it waits, nothing was sent."""
        frame = self.encode(message)
        await self._outbox.wait_room()
        if self._state is not State.OPEN:
            raise self.lost()
        self._outbox.put(frame)

    def encode(self, message: Message) -> Frame:
        """As it travels on this link. Raises UsageError if it fits no frame."""
        return encode(message, compress=not self._is_here)

    def flush(self) -> None:
        """Write now what was sent in this loop iteration, as before a blocking call."""
        self._outbox.flush()

    async def wait_closed(self) -> None:
        """Until the connection is gone and `on_closed` was called."""
        await self._closed.wait()

    def close(self, error: P2PSchedError | None = None, *, goodbye: Goodbye | None = None) -> None:
        """Stop receiving, let what was sent leave, and close. Idempotent."""
        if self._state is State.CLOSING or self._state is State.CLOSED:
            return
        if goodbye is not None:
            self._outbox.put(encode(goodbye))
        self._state = State.CLOSING
        self._error = error
        self.flush()
        self._stop_timers()
        if self._transport is not None:
            self._transport.close()
            self._timer = self._loop.call_later(CLOSE_TIMEOUT_S, self._transport.abort)

    def abort(self, error: P2PSchedError | None = None) -> None:
        """Close now, and drop what was not written yet. Idempotent."""
        if self._state is State.OPENING or self._state is State.OPEN:
            self._error = error
            self._state = State.CLOSING
            self._stop_timers()
            # uvloop may have closed the transport already without a word, if its making was
            # cancelled; writing to it would fail then.
            self._outbox.detach()
        if self._transport is not None and self._state is not State.CLOSED:
            self._transport.abort()

    def lost(self) -> P2PSchedError:
        """The error for whoever still wanted something of this connection."""
        reason = f": {self._error}" if self._error is not None else ""
        return Unavailable(f"the connection to {self.address} is closed{reason}")

    # --- what the transport calls -----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert self._transport is None
        self._transport = cast("asyncio.Transport", transport)
        self._outbox.attach(self._transport)
        self._reading.attach(self._transport)
        tune(transport)
        self._is_here = is_here(transport)
        if not self._address:
            self._address = peer_name(transport)
        if self._state is not State.OPENING:  # given up while it was being made
            self._transport.abort()
            return
        self._timer = self._loop.call_later(HANDSHAKE_TIMEOUT_S, self._on_opening_late)
        if self._gate is not None:
            self._gate.on_made(self)
        self._after(self._opening.start())

    def get_buffer(self, sizehint: int) -> memoryview:
        del sizehint  # the frame that is coming says better what it needs
        return self._decoder.room()

    def buffer_updated(self, nbytes: int) -> None:
        if self._state is State.CLOSING or self._state is State.CLOSED:
            return
        self.received_bytes += nbytes
        self._decoder.received(nbytes)
        if not self._reading.waits:
            self._take_turn()

    def connection_lost(self, exc: Exception | None) -> None:
        assert self._state is not State.CLOSED
        if exc is not None and self._error is None and self._state is not State.CLOSING:
            self._error = Unavailable(f"the connection to {self.address} broke: {exc}")
        self._state = State.CLOSED
        self._outbox.detach()
        self._stop_timers()
        if self.opened is not None and not self.opened.done():
            self.opened.set_exception(
                self._error
                or Unavailable(
                    f"{self.address} closed the connection before it said who it is: "
                    "is that a peer of p2psched, and is it still running?"
                )
            )
        try:
            if self.answers is not None:
                self.answers.on_closed(self._error)
            if self._was_open and self._handlers.on_closed is not None:
                self._handlers.on_closed(self, self._error)
        except Exception:
            log.exception("handler-failed", extra={"address": self._address, "peer": self.peer})
        finally:
            self._closed.set()
            if self._gate is not None:
                self._gate.on_lost(self)

    def pause_writing(self) -> None:
        self._outbox.pause()

    def resume_writing(self) -> None:
        self._outbox.resume()

    # --- inside -----------------------------------------------------------------------------------

    def _on_turn(self) -> None:
        self._take_turn(resumed=True)

    def _take_turn(self, *, resumed: bool = False) -> None:
        """Handle the whole frames that are here; nothing a message does gets out of here."""
        if self._state is State.CLOSING or self._state is State.CLOSED:
            return
        try:
            progress = self._take_messages(resumed=resumed)
        except ProtocolError as error:
            log.warning("frame-invalid", extra={"address": self._address, "error": str(error)})
            self.abort(error)
        except Exception as error:
            # A fault of ours that one message brought out must not end the others' connections.
            log.exception("handler-failed", extra={"address": self._address, "peer": self.peer})
            self.abort(Unavailable(f"a fault while handling a message: {type(error).__name__}"))
        else:
            pending = self._decoder.pending
            if self._frame_since is not None or pending.start != pending.end:
                self._watch_frame(progress=progress)

    def _take_messages(self, *, resumed: bool) -> bool:
        """True if at least one frame was complete. `resumed`: it has waited for this turn."""
        decoder, pending, turns = self._decoder, self._decoder.pending, self._turns
        began, before = decoder.decoded_bytes, self.received_count
        if turns is not None and turns.must_wait and not resumed:
            self._reading.wait(turns, self._on_turn)
            return False
        while pending.start != pending.end and (
            self._state is State.OPEN or self._state is State.OPENING
        ):
            size = decoder.decoded_bytes
            if (message := decoder.take()) is None:
                break
            self.received_count += 1
            if self._state is State.OPEN:
                if turns is not None:
                    turns.take(decoder.decoded_bytes - size)
                self._dispatch(message)
            else:
                self._after(self._opening.on_message(message))
                turns = self._turns
            taken = self.received_count - before
            is_over = turns is not None and (turns.is_over or taken >= CALLS_AT_ONCE_MAX)
            if is_over or decoder.decoded_bytes - began > BYTES_A_TURN_MAX:
                self._reading.wait(turns, self._on_turn)
                break
        return self.received_count > before

    @property
    def _turns(self) -> Turns | None:
        """The line that it stands in, as the connection of a client does."""
        is_client = self._state is State.OPEN and self._remote.peer is None
        return self._gate.turns if is_client and self._gate is not None else None

    def _after(self, step: Step) -> None:
        """Do what the opening asks for."""
        error, replies = step.error, step.send
        if step.remote is not None and self._gate is not None:
            full = self._gate.admit(self, step.remote)
            if full is not None:
                error, replies = full, (Goodbye(code=full.code, message=str(full)),)
        for reply in replies:
            self._outbox.put(encode(reply))
        if error is not None:
            log.warning("opening-failed", extra={"address": self._address, "error": str(error)})
            self.close(error)
        elif step.remote is not None:
            self._on_open(step.remote)

    def _on_open(self, remote: Identity) -> None:
        assert self._state is State.OPENING
        self._remote = remote
        self._state = State.OPEN
        self._was_open = True
        self._decoder.open_up(answers=self._opening.only_asks)
        self._stop_timers()
        if self.opened is not None and not self.opened.done():
            self.opened.set_result(None)
        if self._handlers.on_opened is not None:
            self._handlers.on_opened(self)

    def _dispatch(self, message: Message) -> None:
        kind = type(message)
        if kind is not Call and kind in _PEER_KINDS and self._remote.peer is None:
            raise ProtocolError(f"a client sent {kind.__name__}, which only peers may send")
        if kind is Call or kind in _PEER_KINDS:
            self._handlers.on_message(self, cast("PeerMessage | Call", message))
        elif isinstance(message, _Answers) and self.answers is not None:
            self.answers.on_answer(message)
        elif isinstance(message, Goodbye):
            self.close(farewell(message.code, message.message))
        else:
            raise ProtocolError(f"{kind.__name__} has no place on an open connection")

    def _watch_frame(self, *, progress: bool) -> None:
        """Keep the time since the first byte of the frame that is incomplete now. One timer that
        looks again is cheaper than one timer for each read."""
        if not self._decoder.buffered_bytes or self._state is not State.OPEN:
            self._frame_since = None
            return
        if progress or self._frame_since is None:
            self._frame_since = self._loop.time()
        if self._frame_timer is None:
            self._frame_timer = self._loop.call_later(FRAME_TIMEOUT_S, self._on_frame_late)

    def _on_frame_late(self) -> None:
        self._frame_timer = None
        if self._frame_since is None or self._state is not State.OPEN:
            return
        left_s = self._frame_since + FRAME_TIMEOUT_S - self._loop.time()
        if left_s > 0:
            self._frame_timer = self._loop.call_later(left_s, self._on_frame_late)
            return
        log.warning("frame-late", extra={"address": self._address, "peer": self.peer})
        self.abort(ProtocolError(f"a frame took longer than {FRAME_TIMEOUT_S:g} s to arrive"))

    def _on_opening_late(self) -> None:
        self._timer = None
        self.abort(Unavailable(f"no opening within {HANDSHAKE_TIMEOUT_S:g} s"))

    def _stop_timers(self) -> None:
        for timer in (self._timer, self._frame_timer):
            if timer is not None:
                timer.cancel()
        self._timer = self._frame_timer = None
