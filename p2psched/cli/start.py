"""`p2psched start`: be a peer, in the foreground or, with `--detach`, in the background.

Stdout gets who the peer is, once ready; all else goes to stderr. No secret is in a command line.
"""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from p2psched.cli.detach import start_detached
from p2psched.cli.options import (
    OutputOption,
    SecretOption,
    byte_count,
    duration,
    keep_ms,
    runtime_dir,
    with_options,
)
from p2psched.cli.output import Output
from p2psched.cli.peer_limits import CgroupOption, PeerEnvOption, control_groups
from p2psched.cli.saving import BatteryMin, CheckpointBudget, DutyOption
from p2psched.cli.serve import Serving, become_peer
from p2psched.cli.values import labels_of, memory_mib
from p2psched.model.config import LEDGERS, TIMINGS, Config
from p2psched.model.errors import UsageError
from p2psched.model.limits import SNAPSHOT_LOG_BYTES
from p2psched.model.needs import AVERAGE_WEIGHT
from p2psched.model.stalls import STALL_MS
from p2psched.net.address import DEFAULT_PORT
from p2psched.observe import logs
from p2psched.store.folder import default_data_folder

EXAMPLES: Final = """\b
Examples:
  p2psched start --name a        # a new cluster
  p2psched start --name b --listen 127.0.0.1:7430 \\
      --join 127.0.0.1:7420      # one more peer of it
  p2psched start --name b --listen 127.0.0.1:7430 -d
                                 # b again, detached
"""

_Name = Annotated[
    str | None,
    typer.Option(
        "--name", help="Of a new peer. Default: the host's name. Its folder keeps it afterwards."
    ),
]
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
_SpaceMin = Annotated[
    str | None,
    typer.Option(
        "--space-min",
        metavar="SIZE",
        help="With less free on its disk it takes no jobs, tasks and data. Default: 64M, less on "
        "a disk below 1G.",
    ),
]
_Ballast = Annotated[
    str | None,
    typer.Option(
        "--ballast",
        metavar="SIZE",
        help="A file that only keeps space for when there is none. Default: 16M, or less.",
    ),
]
_Zone = Annotated[
    str,
    typer.Option(
        "--zone",
        help="What fails together with this peer: a rack, a site. Voters are spread over zones.",
    ),
]
_ReplaceAfter = Annotated[
    str,
    typer.Option(
        "--replace-after",
        metavar="DURATION",
        help="A voter that is away for so long is replaced by another peer, while this one leads.",
    ),
]
_Label = Annotated[
    list[str] | None,
    typer.Option(
        "--label",
        metavar="KEY=VALUE",
        help="For jobs that choose their peers. `name` and `zone` are there without.",
    ),
]
_Gpus = Annotated[
    int | None,
    typer.Option("--gpus", min=0, help="To share out among tasks. Default: those that are found."),
]
_Memory = Annotated[
    str | None,
    typer.Option(
        "--memory",
        metavar="SIZE",
        help="To share out among tasks that say what they take. Default: all of the machine.",
    ),
]
_Weight = Annotated[
    float, typer.Option("--weight", help="How much it can do beside others, for policy `weighted`.")
]
_RetryBudget = Annotated[
    int,
    typer.Option(
        "--retry-budget",
        metavar="PERCENT",
        min=0,
        max=100,
        help="Slots that retries get beside healthy jobs, while this peer leads.",
    ),
]
_MaxDisconnect = Annotated[
    str,
    typer.Option(
        "--max-disconnect",
        metavar="DURATION",
        help="How long it goes on with its tasks without a majority, if their jobs don't say.",
    ),
]
_Anew = Annotated[
    bool,
    typer.Option(
        "--anew",
        help="If it was removed from its cluster: set its folder aside and join as a new peer.",
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
_Follow = Annotated[
    bool | None,
    typer.Option(
        "--follow/--no-follow",
        help="Hold no ledger: follow another peer. Default: once enough others hold it.",
        show_default=False,
    ),
]
_Timing = Annotated[
    str,
    typer.Option(
        "--timing",
        help=f"Patience with disks and links: {', '.join(TIMINGS)}. The same on all peers.",
    ),
]
_Ledger = Annotated[
    str | None,
    typer.Option(
        "--ledger",
        help=f"Engine of the ledger: {' or '.join(LEDGERS)} (for labs: docs/engines.md). Default: "
        "that of the data folder.",
    ),
]
_Group = Annotated[
    list[str] | None,
    typer.Option(
        "--group",
        metavar="HOST:PORT",
        help="With --ledger raftos: each of its peers, itself too. A restart needs none.",
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
_PolicyFile = Annotated[
    Path | None,
    typer.Option(
        "--policy-file",
        metavar="FILE",
        help="A placement policy of your own (docs/policies.md). The same on all peers.",
    ),
]


_StallAfter = Annotated[
    str,
    typer.Option(
        "--stall-after",
        metavar="DURATION",
        help="Work that could run here and does not for so long is a fault: this peer says so and "
        "heals it (docs/stalls.md).",
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Having:
    """What the peer has for tasks beside slots, and who else may say where they go."""

    label: _Label = None
    gpus: _Gpus = None
    memory: _Memory = None
    weight: _Weight = 1.0
    policy_file: _PolicyFile = None
    retry_budget: _RetryBudget = 10
    checkpoint_budget: CheckpointBudget = "256M"
    duty: DutyOption = 100
    battery_min: BatteryMin = 10
    max_disconnect: _MaxDisconnect = "10m"
    stall_after: _StallAfter = f"{STALL_MS // 1000}s"
    cgroup: CgroupOption = None
    pass_env: PeerEnvOption = None

    def noted_in(self, config: Config) -> Config:
        """Raises UsageError, or ValueError for what is too much."""
        noted = msgspec.structs.replace(
            config,
            labels=labels_of(self.label, "--label"),
            gpus=self.gpus,
            memory_mib=None if self.memory is None else memory_mib(self.memory, "--memory"),
            weight=round(self.weight * AVERAGE_WEIGHT),
            policy_file=str(self.policy_file.absolute()) if self.policy_file else None,
            retry_percent=self.retry_budget,
            duty=self.duty * 10,
            battery_min=self.battery_min,
            checkpoint_budget=byte_count(self.checkpoint_budget, "--checkpoint-budget"),
            max_disconnect_ms=round(duration(self.max_disconnect, "--max-disconnect") * 1000),
            stall_ms=round(duration(self.stall_after, "--stall-after") * 1000),
            cgroups=control_groups(self.cgroup),
            pass_env=tuple(self.pass_env or []),
        )
        noted.__post_init__()
        return noted


@with_options(Having, "having")
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
    space_min: _SpaceMin = None,
    ballast: _Ballast = None,
    no_vote: _NoVote = False,
    zone: _Zone = "",
    replace_after: _ReplaceAfter = "5m",
    anew: _Anew = False,
    follow: _Follow = None,
    timing: _Timing = "lan",
    ledger: _Ledger = None,
    group: _Group = None,
    detach: _Detach = False,
    patience: _Patience = "30s",
    log_level: _LogLevel = "warning",
    log_json: _LogJson = False,
    output: OutputOption = Output.TABLE,
    snapshot_log_bytes: _SnapshotLog = SNAPSHOT_LOG_BYTES,
    detached: _Detached = False,
    having: Having,
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
            space_min=None if space_min is None else byte_count(space_min, "--space-min"),
            ballast=None if ballast is None else byte_count(ballast, "--ballast"),
            votes=not no_vote,
            zone=zone,
            replace_ms=round(duration(replace_after, "--replace-after") * 1000),
            anew=anew,
            ledger=ledger,
            group=tuple(group or ()),
            follows=follow,
            snapshot_log_bytes=snapshot_log_bytes,
            runtime_dir=str(runtime_dir()),
        ).with_timing(timing)
        config = having.noted_in(config)
    except ValueError as error:
        raise UsageError(f"{error}: see `p2psched start --help`") from error
    serving = Serving(
        config=config, output=output, log_level=log_level, log_json=log_json, detached=detached
    )
    _serve(serving, duration(patience, "--patience") if detach else None)


def _serve(serving: Serving, patience_s: float | None) -> None:
    if patience_s is None:
        become_peer(serving)
        return
    start_detached(
        serving.config,
        log_level=serving.log_level,
        log_json=serving.log_json,
        output=Output(serving.output),
        patience_s=patience_s,
    )


def _host_name() -> str:
    return socket.gethostname().partition(".")[0] or "peer"
