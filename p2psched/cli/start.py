"""`p2psched start`: be a peer, in the foreground or, with `--detach`, in the background.

Stdout gets who the peer is, once it is ready; notes, errors and the log go to stderr. No secret is
ever printed or passed in a command line.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
from pathlib import Path
from typing import Annotated, Final

import typer

from p2psched.cli.detach import enter_background, start_detached
from p2psched.cli.options import (
    OutputOption,
    SecretOption,
    byte_count,
    duration,
    keep_ms,
    runtime_dir,
)
from p2psched.cli.output import Output, note, print_json, write_line
from p2psched.model.config import Config
from p2psched.model.errors import P2PSchedError, UsageError
from p2psched.model.ids import short
from p2psched.model.limits import SNAPSHOT_LOG_BYTES
from p2psched.net.address import DEFAULT_PORT
from p2psched.observe import logs
from p2psched.peer.node import Ready
from p2psched.peer.process import run_peer
from p2psched.store.folder import AddressBook, default_data_folder
from p2psched.store.records import list_records

NOTICE_S: Final = 3.0  # a start that takes longer says what it waits for
ADDRESSES_SHOWN: Final = 3
EXIT_INTERRUPTED: Final = 130

EXAMPLES: Final = """\b
Examples:
  p2psched start --name a        # a new cluster
  p2psched start --name b --listen 127.0.0.1:7430 \\
      --join 127.0.0.1:7420      # one more peer of it
  p2psched start --name b --listen 127.0.0.1:7430 -d
                                 # b again, detached
"""


_Name = Annotated[str | None, typer.Option("--name", help="Of the peer. Default: the host's name.")]
_Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR",
        help="Data folder. Default: p2psched/NAME where this system keeps state.",
    ),
]
_Listen = Annotated[
    str, typer.Option("--listen", metavar="HOST:PORT", help="Where others connect.")
]
_Advertise = Annotated[
    str | None,
    typer.Option(
        "--advertise",
        metavar="HOST:PORT",
        help="What others are told to connect to, if it is not --listen.",
    ),
]
_Join = Annotated[
    list[str] | None,
    typer.Option(
        "--join",
        metavar="HOST:PORT",
        help="A peer of the cluster to join; more than one is fine. A restart needs none.",
    ),
]
_Slots = Annotated[
    int | None,
    typer.Option("--slots", help="Tasks at a time. Default: the cores; 0 runs nothing."),
]
_Python = Annotated[
    str, typer.Option("--python", metavar="PATH", help="Runs the functions of jobs.")
]
_Keep = Annotated[
    str,
    typer.Option(
        "--keep-results", metavar="DURATION", help="How long ended jobs are kept, while it leads."
    ),
]
_KeepBytes = Annotated[
    str,
    typer.Option(
        "--keep-bytes",
        metavar="SIZE",
        help="Results kept in all, while it leads: the oldest go first.",
    ),
]
_Insecure = Annotated[
    bool,
    typer.Option("--insecure", help="Allow to listen for other machines, unencrypted."),
]
_NoVote = Annotated[
    bool,
    typer.Option(
        "--no-vote",
        help="Run tasks and answer, but never become one of the voters of the cluster.",
    ),
]
_Detach = Annotated[
    bool,
    typer.Option("--detach", "-d", help="Go to the background once ready; logs to peer.log."),
]
_Patience = Annotated[
    str,
    typer.Option(
        "--patience", metavar="DURATION", help="How long --detach waits until it is ready."
    ),
]
_LogLevel = Annotated[str, typer.Option("--log-level", help=f"One of {', '.join(logs.LEVELS)}.")]
_LogJson = Annotated[bool, typer.Option("--log-json", help="Log JSON lines.")]
# For tests and for disks that are small indeed: nobody else should have to think of it.
_SnapshotLog = Annotated[int, typer.Option("--snapshot-log-bytes", hidden=True)]
_Detached = Annotated[bool, typer.Option("--detached", hidden=True)]


def start(
    *,
    name: _Name = None,
    data: _Data = None,
    listen: _Listen = f"127.0.0.1:{DEFAULT_PORT}",
    advertise: _Advertise = None,
    join: _Join = None,
    slots: _Slots = None,
    python: _Python = sys.executable,
    secret_file: SecretOption = None,
    insecure: _Insecure = False,
    keep_results: _Keep = "7d",
    keep_bytes: _KeepBytes = "16G",
    no_vote: _NoVote = False,
    detach: _Detach = False,
    patience: _Patience = "30s",
    log_level: _LogLevel = "warning",
    log_json: _LogJson = False,
    output: OutputOption = Output.TABLE,
    snapshot_log_bytes: _SnapshotLog = SNAPSHOT_LOG_BYTES,
    detached: _Detached = False,
) -> None:
    """Start a peer. It is a new cluster of one, with --join a member of another, or itself again.

    Ctrl-C or SIGTERM ends it cleanly. Its tasks go on elsewhere.
    """
    name = name or _host_name()
    folder = data or default_data_folder(name, os.environ)
    try:
        config = Config(
            name=name,
            data=str(folder.expanduser().absolute()),
            listen=listen,
            advertise=advertise,
            join=tuple(join or ()),
            slots=slots if slots is not None else len(os.sched_getaffinity(0)),
            python=python,
            secret_file=str(secret_file) if secret_file else None,
            insecure=insecure,
            keep_ms=keep_ms(keep_results),
            keep_bytes=byte_count(keep_bytes, "--keep-bytes"),
            votes=not no_vote,
            snapshot_log_bytes=snapshot_log_bytes,
            runtime_dir=str(runtime_dir()),
        )
    except ValueError as error:
        raise UsageError(f"{error}: see `p2psched start --help`") from error
    if detach:
        start_detached(
            config,
            log_level=log_level,
            log_json=log_json,
            output=output,
            patience_s=duration(patience, "--patience"),
        )
    else:
        logs.setup(log_level, sys.stderr, json=log_json)
        _run(config, output, detached=detached)


def _host_name() -> str:
    return socket.gethostname().partition(".")[0] or "peer"


def _run(config: Config, output: Output, *, detached: bool) -> None:
    def on_ready(ready: Ready) -> None:
        notice.cancel()
        try:
            _say_ready(ready, config, output)
        except OSError:
            # Who started us may be gone, and a peer doesn't end for a line that nobody reads.
            note("nobody reads the output")
        if detached:
            enter_background(Path(config.data), is_ready=True)

    def on_delay() -> None:
        note(_waiting_for(config))
        if detached and _is_up(config):
            enter_background(Path(config.data), is_ready=False)

    notice = threading.Timer(NOTICE_S, on_delay)
    notice.daemon = True
    notice.start()
    try:
        run_peer(config, on_ready=on_ready)
    except asyncio.CancelledError:  # a second Ctrl-C while it ended
        raise typer.Exit(EXIT_INTERRUPTED) from None
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
                f"join   p2psched start --name NAME --listen 127.0.0.1:0 --join {info.address}\n"
                f"       (from another machine add --secret-file with a copy of\n"
                f"       {ready.secret_path})\n"
                f"stop   Ctrl-C, or p2psched stop {info.name}"
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
        f"start its other peers{known}"
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
