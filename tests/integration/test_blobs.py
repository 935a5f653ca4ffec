"""Large data through a real cluster: the peer in between dies, memory stays flat."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from p2psched.client import blobs
from p2psched.client.client import Client
from p2psched.model.blob_messages import EndUpload, ReadBlob, UploadChunk
from p2psched.model.limits import GIB, KIB, MIB
from p2psched.model.messages import CallBody
from tests.integration.rig import Rig, until

pytestmark = pytest.mark.process

GROWTH_MAX: Final = 64 * MIB
PIECE: Final = 4 * MIB


def _after(client: Client, kind: type[CallBody], count: int, act: Callable[[], None]) -> None:
    """`act` once the client has had `count` answers to calls of this kind."""
    answered: Counter[type[object]] = Counter()
    call = client.session.call

    async def counting(body: CallBody, expect: type[object]) -> object:
        answer = await call(body, expect)
        answered[type(body)] += 1
        if isinstance(body, kind) and answered[type(body)] == count:
            act()
        return answer

    client.session.call = counting  # type: ignore[method-assign, assignment]


def _talks_to(rig: Rig, client: Client) -> str:
    address = client.session.address
    return next(name for name, peer in rig.cluster.peers.items() if peer.address == address)


def test_64_mib_go_up_and_down_while_the_peer_in_between_is_killed(rig: Rig) -> None:
    data = random.Random(7).randbytes(64 * MIB)
    killed: list[str] = []

    def kill(client: Client) -> Callable[[], None]:
        def act() -> None:
            killed.append(_talks_to(rig, client))
            rig.cluster.kill(killed[-1])

        return act

    async def story() -> None:
        async with rig.client() as client:
            _after(client, UploadChunk, 60, kill(client))
            ref = await blobs.upload(client.session, data)
        assert len(killed) == 1
        await rig.heal()
        async with rig.client() as client:
            _after(client, ReadBlob, 60, kill(client))
            found = await blobs.read(client.session, ref)
        assert bytes(found) == data
        assert len(killed) == 2
        await rig.heal()

    asyncio.run(story())


def test_what_is_uploaded_survives_the_end_of_all_peers(rig: Rig, tmp_path: Path) -> None:
    """kill -9 right after the answer: the bytes are on the disks of a majority."""
    data = random.Random(8).randbytes(3 * MIB + 1)

    def kill_all() -> None:
        for name in rig.cluster.peers:
            rig.cluster.kill(name)

    async def story() -> None:
        async with rig.client() as client:
            _after(client, EndUpload, 1, kill_all)
            ref = await blobs.upload(client.session, data)
        await rig.heal()
        async with rig.client() as client:
            await blobs.download(client.session, ref, tmp_path / "back")
            assert (tmp_path / "back").read_bytes() == data
            held = [
                list((peer.data / "blobs").glob(f"*/{ref}")) for peer in rig.cluster.peers.values()
            ]
            assert sum(map(bool, held)) >= 2

    asyncio.run(story())


def _begin_peak(pid: int | str) -> int:
    """Count the peak from now on: what other tests did is not meant."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return _peak_bytes(pid)


def _peak_bytes(pid: int | str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * KIB
    raise AssertionError(pid)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_memory_stays_flat_while_1_gib_goes_up_and_down(rig: Rig, tmp_path: Path) -> None:
    source, back = tmp_path / "source", tmp_path / "back"
    rng = random.Random(9)
    with source.open("wb") as file:
        for _ in range(GIB // PIECE):
            file.write(rng.randbytes(PIECE))
    processes = {"client": "self"}
    processes |= {name: str(peer.pid) for name, peer in rig.cluster.peers.items()}

    async def story() -> None:
        async with rig.client() as client:
            before = {name: _begin_peak(pid) for name, pid in processes.items()}
            ref = await blobs.upload(client.session, source)

            async def everywhere() -> bool:
                statuses = [(peer.data / "blobs") for peer in rig.cluster.peers.values()]
                return all(list(folder.glob(f"*/{ref}")) for folder in statuses)

            await until(everywhere, within_s=120)
            await blobs.download(client.session, ref, back)
            growth = {name: _peak_bytes(pid) - before[name] for name, pid in processes.items()}
            print({name: f"{size / MIB:.1f} MiB" for name, size in growth.items()})
            assert max(growth.values()) <= GROWTH_MAX, growth

    asyncio.run(story())
    with source.open("rb") as one, back.open("rb") as two:
        while piece := one.read(PIECE):
            assert two.read(PIECE) == piece
        assert not two.read(1)
