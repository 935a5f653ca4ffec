"""A peer's process, once `start` has understood its command line.

The process executes itself anew first. What the command line needs (its parser, all other
commands, the client) is a third of a peer's memory and is never used again, and modules can't be
unloaded. Number, command line, terminal and environment stay as they are (ADR 0014).
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from p2psched.cli.detach import enter_background
from p2psched.cli.output import Output, note, print_json, write_line
from p2psched.model.config import Config
from p2psched.model.errors import P2PSchedError
from p2psched.model.ids import short
from p2psched.model.limits import MIB
from p2psched.observe import logs
from p2psched.store.address_book import AddressBook
from p2psched.store.records import list_records

if TYPE_CHECKING:
    from p2psched.peer.announcing import Ready

NOTICE_S: Final = 3.0  # a start that takes longer says what it waits for
ADDRESSES_SHOWN: Final = 3
LOOPBACKS: Final = ("127.", "[::1]", "localhost:")
# Handed to ourselves, and taken out of the environment at once: see `cli.app`.
VARIABLE: Final = "P2PSCHED_SERVING"
# The peer has a few threads that wait most of the time: an arena for each would only hold memory.
_ALLOCATOR: Final = {
    "MALLOC_ARENA_MAX": "2",
    # Buffers of messages come and go: taken from the heap they keep their pages.
    "MALLOC_MMAP_THRESHOLD_": str(4 * MIB),
    "MALLOC_TRIM_THRESHOLD_": str(8 * MIB),
}


class Serving(msgspec.Struct, frozen=True, kw_only=True):
    """All that `start` was told."""

    config: Config
    output: str
    log_level: str
    log_json: bool
    detached: bool


def become_peer(serving: Serving) -> None:
    """Doesn't return, but where this process isn't a command line that could be executed again."""
    logs.setup(serving.log_level, sys.stderr, json=serving.log_json)
    own = sys.argv[1:]
    if own[:1] == ["start"] and sys.orig_argv[-len(own) :] == own and sys.executable:
        text = msgspec.json.encode(serving).decode()
        sys.stdout.flush()
        sys.stderr.flush()
        os.execve(  # noqa: S606 (ourselves, without a shell)
            sys.executable,
            [sys.executable, *sys.orig_argv[1:]],
            {**_ALLOCATOR, **os.environ, VARIABLE: text},
        )
    _serve(serving)


def serve(text: str) -> None:
    """Be the peer that `become_peer` described. Raises P2PSchedError, KeyboardInterrupt."""
    _serve(msgspec.json.decode(text, type=Serving))


def _serve(serving: Serving) -> None:
    # Not above: the first life of the process needs none of it.
    import asyncio  # noqa: PLC0415

    from p2psched.peer.process import run_peer  # noqa: PLC0415

    config = serving.config

    def on_ready(ready: Ready) -> None:
        notice.cancel()
        try:
            _say_ready(ready, config, Output(serving.output))
        except OSError:
            # Who started us may be gone, and a peer doesn't end for a line that nobody reads.
            note("nobody reads the output")
        if serving.detached:
            enter_background(Path(config.data), is_ready=True)

    def on_delay() -> None:
        note(_waiting_for(config))
        if serving.detached and _is_up(config):
            enter_background(Path(config.data), is_ready=False)

    logs.setup(serving.log_level, sys.stderr, json=serving.log_json)
    notice = threading.Timer(NOTICE_S, on_delay)
    notice.daemon = True
    notice.start()
    try:
        run_peer(config, on_ready=on_ready)
    except asyncio.CancelledError:  # a second Ctrl-C while it ended
        raise KeyboardInterrupt from None
    finally:
        notice.cancel()


def _say_ready(ready: Ready, config: Config, output: Output) -> None:
    info = ready.info
    match output:
        case Output.JSON:
            print_json(
                peer={
                    "id": info.peer,
                    "name": info.name,
                    "address": info.address,
                    "pid": info.pid,
                    "slots": info.slots,
                    "data": config.data,
                    "cluster": ready.cluster,
                    "secret_file": ready.secret_path,
                    "founded": ready.founded,
                }
            )
        case Output.QUIET:
            write_line(short(info.peer))
        case Output.TABLE:
            what = "the first of a new cluster" if ready.founded else "a peer of its cluster"
            slots = f"{info.slots} slot{'' if info.slots == 1 else 's'}"
            write_line(
                f"peer {info.name} is up at {info.address}: {what}, pid {info.pid}, {slots}\n"
                f"data   {config.data}\n"
                f"{_how_to_join(ready)}\n"
                f"stop   Ctrl-C, or p2psched stop {info.name}"
            )


def _how_to_join(ready: Ready) -> str:
    if ready.group:
        return "ledger raftos, for labs in a trusted network: a static group that nobody joins"
    others = "from another machine add --secret-file with a copy of"
    if ready.info.address.startswith(LOOPBACKS):
        others = (
            "it is reached from this machine alone; for others start it with\n"
            "       --listen HOST:PORT --insecure, and give them --secret-file with a copy of"
        )
    return (
        f"join   p2psched start --name NAME --listen 127.0.0.1:0 --join {ready.info.address}\n"
        f"       ({others}\n"
        f"       {ready.secret_path})"
    )


def _waiting_for(config: Config) -> str:
    """Why the peer is not ready yet, as far as can be seen from its folder."""
    if not _is_up(config):
        if config.join:
            return f"waiting for an answer from {', '.join(config.join)}"
        return f"still reading {config.data}"
    others = AddressBook(Path(config.data) / "peers.json").load()
    shown = [f"{name or 'one'} at {address}" for name, address in others.values()]
    more = f" and {len(shown) - ADDRESSES_SHOWN} more" if len(shown) > ADDRESSES_SHOWN else ""
    known = f" ({', '.join(shown[:ADDRESSES_SHOWN])}{more})" if shown else ""
    return (
        f"peer {config.name} is up and waits for a majority of the voters of its cluster: "
        f"start its other peers{known}, or, if all of them have other addresses now, this one with "
        "--join"
    )


def _is_up(config: Config) -> bool:
    """True once this process has its folder and listens."""
    try:
        return any(
            record.pid == os.getpid() and record.alive
            for record in list_records(Path(config.runtime_dir))
        )
    except P2PSchedError:
        return False
