"""Uploads: resumed, refused for what is wrong, and answered once a majority has the bytes."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from p2psched.core.admission import RETRY_MS_MAX, RETRY_MS_MIN
from p2psched.model import digests
from p2psched.model.blob import BlobRef
from p2psched.model.blob_messages import BeginUpload, CopyBlob, EndUpload, UploadChunk, UploadState
from p2psched.model.errors import Busy, NotFound, Unavailable, UsageError
from p2psched.model.ids import PeerId
from p2psched.model.messages import AnswerBody, CallBody, Done
from p2psched.model.taskset import EMPTY, TaskSet
from p2psched.peer import blob_api
from p2psched.store.blob_calls import Bytes
from tests.peer.blob_rig import A, B, C, D, Net, send, some, story, until, upload
from tests.store_blobs.rig import QuickCalls, listed, name, pieces

DATA = some(1, 300)  # five chunks


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "CHUNK_BYTES", 64)
    monkeypatch.setattr(blob_api, "COPY_RETRY_S", 0.01)


async def _until_has(net: Net, data: bytes, peers: set[PeerId]) -> None:
    await until(lambda: net.has(data) == peers)


@pytest.mark.parametrize("size", [0, 1, 64, 300])
def test_an_upload_is_on_a_majority_when_it_ends_and_on_all_soon(tmp_path: Path, size: int) -> None:
    async def tell(net: Net) -> None:
        ref = await upload(net.sites[A], DATA[:size])
        assert len(net.has(DATA[:size])) >= 2
        await _until_has(net, DATA[:size], {A, B, C})
        assert await net.read(C, ref) == DATA[:size]

    story(tmp_path, tell)


def test_one_dead_voter_of_three_holds_nothing_up(tmp_path: Path) -> None:
    async def tell(net: Net) -> None:
        net.down.add(B)
        await upload(net.sites[A], DATA)
        assert net.has(DATA) == {A, C}

    story(tmp_path, tell)


def test_without_a_majority_the_end_is_not_answered_but_may_be_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blob_api, "COPY_PATIENCE_S", 0.1)

    async def tell(net: Net) -> None:
        net.down |= {B, C}
        await send(net.sites[A], DATA)
        with pytest.raises(Unavailable, match=r"on 1 peers.*no majority of the 3 voters"):
            await net.sites[A].ask(EndUpload(name(DATA)))
        net.down.clear()
        monkeypatch.setattr(blob_api, "COPY_PATIENCE_S", 20)
        assert await net.sites[A].ask(EndUpload(name(DATA))) == Done()
        assert len(net.has(DATA)) >= 2

    story(tmp_path, tell)


def test_a_peer_without_a_vote_needs_a_majority_besides_itself(tmp_path: Path) -> None:
    """Its own disk doesn't count: D and one voter would be no majority."""
    held = asyncio.Event()

    async def holds(caller: PeerId, peer: PeerId, body: CallBody) -> AnswerBody | None:
        if isinstance(body, CopyBlob) and peer == C:
            await held.wait()
        return None

    async def tell(net: Net) -> None:
        net.down.add(B)
        await send(net.sites[D], DATA)
        ending = asyncio.ensure_future(net.sites[D].ask(EndUpload(name(DATA))))
        await _until_has(net, DATA, {A, D})
        await asyncio.sleep(0)
        assert not ending.done()
        held.set()
        assert await ending == Done()
        assert net.has(DATA) == {A, C, D}

    story(tmp_path, tell, names=(A, B, C, D), hook=holds)


def test_a_copy_goes_on_when_the_client_that_wanted_it_is_gone(tmp_path: Path) -> None:
    held = asyncio.Event()

    async def holds(caller: PeerId, peer: PeerId, body: CallBody) -> AnswerBody | None:
        if isinstance(body, CopyBlob):
            await held.wait()
        return None

    async def tell(net: Net) -> None:
        await send(net.sites[A], DATA)
        ending = asyncio.ensure_future(net.sites[A].ask(EndUpload(name(DATA))))
        await until(lambda: net.in_flight[B] > 0)
        ending.cancel()
        held.set()
        await _until_has(net, DATA, {A, B, C})

    story(tmp_path, tell, hook=holds)


def test_an_upload_goes_on_where_it_broke_off(tmp_path: Path) -> None:
    async def tell(net: Net) -> None:
        site, ref = net.sites[A], name(DATA)
        await site.ask(BeginUpload(ref, listed(DATA)))
        for number in (4, 1):
            await site.ask(UploadChunk(ref, number, pieces(DATA)[number]))
        state = await site.ask(BeginUpload(ref, listed(DATA)))
        assert state == UploadState(TaskSet(((0, 1), (2, 4))))
        other = await net.sites[B].ask(BeginUpload(ref, listed(DATA)))
        assert other == UploadState(TaskSet.of(0, 5))
        await upload(site, DATA)
        await _until_has(net, DATA, {A, B, C})
        # Brought by a copy meanwhile, what B was sent is whole, and its end is answered, too.
        assert await net.sites[B].ask(UploadChunk(ref, 0, pieces(DATA)[0])) == Done()
        assert await net.sites[B].ask(EndUpload(ref)) == Done()

    story(tmp_path, tell)


def test_what_is_there_is_not_sent_again_and_is_no_garbage(tmp_path: Path) -> None:
    async def tell(net: Net) -> None:
        ref = await upload(net.sites[A], DATA)
        await _until_has(net, DATA, {A, B, C})
        net.now.ms += 3_600_001
        assert await net.sites[A].ask(BeginUpload(ref, listed(DATA))) == UploadState(EMPTY)
        await net.sites[A].ask(EndUpload(ref))
        pinned = [p for p in (A, B, C) if not net.sites[p].blobs.store.untouched(3_600_000)]
        assert A in pinned
        assert len(pinned) >= 2

    story(tmp_path, tell)


@pytest.mark.parametrize(
    ("body", "kind", "why"),
    [
        (BeginUpload(BlobRef(name(DATA).digest, 300), b""), UsageError, "bytes of chunk digests"),
        (BeginUpload(BlobRef(bytes(32), 300), bytes(320)), UsageError, "160 bytes of chunk"),
        (BeginUpload(BlobRef(bytes(32), 64), bytes(32)), UsageError, "not the checksums"),
        (UploadChunk(BlobRef(bytes(32), 64), 0, bytes(64)), NotFound, "begin it again"),
        (EndUpload(BlobRef(bytes(32), 64)), NotFound, "begin it again"),
    ],
)
def test_what_does_not_fit_or_was_not_begun_is_refused(
    tmp_path: Path, body: BeginUpload, kind: type[UsageError], why: str
) -> None:
    async def tell(net: Net) -> None:
        with pytest.raises(kind, match=why):
            await net.sites[A].ask(body)
        assert list((net.sites[A].blobs.folder / "incoming").iterdir()) == []

    story(tmp_path, tell)


@pytest.mark.parametrize(
    ("chunk", "data", "why"),
    [
        (0, bytes(63), "has 64 bytes, not 63"),
        (0, bytes(65), "has 64 bytes, not 65"),
        (0, bytes(64), "not what its checksum says"),
        (5, bytes(64), "no chunk 5"),
        (-1, bytes(64), "no chunk -1"),
    ],
)
def test_a_wrong_chunk_is_refused_at_once(
    tmp_path: Path, chunk: int, data: bytes, why: str
) -> None:
    async def tell(net: Net) -> None:
        site, ref = net.sites[A], name(DATA)
        await site.ask(BeginUpload(ref, listed(DATA)))
        with pytest.raises(UsageError, match=why):
            await site.ask(UploadChunk(ref, chunk, data))
        assert await site.ask(BeginUpload(ref, listed(DATA))) == UploadState(TaskSet.of(0, 5))

    story(tmp_path, tell)


def test_an_upload_can_not_end_before_it_is_whole(tmp_path: Path) -> None:
    async def tell(net: Net) -> None:
        site, ref = net.sites[A], name(DATA)
        await site.ask(BeginUpload(ref, listed(DATA)))
        await site.ask(UploadChunk(ref, 0, pieces(DATA)[0]))
        with pytest.raises(UsageError, match="lacks 4 of its 5 chunks"):
            await site.ask(EndUpload(ref))
        assert net.has(DATA) == set()

    story(tmp_path, tell)


def test_a_slow_disk_holds_few_chunks_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blob_api, "HELD_CHUNKS_MAX", 3)
    held = threading.Event()

    class Slow(QuickCalls):
        def write_at(self, descriptor: int, data: Bytes, offset: int) -> None:
            held.wait()
            super().write_at(descriptor, data, offset)

    async def tell(net: Net) -> None:
        site, ref = net.sites[A], name(DATA)
        await site.ask(BeginUpload(ref, listed(DATA)))
        sent = [
            asyncio.ensure_future(site.ask(UploadChunk(ref, n, piece)))
            for n, piece in enumerate(pieces(DATA)[:3])
        ]
        await asyncio.sleep(0)
        try:
            with pytest.raises(Busy, match="busy: 3 chunks wait for this peer's disk") as told:
                await site.ask(UploadChunk(ref, 3, pieces(DATA)[3]))
            assert RETRY_MS_MIN <= told.value.retry_after_s * 1000 <= RETRY_MS_MAX
        finally:
            held.set()
        assert [await task for task in sent] == [Done()] * 3

    story(tmp_path, tell, calls=Slow())


def test_a_copy_comes_from_its_source_or_from_whoever_has_it(tmp_path: Path) -> None:
    async def tell(net: Net) -> None:
        ref = await net.give(C, DATA)
        assert await net.sites[A].ask(CopyBlob(ref, source=C)) == Done()
        assert await net.sites[B].ask(CopyBlob(ref, source=D)) == Done()
        assert net.has(DATA) == {A, B, C}
        assert net.count["ReadBlob", C] >= 5

    story(tmp_path, tell)
