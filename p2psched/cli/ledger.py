"""`p2psched ledger`: the ledger of one peer as files."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer

from p2psched.cli.options import OutputOption
from p2psched.cli.output import Output, note, print_json, print_sheet, size, write_line
from p2psched.model.errors import Damaged
from p2psched.model.ids import short
from p2psched.store.folder import default_data_folder

if TYPE_CHECKING:
    from p2psched.peer.verify import Verified

VERIFY_EXAMPLES: Final = """\b
Examples:
  p2psched ledger verify /var/lib/p2psched/a
  p2psched ledger verify DIR -o json | jq '.verify.faults'
"""


def verify_ledger(
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FOLDER]",
            help="The data folder. Default: where a peer named as this host keeps it.",
        ),
    ] = None,
    *,
    output: OutputOption = Output.TABLE,
) -> None:
    """Check the ledger of a peer that is stopped; nothing is changed.

    Exit code 6 if something is damaged: then it says which file, and where.
    """
    from p2psched.peer.verify import verify  # noqa: PLC0415 (the help does without)

    if folder is None:
        name = socket.gethostname().partition(".")[0] or "peer"
        folder = default_data_folder(name, os.environ)
    found = verify(folder.expanduser().absolute())
    match output:
        case Output.JSON:
            print_json(verify={**msgspec.to_builtins(found), "ok": not found.faults})
        case Output.QUIET:
            write_line(found.state_hash)
        case Output.TABLE:
            print_sheet(_sheet(found))
            if found.lost:
                note(f"lacks what it knew: {found.lost}")
            for fault in found.faults:
                named = fault.what.startswith(fault.file)
                note(fault.what if named else f"{fault.file}: {fault.what}")
    if found.faults:
        raise typer.Exit(Damaged.exit_code)


def _sheet(found: Verified) -> list[tuple[str, object]]:
    peer = f"{found.name} ({short(found.peer)})" if found.peer else "unknown"
    log_bytes = sum(size for _, size in found.segments)
    sound = sum(is_sound for _, is_sound in found.snapshots)
    torn = f", and {found.torn_bytes} bytes behind the synced end" if found.torn_bytes else ""
    torn += f"; {found.unfinished} has no header" if found.unfinished else ""
    vote = f", vote for {short(found.vote)}" if found.vote else ""
    return [
        ("folder", found.folder),
        ("peer", peer),
        ("verdict", "sound" if not found.faults else f"{len(found.faults)} damaged"),
        ("log", f"{len(found.segments)} segments, {size(log_bytes)}{torn}"),
        ("entries", f"{found.first_index} to {found.last_index}, the last may not be committed"),
        ("synced", f"up to entry {found.synced_index} at least; marker: {found.marker}"),
        ("term", f"{found.term}{vote}"),
        (
            "snapshots",
            f"{sound} of {len(found.snapshots)} sound, starts from {found.snapshot_index}",
        ),
        ("state hash", found.state_hash and f"{found.state_hash} at entry {found.last_index}"),
    ]
