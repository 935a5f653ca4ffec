"""From a command to a cluster: find a peer, wait for one a while, run the command's loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, TypeVar

from p2psched.cli.options import Target
from p2psched.cli.output import note, span
from p2psched.client.client import Client
from p2psched.client.disconnected import Disconnected
from p2psched.client.find import find_peers
from p2psched.client.session import Session
from p2psched.model.errors import Unavailable
from p2psched.model.staleness import Staleness

T = TypeVar("T")
Label = dict[str, object]

RETRY_S: Final = 0.25
SAY_AFTER_S: Final = 1.0  # a short wait is nobody's business


def label(client: Client) -> Label:
    """For the JSON of a command that was answered with stale reads: how old they may be."""
    found = client.staleness
    if found is None:
        return {}
    return {"stale": {"applied_index": found.applied_index, "age_ms": found.age_ms}}


def _say_how_old(found: Staleness) -> None:
    age = (
        "with no word of a leader since that peer started"
        if found.age_ms is None
        else f"{span(found.age_ms / 1000)} after that peer's last word of a leader"
    )
    note(f"stale: as of entry {found.applied_index:,} of the ledger, {age}")


def talk(target: Target, work: Callable[[Client], Awaitable[T]]) -> T:
    """Run `work` with a connected client. Raises what it raises, Unavailable if nobody answers
    within the target's patience."""

    async def main() -> T:
        async with connected(target) as client:
            found = await work(client)
            if client.staleness is not None:
                _say_how_old(client.staleness)
            return found

    with asyncio.Runner() as runner:
        return runner.run(main())


def talk_to_one(target: Target, work: Callable[[Disconnected], Awaitable[T]]) -> T:
    """Run `work` with the peer that is named, or the first that is found here, and no other that
    would answer for it. It needs no majority."""

    async def main() -> T:
        found, secret = find_peers(
            target.peer, secret_file=target.secret_file, runtime_dir=target.runtime_dir
        )
        session = Session(found[:1], secret=secret, patience_s=target.patience_s)
        try:
            return await work(Disconnected(session))
        finally:
            await session.__aexit__()

    with asyncio.Runner() as runner:
        return runner.run(main())


@contextlib.asynccontextmanager
async def connected(target: Target) -> AsyncIterator[Client]:
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    # Where no peer is known at all, waiting for one would only hide it.
    find_peers(target.peer, secret_file=target.secret_file, runtime_dir=target.runtime_dir)
    async with contextlib.AsyncExitStack() as stack:
        said = False
        while True:
            client = Client(
                target.peer,
                secret_file=target.secret_file,
                runtime_dir=target.runtime_dir,
                patience_s=target.patience_s,
                consistency="stale" if target.stale else "linearizable",
            )
            try:
                await stack.enter_async_context(client)
            except Unavailable as error:
                waited_s = loop.time() - began_s
                if waited_s + RETRY_S >= target.patience_s:
                    raise
                if not said and waited_s >= SAY_AFTER_S:
                    note(f"{error}; trying for {target.patience_s:g} s")
                    said = True
                await asyncio.sleep(RETRY_S)
            else:
                break
        yield client
