"""All commands, put together. What each of them does stands in its own file."""

from __future__ import annotations

import platform
from typing import Annotated, Final

import typer

from p2psched.cli import (
    cluster,
    export,
    history,
    jobs,
    keep,
    ledger,
    logs,
    results,
    sim,
    start,
    stop,
    submit,
)
from p2psched.cli.demo import demo
from p2psched.cli.output import write_line
from p2psched.model.version import VERSION

HELP_WIDTH: Final = 80  # longer lines are hard to read, also in a wide terminal
EXIT_CODES: Final = """\b
Exit codes:
  0 ok             3 no quorum, or nobody answers
  1 a task failed  4 timed out
  2 wrong usage    5 refused  6 data damaged

\b
Environment:
  P2PSCHED_PEER         as --peer
  P2PSCHED_SECRET_FILE  as --secret-file
  P2PSCHED_RUNTIME_DIR  where local peers are found
"""
_SETTINGS: Final = {"help_option_names": ["-h", "--help"], "max_content_width": HELP_WIDTH}

app: Final = typer.Typer(
    name="p2psched",
    context_settings=_SETTINGS,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    invoke_without_command=True,
    epilog=EXIT_CODES,
)
job_app: Final = typer.Typer(
    context_settings=_SETTINGS, rich_markup_mode=None, invoke_without_command=True
)
sim_app: Final = typer.Typer(
    context_settings=_SETTINGS, rich_markup_mode=None, invoke_without_command=True
)


ledger_app: Final = typer.Typer(
    context_settings=_SETTINGS, rich_markup_mode=None, invoke_without_command=True
)


def _version(wanted: bool) -> None:
    if wanted:
        write_line(f"p2psched {VERSION} (Python {platform.python_version()})")
        raise typer.Exit


@app.callback()
def root(
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


@job_app.callback()
def job(context: typer.Context) -> None:
    """Look at one job, wait for it, cancel it, run it again, or remove it."""
    _help_if_alone(context)


@ledger_app.callback()
def ledger_group(context: typer.Context) -> None:
    """Look at the ledger of one peer as files, or make it smaller."""
    _help_if_alone(context)


@sim_app.callback()
def simulation(context: typer.Context) -> None:
    """Simulate clusters under faults, and see a failure again."""
    _help_if_alone(context)


def _help_if_alone(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        write_line(context.get_help())
        raise typer.Exit


# The command's own options end where it begins, so `submit-job -- ls -l` and `ls -l` are the same.
app.command("start", epilog=start.EXAMPLES)(start.start)
app.command(
    "submit-job", epilog=submit.EXAMPLES, context_settings={"allow_interspersed_args": False}
)(submit.submit_job)
app.command("jobs", epilog=jobs.JOBS_EXAMPLES)(jobs.jobs)
app.add_typer(job_app, name="job")
app.command("peers", epilog=cluster.PEERS_EXAMPLES)(cluster.peers)
app.command("status", epilog=cluster.STATUS_EXAMPLES)(cluster.status)
app.command("stop", epilog=stop.EXAMPLES)(stop.stop)
app.add_typer(ledger_app, name="ledger")
app.command("demo")(demo)
app.add_typer(sim_app, name="sim")

ledger_app.command("verify", epilog=ledger.VERIFY_EXAMPLES)(ledger.verify_ledger)
ledger_app.command("compact", epilog=ledger.COMPACT_EXAMPLES)(ledger.compact_ledger)

job_app.command("show", epilog=jobs.SHOW_EXAMPLES)(jobs.show)
job_app.command("wait", epilog=jobs.WAIT_EXAMPLES)(jobs.wait)
job_app.command("results", epilog=results.RESULTS_EXAMPLES)(results.results)
job_app.command("export", epilog=export.EXPORT_EXAMPLES)(export.export)
job_app.command("logs", epilog=logs.LOGS_EXAMPLES)(logs.logs)
job_app.command("history", epilog=history.HISTORY_EXAMPLES)(history.history)
job_app.command("cancel", epilog=jobs.CANCEL_EXAMPLES)(jobs.cancel)
job_app.command("retry", epilog=keep.RETRY_EXAMPLES)(keep.retry)
job_app.command("rm", epilog=keep.RM_EXAMPLES)(keep.rm)
job_app.command("pin", epilog=keep.PIN_EXAMPLES)(keep.pin)
job_app.command("unpin", epilog=keep.UNPIN_EXAMPLES)(keep.unpin)

sim_app.command("run", epilog=sim.RUN_EXAMPLES)(sim.run)
sim_app.command("replay", epilog=sim.REPLAY_EXAMPLES)(sim.replay)
sim_app.command("shrink", epilog=sim.SHRINK_EXAMPLES)(sim.shrink)
