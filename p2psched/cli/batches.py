"""Jobs of batches (`submit-job --inputs`) as the command line shows them: input by input."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from p2psched.cli.output import count, note, one_line, print_json
from p2psched.client.client import Client
from p2psched.client.shapes import shape_of
from p2psched.model.ids import short
from p2psched.model.messages import JobView

if TYPE_CHECKING:
    from p2psched.client.batches import Outcome

BATCHES_HELP: Final = (
    "Many inputs, one a line; - is stdin. COMMAND reads some and writes a line for each."
)
FAILURES_NOTED: Final = 20


async def print_outcomes(client: Client, view: JobView) -> int:
    """On stdout what came out for each input, in order (an empty line for one that failed), so
    that line n is that of input n. Returns how many failed, which stderr tells."""
    from p2psched.client.batches import outcomes  # noqa: PLC0415 (most jobs have no inputs)

    failed = 0
    sys.stdout.flush()
    async for number, outcome in outcomes(client.session, view):
        sys.stdout.buffer.write(outcome.out + b"\n")
        if not outcome.ok:
            failed += 1
            if failed <= FAILURES_NOTED:
                note(f"input {number + 1}: {one_line(outcome.error)}")
    sys.stdout.buffer.flush()
    if failed > FAILURES_NOTED:
        note(f"and {failed - FAILURES_NOTED:,} more inputs failed: -o json names them all")
    return failed


async def print_outcomes_as_json(client: Client, view: JobView) -> int:
    """Inputs are counted from 1, as lines are. Returns how many failed."""
    from p2psched.client.batches import outcomes  # noqa: PLC0415

    found = [_fields(number, outcome) async for number, outcome in outcomes(client.session, view)]
    print_json(job=view.job, state=view.state, inputs=found)
    return sum(not one["ok"] for one in found)


def _fields(number: int, outcome: Outcome) -> dict[str, object]:
    return {
        "input": number + 1,
        "ok": outcome.ok,
        "out": outcome.out.decode(errors="replace"),
        "error": outcome.error or None,
    }


def command_text(view: JobView) -> str:
    """What a job calls, for people. The command of a job of inputs is packed with its arguments."""
    shape = shape_of(view)
    if shape is None:
        return view.command
    return f"{count(shape.inputs, 'input')}, {shape.batch:,} a process"


async def note_failed_inputs(client: Client, view: JobView) -> bool:
    """True if an input failed, though every batch may have ended well."""
    shape = shape_of(view)
    if shape is None:
        return False
    from p2psched.client.batches import outcomes  # noqa: PLC0415

    failed = 0
    async for _, outcome in outcomes(client.session, view):
        failed += not outcome.ok
    if failed:
        text = f"{failed:,} of {count(shape.inputs, 'input')} failed"
        note(f"{text}: `p2psched job results {short(view.job)}` shows which")
    return bool(failed)
