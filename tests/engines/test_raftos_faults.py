"""What raftos 0.2.6 does as released, and what of it is left when it is hardened: nothing.

Each sequence is played to both. That the first one fails is as much of the test as that the second
one doesn't: it is why the package isn't used as it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.engines.test_contract import needs_raftos

if TYPE_CHECKING:
    from tests.engines.members import Driven

pytestmark = needs_raftos

Play = Callable[[int, Callable[["Driven"], Awaitable[None]]], None]


@pytest.fixture(params=["released", "hardened"])
def kind(request: pytest.FixtureRequest) -> str:
    text: str = request.param
    return text


@pytest.fixture
def play(kind: str, tmp_path: Path) -> Play:
    """A sequence, to one member of a group of this size."""
    from tests.engines.members import Hardened, Stock  # noqa: PLC0415 (they need raftos)

    def run(size: int, sequence: Callable[[Driven], Awaitable[None]]) -> None:
        async def main() -> None:
            driven = (Stock if kind == "released" else Hardened)(size, tmp_path)
            async with asyncio.timeout(20):
                await sequence(driven)

        asyncio.run(main())

    return run


def test_two_of_four_are_no_majority(kind: str, play: Play) -> None:
    """Split 2|2, both halves of a group elect a leader, and both commit."""

    async def sequence(member: Driven) -> None:
        term = member.campaign()
        member.grants(1, term)
        assert member.leads == (kind == "released")
        if not member.leads:
            member.grants(2, term)  # three of four
        before = member.commit
        is_acknowledged = member.write(1)
        await asyncio.sleep(0)
        member.acks(1, term, member.length)
        member.acks(1, term, member.length)  # the next one tells raftos to look
        await asyncio.sleep(0)
        assert is_acknowledged() == (kind == "released")
        assert (member.commit > before) == (kind == "released")

    play(4, sequence)


def test_a_vote_is_kept_over_a_restart(kind: str, play: Play) -> None:
    async def sequence(member: Driven) -> None:
        assert await member.asks_for_vote(1, 7)
        member.restart()
        assert await member.asks_for_vote(2, 7) == (kind == "released")

    play(3, sequence)


def test_who_stood_itself_votes_for_nobody_else_in_that_term(kind: str, play: Play) -> None:
    async def sequence(member: Driven) -> None:
        term = member.campaign()
        member.give_up()
        assert await member.asks_for_vote(1, term) == (kind == "released")

    play(3, sequence)


def test_a_vote_of_an_earlier_term_does_not_count(kind: str, play: Play) -> None:
    """And surely not twice: in a group of five one voter makes a leader."""

    async def sequence(member: Driven) -> None:
        earlier = member.campaign()
        member.give_up()
        term = member.campaign()
        assert term > earlier
        member.grants(1, earlier)
        member.grants(1, earlier)
        assert member.leads == (kind == "released")

    play(5, sequence)


def test_a_vote_that_arrives_twice_counts_once(kind: str, play: Play) -> None:
    async def sequence(member: Driven) -> None:
        term = member.campaign()
        member.grants(1, term)
        member.grants(1, term)
        assert member.leads == (kind == "released")
        member.grants(2, term)
        assert member.leads

    play(5, sequence)


def test_an_append_that_arrives_again_erases_nothing(kind: str, play: Play) -> None:
    """What it erases is committed: with the leader gone, acknowledged writes are lost."""

    async def sequence(member: Driven) -> None:
        member.appends(1, 1, 0, [1, 1, 1, 1, 1], commit=5)
        assert member.length == 5
        assert member.commit == 5
        member.appends(1, 1, 1, [1], commit=1)  # as it came before, delivered late
        assert member.length == (2 if kind == "released" else 5)

    play(3, sequence)


def test_writes_that_run_together_are_each_acknowledged_when_committed(
    kind: str, play: Play
) -> None:
    """As released, the last one is acknowledged for the first, and all others wait for ever."""

    async def sequence(member: Driven) -> None:
        term = member.elect()
        before = member.length
        writes = [member.write(number) for number in range(50)]
        await asyncio.sleep(0)
        member.acks(1, term, before + 1)
        member.acks(1, term, before + 1)
        await asyncio.sleep(0)
        early = [is_acknowledged() for is_acknowledged in writes]
        assert early == [kind == "hardened", *[False] * 48, kind == "released"]
        member.acks(1, term, before + 50)
        member.acks(1, term, before + 50)
        await asyncio.sleep(0)
        ended = sum(is_acknowledged() for is_acknowledged in writes)
        assert ended == (1 if kind == "released" else 50)

    play(3, sequence)
