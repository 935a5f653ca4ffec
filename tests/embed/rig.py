"""What a host program would notice of a peer inside it, and peers in one process for tests."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from p2psched import Config, Peer

PATIENCE_S: Final = 30.0
POLL_S: Final = 0.02


@dataclass(frozen=True)
class Trace:
    """All that belongs to the process as a whole and that a peer could leave changed."""

    threads: frozenset[str]
    children: frozenset[int]
    files: frozenset[tuple[int, str]]
    handlers: tuple[object, ...]
    wakeup: int
    switch_interval_s: float
    folder: str
    environment: dict[str, str]
    loggers: tuple[object, ...]


def trace() -> Trace:
    wakeup = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(wakeup)
    return Trace(
        threads=frozenset(thread.name for thread in threading.enumerate()),
        children=frozenset(child.pid for child in psutil.Process().children(recursive=True)),
        files=frozenset(_files()),
        handlers=tuple(signal.getsignal(number) for number in signal.valid_signals()),
        wakeup=wakeup,
        switch_interval_s=sys.getswitchinterval(),
        folder=str(Path.cwd()),
        environment={k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"},
        loggers=(tuple(logging.getLogger().handlers), logging.getLogger().level),
    )


def _files() -> list[tuple[int, str]]:
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the one that lists the folder is gone by now
            found.append((int(entry.name), str(entry.readlink())))
    return found


def config(folder: Path, name: str, *join: Peer | str, slots: int = 1, **more: object) -> Config:
    """Of a peer in `folder`, which holds the records too: no test meets another's peers."""
    return Config(
        name=name,
        data=folder / name,
        join=[peer if isinstance(peer, str) else peer.address for peer in join],
        slots=slots,
        runtime_dir=folder / "runtime",
        **more,  # type: ignore[arg-type]
    )


@contextlib.asynccontextmanager
async def three_peers(folder: Path) -> AsyncIterator[list[Peer]]:
    """In this process, and all three vote."""
    async with contextlib.AsyncExitStack() as stack:
        peers: list[Peer] = []
        for name in "abc":
            peer = Peer(config(folder, name, *peers[:1], votes=True))
            peers.append(await stack.enter_async_context(peer))

        async def all_vote() -> bool:
            return all(view.role != "learner" for view in await peers[0].client.peers())

        await until(all_vote)
        yield peers


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await condition():  # noqa: ASYNC110 (other threads and processes set no event)
            await asyncio.sleep(POLL_S)


def double(number: int) -> int:
    return 2 * number


def fail(what: str) -> None:
    raise KeyError(what)
