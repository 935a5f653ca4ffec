"""Uploads and downloads of clients: resumed at another peer, verified, with flat memory."""

from __future__ import annotations

import asyncio
import io
import mmap
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from p2psched.client import blobs
from p2psched.client.session import CHUNK_CALLS_MAX, Session
from p2psched.model import digests
from p2psched.model.blob import BlobRef
from p2psched.model.blob_messages import (
    BlobChunk,
    BlobList,
    EndUpload,
    ReadBlob,
    StatBlob,
    UploadChunk,
)
from p2psched.model.errors import ProtocolError, ResultLost, Unavailable, UsageError
from p2psched.model.ids import PeerId
from p2psched.model.messages import AnswerBody, CallBody
from tests.peer.blob_rig import A, B, Net, some, story
from tests.store_blobs.rig import name, put

T = TypeVar("T")

DATA = some(1, 64 * 40 + 7)  # 41 chunks


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "CHUNK_BYTES", 64)


class FakeSession(Session):
    """Asks the peers of a `Net`, the next one after a failure, as a real session does."""

    def __init__(self, net: Net) -> None:
        super().__init__(["127.0.0.1:1"], secret=b"")
        self.net = net
        self.order = list(net.sites)
        self.asked: Counter[tuple[str, PeerId]] = Counter()
        self.open = self.most = 0
        self.before: Callable[[PeerId, CallBody], Awaitable[AnswerBody | None]] | None = None

    async def call(self, body: CallBody, expect: type[T], *, spent_s: float = 0.0) -> T:
        for _ in range(20):
            peer = self.order[0]
            self.asked[type(body).__name__, peer] += 1
            self.open += 1
            self.most = max(self.most, self.open)
            try:
                answer = await self.before(peer, body) if self.before is not None else None
                answer = answer or await self.net.call(PeerId("client"), peer, body)
            except Unavailable:
                if self.order[0] == peer:
                    self.order.append(self.order.pop(0))
            else:
                assert isinstance(answer, expect)
                return answer
            finally:
                self.open -= 1
        raise Unavailable("nobody answers")


# --- up -------------------------------------------------------------------------------------------


def _sources(folder: Path, data: bytes) -> dict[str, blobs.Buffer | Path | io.BytesIO]:
    path = folder / "source"
    path.write_bytes(data)
    return {
        "path": path,
        "bytes": data,
        "bytearray": bytearray(data),
        "view": memoryview(data),
        "stream": io.BytesIO(data),
    }


@pytest.mark.parametrize("kind", ["path", "bytes", "bytearray", "view", "stream"])
@pytest.mark.parametrize("size", [0, 64, len(DATA)])
def test_what_was_uploaded_comes_back(tmp_path: Path, kind: str, size: int) -> None:
    data = DATA[:size]

    async def tell(net: Net) -> None:
        session = FakeSession(net)
        ref = await blobs.upload(session, _sources(tmp_path, data)[kind])
        assert ref == name(data)
        assert len(net.has(data)) >= 2
        assert bytes(await blobs.read(session, ref)) == data

    story(tmp_path, tell)


def test_an_array_of_any_items_is_uploaded_as_its_bytes(tmp_path: Path) -> None:
    async def tell(net: Net) -> None:
        ref = await blobs.upload(FakeSession(net), memoryview(DATA[:640]).cast("Q"))
        assert ref == name(DATA[:640])

    story(tmp_path, tell)


def test_the_same_bytes_are_sent_once(tmp_path: Path) -> None:
    async def tell(net: Net) -> None:
        session = FakeSession(net)
        await blobs.upload(session, DATA)
        await blobs.upload(session, DATA)
        assert session.asked["UploadChunk", A] == 41

    story(tmp_path, tell)


def test_when_its_peer_dies_an_upload_begins_again_at_another(tmp_path: Path) -> None:
    async def tell(net: Net) -> None:
        session = FakeSession(net)

        async def dies(peer: PeerId, body: CallBody) -> None:
            if isinstance(body, UploadChunk) and body.chunk == 20 and peer == A:
                net.down.add(A)

        session.before = dies
        ref = await blobs.upload(session, DATA)
        assert net.has(DATA) >= {B}
        assert session.asked["BeginUpload", B] >= 1
        assert bytes(await blobs.read(session, ref)) == DATA

    story(tmp_path, tell)


def test_what_another_peer_has_already_is_not_sent_there(tmp_path: Path) -> None:
    async def tell(net: Net) -> None:
        session = FakeSession(net)

        async def dies(peer: PeerId, body: CallBody) -> None:
            if isinstance(body, EndUpload) and peer == A:
                net.down.add(A)
                put(net.sites[B].blobs.store, DATA)

        session.before = dies
        await blobs.upload(session, DATA)
        assert session.asked["UploadChunk", B] == 0

    story(tmp_path, tell)


def test_a_file_that_changes_while_it_is_sent_is_refused(tmp_path: Path) -> None:
    async def tell(net: Net) -> None:
        source = tmp_path / "source"
        source.write_bytes(DATA)
        session = FakeSession(net)

        async def changes(peer: PeerId, body: CallBody) -> None:
            source.write_bytes(bytes(len(DATA)))

        session.before = changes
        with pytest.raises(UsageError, match="checksum"):
            await blobs.upload(session, source)
        assert net.has(DATA) == set()

    story(tmp_path, tell)


def test_a_file_that_can_not_be_read_is_the_callers_mistake(tmp_path: Path) -> None:
    async def tell(net: Net) -> None:
        with pytest.raises(UsageError, match=r"can.t read .*missing"):
            await blobs.upload(FakeSession(net), tmp_path / "missing")

    story(tmp_path, tell)


def test_peers_that_forget_the_upload_again_and_again_are_given_up(tmp_path: Path) -> None:
    async def tell(net: Net) -> None:
        session = FakeSession(net)

        async def forgets(peer: PeerId, body: CallBody) -> None:
            if isinstance(body, EndUpload):
                for site in net.sites.values():
                    store = site.blobs.store
                    incoming = store.incoming(body.ref)
                    if incoming is not None:
                        incoming.discard()

        session.before = forgets
        with pytest.raises(Unavailable, match="begun 16 times"):
            await blobs.upload(session, DATA)

    story(tmp_path, tell)


# --- down -----------------------------------------------------------------------------------------


def test_a_download_appears_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    async def tell(net: Net) -> None:
        ref = await net.give(B, DATA)
        target = tmp_path / "out"
        target.mkdir()
        await blobs.download(FakeSession(net), ref, target / "model.bin")
        assert (target / "model.bin").read_bytes() == DATA
        assert [path.name for path in target.iterdir()] == ["model.bin"]

    story(tmp_path, tell)


def test_a_download_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    async def tell(net: Net) -> None:
        ref = await net.give(B, DATA)
        target = tmp_path / "out"
        target.mkdir()
        (target / "model.bin").write_bytes(b"old")
        session = FakeSession(net)

        async def loses(peer: PeerId, body: CallBody) -> None:
            if isinstance(body, ReadBlob) and body.chunk == 30:
                raise ResultLost("gone")

        session.before = loses
        with pytest.raises(ResultLost):
            await blobs.download(session, ref, target / "model.bin")
        assert [path.name for path in target.iterdir()] == ["model.bin"]
        assert (target / "model.bin").read_bytes() == b"old"

    story(tmp_path, tell)


def test_a_place_that_can_not_be_written_is_the_callers_mistake(tmp_path: Path) -> None:
    async def tell(net: Net) -> None:
        ref = await net.give(B, DATA)
        with pytest.raises(UsageError, match=r"can.t write .*no-folder"):
            await blobs.download(FakeSession(net), ref, tmp_path / "no-folder" / "model.bin")

    story(tmp_path, tell)


def test_a_stream_gets_the_chunks_in_order_however_they_come(tmp_path: Path) -> None:
    async def tell(net: Net) -> None:
        ref = await net.give(B, DATA)
        session = FakeSession(net)
        late = asyncio.Event()

        async def delays(peer: PeerId, body: CallBody) -> None:
            if isinstance(body, ReadBlob):
                if body.chunk == 3:
                    await late.wait()
                if body.chunk == 7:
                    late.set()

        session.before = delays
        sink = io.BytesIO()
        await blobs.download(session, ref, sink)
        assert sink.getvalue() == DATA

    story(tmp_path, tell)


def test_a_download_goes_on_at_another_peer_where_it_broke_off(tmp_path: Path) -> None:
    async def tell(net: Net) -> None:
        ref = await net.give(A, DATA)
        await net.give(B, DATA)
        session = FakeSession(net)
        given: Counter[int] = Counter()

        async def dies(peer: PeerId, body: CallBody) -> None:
            if isinstance(body, ReadBlob):
                if body.chunk == 25:
                    net.down.add(A)
                given[body.chunk] += 1

        session.before = dies
        assert await blobs.read(session, ref) == DATA
        assert all(given[number] == 1 for number in range(25 - blobs.WINDOW))
        assert session.asked["ReadBlob", B] > 0

    story(tmp_path, tell)


def test_a_large_blob_is_mapped_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blobs, "IN_MEMORY_BYTES_MAX", 1000)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()

    async def tell(net: Net) -> None:
        ref = await net.give(B, DATA)
        found = await blobs.read(FakeSession(net), ref)
        assert isinstance(found, mmap.mmap)
        assert found[:] == DATA
        assert list((tmp_path / "temporary").iterdir()) == []

    story(tmp_path, tell)


@pytest.mark.parametrize("wrong_times", [1, blobs.WRONG_CHUNKS_MAX])
@pytest.mark.parametrize("size", [50, len(DATA)])
def test_a_wrong_chunk_is_asked_for_again_and_never_returned(
    tmp_path: Path, wrong_times: int, size: int
) -> None:
    data = DATA[:size]

    async def tell(net: Net) -> None:
        ref = await net.give(A, data)
        session = FakeSession(net)
        lies = iter(range(wrong_times))

        async def spoils(peer: PeerId, body: CallBody) -> AnswerBody | None:
            if isinstance(body, ReadBlob) and body.chunk == 0 and next(lies, None) is not None:
                return BlobChunk(bytes(min(size, 64)))
            return None

        session.before = spoils
        if wrong_times < blobs.WRONG_CHUNKS_MAX:
            assert await blobs.read(session, ref) == data
        else:
            with pytest.raises(ProtocolError, match="wrong checksum"):
                await blobs.read(session, ref)

    story(tmp_path, tell)


def test_a_wrong_list_is_an_error(tmp_path: Path) -> None:
    async def tell(net: Net) -> None:
        ref = await net.give(A, DATA)
        session = FakeSession(net)

        async def spoils(peer: PeerId, body: CallBody) -> AnswerBody | None:
            return BlobList(bytes(41 * 32)) if isinstance(body, StatBlob) else None

        session.before = spoils
        with pytest.raises(ProtocolError, match="wrong list"):
            await blobs.read(session, ref)

    story(tmp_path, tell)


def test_what_nobody_has_is_lost(tmp_path: Path) -> None:
    async def tell(net: Net) -> None:
        with pytest.raises(ResultLost, match="job retry"):
            await blobs.read(FakeSession(net), name(DATA))

    story(tmp_path, tell)


def test_many_transfers_share_the_sessions_limit_of_chunks(tmp_path: Path) -> None:
    async def tell(net: Net) -> None:
        made: list[BlobRef] = [await net.give(A, some(seed, 640)) for seed in range(30)]
        session = FakeSession(net)
        async with asyncio.TaskGroup() as group:
            reads = [group.create_task(blobs.read(session, ref)) for ref in made]
        assert [name(bytes(task.result())) for task in reads] == made
        assert session.most <= CHUNK_CALLS_MAX + 30  # and one question for a list each
        assert session.chunk_calls._value == CHUNK_CALLS_MAX

    story(tmp_path, tell)
