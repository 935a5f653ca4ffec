"""Frames: how a message becomes bytes and bytes become a message. No I/O.

A frame is the length of the rest (u32, little-endian, up to FRAME_BYTES_MAX), one flag byte
(0 raw, 1 zstd), and the MessagePack body of one `model.messages.Message`.

Bytes are decoded at the door: what leaves `FrameDecoder` is a valid message, everything else is a
`ProtocolError`, and nothing behind the door checks again. It refuses a length over the limit before
anything is kept for it, and an inflated size over the limit before anything is inflated.

Invariants: a decoder holds what it was fed and has not given out, one incomplete frame at most
once `take` gave None; until
`open_up` it takes only short, raw frames of the opening; after an error it takes nothing.

Nesting needs no scan of its own: decoding is typed, so nothing deeper than the types (less than
NESTING_MAX) is ever built, and skipping fields that a newer version appended ends in a
RecursionError, which is a `ProtocolError` here.
"""

from __future__ import annotations

import functools
import struct
from typing import Final

import msgspec
import zstandard

from p2psched.model.errors import ProtocolError, UsageError
from p2psched.model.limits import FRAME_BYTES_MAX, INFLATED_BYTES_MAX, KIB
from p2psched.model.messages import Answer, Failure, Message
from p2psched.model.opening_messages import Goodbye, Opening
from p2psched.net.receive_buffer import ReceiveBuffer

# Before the opening is done nobody is known, so nobody may make us hold much.
OPENING_BYTES_MAX: Final = 4 * KIB

_RAW: Final = 0
_ZSTD: Final = 1
_LENGTH: Final = struct.Struct("<I")
_HEAD: Final = struct.Struct("<IB")
_LEVEL: Final = 1  # the link is seldom slower than the level above
_COMPRESS_BYTES_MIN: Final = 2 * KIB  # below it a segment of TCP is saved at most
_SAMPLE_BYTES: Final = 4 * KIB
_WORTH_SHARE: Final = 0.9  # compression must save a tenth to be worth inflating again
_SHOWN_LEN: Final = 80
_REASON_LEN_MAX: Final = 200  # an error quotes what the other side sent, so it has to end somewhere

Frame = bytes | bytearray  # a whole one, ready to be sent; nobody changes it any more

_ENCODER: Final = msgspec.msgpack.Encoder()
_OPENING_DECODER: Final = msgspec.msgpack.Decoder[Opening](Opening)


@functools.cache
def _decoder(*, answers: bool) -> msgspec.msgpack.Decoder[Message]:
    """Made when somebody is known at last, and for who only asks of the answers alone: that of all
    messages is a tenth of what a short command takes."""
    return msgspec.msgpack.Decoder(Answer | Failure | Goodbye if answers else Message)


def encode(message: Message, *, compress: bool = True) -> Frame:
    """The frame of a message, not to be changed. Raises UsageError if it is too large to be sent,
    or holds text that is no UTF-8. `compress` where that pays: between two machines.

    The bound holds for the body before compression: whether a message can be sent must not depend
    on how well its bytes happen to compress.
    """
    frame = bytearray(_HEAD.size)
    try:
        _ENCODER.encode_into(message, frame, _HEAD.size)
    except UnicodeEncodeError as error:
        text = error.object[:_SHOWN_LEN]
        raise UsageError(f"{text!r} is no text (UTF-8), so nothing is named like that") from error
    size = len(frame) - _LENGTH.size
    if size > FRAME_BYTES_MAX:
        raise UsageError(
            f"a message of {size:,} bytes does not fit a frame of {FRAME_BYTES_MAX:,} "
            f"({type(message).__name__}): split what it carries"
        )
    if compress and size > _COMPRESS_BYTES_MIN:
        with memoryview(frame) as whole, whole[_HEAD.size :] as body:
            packed = _compress(body)
        if packed is not None:
            return _HEAD.pack(len(packed) + 1, _ZSTD) + packed
    _HEAD.pack_into(frame, 0, size, _RAW)
    return frame


def _compress(body: memoryview) -> bytes | None:
    """The compressed body, or None if that doesn't pay."""
    # A compressor is not safe across threads and holds half a MiB, so it is made here: 15 us.
    compressor = zstandard.ZstdCompressor(level=_LEVEL)
    if len(body) > 2 * _SAMPLE_BYTES:
        # From the middle: the front is our own structure, which always compresses.
        middle = len(body) // 2
        sample = body[middle : middle + _SAMPLE_BYTES]
        if len(compressor.compress(sample)) > _WORTH_SHARE * len(sample):
            return None
    packed = compressor.compress(body)
    return packed if len(packed) <= _WORTH_SHARE * len(body) else None


class FrameDecoder:
    """Turns the bytes of one connection into messages, in whatever pieces they come."""

    __slots__ = ("_broken", "_bytes_max", "_decoder", "_opening", "decoded_bytes", "pending")

    def __init__(self, *, opening: bool = True) -> None:
        self.pending = ReceiveBuffer()
        self._opening = opening
        self._decoder = _OPENING_DECODER if opening else _decoder(answers=False)
        self._bytes_max = OPENING_BYTES_MAX if opening else FRAME_BYTES_MAX
        self._broken = False
        self.decoded_bytes = 0  # bodies so far, after inflating

    @property
    def buffered_bytes(self) -> int:
        """Bytes of frames that were not taken yet; after `feed`, of the incomplete one."""
        return len(self.pending)

    def open_up(self, *, answers: bool = False) -> None:
        """The other side is known: take every kind of message, or only what answers a client, up
        to FRAME_BYTES_MAX."""
        self._opening = False
        self._decoder = _decoder(answers=answers)
        self._bytes_max = FRAME_BYTES_MAX

    def feed(self, data: Frame) -> list[Message]:
        """The messages that `data` completes. Raises ProtocolError; the decoder is of no use then.

        Cost O(len(data)) over the life of a connection, however the bytes are cut.
        """
        self.push(data)
        messages: list[Message] = []
        while (message := self.take()) is not None:
            messages.append(message)
        return messages

    def push(self, data: Frame) -> None:
        """Add bytes without decoding them: for who takes messages one by one."""
        view = memoryview(data)
        while view:
            with self.room() as free:
                size = min(len(free), len(view))
                free[:size] = view[:size]
            self.received(size)
            view = view[size:]

    def room(self) -> memoryview:
        """Where the next bytes may be put; say with `received` how many came. Room for the whole
        of a frame whose length is known, so that a large one is read in few pieces."""
        pending = self.pending
        is_empty = pending.start == pending.end
        return pending.room(0 if is_empty or self._broken else self._missing())

    def received(self, size: int) -> None:
        self.pending.end += size

    def take(self) -> Message | None:
        """The next message, or None if there is no whole one. Raises ProtocolError."""
        if self._broken:
            raise ProtocolError("this connection sent an invalid frame before")
        pending = self.pending
        held = pending.end - pending.start
        if held < _LENGTH.size:
            return None
        length: int = _LENGTH.unpack_from(pending.data, pending.start)[0]
        try:
            if not 1 < length <= self._bytes_max:
                raise ProtocolError(
                    f"a frame of {length:,} bytes; 2 to {self._bytes_max:,} are allowed"
                )
            size = _LENGTH.size + length
            if size > held:
                return None
            message = self._decode(size)
        except ProtocolError:
            self._broken = True
            pending.clear()
            raise
        pending.drop(size)
        return message

    def _missing(self) -> int:
        """Bytes until the first frame is whole; 0 if that is not known."""
        pending = self.pending
        if len(pending) < _LENGTH.size:
            return 0
        length: int = _LENGTH.unpack_from(pending.data, pending.start)[0]
        return max(0, _LENGTH.size + length - len(pending)) if length <= self._bytes_max else 0

    def _decode(self, size: int) -> Message:
        start = self.pending.start
        flag = self.pending.data[start + _LENGTH.size]
        # A view: the message takes what it needs, and a chunk of a blob is copied once, not twice.
        body = self.pending.view[start + _HEAD.size : start + size]
        if flag == _ZSTD and not self._opening:
            body = memoryview(_inflate(bytes(body)))
        elif flag != _RAW:
            raise ProtocolError(f"a frame with the flag {flag}, which has no meaning here")
        self.decoded_bytes += len(body)
        try:
            return self._decoder.decode(body)
        except (ValueError, RecursionError, MemoryError) as error:
            raise ProtocolError(f"not a valid message: {_reason(error)}") from None


def _inflate(packed: bytes) -> bytes:
    """Raises ProtocolError. Never allocates more than INFLATED_BYTES_MAX for the result.

    `max_output_size` of zstandard is ignored when the frame declares a size, so the declared size
    is checked first, and frames that declare none are refused. The library then allocates exactly
    that size, and a frame that yields more or less, or has bytes behind it, is an error.
    """
    try:
        size = zstandard.frame_content_size(packed)
        if not 0 < size <= INFLATED_BYTES_MAX:
            raise ProtocolError(
                f"a compressed frame that inflates to {size:,} bytes (-1: it doesn't say); "
                f"1 to {INFLATED_BYTES_MAX:,} are allowed"
            )
        inflater = zstandard.ZstdDecompressor(max_window_size=INFLATED_BYTES_MAX)
        body = inflater.decompress(packed, read_across_frames=False, allow_extra_data=False)
    except (zstandard.ZstdError, MemoryError) as error:
        raise ProtocolError(f"not a valid compressed frame: {_reason(error)}") from None
    if len(body) != size:
        raise ProtocolError(f"a compressed frame of {len(body):,} bytes that claims {size:,}")
    return body


def _reason(error: BaseException) -> str:
    text = str(error)
    return text if len(text) <= _REASON_LEN_MAX else f"{text[:_REASON_LEN_MAX]}…"
