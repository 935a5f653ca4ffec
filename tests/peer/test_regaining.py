"""A peer that asks the others for what it lost waits for them, and not for ever."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from p2psched.core.raft.core import Raft
from p2psched.model.errors import Damaged
from p2psched.peer.regaining import PATIENCE_ELECTIONS, await_regained
from p2psched.testing.virtual_time import run_virtually

LOST = Damaged("log-00000001.seg is damaged at byte 64", file="log-00000001.seg", offset=64)
ELECTION_MS = 1_000
PATIENCE_S = PATIENCE_ELECTIONS * ELECTION_MS / 1000


class LoopClock:
    """The time of the running loop."""

    def now_ms(self) -> int:
        return int(asyncio.get_running_loop().time() * 1000)

    def wall_ms(self) -> int:
        return self.now_ms()


class Told:
    """As much of a core as is looked at."""

    is_regaining = True
    is_led = False

    def leader_is_live(self) -> bool:
        return self.is_led


async def watched(told: Told) -> float:
    """Until it ends, for whatever reason."""
    raft = cast("Raft", told)
    await await_regained(raft, LOST, clock=LoopClock(), election_ms_max=ELECTION_MS)
    return asyncio.get_running_loop().time()


def test_it_ends_when_the_log_is_whole() -> None:
    async def story() -> float:
        told = Told()
        loop = asyncio.get_running_loop()
        loop.call_later(20, setattr, told, "is_regaining", False)
        return await watched(told)

    assert run_virtually(story()) == pytest.approx(20, abs=1)


def test_without_a_leader_it_says_where_the_damage_is_and_what_to_do() -> None:
    with pytest.raises(Damaged, match="bring back an intact copy") as raised:
        run_virtually(watched(Told()))
    assert (raised.value.file, raised.value.offset) == (LOST.file, LOST.offset)
    assert raised.value.exit_code == 6
    assert str(LOST) in str(raised.value)


def test_as_long_as_somebody_leads_it_may_take_its_time() -> None:
    async def story() -> float:
        told = Told()
        told.is_led = True
        loop = asyncio.get_running_loop()
        loop.call_later(10 * PATIENCE_S, setattr, told, "is_regaining", False)
        return await watched(told)

    assert run_virtually(story()) >= 10 * PATIENCE_S
