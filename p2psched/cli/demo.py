"""`p2psched demo`: a real search on real processes, one of which is killed on the way.

Everything lives in one temporary folder, with a runtime folder of its own, and is gone when the
command ends, however it ends; only `--keep` leaves a cluster that came to the end of its demo.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer
from rich.console import Console

from p2psched.cli.demo_story import NAMES, Plan, Story
from p2psched.cli.options import OutputOption
from p2psched.cli.output import Output
from p2psched.demo.cluster import RUNTIME_VARIABLE, LocalCluster
from p2psched.demo.facts import Facts
from p2psched.demo.progress import Stage
from p2psched.demo.report import render
from p2psched.demo.static import StaticCluster
from p2psched.model.config import LEDGERS
from p2psched.model.errors import P2PSchedError, UsageError

NEEDED: Final = ("sklearn", "threadpoolctl")
PEERS_MIN_TO_KILL: Final = 3  # of two peers, one has no majority
ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def demo(  # noqa: PLR0917 (typer passes options by name)
    peers: Annotated[int, typer.Option(min=1, max=len(NAMES), help="How many peers.")] = 3,
    kill: Annotated[
        bool, typer.Option("--kill/--no-kill", help="Kill -9 the leader and restart it.")
    ] = True,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the cluster up, and say how to talk to it.")
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="As -o json: the report on stdout, progress on stderr.")
    ] = False,
    output: OutputOption = Output.TABLE,
    short: Annotated[
        bool, typer.Option("--short", help="60 tasks instead of 300, for a quick look.")
    ] = False,
    ledger: Annotated[
        str, typer.Option("--ledger", help=f"Engine of the ledger: {' or '.join(LEDGERS)}.")
    ] = LEDGERS[0],
) -> None:
    """Watch a cluster lose its leader and no work.

    Starts three peers on loopback, searches the best classifier of 1,797 handwritten digits with
    300 training tasks, kills the leader meanwhile, and compares every score with one process.

    Exit code 0 only if every check at the end holds. Ctrl-C ends all processes.
    """
    _check_possible(peers=peers, kill=kill, ledger=ledger)
    plan = Plan(peers=peers, slots=_slots(peers), kill=kill, short=short)
    stage = Stage(Console(stderr=True))
    folder = Path(tempfile.mkdtemp(prefix="p2psched-demo-"))
    cluster = _cluster_in(folder, ledger, peers)
    kept = False
    try:
        facts = _run(plan, cluster, stage)
        _report(facts, Output.JSON if json else output, folder if keep else None)
        kept = keep
    finally:
        if not kept:
            for number in ENDING:  # whoever is impatient now would leave processes behind
                signal.signal(number, signal.SIG_IGN)
            cluster.close()
            shutil.rmtree(folder, ignore_errors=True)
    if kept:
        plain = output is Output.TABLE and not json
        _say_how_to_talk(cluster, Console(stderr=not plain, highlight=False, soft_wrap=True))
    if not facts.ok:
        raise typer.Exit(1)


def _report(facts: Facts, output: Output, kept: Path | None) -> None:
    match output:
        case Output.TABLE:
            render(facts, Console())
        case Output.JSON:
            sys.stdout.write(_as_json(facts, kept) + "\n")
        case Output.QUIET:
            sys.stdout.write(f"{facts.job}\n{facts.reduce_job}\n")


def _cluster_in(folder: Path, ledger: str, peers: int) -> LocalCluster:
    if ledger == LEDGERS[0]:
        return LocalCluster(folder, environ=os.environ)
    return StaticCluster(folder, names=NAMES[:peers], environ=os.environ)


def _check_possible(*, peers: int, kill: bool, ledger: str) -> None:
    if ledger not in LEDGERS:
        raise UsageError(f"--ledger is one of {', '.join(LEDGERS)}, not {ledger!r}")
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            f"the demo needs scikit-learn, and {' and '.join(missing)} can't be imported here: "
            "pip install 'p2psched[demo]'"
        )
    if kill and peers < PEERS_MIN_TO_KILL:
        raise UsageError(
            f"without its leader a cluster of {peers} has no majority: take --peers 3 or more, "
            "or --no-kill"
        )


def _slots(peers: int) -> int:
    """All cores between them; at least one each."""
    return max(1, len(os.sched_getaffinity(0)) // peers)


def _run(plan: Plan, cluster: LocalCluster, stage: Stage) -> Facts:
    """Raises P2PSchedError, or typer.Exit if a signal ended it."""
    signals: list[signal.Signals] = []

    async def main() -> Facts:
        task = asyncio.current_task()
        assert task is not None

        def on_signal(number: signal.Signals) -> None:
            signals.append(number)
            assert task is not None
            task.cancel()

        for number in ENDING:
            asyncio.get_running_loop().add_signal_handler(number, on_signal, number)
        return await Story(plan, cluster, stage).tell()

    try:
        with stage:
            return asyncio.run(main())
    except asyncio.CancelledError:
        assert signals, "only a signal cancels the demo"
        raise typer.Exit(128 + signals[0]) from None
    except BaseExceptionGroup as group:
        raise _first(group) from group


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that people should read."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        named, _ = error.split(P2PSchedError)
        error = (named or error).exceptions[0]
    return error


def _as_json(facts: Facts, kept: Path | None) -> str:
    report = msgspec.to_builtins(facts)
    report |= {"ok": facts.ok, "kept_in": None if kept is None else str(kept)}
    return msgspec.json.format(msgspec.json.encode(report), indent=2).decode()


def _say_how_to_talk(cluster: LocalCluster, console: Console) -> None:
    stops = "; ".join(f"p2psched stop {name}" for name in cluster.peers)
    console.print(
        "\n[bold]The cluster is still up.[/] To talk to it:\n\n"
        f"  export {RUNTIME_VARIABLE}={cluster.runtime_dir}\n"
        "  p2psched peers\n"
        "  p2psched job show digits\n"
        f"  {stops}\n"
        f"  rm -r {cluster.folder}"
    )
