"""The same work for several things at once, and one error for whoever waits for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from p2psched.model.errors import P2PSchedError, first_of

T = TypeVar("T")
R = TypeVar("R")


async def together(
    work: Callable[[T], Awaitable[R]], things: Sequence[T], *, at_most: int | None = None
) -> list[R]:
    """What `work` makes of each, in their order; `at_most` at a time (None: all). The first
    P2PSchedError ends the others and is raised; another error comes in its group."""
    made: dict[int, R] = {}
    left = iter(enumerate(things))

    async def take() -> None:
        for number, thing in left:
            made[number] = await work(thing)

    width = len(things) if at_most is None else min(at_most, len(things))
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(width):
                group.create_task(take())
    except* P2PSchedError as errors:
        raise first_of(errors) from None
    return [made[number] for number in range(len(things))]
