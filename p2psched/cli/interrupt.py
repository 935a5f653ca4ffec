"""Ctrl-C while a command waits for a job: the first detaches, a second one soon after cancels."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

import typer

from p2psched.cli.output import note
from p2psched.client.client import Job
from p2psched.model.errors import Unavailable
from p2psched.model.ids import short

T = TypeVar("T")

SECOND_S: Final = 2.0  # time for a second Ctrl-C
CANCEL_PATIENCE_S: Final = 10.0
EXIT_INTERRUPTED: Final = 130


async def detachable(job: Job, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which waits for `job`. On Ctrl-C `work` is cancelled and typer.Exit
    raised; the job goes on unless Ctrl-C comes again within SECOND_S seconds."""
    loop = asyncio.get_running_loop()
    waiting = asyncio.current_task()
    assert waiting is not None
    first, second = asyncio.Event(), asyncio.Event()

    def on_interrupt() -> None:
        if first.is_set():
            second.set()
        else:
            first.set()
            waiting.cancel()

    loop.add_signal_handler(signal.SIGINT, on_interrupt)
    try:
        return await work
    except asyncio.CancelledError:
        if not first.is_set():
            raise
        waiting.uncancel()
        await _detach(job, second)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    finally:
        loop.remove_signal_handler(signal.SIGINT)


async def _detach(job: Job, second: asyncio.Event) -> None:
    name = short(job.id)
    note(
        f"\ndetached, job {name} goes on: `p2psched job wait {name}` comes back to it\n"
        "press Ctrl-C again now to cancel the job"
    )
    try:
        async with asyncio.timeout(SECOND_S):
            await second.wait()
    except TimeoutError:
        return
    try:
        async with asyncio.timeout(CANCEL_PATIENCE_S):
            await job.cancel()
    except TimeoutError as error:
        raise Unavailable(
            f"nobody confirms that job {name} is cancelled: run `p2psched job cancel {name}`"
        ) from error
    note(f"cancelled job {name}")
