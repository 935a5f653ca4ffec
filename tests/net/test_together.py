"""The same work for several things at once."""

from __future__ import annotations

import asyncio

import pytest

from p2psched.model.errors import NotFound, Unavailable
from p2psched.net.together import together


def test_what_is_made_comes_in_the_order_of_the_things_and_few_are_at_work() -> None:
    at_work: list[int] = []
    most = 0

    async def work(number: int) -> int:
        nonlocal most
        at_work.append(number)
        most = max(most, len(at_work))
        for _ in range(10 - number):  # the first take the longest
            await asyncio.sleep(0)
        at_work.remove(number)
        return number * number

    assert asyncio.run(together(work, range(8), at_most=3)) == [n * n for n in range(8)]
    assert most == 3
    assert asyncio.run(together(work, range(8))) == [n * n for n in range(8)]
    assert most == 8
    assert asyncio.run(together(work, [])) == []


def test_the_first_error_ends_the_others_and_is_raised_as_it_is() -> None:
    begun: list[int] = []
    ended: list[int] = []

    async def work(number: int) -> None:
        begun.append(number)
        try:
            if number == 1:
                raise NotFound("one")
            await asyncio.get_running_loop().create_future()
        finally:
            ended.append(number)

    with pytest.raises(NotFound, match="one"):
        asyncio.run(together(work, range(5), at_most=2))
    assert sorted(begun) == sorted(ended) == [0, 1]


def test_an_error_of_a_group_inside_is_found_and_one_of_ours_is_no_group() -> None:
    async def inner(number: int) -> None:
        raise Unavailable(str(number))

    async def outer(_: int) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(inner(7))

    with pytest.raises(Unavailable, match="7"):
        asyncio.run(together(outer, [1]))


def test_what_is_no_error_of_ours_is_a_fault() -> None:
    async def work(_: int) -> None:
        raise LookupError("a bug")

    with pytest.raises(ExceptionGroup, match="unhandled"):
        asyncio.run(together(work, [1]))
