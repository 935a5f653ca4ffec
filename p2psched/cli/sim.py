"""`p2psched sim`: whole clusters in one process, under faults, each from one number.

The simulator itself is loaded by the command that needs it: no other one shall wait for it.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Final

import typer

from p2psched.cli.options import OutputOption
from p2psched.cli.output import Output, count, note, print_json, write_line
from p2psched.cli.progress import Progress
from p2psched.model.errors import UsageError

if TYPE_CHECKING:
    from p2psched.testing.run import Failure
    from p2psched.testing.sim_report import Report
    from p2psched.testing.simulate import Options

RUN_EXAMPLES: Final = """\b
Examples:
  p2psched sim run --seeds 1000 --jobs 2
  p2psched sim run --peers 3 --calm --fault drop=0.1
"""
REPLAY_EXAMPLES: Final = """\b
Examples:
  p2psched sim replay 7
  p2psched sim replay 7 --peers 3 --last 200
"""
SHRINK_EXAMPLES: Final = """\b
Example:
  p2psched sim shrink 7 --peers 3
"""
SEEDS_MAX: Final = 10_000_000
PEERS_MAX: Final = 15
JOBS_MAX: Final = 64

SeedArgument = Annotated[int, typer.Argument(metavar="SEED", min=0, help="Which run.")]
PeersOption = Annotated[
    int | None, typer.Option("--peers", min=1, max=PEERS_MAX, help="How many. Default: drawn.")
]
EventsOption = Annotated[
    int | None, typer.Option("--events", min=1, help="How many, while faults last.")
]
SubmitsOption = Annotated[
    int | None, typer.Option("--submits", min=1, help="The most jobs of a run.")
]
FaultOption = Annotated[
    list[str] | None,
    typer.Option("--fault", metavar="NAME=VALUE", help="Set one fault; repeat it for more."),
]
CalmOption = Annotated[
    bool, typer.Option("--calm", help="No faults but those of --fault. Default: drawn.")
]
PoisonOption = Annotated[
    bool, typer.Option("--poison/--no-poison", help="Tasks that kill their peers, in some runs.")
]
HangingOption = Annotated[
    bool, typer.Option("--hanging/--no-hanging", help="Tasks that never end, in some runs.")
]
HealingOption = Annotated[
    bool, typer.Option("--healing/--no-healing", help="Leaders look after the group of voters.")
]
KeepingOption = Annotated[
    bool,
    typer.Option("--keeping/--no-keeping", help="Jobs are forgotten, pinned, retried; large data."),
]


def run(  # noqa: PLR0917 (typer passes options by name)
    seeds: Annotated[
        int, typer.Option("--seeds", min=1, max=SEEDS_MAX, help="How many runs.")
    ] = 100,
    first: Annotated[int, typer.Option("--from", min=0, help="The first seed.")] = 0,
    jobs: Annotated[
        int, typer.Option("--jobs", min=1, max=JOBS_MAX, help="Processes at a time.")
    ] = 1,
    recheck: Annotated[
        int,
        typer.Option(
            "--recheck", min=0, help="Of so many runs one runs again, in another process. 0: none."
        ),
    ] = 50,
    peers: PeersOption = None,
    events: EventsOption = None,
    submits: SubmitsOption = None,
    fault: FaultOption = None,
    calm: CalmOption = False,
    poison: PoisonOption = True,
    hanging: HangingOption = True,
    healing: HealingOption = True,
    keeping: KeepingOption = True,
    output: OutputOption = Output.TABLE,
) -> None:
    """Simulate clusters under faults, one for each seed.

    Referees watch every promise. Exit code 1 if one was broken; what to run to see it again is
    printed. A fault that is counted nowhere in the sum did not happen.
    """
    from p2psched.testing.run import Failure, Summary, run_again, run_seeds  # noqa: PLC0415

    kinds = {"poison": poison, "hanging": hanging, "healing": healing, "keeping": keeping}
    options = _options(peers, events, submits, fault, calm=calm, **kinds)
    summary, began_s = Summary(), time.perf_counter()
    progress = Progress("simulated", seeds, _seeds)
    traces: dict[int, int] = {}
    for position, result in enumerate(run_seeds(range(first, first + seeds), options, jobs), 1):
        summary.add(result)
        progress(1)
        if isinstance(result, Failure):
            progress.hide()
            _tell(result, output)
        elif recheck and position % recheck == 0:
            traces[result.seed] = result.trace
    progress.hide()
    for failure in run_again(traces, options, jobs) if traces else ():
        summary.failures.append(failure)
        _tell(failure, output)
    summary.rechecked = len(traces)
    seconds = time.perf_counter() - began_s
    if output is Output.TABLE:
        for line in summary.lines(seconds):
            write_line(line)
    elif output is Output.JSON:
        print_json(
            seeds=summary.seeds,
            failures=[_fields(failure) for failure in summary.failures],
            rechecked=summary.rechecked,
            events=summary.events,
            virtual_ms=summary.virtual_ms,
            seconds=round(seconds, 3),
            happened=dict(sorted(summary.happened.items())),
        )
    if summary.failures:
        raise typer.Exit(1)


def _tell(failure: Failure, output: Output) -> None:
    if output is Output.TABLE:
        write_line(f"seed {failure.seed} failed: {failure.text}")
    elif output is Output.QUIET:
        write_line(str(failure.seed))


def replay(  # noqa: PLR0917 (typer passes options by name)
    seed: SeedArgument,
    last: Annotated[
        int, typer.Option("--last", min=1, help="How many of the last events to show.")
    ] = 30,
    peers: PeersOption = None,
    events: EventsOption = None,
    submits: SubmitsOption = None,
    fault: FaultOption = None,
    calm: CalmOption = False,
    poison: PoisonOption = True,
    hanging: HangingOption = True,
    healing: HealingOption = True,
    keeping: KeepingOption = True,
    output: OutputOption = Output.TABLE,
) -> None:
    """Run one seed again, and show its last events.

    It is the same run, event by event, as long as the code is the same. Exit code 1 if it fails.
    """
    from p2psched.testing.run import Failure, run_seed  # noqa: PLC0415

    options = _options(
        peers,
        events,
        submits,
        fault,
        calm=calm,
        poison=poison,
        hanging=hanging,
        healing=healing,
        keeping=keeping,
        last=last,
    )
    result = run_seed(seed, options)
    if output is Output.JSON:
        print_json(**(_fields(result) if isinstance(result, Failure) else _report(result)))
    elif output is Output.QUIET:
        write_line(str(seed))
    elif isinstance(result, Failure):
        write_line(f"seed {seed} failed: {result.text}")
    else:
        write_line(
            f"seed {seed}: {result.peers} peers, {result.events} events, "
            f"{result.virtual_ms / 1000:.1f} s, trace {result.trace:08x}, no promise was broken"
        )
        write_line(f"the last {len(result.last)} events:")
        for line in result.last:
            write_line(line)
    if isinstance(result, Failure):
        raise typer.Exit(1)


def shrink(  # noqa: PLR0917 (typer passes options by name)
    seed: SeedArgument,
    runs: Annotated[
        int, typer.Option("--runs", min=1, max=100_000, help="At most so many tries.")
    ] = 300,
    peers: PeersOption = None,
    events: EventsOption = None,
    submits: SubmitsOption = None,
    fault: FaultOption = None,
    calm: CalmOption = False,
    poison: PoisonOption = True,
    hanging: HangingOption = True,
    healing: HealingOption = True,
    keeping: KeepingOption = True,
    output: OutputOption = Output.TABLE,
) -> None:
    """Find a smaller run that breaks the same promise as a seed does.

    Turns off faults, lowers rates, takes away peers, jobs and events, and keeps what still fails,
    perhaps in another seed. Prints the line that runs it. Exit code 1 if there is a failure, as
    for the other commands; 2 if the seed doesn't fail.
    """
    from p2psched.testing.run import Failure, run_seed  # noqa: PLC0415
    from p2psched.testing.shrink import shrink as find_smaller  # noqa: PLC0415

    kinds = {"poison": poison, "hanging": hanging, "healing": healing, "keeping": keeping}
    options = _options(peers, events, submits, fault, calm=calm, **kinds)
    failure = run_seed(seed, options)
    if not isinstance(failure, Failure):
        raise UsageError(f"seed {seed} breaks no promise: there is nothing to make smaller")
    if output is Output.TABLE:
        note(f"seed {seed} failed: {failure.why}")
    progress = Progress("tried", runs, lambda number: count(number, "run"))
    found = find_smaller(failure, options, runs_max=runs, on_run=lambda: progress(1))
    progress.hide()
    match output:
        case Output.JSON:
            print_json(**_fields(found.failure), runs=found.runs)
        case Output.QUIET:
            write_line(found.failure.replay)
        case Output.TABLE:
            write_line(f"{found.failure.text}\nfound in {count(found.runs, 'run')}")
    raise typer.Exit(1)


def _options(
    peers: int | None,
    events: int | None,
    submits: int | None,
    fault: list[str] | None,
    *,
    calm: bool,
    poison: bool,
    hanging: bool,
    healing: bool,
    keeping: bool,
    last: int | None = None,
) -> Options:
    from p2psched.testing.faults import Faults, parse_change  # noqa: PLC0415
    from p2psched.testing.sim import LAST_EVENTS  # noqa: PLC0415
    from p2psched.testing.simulate import EVENTS, Options  # noqa: PLC0415
    from p2psched.testing.simulate import JOBS_MAX as SUBMITS  # noqa: PLC0415

    try:
        changes = tuple(map(parse_change, fault or ()))
    except ValueError as error:
        raise UsageError(f"--fault {error}") from error
    return Options(
        peers=peers,
        events=events or EVENTS,
        jobs_max=submits or SUBMITS,
        faults=Faults() if calm else None,
        changes=changes,
        poison=poison,
        hanging=hanging,
        healing=healing,
        keeping=keeping,
        last=last or LAST_EVENTS,
    )


def _seeds(number: int) -> str:
    return count(number, "seed")


def _fields(failure: Failure) -> dict[str, object]:
    return asdict(failure)


def _report(report: Report) -> dict[str, object]:
    shown = ("seed", "peers", "events", "virtual_ms")
    fields: dict[str, object] = {name: getattr(report, name) for name in shown}
    return fields | {
        "why": None,
        "trace": f"{report.trace:08x}",
        "happened": dict(sorted(report.happened.items())),
    }
