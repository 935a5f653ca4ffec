"""The door: any bytes become messages or a ProtocolError."""

from __future__ import annotations

import random
import struct
import tracemalloc

import msgspec
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from p2psched.model.commands import Envelope, SubmitJob
from p2psched.model.errors import ProtocolError, UsageError
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause, FunctionWork, JobSpec, ProgramWork, Segment
from p2psched.model.limits import FRAME_BYTES_MAX, INFLATED_BYTES_MAX, MIB, NESTING_MAX
from p2psched.model.lock_messages import ListLocks
from p2psched.model.messages import (
    Answer,
    Call,
    CallBody,
    Done,
    Failure,
    FindJob,
    FirstResults,
    Forward,
    GetStatus,
    Message,
    Submit,
)
from p2psched.model.opening_messages import Challenge, Goodbye, Hello, Proof, Welcome
from p2psched.model.queue_messages import ListQueues
from p2psched.model.raft import Append, AppendReply, Entry, EntryKind, VoteRequest
from p2psched.model.taskset import TaskSet
from p2psched.net.frames import OPENING_BYTES_MAX, Frame, FrameDecoder, encode

JOB = JobId("0" * 32)
SPEC = JobSpec(name="n", tasks=TaskSet.of(0, 3), work=ProgramWork(argv=("true",)))
EXAMPLES: list[Message] = [
    Hello(version=1, nonce=b"n" * 32),
    Challenge(version=1, nonce=b"n" * 32, proof=b"p" * 32, peer=PeerId("a"), cluster=JOB),  # type: ignore[arg-type]  # any text travels
    Proof(proof=b"p" * 32),
    Welcome(),
    Goodbye(code="refused", message="no"),
    VoteRequest(term=3, last_index=2, last_term=1, pre=True),
    Append(
        term=1,
        prev_index=0,
        prev_term=0,
        commit=0,
        round=7,
        entries=(Entry(1, 1, EntryKind.COMMANDS, 5, 6, b"payload"),),
    ),
    AppendReply(term=1, round=7, ok=True, match=1),
    Forward(envelopes=(Envelope(PeerId("a" * 32), 1, SubmitJob(JOB, SPEC)),)),
    Call(id=1, body=Submit(job=JOB, spec=SPEC)),
    Call(id=1, body=Submit(job=JOB, spec=SPEC, follow=True)),
    Answer(id=1, body=FirstResults((Segment(0, 1, Cause.OK, b"x"),), 1, ended=True)),
    Call(id=2, body=GetStatus()),
    Answer(id=1, body=Done()),
    Failure(id=2, code="unavailable", message="busy", retry_after_ms=50),
]


def frame(body: bytes, flag: int = 0, length: int | None = None) -> bytes:
    return struct.pack("<IB", len(body) + 1 if length is None else length, flag) + body


def append(payload: bytes) -> Append:
    entry = Entry(1, 1, EntryKind.COMMANDS, 0, 0, payload)
    return Append(term=1, prev_index=0, prev_term=0, commit=0, round=0, entries=(entry,))


def refused(data: Frame, *, opening: bool = False) -> str:
    decoder = FrameDecoder(opening=opening)
    with pytest.raises(ProtocolError) as caught:
        decoder.feed(data)
    assert decoder.buffered_bytes == 0
    return str(caught.value)


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: type(message).__name__)
def test_a_message_comes_back_as_it_went(message: Message) -> None:
    assert FrameDecoder(opening=False).feed(encode(message)) == [message]


def test_frames_may_be_cut_at_every_byte() -> None:
    stream = b"".join(encode(message) for message in EXAMPLES)
    for cut in range(len(stream) + 1):
        decoder = FrameDecoder(opening=False)
        assert decoder.feed(stream[:cut]) + decoder.feed(stream[cut:]) == EXAMPLES
        assert decoder.buffered_bytes == 0


def test_frames_may_come_byte_by_byte() -> None:
    decoder = FrameDecoder(opening=False)
    stream = b"".join(encode(message) for message in EXAMPLES)
    got = [message for byte in stream for message in decoder.feed(bytes([byte]))]
    assert got == EXAMPLES


@given(payload=st.binary(max_size=20_000), repeat=st.integers(1, 40))
def test_any_payload_comes_back(payload: bytes, repeat: int) -> None:
    message = append(payload * repeat)
    assert FrameDecoder(opening=False).feed(encode(message)) == [message]


def test_what_compresses_is_compressed_and_what_does_not_is_left_alone() -> None:
    noise = random.Random(1).randbytes(100_000)
    assert len(encode(append(b"a" * 100_000))) < 1_000
    assert encode(append(noise))[4] == 0
    assert encode(append(b"a" * 1_000))[4] == 0  # too small to be worth it


def test_a_message_over_the_limit_is_the_callers_mistake_however_well_it_compresses() -> None:
    with pytest.raises(UsageError, match="1,048,576"):
        encode(append(b"a" * FRAME_BYTES_MAX))
    largest = append(b"a" * (FRAME_BYTES_MAX - 100))
    assert FrameDecoder(opening=False).feed(encode(largest)) == [largest]


@pytest.mark.parametrize("body", [FindJob("a\udcff"), ListLocks("a\udcff"), ListQueues("a\udcff")])
def test_text_that_is_no_utf8_is_the_callers_mistake(body: CallBody) -> None:
    with pytest.raises(UsageError, match=r"^'a\\udcff' is no text \(UTF-8\)"):
        encode(Call(id=1, body=body))


@given(data=st.lists(st.binary(max_size=64), max_size=8), opening=st.booleans())
@settings(max_examples=300)
def test_any_bytes_are_messages_or_a_protocol_error(data: list[bytes], opening: bool) -> None:
    decoder = FrameDecoder(opening=opening)
    try:
        for piece in data:
            decoder.feed(piece)
    except ProtocolError:
        return
    assert decoder.buffered_bytes <= sum(map(len, data))


json_like = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5)
    | st.integers(0, 40),
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=20,
)


@given(tag=st.integers(0, 40), fields=st.lists(json_like, max_size=8))
@settings(max_examples=150)
def test_any_msgpack_is_a_message_or_a_protocol_error(tag: int, fields: list[object]) -> None:
    decoder = FrameDecoder(opening=False)
    try:
        [message] = decoder.feed(frame(msgspec.msgpack.encode([tag, *fields])))
    except ProtocolError:
        return
    assert isinstance(message, Message)


@given(
    which=st.integers(0, len(EXAMPLES) - 1),
    changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=4),
)
@settings(max_examples=500)
def test_any_damaged_frame_is_messages_or_a_protocol_error(
    which: int, changes: list[tuple[int, int]]
) -> None:
    data = bytearray(encode(EXAMPLES[which]))
    for position, value in changes:
        data[position % len(data)] = value
    decoder = FrameDecoder(opening=False)
    try:
        messages = decoder.feed(bytes(data))
    except ProtocolError:
        return
    assert all(isinstance(message, Message) for message in messages)


@given(packed=st.binary(max_size=60), real=st.binary(max_size=60))
def test_any_compressed_body_is_a_message_or_a_protocol_error(packed: bytes, real: bytes) -> None:
    for body in (packed, zstandard.compress(real), zstandard.compress(real)[:9] + packed):
        try:
            messages = FrameDecoder(opening=False).feed(frame(body, flag=1))
        except ProtocolError:
            continue
        assert all(isinstance(message, Message) for message in messages)


def test_a_length_over_the_limit_is_refused_before_the_body_comes() -> None:
    tracemalloc.start()
    try:
        assert "4,294,967,295" in refused(b"\xff\xff\xff\xff")
        refused(struct.pack("<I", FRAME_BYTES_MAX + 1))
        assert tracemalloc.get_traced_memory()[1] < MIB
    finally:
        tracemalloc.stop()


NESTED_TYPES = b"\x92\x0a" + b"\x91" * 100_000
SKIPPED_NESTING = b"\x93\x03\xc4\x01p" + b"\x91" * 100_000
BAD_SETS = [[[3, 1]], [[0, 2], [1, 3]], [[-1, 4]], [[0, 2**40]]]


@pytest.mark.parametrize(
    "data",
    [
        frame(b"", length=0),
        frame(b"", length=1),
        frame(b"\xc1"),
        frame(b"\xc0"),
        frame(b"\x90"),
        frame(b"\x80"),
        frame(b"\x91\x63"),
        frame(b"\x91\xa1x"),
        frame(b"\x91\x04\x00"),
        frame(b"\x91\x04" * 2),
        frame(b"\x92\x0a\xdd\xff\xff\xff\xff"),
        frame(b"\x92\x03\xc6\xff\xff\xff\xff"),
        frame(b"\x92\x03\xd7\xff" + b"\xff" * 8),
        frame(b"\x93\x05\xa1\xff\xa1a"),
        frame(NESTED_TYPES),
        frame(SKIPPED_NESTING),
        frame(b"\x91\x04", flag=2),
        frame(b"\x91\x04", flag=255),
        frame(b"\x91\x04", flag=1),
        *(
            frame(msgspec.msgpack.encode([30, 1, [1, JOB, ["n", [bad], [1, ["a"]]]]]))
            for bad in BAD_SETS
        ),
        frame(msgspec.msgpack.encode([30, 1, [1, JOB, ["n", [[[0, 3]]], [1, []]]]])),
        frame(
            msgspec.msgpack.encode([30, 1, [1, JOB, ["n", [[[0, 3]]], [2, "", b"", [], 0, ""]]]])
        ),
        frame(msgspec.msgpack.encode([30, 1, [1, JOB, ["n", [[]], [1, ["a"]]]]])),
    ],
)
def test_malformed_frames_are_protocol_errors(data: bytes) -> None:
    assert len(refused(data)) < 400


def test_a_decoder_takes_nothing_after_an_error() -> None:
    decoder = FrameDecoder(opening=False)
    with pytest.raises(ProtocolError):
        decoder.feed(frame(b"\xc1"))
    with pytest.raises(ProtocolError):
        decoder.feed(encode(Welcome()))


def test_an_error_does_not_quote_a_megabyte() -> None:
    ranges = [[i, i + 9] for i in range(50_000)]
    body = msgspec.msgpack.encode([30, 1, [1, JOB, ["n", [ranges], [1, ["a"]]]]])
    assert len(refused(frame(body))) < 400


@pytest.mark.parametrize("opening", [True, False])
def test_zstd_bombs_are_refused(opening: bool) -> None:
    bomb = zstandard.compress(bytes(256 * MIB), 1)
    assert len(bomb) < OPENING_BYTES_MAX * 4
    tracemalloc.start()
    try:
        refused(frame(bomb, flag=1), opening=opening)
        assert tracemalloc.get_traced_memory()[1] < 2 * MIB
    finally:
        tracemalloc.stop()


def test_a_bomb_that_lies_about_its_size_is_refused() -> None:
    bomb = bytearray(zstandard.compress(bytes(64 * MIB), 1))
    at = bomb.index(struct.pack("<I", 64 * MIB))
    bomb[at : at + 4] = struct.pack("<I", INFLATED_BYTES_MAX)
    assert zstandard.frame_content_size(bytes(bomb)) == INFLATED_BYTES_MAX
    refused(frame(bytes(bomb), flag=1))


def test_compressed_frames_without_a_size_or_with_bytes_behind_them_are_refused() -> None:
    body = encode(append(b""))[5:]
    assert FrameDecoder(opening=False).feed(frame(zstandard.compress(body), flag=1))
    nameless = zstandard.ZstdCompressor(write_content_size=False).compress(body)
    for packed in (
        nameless,
        zstandard.compress(body) + b"x",
        zstandard.compress(body) + zstandard.compress(b""),
        zstandard.compress(body)[:-1],
        zstandard.compress(b""),
    ):
        refused(frame(packed, flag=1))


def test_before_the_opening_is_done_only_short_raw_frames_of_it_pass() -> None:
    decoder = FrameDecoder()
    assert decoder.feed(encode(Welcome())) == [Welcome()]
    refused(encode(Call(id=1, body=GetStatus())), opening=True)
    refused(encode(append(b"")), opening=True)
    refused(frame(zstandard.compress(b"\x91\x04"), flag=1), opening=True)
    refused(struct.pack("<I", OPENING_BYTES_MAX + 1), opening=True)
    decoder.open_up()
    assert decoder.feed(encode(append(b"x" * 10_000))) == [append(b"x" * 10_000)]


def test_the_largest_job_fits_a_frame() -> None:
    work = FunctionWork("", b"c" * 1000, tuple([b"a" * 500] * 1000), 1, "3.11")
    spec = JobSpec(name="n", tasks=TaskSet.of(0, 1000), work=work)
    message = Call(id=1, body=Submit(job=JOB, spec=spec))
    assert FrameDecoder(opening=False).feed(encode(message)) == [message]


def test_older_and_newer_submits_are_understood() -> None:
    class Old(msgspec.Struct, frozen=True, array_like=True, tag=1):
        job: JobId
        spec: JobSpec

    old, new = Old(JOB, SPEC), Submit(JOB, SPEC, follow=True)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(new), type=Old) == old
    found = msgspec.msgpack.decode(msgspec.msgpack.encode(old), type=Submit)
    assert (found.job, found.spec, found.follow) == (JOB, SPEC, False)


def test_segments_that_run_backwards_are_refused() -> None:
    good = msgspec.msgpack.encode(Segment(1, 2, Cause.OK, b""))
    assert good.startswith(b"\x96\x01\x02")
    segment = msgspec.msgpack.decode(good)
    segment[0] = 2
    command = [3, JOB, 1, [segment]]
    refused(frame(msgspec.msgpack.encode([10, [["a", 1, command]]])))


def test_the_types_of_messages_nest_less_than_the_limit() -> None:
    def depth(kind: msgspec.inspect.Type) -> int:
        match kind:
            case msgspec.inspect.StructType(fields=fields):
                return 1 + max((depth(field.type) for field in fields), default=0)
            case msgspec.inspect.UnionType(types=types):
                return max(depth(each) for each in types)
            case msgspec.inspect.VarTupleType(item_type=item):
                return 1 + depth(item)
            case msgspec.inspect.TupleType(item_types=items):
                return 1 + max(depth(each) for each in items)
            case _:
                return 0

    assert 4 < depth(msgspec.inspect.type_info(Message)) <= NESTING_MAX
