"""Unary gRPC calls, many at a time over one HTTP/2 connection, as cheap as our own client's calls.

The usual packages for Python take four times the CPU of `client.session` for a call, and on a
machine that clients share with servers that would be held against the server. This one does only
what a call to etcd on loopback needs. It refuses TLS, compression, padding, continued headers,
messages beyond a frame, and servers that ask for less than a frame in a stream.

It tells the server to use no table for the headers that it sends (RFC 7541, section 4.2), so the
status of a call is found by its bytes, and no Huffman code need be read.
"""

from __future__ import annotations

import asyncio
import enum
import struct
from collections import deque
from dataclasses import dataclass, field
from typing import Final, cast

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
WINDOW_FIRST: Final = 65_535
WINDOW_MAX: Final = 2**31 - 1
FRAME_BYTES_MAX: Final = 16_384
STREAM_MAX: Final = 2**31 - 1

_HEAD: Final = struct.Struct(">IBI")  # length and type share the first word
_SETTING: Final = struct.Struct(">HI")
_WORD: Final = struct.Struct(">I")
_MESSAGE: Final = struct.Struct(">BI")  # is compressed, length
_TABLE_SIZE, _PUSH, _WINDOW = 1, 2, 4  # settings of ours
_HEADERS_MAX, _STREAMS_MAX, _WINDOW_SETTING = 6, 3, 4
_END_STREAM, _ACK, _END_HEADERS, _PADDED = 1, 1, 4, 8
# Names in a literal header, as Go writes it (Huffman) and as it is without any code.
_STATUS_NAMES: Final = (bytes.fromhex("889acac8b21234da8f"), b"\x0bgrpc-status")


class Kind(enum.IntEnum):
    DATA = 0
    HEADERS = 1
    RST_STREAM = 3
    SETTINGS = 4
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8


class GrpcError(Exception):
    """A call failed, or the server said what this client can't read."""


def frame(kind: Kind, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return _HEAD.pack(len(payload) << 8 | kind, flags, stream) + payload


class HeaderWriter:
    """HPACK with the table of the other side: a header is spelled once, and a number after that."""

    _STATIC: Final = {(":method", "POST"): 3, (":scheme", "http"): 6}
    _NAMES: Final = {":authority": 1, ":path": 4, "content-type": 31}
    _STATIC_LEN: Final = 61

    def __init__(self) -> None:
        self._table: list[tuple[str, str]] = []  # as the other side has it, oldest first

    def __len__(self) -> int:
        return len(self._table)

    def write(self, headers: list[tuple[str, str]]) -> bytes:
        return b"".join(map(self._header, headers))

    def _header(self, header: tuple[str, str]) -> bytes:
        if header in self._STATIC:
            return bytes([0x80 | self._STATIC[header]])
        if header in self._table:
            newest_first = len(self._table) - self._table.index(header)
            return bytes([0x80 | self._STATIC_LEN + newest_first])
        self._table.append(header)
        assert len(self._table) < 64, "numbers here have seven bits"
        name, value = header
        known = self._NAMES.get(name)
        head = bytes([0x40 | known]) if known else b"\x40" + _text(name)
        return head + _text(value)


def _text(text: str) -> bytes:
    assert len(text) < 127, text
    return bytes([len(text)]) + text.encode()


def status_of(block: bytes) -> int:
    """The gRPC status in a block of trailers. Raises GrpcError if there is none to be read."""
    for name in _STATUS_NAMES:
        at = block.find(name)
        if at >= 0:
            at += len(name)
            value = block[at + 1 : at + 1 + block[at]] if at < len(block) else b""
            if value.isdigit():
                return int(value)
    raise GrpcError(f"trailers without a status that can be read: {block.hex()}")


@dataclass(slots=True)
class _Open:
    answer: asyncio.Future[bytes]
    data: bytes = b""


@dataclass(slots=True)
class _Waiting:
    size: int  # of what counts for the window
    frames: bytes = field(repr=False)


class Channel(asyncio.Protocol):
    """One connection. Made by `connect`."""

    def __init__(self, authority: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._authority = authority
        self._transport: asyncio.Transport | None = None
        self._headers = HeaderWriter()
        self._known: dict[str, bytes] = {}  # path -> its headers, once they are numbers
        self._open: dict[int, _Open] = {}
        self._next = 1
        self._window = WINDOW_FIRST  # bytes that the server takes, over all streams
        self._streams_max = STREAM_MAX
        self._waiting: deque[_Waiting] = deque()  # for the window
        self._out: list[bytes] = []
        self._flush_due = False
        self._in = b""
        self._lost: GrpcError | None = None

    async def call(self, path: str, message: bytes) -> bytes:
        """The answer's message. Raises GrpcError; the caller owns the deadline."""
        if self._lost is not None:
            raise self._lost
        if len(self._open) >= self._streams_max:
            raise GrpcError(f"the server allows {self._streams_max} calls at a time")
        stream, self._next = self._next, self._next + 2
        body = _MESSAGE.pack(0, len(message)) + message
        if len(body) > FRAME_BYTES_MAX:
            raise GrpcError(f"a message of {len(message):,} bytes fits no frame")
        opened = self._open[stream] = _Open(self._loop.create_future())
        head = frame(Kind.HEADERS, _END_HEADERS, stream, self._head(path))
        self._put(_Waiting(len(body), head + frame(Kind.DATA, _END_STREAM, stream, body)))
        try:
            return await opened.answer
        finally:
            del self._open[stream]  # a late answer to a cancelled call finds nobody

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    # --- out --------------------------------------------------------------------------------------

    def _head(self, path: str) -> bytes:
        known = self._known.get(path)
        if known is not None:
            return known
        headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", self._authority),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ]
        length, first = len(self._headers), self._headers.write(headers)
        if len(self._headers) > length:
            self._known.clear()  # numbers count from the newest entry on
        self._known[path] = self._headers.write(headers)
        return first

    def _put(self, waiting: _Waiting) -> None:
        """In order, for the table of headers depends on it."""
        if self._waiting or waiting.size > self._window:
            self._waiting.append(waiting)
            return
        self._window -= waiting.size
        self._send(waiting.frames)

    def _send(self, data: bytes) -> None:
        self._out.append(data)
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_due = False
        out, self._out = self._out, []
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(out))

    # --- in ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        settings = ((_TABLE_SIZE, 0), (_PUSH, 0), (_WINDOW, WINDOW_MAX))
        self._send(PREFACE)
        self._send(frame(Kind.SETTINGS, 0, 0, b"".join(_SETTING.pack(*s) for s in settings)))
        self._send(frame(Kind.WINDOW_UPDATE, 0, 0, _WORD.pack(WINDOW_MAX - WINDOW_FIRST)))

    def data_received(self, data: bytes) -> None:
        data = self._in + data if self._in else data
        at, size = 0, len(data)
        try:
            while size - at >= _HEAD.size:
                word, flags, stream = _HEAD.unpack_from(data, at)
                end = at + _HEAD.size + (word >> 8)
                if end > size:
                    break
                self._take(word & 0xFF, flags, stream, data[at + _HEAD.size : end])
                at = end
        except (GrpcError, struct.error) as error:
            self._fail(GrpcError(str(error)))
        self._in = data[at:]

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(GrpcError(f"the connection to {self._authority} is closed: {exc or ''}"))

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        match kind:
            case Kind.DATA | Kind.HEADERS if flags & _PADDED:
                raise GrpcError("padded frames are not read here")
            case Kind.DATA:
                if (opened := self._open.get(stream)) is not None:
                    opened.data = opened.data + payload if opened.data else payload
            case Kind.HEADERS:
                if not flags & _END_HEADERS:
                    raise GrpcError("continued headers are not read here")
                if flags & _END_STREAM:
                    self._on_trailers(stream, payload)
            case Kind.RST_STREAM:
                self._settle(stream, GrpcError(f"stream ended, {_WORD.unpack(payload)[0]}"))
            case _:
                self._take_besides(kind, flags, stream, payload)

    def _take_besides(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        """What is about the connection, not about a call."""
        match kind:
            case Kind.SETTINGS if not flags & _ACK:
                self._on_settings(payload)
            case Kind.PING if not flags & _ACK:
                self._send(frame(Kind.PING, _ACK, 0, payload))
            case Kind.WINDOW_UPDATE if not stream:
                self._window += _WORD.unpack(payload)[0]
                while self._waiting and self._waiting[0].size <= self._window:
                    self._window -= self._waiting[0].size
                    self._send(self._waiting.popleft().frames)
            case Kind.GOAWAY:
                raise GrpcError(f"the server goes away: {payload[8:]!r}")
            case _:
                pass  # priorities, windows of streams, acknowledgements

    def _on_settings(self, payload: bytes) -> None:
        for name, value in _SETTING.iter_unpack(payload):
            if name == _STREAMS_MAX:
                self._streams_max = value
            elif name == _WINDOW_SETTING and value < FRAME_BYTES_MAX:
                raise GrpcError(f"a window of {value} bytes a stream is not enough")
        self._send(frame(Kind.SETTINGS, _ACK, 0))

    def _on_trailers(self, stream: int, block: bytes) -> None:
        opened = self._open.get(stream)
        if opened is None:
            return
        status = status_of(block)
        if status:
            self._settle(stream, GrpcError(f"gRPC status {status}"))
            return
        compressed, length = _MESSAGE.unpack_from(opened.data)
        if compressed or _MESSAGE.size + length != len(opened.data):
            self._settle(stream, GrpcError("not one plain message in an answer"))
        else:
            self._settle(stream, opened.data[_MESSAGE.size :])

    def _settle(self, stream: int, found: bytes | GrpcError) -> None:
        opened = self._open.get(stream)
        if opened is None or opened.answer.done():
            return
        if isinstance(found, GrpcError):
            opened.answer.set_exception(found)
        else:
            opened.answer.set_result(found)

    def _fail(self, error: GrpcError) -> None:
        self._lost = self._lost or error
        for stream in list(self._open):
            self._settle(stream, self._lost)
        self.close()


async def connect(host: str, port: int) -> Channel:
    """Raises OSError."""
    loop = asyncio.get_running_loop()
    _, channel = await loop.create_connection(lambda: Channel(f"{host}:{port}"), host, port)
    return channel
