"""A follower whose log was damaged while it was down: it says so, asks the others, votes again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from p2psched.model.errors import Damaged
from p2psched.store.disk import OsDisk
from p2psched.store.log import LogStore
from p2psched.store.regain import ASIDE, NOTE
from tests.integration.rig import Rig, running_cluster, until

pytestmark = pytest.mark.process

JOBS = 20
HALTS_WITHIN_S = 180.0


def flip_a_bit_in_the_middle(ledger: Path) -> tuple[str, int]:
    segment = max(ledger.glob("log-*.seg"))
    data = bytearray(segment.read_bytes())
    at = len(data) // 2
    data[at] ^= 4
    segment.write_bytes(bytes(data))
    with pytest.raises(Damaged) as raised:
        LogStore.open(OsDisk(ledger))
    assert raised.value.file == segment.name
    assert raised.value.offset is not None
    assert raised.value.offset <= at
    return segment.name, raised.value.offset


def test_a_follower_with_a_flipped_bit_in_its_log_gets_whole_by_itself_and_votes(
    rig: Rig,
) -> None:
    async def story() -> None:
        async with rig.client() as client:
            for number in range(JOBS):
                await (await client.map(abs, [-number])).results()
        name = await rig.follower()
        peer = rig.cluster.peers[name]
        ledger = peer.data / "ledger"
        rig.cluster.kill(name)
        file, offset = flip_a_bit_in_the_middle(ledger)
        rig.cluster.restart(name)
        await until((ledger / (ASIDE + file)).exists)
        await rig.heal()
        await until(lambda: not (ledger / NOTE).exists())
        assert await rig.agree()
        said = peer.log.read_text()
        assert f"{file} is damaged at byte {offset}" in said
        assert "log-damaged" in said
        assert "log-regained" in said
        # Of three voters two are left: whoever leads next does so with the vote of this one.
        leader = await rig.leader()
        third = next(other for other in rig.cluster.peers if other not in (name, leader))
        rig.cluster.kill(third)
        rig.cluster.kill(leader)
        rig.cluster.restart(third)
        assert await rig.leader() in (name, third)
        async with rig.client(name) as client:
            assert await (await client.map(abs, [-7])).results() == [7]
        await rig.heal()
        assert await rig.agree()

    asyncio.run(story())


@pytest.mark.long
@pytest.mark.timeout(600)
def test_without_an_intact_majority_the_damaged_halt_with_file_and_offset(tmp_path: Path) -> None:
    """Nobody can be asked: one sound peer of three must not speak for what the others had."""

    async def story(rig: Rig) -> None:
        peers = rig.cluster.peers
        async with rig.client() as client:
            await (await client.map(abs, [-1])).results()
        for name in peers:
            rig.cluster.kill(name)
        damages = {
            name: flip_a_bit_in_the_middle(peers[name].data / "ledger") for name in ("a", "b")
        }
        for name in peers:
            rig.cluster.restart(name)
        for name, (file, offset) in damages.items():
            process = peers[name].process
            assert process is not None
            code = await asyncio.to_thread(process.wait, HALTS_WITHIN_S)
            assert code == Damaged.exit_code
            said = peers[name].log.read_text()
            assert f"{file} is damaged at byte {offset}" in said
            assert "bring back an intact copy" in said
        assert peers["c"].runs

    with running_cluster(tmp_path) as rig:
        asyncio.run(story(rig))
