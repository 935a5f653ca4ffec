"""All peers are stopped and started again, one after another, while work goes on."""

from __future__ import annotations

import asyncio

import pytest

from tests.integration.load import load
from tests.integration.rig import Rig, until

pytestmark = pytest.mark.process


def test_a_rolling_restart_under_load_loses_nothing(rig: Rig) -> None:
    async def story() -> None:
        async with load(rig.client()) as running:
            for name in list(rig.cluster.peers):
                process = rig.cluster.peers[name].process
                assert process is not None
                process.terminate()
                await until(lambda process=process: process.poll() is not None)  # type: ignore[misc]
                assert process.returncode == 0
                before = len(running)
                await until(lambda before=before: len(running) >= before + 10)  # type: ignore[misc]
                rig.cluster.restart(name)
                await rig.heal()
        async with rig.client() as client:
            await running.verify(client)
            await (await client.map(abs, range(3))).results()
        assert await rig.agree()

    asyncio.run(story())
