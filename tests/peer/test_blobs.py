"""Blobs between peers: found, fetched, passed on, given up only when nobody has them."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections import Counter
from pathlib import Path

import pytest

from p2psched.model import digests
from p2psched.model.blob import BlobRef
from p2psched.model.blob_messages import BlobChunk, BlobList, ReadBlob, StatBlob
from p2psched.model.errors import NoSpace, NotFound, ResultLost, Unavailable, UsageError
from p2psched.model.ids import PeerId
from p2psched.model.messages import AnswerBody, CallBody
from p2psched.peer import blob_fetch, blob_places
from tests.peer.blob_rig import A, B, C, Net, some, story, until
from tests.store_blobs.rig import QuickCalls, blob_path, listed, name, pieces

DATA = some(1, 64 * 30 + 5)  # 31 chunks


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "CHUNK_BYTES", 64)
    monkeypatch.setattr(blob_fetch, "LOST_RETRY_S", 0.01)


# --- the port -------------------------------------------------------------------------------------


def test_an_adopted_blob_is_here_and_read_in_parts(tmp_path: Path) -> None:
    async def tell(net: Net) -> None:
        ref = await net.give(A, DATA)
        blobs = net.sites[A].blobs
        assert blobs.is_here(ref)
        assert (blobs.folder / digests.file_name(ref.digest)).read_bytes() == DATA
        assert await blobs.read(ref, 60, 100) == DATA[60:160]
        assert blobs.total_bytes == len(DATA)

    story(tmp_path, tell)


def test_reading_what_is_not_here_says_what_to_do(tmp_path: Path) -> None:
    async def tell(net: Net) -> None:
        with pytest.raises(ResultLost, match=rf"{name(DATA)}.*job retry"):
            await net.read(A, name(DATA))

    story(tmp_path, tell)


@pytest.mark.parametrize("size", [0, 1, 64, 65, 640])
@pytest.mark.parametrize("hinted", [True, False])
def test_a_blob_is_fetched_with_and_without_a_hint(tmp_path: Path, size: int, hinted: bool) -> None:
    async def tell(net: Net) -> None:
        ref = await net.give(C, DATA[:size])
        if hinted:
            net.hints[ref.digest] = (C,)
        await net.sites[A].blobs.fetch([ref])
        assert net.has(DATA[:size]) == {A, C}
        assert await net.read(A, ref) == DATA[:size]
        asked_b = sum(n for (_, peer), n in net.count.items() if peer == B)
        assert bool(asked_b) is not hinted

    story(tmp_path, tell)


def test_a_source_that_breaks_off_is_followed_by_another_which_goes_on(tmp_path: Path) -> None:
    given: Counter[PeerId] = Counter()

    async def breaks(caller: PeerId, peer: PeerId, body: CallBody) -> AnswerBody | None:
        if isinstance(body, ReadBlob):
            given[peer] += 1
            if given[B] > 10:
                net_of[0].down.add(B)
        return None

    net_of: list[Net] = []

    async def tell(net: Net) -> None:
        net_of.append(net)
        ref = await net.give(B, DATA)
        await net.give(C, DATA)
        net.hints[ref.digest] = (B, C)
        await net.sites[A].blobs.fetch([ref])
        assert await net.read(A, ref) == DATA
        assert given[C] <= 31 - 10 + blob_fetch.WINDOW  # what B gave was not asked for again
        assert given[C] > 0

    story(tmp_path, tell, hook=breaks)


@pytest.mark.parametrize("what", ["bit", "short", "long", "other kind", "wrong list"])
def test_a_source_that_sends_wrong_bytes_is_left(
    tmp_path: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def spoils(caller: PeerId, peer: PeerId, body: CallBody) -> AnswerBody | None:
        if peer != B:
            return None
        if isinstance(body, StatBlob):
            wrong = bytes(len(listed(DATA)))
            return BlobList(wrong if what == "wrong list" else listed(DATA))
        if isinstance(body, ReadBlob) and body.chunk == 7:
            piece = pieces(DATA)[7]
            flipped = bytes([piece[0] ^ 1]) + piece[1:]
            wrong = {"bit": flipped, "short": piece[:-1], "long": piece + b"\0"}.get(what, b"")
            return BlobChunk(wrong) if wrong else BlobList(piece)
        return BlobChunk(pieces(DATA)[body.chunk]) if isinstance(body, ReadBlob) else None

    async def tell(net: Net) -> None:
        ref = await net.give(C, DATA)
        net.hints[ref.digest] = (B, C)
        with caplog.at_level(logging.INFO):
            await net.sites[A].blobs.fetch([ref])
        assert await net.read(A, ref) == DATA
        failed = [r for r in caplog.records if r.getMessage() == "blob-source-failed"]
        assert [record.__dict__["peer"] for record in failed] == [B]

    story(tmp_path, tell, hook=spoils)


def test_a_single_wrong_chunk_is_not_taken(tmp_path: Path) -> None:
    async def spoils(caller: PeerId, peer: PeerId, body: CallBody) -> AnswerBody | None:
        return BlobChunk(b"lies") if peer == B and isinstance(body, ReadBlob) else None

    async def tell(net: Net) -> None:
        ref = await net.give(C, b"true")
        net.hints[ref.digest] = (B, C)
        await net.sites[A].blobs.fetch([ref])
        assert await net.read(A, ref) == b"true"

    story(tmp_path, tell, hook=spoils)


def test_a_frozen_source_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blob_fetch, "CHUNK_PATIENCE_S", 0.05)
    monkeypatch.setattr(blob_places, "ASK_PATIENCE_S", 0.05)

    async def freezes(caller: PeerId, peer: PeerId, body: CallBody) -> AnswerBody | None:
        if peer == B:
            await asyncio.get_running_loop().create_future()
        return None

    async def tell(net: Net) -> None:
        ref = await net.give(C, DATA)
        net.hints[ref.digest] = (B, C)
        await net.sites[A].blobs.fetch([ref])
        assert await net.read(A, ref) == DATA

    story(tmp_path, tell, hook=freezes)


def test_those_who_want_the_same_blob_share_one_fetch(tmp_path: Path) -> None:
    async def tell(net: Net) -> None:
        ref = await net.give(B, DATA)
        async with asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(net.sites[A].blobs.fetch([ref, ref]))
        assert net.count["ReadBlob", B] == 31

    story(tmp_path, tell)


def test_few_chunks_are_on_their_way_at_a_time(tmp_path: Path) -> None:
    async def tell(net: Net) -> None:
        refs = [await net.give(B, some(seed, 640)) for seed in range(40)]
        for ref in refs:
            net.hints[ref.digest] = (B,)
        await net.sites[A].blobs.fetch(refs)
        assert all(net.sites[A].blobs.is_here(ref) for ref in refs)
        reads = net.count["ReadBlob", B]
        assert reads == 400
        # Besides chunks only questions for lists, one for each blob that is on its way.
        assert net.most[B] <= blob_fetch.WINDOW + blob_fetch.BLOBS_MAX

    story(tmp_path, tell)


def test_a_fetch_that_nobody_waits_for_any_more_ends(tmp_path: Path) -> None:
    began = asyncio.Event()
    ended = asyncio.Event()

    async def waits(caller: PeerId, peer: PeerId, body: CallBody) -> AnswerBody | None:
        if isinstance(body, ReadBlob):
            began.set()
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                ended.set()
        return None

    async def tell(net: Net) -> None:
        ref = await net.give(B, DATA)
        fetching = [asyncio.ensure_future(net.sites[A].blobs.fetch([ref])) for _ in range(2)]
        await began.wait()
        fetching[0].cancel()
        await asyncio.sleep(0)
        assert not ended.is_set()
        fetching[1].cancel()
        await ended.wait()
        net.hook = None
        await net.sites[A].blobs.fetch([ref])

    story(tmp_path, tell, hook=waits)


# --- lost or not ----------------------------------------------------------------------------------


def test_a_blob_is_lost_once_every_live_peer_has_said_so(tmp_path: Path) -> None:
    async def tell(net: Net) -> None:
        for work in (
            net.sites[A].blobs.fetch([name(DATA)]),
            net.sites[A].ask(ReadBlob(name(DATA), 0)),
            net.sites[A].ask(StatBlob(name(DATA))),
        ):
            with pytest.raises(ResultLost, match=rf"{name(DATA)}.*job retry"):
                await work

    story(tmp_path, tell)


def test_while_a_live_peer_is_silent_nothing_is_called_lost(tmp_path: Path) -> None:
    async def tell(net: Net) -> None:
        ref = await net.give(C, DATA)
        net.down.add(C)
        with pytest.raises(Unavailable, match="did not answer"):
            await net.sites[A].ask(ReadBlob(ref, 0))
        async with asyncio.TaskGroup() as group:
            fetching = group.create_task(net.sites[A].blobs.fetch([ref]))
            await until(lambda: net.count["StatBlob", C] >= 4)
            assert not fetching.done()
            net.down.clear()
        assert await net.read(A, ref) == DATA

    story(tmp_path, tell)


def test_a_blob_whose_only_holder_is_declared_dead_is_lost(tmp_path: Path) -> None:
    async def tell(net: Net) -> None:
        ref = await net.give(C, DATA)
        net.down.add(C)
        net.dead.add(C)
        with pytest.raises(ResultLost):
            await net.sites[A].blobs.fetch([ref])

    story(tmp_path, tell)


def test_a_peer_that_knows_nobody_yet_calls_nothing_lost(tmp_path: Path) -> None:
    """As after a start, before the ledger was read."""

    async def tell(net: Net) -> None:
        ref = await net.give(C, DATA)
        net.down.add(C)
        net.dead |= {A, B, C}
        with pytest.raises(Unavailable, match="does not know yet"):
            await net.sites[A].ask(ReadBlob(ref, 0))

    story(tmp_path, tell)


def test_who_is_alive_is_asked_of_the_ledger_before_a_blob_is_called_lost(tmp_path: Path) -> None:
    async def tell(net: Net) -> None:
        ref = await net.give(C, DATA)
        net.down.add(C)
        net.dead.add(C)

        async def catch_up() -> None:
            net.dead.clear()  # the news is that C came back

        net.sites[A].blobs.places.catch_up = catch_up
        with pytest.raises(Unavailable, match="did not answer"):
            await net.sites[A].ask(ReadBlob(ref, 0))
        net.down.clear()
        assert await net.sites[A].ask(ReadBlob(ref, 0)) == BlobChunk(pieces(DATA)[0])

    story(tmp_path, tell)


# --- what a peer answers --------------------------------------------------------------------------


def test_any_peer_answers_for_what_another_has(tmp_path: Path) -> None:
    async def tell(net: Net) -> None:
        ref = await net.give(C, DATA)
        for peer in (A, B, C):
            stat = await net.sites[peer].ask(StatBlob(ref))
            assert stat == BlobList(listed(DATA))
            for number, piece in enumerate(pieces(DATA)):
                assert await net.sites[peer].ask(ReadBlob(ref, number)) == BlobChunk(piece)
        assert net.has(DATA) == {C}
        assert net.count["ReadBlob", B] == 0  # where it is, is remembered

    story(tmp_path, tell)


def test_asked_for_its_own_disk_a_peer_asks_nobody(tmp_path: Path) -> None:
    async def tell(net: Net) -> None:
        ref = await net.give(C, DATA)
        for body in (StatBlob(ref, here=True), ReadBlob(ref, 0, here=True)):
            with pytest.raises(NotFound, match="ask another"):
                await net.sites[A].ask(body)
        assert not net.count

    story(tmp_path, tell)


@pytest.mark.parametrize("chunk", [-1, 31, 2**40])
def test_a_chunk_that_no_such_blob_has_is_refused(tmp_path: Path, chunk: int) -> None:
    async def tell(net: Net) -> None:
        ref = await net.give(C, DATA)
        with pytest.raises(UsageError, match=f"31 chunks.*no chunk {chunk}"):
            await net.sites[A].ask(ReadBlob(ref, chunk))
        assert not net.count

    story(tmp_path, tell)


def test_a_damaged_copy_is_read_from_another_peer_and_never_given(tmp_path: Path) -> None:
    async def tell(net: Net) -> None:
        ref = await net.give(A, DATA)
        await net.give(B, DATA)
        path = blob_path(net.sites[A].blobs.store, ref)
        path.chmod(0o644)
        path.write_bytes(bytes(len(DATA)))
        assert await net.sites[A].ask(ReadBlob(ref, 3)) == BlobChunk(pieces(DATA)[3])
        assert net.has(DATA) == {B}
        await net.sites[A].blobs.fetch([ref])
        assert await net.read(A, ref) == DATA

    story(tmp_path, tell)


# --- the disk -------------------------------------------------------------------------------------


def test_a_fetch_without_space_says_so_at_once(tmp_path: Path) -> None:
    async def tell(net: Net) -> None:
        ref = await net.give(B, DATA)
        net.sites[A].blobs.store.space_left_min = 2**60
        with pytest.raises(NoSpace, match="no space"):
            await net.sites[A].blobs.fetch([ref])

    story(tmp_path, tell)


def test_a_disk_that_fails_is_told_and_nothing_counts_as_durable(tmp_path: Path) -> None:
    class Broken(QuickCalls):
        def sync(self, descriptor: int) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    async def tell(net: Net) -> None:
        with pytest.raises(Unavailable, match="disk"):
            await net.give(A, DATA)
        assert [fault.errno for fault in net.disk_faults] == [errno.EIO]
        assert net.has(DATA) == set()

    story(tmp_path, tell, calls=Broken())


def test_garbage_is_what_is_neither_referenced_nor_touched(tmp_path: Path) -> None:
    async def tell(net: Net) -> None:
        blobs = net.sites[A].blobs
        held, old = await net.give(A, b"held"), await net.give(A, b"old")
        net.now.ms += 3_600_001
        new = await net.give(A, b"new")
        held_digests = {held.digest}
        assert await blobs.collect(lambda: held_digests, wall_ms=0) == 3
        here: dict[BlobRef, bool] = {ref: blobs.is_here(ref) for ref in (held, old, new)}
        assert here == {held: True, old: False, new: True}

    story(tmp_path, tell)


def test_a_blob_that_is_referenced_meanwhile_is_not_collected(tmp_path: Path) -> None:
    async def tell(net: Net) -> None:
        blobs = net.sites[A].blobs
        ref = await net.give(A, DATA)
        net.now.ms += 3_600_001
        looks = iter([set[bytes](), {ref.digest}])
        assert await blobs.collect(lambda: next(looks), wall_ms=0) == 0
        assert blobs.is_here(ref)

    story(tmp_path, tell)
