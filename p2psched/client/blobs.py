"""Large data to and from a cluster: blobs go up and come down chunk by chunk, verified, resumed.

Memory is flat: WINDOW chunks of a transfer are on their way, and no more than a session's own
limit over all of its transfers. A break is no failure: reads go on at another peer, an upload
asks there what is missing. What can't be gone on with within the session's patience is Unavailable.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import mmap
import os
import secrets
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

from p2psched.client.session import Session
from p2psched.client.spool import InMemory, Upload
from p2psched.model import digests, limits
from p2psched.model.blob import BlobRef
from p2psched.model.blob_messages import (
    BeginUpload,
    BlobChunk,
    BlobList,
    EndUpload,
    ReadBlob,
    StatBlob,
    UploadChunk,
    UploadState,
)
from p2psched.model.errors import (
    NotFound,
    P2PSchedError,
    ProtocolError,
    ResultLost,
    Unavailable,
    UsageError,
)
from p2psched.model.messages import Done, JobAccepted, Submit
from p2psched.net.together import together

WINDOW: Final = 8
UNLISTED_CHUNKS_MAX: Final = WINDOW  # of a blob that is verified as a whole
UPLOADS_MAX: Final = 8  # of one job, at a time; small ones wait for syncs together
IN_MEMORY_BYTES_MAX: Final = 4 * limits.MIB  # `read` maps a file for what is larger
BEGINS_MAX: Final = 16  # times that an upload starts over at a peer that does not know of it
WRONG_CHUNKS_MAX: Final = 3  # in a row, before a download gives up

Buffer = bytes | bytearray | memoryview
Readable = bytes | memoryview | mmap.mmap
ReadAt = Callable[[int, int], Buffer]  # size, offset
Progress = Callable[[int], None]  # is told how many more bytes are where they should be


# --- up -------------------------------------------------------------------------------------------


async def upload(session: Session, source: Path | Buffer | BinaryIO) -> BlobRef:
    """Once it returns, the blob is durable on a majority of the voters' disks, and nobody takes it
    for garbage within an hour. Equal bytes are stored once, and sent once if they are there.

    A stream is read to its end from where it stands. Raises UsageError if the file can't be read,
    changes meanwhile, or is too large; Unavailable if no majority takes it in time.
    """
    with ExitStack() as stack:
        size, read_at = await asyncio.to_thread(_open_source, source, stack)
        ref, listed = await asyncio.to_thread(_hash, size, read_at)
        await _send(session, ref, listed, read_at)
    return ref


def ignore(_: int) -> None:
    """Progress that nobody looks at."""


async def upload_all(
    session: Session, uploads: Iterable[Upload], progress: Progress = ignore
) -> None:
    """As `upload`, for blobs whose names are known already; UPLOADS_MAX of them at a time. What
    this session has sent a little while ago is not sent again: see `submit`."""
    unknown = [upload for upload in uploads if not session.sent.knows(upload.ref)]

    async def send(upload: Upload) -> None:
        with upload.opened() as read_at:
            await _send(session, upload.ref, upload.listed, read_at, progress)
        session.sent.note(upload.ref)

    if unknown:
        await together(send, unknown, at_most=UPLOADS_MAX)


async def submit(
    session: Session, submit: Submit, uploads: Sequence[Upload], progress: Progress = ignore
) -> JobAccepted:
    """Blobs first, then the job that names them. If the cluster has lost one that was sent before,
    all are sent again."""
    await upload_all(session, uploads, progress)
    try:
        return await session.call(submit, JobAccepted)
    except ResultLost:
        session.sent.clear()
        await upload_all(session, uploads)
        return await session.call(submit, JobAccepted)


async def _send(
    session: Session, ref: BlobRef, listed: bytes, read_at: ReadAt, progress: Progress = ignore
) -> None:
    told = 0
    for _ in range(BEGINS_MAX):
        state = await session.call(BeginUpload(ref, listed), UploadState)
        missing = sum(digests.chunk_size(ref.size, number) for number in state.missing)
        progress(ref.size - missing - told)  # less than nothing at a peer that has less of it
        told = ref.size - missing

        def sent(count: int) -> None:
            nonlocal told
            told += count
            progress(count)

        try:
            await _send_chunks(session, ref, list(state.missing), read_at, sent)
            await session.call(EndUpload(ref), Done)
        except NotFound:
            continue  # another peer answers by now: ask it what it has
        return
    raise Unavailable(
        f"the upload of blob {ref} was begun {BEGINS_MAX} times, each time at another peer: look "
        "at `p2psched peers`, then try again"
    )


async def _send_chunks(
    session: Session, ref: BlobRef, numbers: Sequence[int], read_at: ReadAt, sent: Progress
) -> None:
    async def send(number: int) -> None:
        length = digests.chunk_size(ref.size, number)
        async with session.chunk_calls:
            data = await _read(read_at, ref, length, number * digests.CHUNK_BYTES)
            await session.call(UploadChunk(ref, number, bytes(data)), Done)
        sent(length)

    await together(send, numbers, at_most=WINDOW)


async def _read(read_at: ReadAt, ref: BlobRef, length: int, offset: int) -> Buffer:
    """In a thread, but for what is small or in memory: that is read sooner than a thread wakes."""
    if ref.size <= digests.CHUNK_BYTES or isinstance(read_at, InMemory):
        return read_at(length, offset)
    return await asyncio.to_thread(read_at, length, offset)


def _open_source(source: Path | Buffer | BinaryIO, stack: ExitStack) -> tuple[int, ReadAt]:
    """Its size, and how to read a part of it."""
    if isinstance(source, bytes | bytearray | memoryview):
        view = memoryview(source).cast("B")
        return len(view), lambda size, offset: view[offset : offset + size]
    try:
        if isinstance(source, Path):
            file: BinaryIO = stack.enter_context(source.open("rb"))
        else:
            file = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 (of the stack)
            _spool(source, file)
        size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise UsageError(f"can't read {source}: {error.strerror or error}") from error
    descriptor = file.fileno()
    return size, lambda length, offset: os.pread(descriptor, length, offset)


def _spool(stream: BinaryIO, file: BinaryIO) -> None:
    """A stream can be read once only, and a blob is named by its bytes before they are sent."""
    while piece := stream.read(digests.CHUNK_BYTES):
        file.write(piece)
    file.flush()


def _hash(size: int, read_at: ReadAt) -> tuple[BlobRef, bytes]:
    if size > limits.BLOB_BYTES_MAX:
        BlobRef(bytes(digests.DIGEST_BYTES), size)  # raises what the limit is
    hasher = digests.Hasher()
    while hasher.size < size:
        piece = read_at(min(digests.CHUNK_BYTES, size - hasher.size), hasher.size)
        if not piece:
            raise UsageError("the file became shorter while it was read: send it when it is whole")
        hasher.update(piece)
    return BlobRef(hasher.finish(), size), b"".join(hasher.digests)


# --- down -----------------------------------------------------------------------------------------


async def download(
    session: Session, ref: BlobRef, sink: Path | BinaryIO, progress: Progress = ignore
) -> None:
    """Write a blob to a file, which appears whole or not at all, or to a stream, in order.

    Raises ResultLost if no live peer has it, UsageError if the file can't be written.
    """
    if isinstance(sink, io.BytesIO) and digests.chunk_count(ref.size) <= UNLISTED_CHUNKS_MAX:
        for chunk in await whole(session, ref):
            sink.write(chunk)  # noqa: ASYNC240 (memory)
        return
    if not isinstance(sink, Path):
        await pull(session, ref, sink.write, progress)
        return
    aside = sink.with_name(f".{sink.name[:200]}.{secrets.token_hex(4)}.part")
    try:
        with await asyncio.to_thread(aside.open, "xb") as file:
            await pull(session, ref, file.write, progress)
        await asyncio.to_thread(aside.replace, sink)
    except OSError as error:
        raise UsageError(
            f"can't write {sink}: {error.strerror or error}: free some space, or choose another "
            "place"
        ) from error
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)


async def read(session: Session, ref: BlobRef) -> Readable:
    """The bytes of a blob: in memory, or mapped from a file without a name if it is large."""
    if ref.size <= IN_MEMORY_BYTES_MAX:
        chunks: list[bytes] = []
        await pull(session, ref, chunks.append)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)
    with tempfile.TemporaryFile() as file:
        await pull(session, ref, file.write)
        file.flush()
        return mmap.mmap(file.fileno(), ref.size, access=mmap.ACCESS_READ)


async def pull(
    session: Session, ref: BlobRef, take: Callable[[bytes], object], progress: Progress = ignore
) -> None:
    """Hand over all chunks in order, verified, with WINDOW of them on their way."""

    async def take_next() -> None:
        data = await coming.popleft()
        await asyncio.to_thread(take, data)
        progress(len(data))

    count = digests.chunk_count(ref.size)
    if count <= UNLISTED_CHUNKS_MAX:
        for chunk in await whole(session, ref):
            await asyncio.to_thread(take, chunk)
        return
    listed = await _list(session, ref)
    coming: deque[asyncio.Task[bytes]] = deque()
    failure: BaseException | None = None
    try:
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                coming.append(group.create_task(_chunk(session, ref, number, listed)))
                if len(coming) == WINDOW:
                    await take_next()
            while coming:
                await take_next()
    except* (P2PSchedError, OSError) as errors:
        failure = errors.exceptions[0]
    if failure is not None:
        raise failure


async def whole(session: Session, ref: BlobRef) -> list[bytes]:
    """All chunks of a small blob, verified together: nobody is asked for a list first."""
    for _ in range(WRONG_CHUNKS_MAX):
        numbers = range(digests.chunk_count(ref.size))
        found = await together(partial(_hashed_chunk, session, ref), numbers)
        if digests.root(ref.size, [digest for _, digest in found]) == ref.digest:
            return [data for data, _ in found]
    raise ProtocolError(
        f"the peer at {session.address} sends blob {ref} with a wrong checksum: ask another with "
        "--peer"
    )


async def _hashed_chunk(session: Session, ref: BlobRef, number: int) -> tuple[bytes, bytes]:
    async with session.chunk_calls:
        data = (await session.call(ReadBlob(ref, number), BlobChunk)).data
    return data, (await asyncio.to_thread(hashlib.sha256, data)).digest()


async def _list(session: Session, ref: BlobRef) -> bytes:
    listed = (await session.call(StatBlob(ref), BlobList)).digests
    try:
        digests.parse_list(listed, ref.size, ref.digest)
    except ValueError as error:
        raise ProtocolError(f"the peer at {session.address} sent a wrong list: {error}") from error
    return listed


async def _chunk(session: Session, ref: BlobRef, number: int, listed: bytes) -> bytes:
    for _ in range(WRONG_CHUNKS_MAX):
        async with session.chunk_calls:
            data = (await session.call(ReadBlob(ref, number), BlobChunk)).data
        if await asyncio.to_thread(_fits, ref, number, listed, data):
            return data
    raise ProtocolError(
        f"the peer at {session.address} sends chunk {number} of blob {ref} with a wrong checksum: "
        "ask another with --peer"
    )


def _fits(ref: BlobRef, number: int, listed: bytes, data: bytes) -> bool:
    if len(data) != digests.chunk_size(ref.size, number):
        return False
    digest = hashlib.sha256(data).digest()
    at = number * digests.DIGEST_BYTES
    return digest == listed[at : at + digests.DIGEST_BYTES]
