"""Three peers with blobs, wired in memory: links break, answers are held up or spoiled at will."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import msgspec

from p2psched.model.blob import BlobRef
from p2psched.model.blob_messages import (
    BeginUpload,
    CopyBlob,
    EndUpload,
    ReadBlob,
    StatBlob,
    UploadChunk,
    UploadState,
)
from p2psched.model.errors import P2PSchedError, Unavailable, from_wire
from p2psched.model.ids import PeerId
from p2psched.model.messages import AnswerBody, Call, CallBody
from p2psched.net.frames import FrameDecoder, encode
from p2psched.peer.blob_api import BlobApi
from p2psched.peer.blobs import PeerBlobs
from p2psched.store.blob_calls import FileCalls
from p2psched.store.blobs import BlobFiles
from tests.store_blobs.rig import Now, QuickCalls, listed, name, pieces

A, B, C, D = (PeerId(letter * 32) for letter in "abcd")
Hook = Callable[[PeerId, PeerId, CallBody], Awaitable[AnswerBody | None]]
BLOB_CALLS = (StatBlob, ReadBlob, BeginUpload, UploadChunk, EndUpload, CopyBlob)


@dataclass
class Site:
    """One peer."""

    blobs: PeerBlobs
    api: BlobApi

    async def ask(self, body: CallBody) -> AnswerBody:
        """As a client does."""
        assert isinstance(body, BLOB_CALLS)
        return await self.api.answer(body)


class Links:
    """`Others` of one peer."""

    def __init__(self, net: Net, me: PeerId) -> None:
        self._net = net
        self._me = me

    def connected(self) -> frozenset[PeerId]:
        return frozenset(peer for peer in self._net.sites if self._net.joins(self._me, peer))

    async def call(self, peer: PeerId, body: CallBody) -> AnswerBody:
        return await self._net.call(self._me, peer, body)


@dataclass
class Net:
    """Use as an async context manager. `hook` sees every call first and may answer or fail it."""

    folder: Path
    names: tuple[PeerId, ...] = (A, B, C)
    voters: tuple[PeerId, ...] = (A, B, C)
    calls: FileCalls = field(default_factory=QuickCalls)
    now: Now = field(default_factory=Now)
    sites: dict[PeerId, Site] = field(default_factory=dict)
    down: set[PeerId] = field(default_factory=set)  # gives no answer
    dead: set[PeerId] = field(default_factory=set)  # the ledger says so
    hints: dict[bytes, tuple[PeerId, ...]] = field(default_factory=dict)
    hook: Hook | None = None
    count: Counter[tuple[str, PeerId]] = field(default_factory=Counter)
    in_flight: Counter[PeerId] = field(default_factory=Counter)
    most: Counter[PeerId] = field(default_factory=Counter)
    disk_faults: list[OSError] = field(default_factory=list)

    async def __aenter__(self) -> Net:
        self._stack = AsyncExitStack()
        self._group = await self._stack.enter_async_context(asyncio.TaskGroup())
        for peer in self.names:
            self._add(peer)
        return self

    def _add(self, peer: PeerId) -> None:
        store = BlobFiles(self.folder / peer[:4], now_ms=self.now, calls=self.calls)
        links = Links(self, peer)
        blobs = PeerBlobs(
            store,
            me=peer,
            others=links,
            alive=lambda: [other for other in self.names if other not in self.dead],
            group=self._group,
            on_disk_failed=self.disk_faults.append,
            holders=lambda ref: self.hints.get(ref.digest, ()),
        )
        api = BlobApi(blobs, me=peer, others=links, voters=lambda: self.voters, group=self._group)
        self.sites[peer] = Site(blobs, api)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()  # what still goes on in the background
        try:
            await self._stack.__aexit__(kind, error, trace)
        finally:
            for site in self.sites.values():
                site.blobs.close()

    def joins(self, one: PeerId, other: PeerId) -> bool:
        return one != other and not self.down & {one, other}

    async def call(self, caller: PeerId, peer: PeerId, body: CallBody) -> AnswerBody:
        """Through the wire's own bytes, errors as a caller sees them."""
        self.count[type(body).__name__, peer] += 1
        self.in_flight[peer] += 1
        self.most[peer] = max(self.most[peer], self.in_flight[peer])
        try:
            (call,) = FrameDecoder(opening=False).feed(encode(Call(1, body)))
            assert isinstance(call, Call)
            await asyncio.sleep(0)
            if not self.joins(caller, peer) or peer not in self.sites:
                raise Unavailable(f"no way to {peer[:4]}")
            answer = await self.hook(caller, peer, call.body) if self.hook is not None else None
            if answer is None:
                answer = await self.sites[peer].ask(call.body)
            if not self.joins(caller, peer):
                raise Unavailable(f"{peer[:4]} broke off")
        except P2PSchedError as error:
            raise from_wire(error.code, str(error), 10) from None
        else:
            return msgspec.msgpack.decode(msgspec.msgpack.encode(answer), type=type(answer))
        finally:
            self.in_flight[peer] -= 1

    # --- short cuts -------------------------------------------------------------------------------

    def has(self, data: bytes) -> set[PeerId]:
        return {peer for peer, site in self.sites.items() if site.blobs.is_here(name(data))}

    async def give(self, peer: PeerId, data: bytes) -> BlobRef:
        """As a worker's result comes into the store."""
        path = self.folder / "made"
        path.write_bytes(data)
        await self.sites[peer].blobs.adopt([(name(data), path)])
        return name(data)

    async def read(self, peer: PeerId, ref: BlobRef) -> bytes:
        return await self.sites[peer].blobs.read(ref, 0, ref.size)


async def send(site: Site, data: bytes) -> None:
    """An upload, as clients do it, up to its end."""
    ref = name(data)
    state = await site.ask(BeginUpload(ref, listed(data)))
    assert isinstance(state, UploadState)
    for number in state.missing:
        await site.ask(UploadChunk(ref, number, pieces(data)[number]))


async def upload(site: Site, data: bytes) -> BlobRef:
    await send(site, data)
    await site.ask(EndUpload(name(data)))
    return name(data)


def story(
    folder: Path, tell: Callable[[Net], Coroutine[object, object, None]], **how: object
) -> None:
    """Run one test's story with three peers."""

    async def main() -> None:
        net = Net(folder)
        for key, value in how.items():
            setattr(net, key, value)
        async with net, asyncio.timeout(30):
            await tell(net)

    asyncio.run(main())


async def until(condition: Callable[[], bool]) -> None:
    """Let the others go on until it holds; `story` ends those who wait in vain."""
    while True:
        if condition():
            return
        await asyncio.sleep(0.001)


def some(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)
