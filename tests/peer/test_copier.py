"""The copier: large results on enough disks before they are told, whoever does not answer."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from p2psched.core.machine import Machine
from p2psched.core.owner import CopyBlobs
from p2psched.core.state import PeerRow
from p2psched.model.blob import BlobRef, ResultBlob
from p2psched.model.blob_messages import CopyBlob
from p2psched.model.commands import PeerInfo
from p2psched.model.digests import digest_of
from p2psched.model.errors import Unavailable
from p2psched.model.ids import PeerId
from p2psched.model.messages import AnswerBody, CallBody, Done
from p2psched.peer import copier as module
from p2psched.peer.copier import Copier
from p2psched.testing.virtual_time import run_virtually

PEERS = [PeerId(f"{number:032x}") for number in range(1, 6)]
ME = PEERS[0]
BLOB = ResultBlob(7, "", BlobRef(digest_of(b"x"), 1))


class FakeOthers:
    def __init__(self, *, broken: set[PeerId], frozen: set[PeerId]) -> None:
        self.broken, self.frozen = broken, frozen
        self.asked: list[PeerId] = []

    def connected(self) -> frozenset[PeerId]:
        return frozenset(PEERS)

    async def call(self, peer: PeerId, body: CallBody) -> AnswerBody:
        assert body == CopyBlob(BLOB.ref, ME)
        self.asked.append(peer)
        if peer in self.broken:
            raise Unavailable("gone")
        if peer in self.frozen:
            await asyncio.get_running_loop().create_future()
        return Done()


def copied(
    copies: int,
    *,
    peers: int = 5,
    broken: set[PeerId] | None = None,
    frozen: set[PeerId] | None = None,
    dies: PeerId | None = None,
) -> tuple[float, tuple[PeerId, ...], FakeOthers]:
    """Seconds it took, who has the blob then, and who was asked."""
    machine = Machine()
    for peer in PEERS[:peers]:
        machine.peers[peer] = PeerRow(PeerInfo(peer, 1, "", "", 1, 1, "", ""))
    others = FakeOthers(broken=broken or set(), frozen=frozen or set())

    async def work() -> tuple[float, tuple[PeerId, ...]]:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[tuple[ResultBlob, ...]] = loop.create_future()
        copier = Copier(
            me=ME,
            state=machine,
            others=others,
            on_copied=lambda number, blobs: done.set_result(blobs) if number == 3 else None,
        )
        running = loop.create_task(copier.run())
        loop.call_soon(copier.start, CopyBlobs(3, (BLOB,), copies))
        if dies is not None:
            loop.call_later(1.0, setattr, machine.peers[dies], "live", False)
        blobs = await done
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        assert [(blob.index, blob.name, blob.ref) for blob in blobs] == [(7, "", BLOB.ref)]
        return loop.time(), blobs[0].holders

    seconds, holders = run_virtually(work())
    return seconds, holders, others


def test_as_many_disks_as_the_job_asks_for_have_a_result() -> None:
    for copies in (1, 2, 3):
        _, holders, others = copied(copies)
        assert len(holders) == copies
        assert ME in holders
        assert len(others.asked) == copies - 1


def test_fewer_peers_hold_what_they_can() -> None:
    _, holders, _ = copied(3, peers=2)
    assert len(holders) == 2
    assert copied(2, peers=1)[1] == (ME,)


def test_a_peer_that_fails_is_replaced_by_another() -> None:
    _, _, others = copied(2)
    first = others.asked[0]
    _, holders, again = copied(2, broken={first})
    assert first not in holders
    assert len(holders) == 2
    assert again.asked[0] == first


def test_a_frozen_peer_is_given_up_when_it_is_declared_down() -> None:
    first = copied(2)[2].asked[0]
    seconds, holders, _ = copied(2, frozen={first}, dies=first)
    assert 1.0 <= seconds <= 1.5
    assert len(holders) == 2
    assert first not in holders


def test_a_frozen_peer_that_nobody_declares_down_is_given_up_in_the_end() -> None:
    first = copied(2)[2].asked[0]
    seconds, holders, _ = copied(2, frozen={first})
    assert seconds < 30
    assert len(holders) == 2


def test_who_copies_nothing_is_not_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    def until(period_s: float) -> float:
        pauses.append(period_s)
        return period_s

    monkeypatch.setattr(module, "until_beat", until)

    async def idle() -> None:
        others = FakeOthers(broken=set(), frozen=set())
        copier = Copier(me=ME, state=Machine(), others=others, on_copied=lambda _n, _b: None)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(60):
                await copier.run()

    run_virtually(idle())
    assert pauses == []
    first = copied(2)[2].asked[0]
    copied(2, frozen={first}, dies=first)
    assert 5 <= len(pauses) <= 10
