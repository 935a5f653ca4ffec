"""All commands, put together. What each of them does stands in its own file."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Final, NamedTuple

import typer
import typer.main

from p2psched.cli.output import write_line
from p2psched.cli.plain import make_plain
from p2psched.model.version import VERSION

HELP_WIDTH: Final = 80  # longer lines are hard to read, also in a wide terminal
EXIT_CODES: Final = """\b
Exit codes:
  0 ok             3 no quorum, or nobody answers
  1 a task failed  4 timed out
  2 wrong usage    5 refused  6 data damaged
  7 a lock was lost
  8 not accepted yet: in the spool of a peer that is cut off

\b
Environment:
  P2PSCHED_PEER         as --peer
  P2PSCHED_SECRET_FILE  as --secret-file
  P2PSCHED_RUNTIME_DIR  where local peers are found
"""
_SETTINGS: Final = {"help_option_names": ["-h", "--help"], "max_content_width": HELP_WIDTH}


class Command(NamedTuple):
    """Where a command is: a module of this package, its function, and the end of its help."""

    module: str
    function: str
    examples: str | None
    interspersed: bool = True  # options may also follow arguments


COMMANDS: Final = {
    "start": Command("start", "start", "EXAMPLES"),
    # Its own options end where the command begins: `submit-job -- ls -l` and `ls -l` are the same.
    "submit-job": Command("submit", "submit_job", "EXAMPLES", interspersed=False),
    "jobs": Command("jobs", "jobs", "JOBS_EXAMPLES"),
    "explain": Command("explain", "explain", "EXAMPLES"),
    "peers": Command("cluster", "peers", "PEERS_EXAMPLES"),
    "status": Command("cluster", "status", "STATUS_EXAMPLES"),
    "stop": Command("stop", "stop", "EXAMPLES"),
    "demo": Command("demo", "demo", None),
    "backup": Command("backup", "backup", "BACKUP_EXAMPLES"),
    "restore": Command("backup", "restore", "RESTORE_EXAMPLES"),
}
GROUPS: Final = {
    "job": {
        "show": Command("jobs", "show", "SHOW_EXAMPLES"),
        "wait": Command("jobs", "wait", "WAIT_EXAMPLES"),
        "results": Command("results", "results", "RESULTS_EXAMPLES"),
        "export": Command("export", "export", "EXPORT_EXAMPLES"),
        "logs": Command("logs", "logs", "LOGS_EXAMPLES"),
        "history": Command("history", "history", "HISTORY_EXAMPLES"),
        "cancel": Command("jobs", "cancel", "CANCEL_EXAMPLES"),
        "retry": Command("keep", "retry", "RETRY_EXAMPLES"),
        "resolve": Command("resolve", "resolve", "RESOLVE_EXAMPLES"),
        "rm": Command("keep", "rm", "RM_EXAMPLES"),
        "pin": Command("keep", "pin", "PIN_EXAMPLES"),
        "unpin": Command("keep", "unpin", "UNPIN_EXAMPLES"),
    },
    "peer": {
        "remove": Command("peer", "remove", "REMOVE_EXAMPLES"),
        "promote": Command("peer", "promote", "PROMOTE_EXAMPLES"),
        "demote": Command("peer", "demote", "DEMOTE_EXAMPLES"),
        "voters": Command("peer", "voters", "VOTERS_EXAMPLES"),
        "drain": Command("drain", "drain", "DRAIN_EXAMPLES"),
        "cordon": Command("drain", "cordon", "CORDON_EXAMPLES"),
        "uncordon": Command("drain", "uncordon", "UNCORDON_EXAMPLES"),
    },
    "ledger": {
        "verify": Command("ledger", "verify_ledger", "VERIFY_EXAMPLES"),
        "compact": Command("ledger", "compact_ledger", "COMPACT_EXAMPLES"),
        "recover": Command("recover", "recover_ledger", "RECOVER_EXAMPLES"),
    },
    "events": {
        "tail": Command("events", "tail", "TAIL_EXAMPLES"),
        "export": Command("events", "export", "EXPORT_EXAMPLES"),
    },
    "webhook": {
        "add": Command("webhook", "add", "ADD_EXAMPLES"),
        "list": Command("webhook", "list_hooks", "LIST_EXAMPLES"),
        "remove": Command("webhook", "remove", "REMOVE_EXAMPLES"),
    },
    "kv": {
        "get": Command("kv", "get", "GET_EXAMPLES"),
        "put": Command("kv", "put", "PUT_EXAMPLES"),
        "delete": Command("kv", "delete", "DELETE_EXAMPLES"),
        "cas": Command("kv", "cas", "CAS_EXAMPLES"),
        "range": Command("kv", "range_keys", "RANGE_EXAMPLES"),
        "watch": Command("kv", "watch", "WATCH_EXAMPLES"),
        "txn": Command("kv", "txn", "TXN_EXAMPLES"),
    },
    "lock": {
        "acquire": Command("lock", "acquire", "ACQUIRE_EXAMPLES"),
        "run": Command("lock_run", "run", "RUN_EXAMPLES"),
        "list": Command("lock", "list_locks", "LIST_EXAMPLES"),
        "release": Command("lock", "release", "RELEASE_EXAMPLES"),
    },
    "queue": {
        "put": Command("queue", "put", "PUT_EXAMPLES"),
        "get": Command("queue", "get", "GET_EXAMPLES"),
        "ack": Command("queue", "ack", "ACK_EXAMPLES"),
        "nack": Command("queue", "nack", "NACK_EXAMPLES"),
        "list": Command("queues", "list_queues", "LIST_EXAMPLES"),
        "purge": Command("queues", "purge", "PURGE_EXAMPLES"),
        "configure": Command("queues", "configure", "CONFIGURE_EXAMPLES"),
        "redrive": Command("queues", "redrive", "REDRIVE_EXAMPLES"),
        "delete": Command("queues", "delete", "DELETE_EXAMPLES"),
    },
    "spool": {
        "list": Command("spool", "list_spool", "LIST_EXAMPLES"),
        "show": Command("spool", "show_spooled", "SHOW_EXAMPLES"),
        "rm": Command("spool", "remove_spooled", "RM_EXAMPLES"),
    },
    "reconcile": {
        "show": Command("reconcile", "show_reconcile", "SHOW_EXAMPLES"),
    },
    "sim": {
        "run": Command("sim", "run", "RUN_EXAMPLES"),
        "replay": Command("sim", "replay", "REPLAY_EXAMPLES"),
        "shrink": Command("sim", "shrink", "SHRINK_EXAMPLES"),
        "policy": Command("sim_policy", "policy", "POLICY_EXAMPLES"),
    },
}


def app_for(arguments: Sequence[str]) -> typer.Typer:
    """A parser of these arguments. It knows the command that they name and loads nothing of the
    others, which would take longer than most commands; it knows all if they name none."""
    first, second = (*arguments[:2], "", "")[:2]
    is_named = first in COMMANDS or first in GROUPS
    app = typer.Typer(
        name="p2psched",
        callback=_root,
        context_settings=_SETTINGS,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        invoke_without_command=True,
        epilog=EXIT_CODES,
    )
    for name, command in COMMANDS.items():
        if name == first or not is_named:
            _add(app, name, command)
    for name, commands in GROUPS.items():
        if name == first or not is_named:
            wanted = {second: commands[second]} if second in commands else commands
            short = first_sentence(_ALONE[name].__doc__ or "")
            app.add_typer(_group(name, wanted), name=name, short_help=short)
    return app


def run(arguments: Sequence[str]) -> object:
    """Run the command that these arguments name. Raises what it, or the parser, raises."""
    command = typer.main.get_command(app_for(arguments or _typed(os.environ)))
    make_plain(command)
    return command.main(list(arguments), prog_name="p2psched", standalone_mode=False)


def _typed(environment: Mapping[str, str]) -> Sequence[str]:
    """Of a command line that a shell wants completed: the words before the one at the cursor."""
    if "_P2PSCHED_COMPLETE" not in environment:
        return ()
    text = environment.get("COMP_WORDS") or environment.get("_TYPER_COMPLETE_ARGS") or ""
    at = environment.get("COMP_CWORD", "")
    words = text.split()
    whole = int(at) if at.isdecimal() else len(words) - (not text[-1:].isspace())
    return words[1:whole]


def first_sentence(text: str) -> str:
    """For a list of commands, where it is wrapped; the parser itself would cut it."""
    return re.split(r"(?<=\.)\s|\n\n", text.strip(), maxsplit=1)[0]


def _group(name: str, commands: dict[str, Command]) -> typer.Typer:
    group = typer.Typer(
        callback=_ALONE[name],
        context_settings=_SETTINGS,
        rich_markup_mode=None,
        invoke_without_command=True,
    )
    for inner, command in commands.items():
        _add(group, inner, command)
    return group


def _add(app: typer.Typer, name: str, command: Command) -> None:
    module = importlib.import_module(f"p2psched.cli.{command.module}")
    settings = {} if command.interspersed else {"allow_interspersed_args": False}
    epilog = command.examples and getattr(module, command.examples)
    function = getattr(module, command.function)
    short = first_sentence(function.__doc__ or "")
    app.command(name, epilog=epilog, short_help=short, context_settings=settings)(function)


def _version(wanted: bool) -> None:
    if wanted:
        import platform  # noqa: PLC0415 (nobody else needs it)

        write_line(f"p2psched {VERSION} (Python {platform.python_version()})")
        raise typer.Exit


def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """A scheduler without a head: the same program on every machine.

    What was accepted is not lost when a machine is, and no result commits twice.
    """
    del version
    _help_if_alone(context)


def _job(context: typer.Context) -> None:
    """Look at one job, wait for it, cancel it, run it again, or remove it."""
    _help_if_alone(context)


def _peer(context: typer.Context) -> None:
    """Say which peers belong to the cluster, and which of them vote."""
    _help_if_alone(context)


def _ledger(context: typer.Context) -> None:
    """Look at the ledger of one peer as files, make it smaller, or go on with it alone."""
    _help_if_alone(context)


def _events(context: typer.Context) -> None:
    """Follow what happens in the cluster, or write down what did."""
    _help_if_alone(context)


def _webhook(context: typer.Context) -> None:
    """Have events posted to an address."""
    _help_if_alone(context)


def _kv(context: typer.Context) -> None:
    """Keep small values in the ledger, change them safely, and follow changes."""
    _help_if_alone(context)


def _lock(context: typer.Context) -> None:
    """Take locks that the whole cluster knows, and run commands under them."""
    _help_if_alone(context)


def _queue(context: typer.Context) -> None:
    """Put items into queues, take them, say that they are done."""
    _help_if_alone(context)


def _spool(context: typer.Context) -> None:
    """Look at jobs that wait on a peer until it hears a majority again."""
    _help_if_alone(context)


def _reconcile(context: typer.Context) -> None:
    """Tell what became of a peer's work while it was cut off."""
    _help_if_alone(context)


def _sim(context: typer.Context) -> None:
    """Simulate clusters under faults, and see a failure again."""
    _help_if_alone(context)


_ALONE: Final = {
    "job": _job,
    "peer": _peer,
    "ledger": _ledger,
    "events": _events,
    "webhook": _webhook,
    "kv": _kv,
    "lock": _lock,
    "queue": _queue,
    "spool": _spool,
    "reconcile": _reconcile,
    "sim": _sim,
}


def _help_if_alone(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        write_line(context.get_help())
        raise typer.Exit
