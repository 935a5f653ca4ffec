"""`p2psched stop`: end one peer, cleanly, and wait until it is gone.

It refuses to guess which, and never falls back to another peer when the one that it means does not
answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
from dataclasses import replace
from typing import Annotated, Final

import typer

from p2psched.cli.complete import complete_peers
from p2psched.cli.connect import connected
from p2psched.cli.drain import TimeoutOption, drain_and_wait
from p2psched.cli.one_peer import calls_to, choose_peer
from p2psched.cli.options import Target, duration, talks_to_peers
from p2psched.cli.output import Output, print_json, write_line
from p2psched.model.commands import DrainMode, PeerInfo
from p2psched.model.errors import TimedOut, Unavailable, UsageError
from p2psched.model.ids import short
from p2psched.model.messages import GetStatus, StopPeer
from p2psched.model.status_messages import StatusAnswer
from p2psched.net.calls import CallClient
from p2psched.store.records import Record, list_records

GONE_S: Final = 30.0  # a peer gives its tasks back, ends its workers, closes its files
CALL_TIMEOUT_S: Final = 5.0

EXAMPLES: Final = """\b
Examples:
  p2psched stop
  p2psched stop b
  p2psched stop b --drain --timeout 10m
  p2psched stop --peer 192.168.1.20:7420 \\
      --secret-file secret
"""


@talks_to_peers
def stop(
    target: Target,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", autocompletion=complete_peers, help="Name or id of the peer."
        ),
    ] = None,
    drain: Annotated[
        bool,
        typer.Option("--drain", help="Drain it first; it takes tasks again once it is started."),
    ] = False,
    timeout: TimeoutOption = None,
) -> None:
    """Stop one peer and wait until it is gone. Its tasks go on elsewhere.

    Without NAME it is the one peer that runs on this machine, or that of --peer.
    """
    with asyncio.Runner() as runner:
        timeout_s = None if timeout is None else duration(timeout, "--timeout")
        info = runner.run(_stop(target, name, drain=drain, timeout_s=timeout_s))
    match target.output:
        case Output.JSON:
            print_json(stopped={"id": info.peer, "name": info.name, "pid": info.pid})
        case Output.QUIET:
            write_line(short(info.peer))
        case Output.TABLE:
            write_line(f"stopped peer {info.name} at {info.address} (pid {info.pid})")


async def _stop(
    target: Target, name: str | None, *, drain: bool, timeout_s: float | None
) -> PeerInfo:
    if timeout_s is not None and not drain:
        raise UsageError("--timeout is how long to wait for --drain")
    records = [record for record in list_records(target.runtime_dir) if record.alive]
    address, local = await choose_peer(target, name, records, command="stop")
    process = _open_process(local)
    try:
        async with calls_to(target, address) as calls:
            if drain:
                await _drain(replace(target, peer=address), calls, timeout_s=timeout_s)
            info = await _ask_to_stop(calls, local)
            async with asyncio.timeout(GONE_S):
                if process is not None:
                    await asyncio.to_thread(_wait_gone, process)
                else:
                    await calls.connection.wait_closed()
    except TimeoutError as error:
        raise TimedOut(
            f"the peer at {address} did not end within {GONE_S:.0f} s: look at its log"
        ) from error
    finally:
        if process is not None:
            os.close(process)
    return info


async def _drain(target: Target, calls: CallClient, *, timeout_s: float | None) -> None:
    async with asyncio.timeout(CALL_TIMEOUT_S):
        answer = await calls.call(GetStatus())
    assert isinstance(answer, StatusAnswer)
    async with connected(target) as client:  # any peer tells how far it is
        peer = answer.info.peer
        await drain_and_wait(client, peer, DrainMode.ONCE, timeout_s=timeout_s)


async def _ask_to_stop(calls: CallClient, local: Record | None) -> PeerInfo:
    async with asyncio.timeout(CALL_TIMEOUT_S):
        answer = await calls.call(GetStatus())
        assert isinstance(answer, StatusAnswer)
        info = answer.info
        if local is not None and info.peer != local.peer:
            raise Unavailable(
                f"another peer, {info.name}, answers at {local.address} by now: "
                "look at `p2psched peers`"
            )
        # A peer that ends may be faster than its answer.
        with contextlib.suppress(Unavailable):
            await calls.call(StopPeer())
    return info


def _open_process(local: Record | None) -> int | None:
    """A descriptor that tells when the process ends, whoever is its parent. The program around an
    embedded peer goes on: there the end of the connection has to do."""
    if local is None or local.embedded:
        return None
    try:
        return os.pidfd_open(local.pid)
    except OSError:
        return None


def _wait_gone(process: int) -> None:
    poll = select.poll()
    poll.register(process, select.POLLIN)
    poll.poll(GONE_S * 1000)
