"""A long pause ends early for whoever stirs it, an ordinary one does not."""

from __future__ import annotations

import asyncio

import pytest

from p2psched.model.ids import PeerId
from p2psched.model.raft import Member, Membership
from p2psched.observe.beat import until_beat
from p2psched.peer.pauses import Pauses
from p2psched.peer.regularity import REGULAR_MS, SELDOM_MS, Regularity
from p2psched.testing.virtual_time import run_virtually

PERIOD_S, SELDOM_S = 1.0, 100.0


def took_s(*, seldom: bool, stir_after_s: float | None = None) -> float:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        pauses = Pauses(PERIOD_S)
        await pauses.wait()  # from a beat on
        began_s = loop.time()
        if stir_after_s is not None:
            loop.call_later(stir_after_s, pauses.stir)
        await pauses.wait(SELDOM_S if seldom else None)
        pauses.stir()  # nobody waits
        return loop.time() - began_s

    return run_virtually(main())


def test_a_pause_is_as_long_as_it_was_asked_for() -> None:
    assert took_s(seldom=False) == pytest.approx(PERIOD_S)
    assert took_s(seldom=True) > 10 * PERIOD_S
    assert took_s(seldom=False, stir_after_s=0.5) == pytest.approx(PERIOD_S)


def test_what_comes_makes_a_long_pause_an_ordinary_one() -> None:
    after_s = took_s(seldom=True, stir_after_s=0.05)
    assert after_s == pytest.approx(PERIOD_S)


def test_what_comes_in_the_turn_in_which_a_long_pause_ends_changes_nothing() -> None:
    async def main() -> float:
        loop, pauses = asyncio.get_running_loop(), Pauses(PERIOD_S)
        await pauses.wait()  # from a beat on
        began_s = loop.time()
        waiting = loop.create_task(pauses.wait(SELDOM_S))
        await asyncio.sleep(0)
        stirred: list[bool] = []

        def stir() -> None:
            pauses.stir()
            stirred.append(waiting.done())

        loop.call_at(began_s + until_beat(SELDOM_S), stir)  # behind the timer of the pause
        await waiting
        assert stirred == [False]
        return loop.time() - began_s

    assert run_virtually(main()) == took_s(seldom=True)


def test_a_pause_that_is_cancelled_leaves_no_timer() -> None:
    async def main() -> None:
        pauses = Pauses(PERIOD_S)
        waiting = asyncio.get_running_loop().create_task(pauses.wait(SELDOM_S))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert not pauses.is_long
        await asyncio.sleep(2 * SELDOM_S)  # nothing is set that nobody waits for

    run_virtually(main())


def group(*names: str) -> Membership:
    return Membership(tuple(Member(PeerId(name), name, "", votes=True) for name in names))


def test_a_group_that_stays_as_it_is_is_looked_at_seldom_until_it_changes() -> None:
    regularity, first, second = Regularity(), group("a"), group("a", "b")
    assert all(regularity.is_due(ms, first) for ms in range(0, REGULAR_MS, 100))
    looks = [ms for ms in range(0, 5 * SELDOM_MS, 100) if regularity.is_due(REGULAR_MS + ms, first)]
    assert looks == [SELDOM_MS * n - 100 for n in range(1, 6)]  # a beat after the last one before
    assert all(regularity.is_due(2 * REGULAR_MS + ms, second) for ms in range(0, 1_000, 100))
