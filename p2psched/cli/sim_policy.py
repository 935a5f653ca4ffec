"""`p2psched sim policy`: placement policies side by side, on workloads that are always the same."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from p2psched.cli.options import OutputOption
from p2psched.cli.output import Column, Output, print_json, print_table, write_line
from p2psched.core.policies.registry import with_own
from p2psched.peer.own_policies import policy_file

if TYPE_CHECKING:
    from p2psched.testing.placement_sim import Run

POLICY_EXAMPLES: Final = """\b
Examples:
  p2psched sim policy
  p2psched sim policy mine.py -o json
"""

_File = Annotated[
    Path | None,
    typer.Argument(metavar="FILE", help="A policy of your own, as for `start --policy-file`."),
]


def policy(file: _File = None, *, output: OutputOption = Output.TABLE) -> None:
    """Compare placement policies, all that there are and the one in FILE, on six workloads.

    Each cell is the time until all tasks have ended over the least that it could be, and the
    time that 95 of 100 tasks wait at most, in seconds. Nobody steals here.
    """
    from p2psched.testing.placement_sim import simulate  # noqa: PLC0415
    from p2psched.testing.workloads import WORKLOADS  # noqa: PLC0415

    policies = with_own([] if file is None else [policy_file(file)])
    runs: dict[tuple[str, str], Run] = {
        (name, workload.name): simulate(workload, name, policies)
        for name in policies
        for workload in WORKLOADS.values()
    }
    match output:
        case Output.JSON:
            print_json(runs=[_fields(run) for run in runs.values()])
        case Output.QUIET:
            for name in policies:
                write_line(name)
        case Output.TABLE:
            columns = [Column(title="policy"), *(Column(title=w, right=True) for w in WORKLOADS)]
            print_table(
                columns, [(name, *(_cell(runs[name, w]) for w in WORKLOADS)) for name in policies]
            )


def _cell(run: Run) -> str:
    return f"{run.over_ideal:.2f} {run.p95_wait_us / 1_000_000:.2f}"


def _fields(run: Run) -> dict[str, object]:
    return {
        "policy": run.policy,
        "workload": run.workload,
        "makespan_s": run.makespan_us / 1_000_000,
        "over_ideal": run.over_ideal,
        "p95_wait_s": run.p95_wait_us / 1_000_000,
        "tasks": len(run.waits_us),
    }
