"""`p2psched ledger`: the ledger of one peer: its files at rest, and their size while it runs."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer

from p2psched.cli.complete import complete_peers
from p2psched.cli.one_peer import calls_to, choose_peer
from p2psched.cli.options import OutputOption, Target, talks_to_peers
from p2psched.cli.output import Output, note, print_json, print_sheet, size, write_line
from p2psched.model.errors import Damaged, TimedOut, UsageError
from p2psched.model.ids import short
from p2psched.model.messages import CompactLedger, LedgerCompacted
from p2psched.store.folder import default_data_folder
from p2psched.store.records import list_records

if TYPE_CHECKING:
    from p2psched.peer.verify import Verified

COMPACT_TIMEOUT_S: Final = 330.0  # a little longer than a peer takes
VERIFY_EXAMPLES: Final = """\b
Examples:
  p2psched ledger verify /var/lib/p2psched/a
  p2psched ledger verify DIR -o json | jq '.verify.faults'
"""

COMPACT_EXAMPLES: Final = """\b
Examples:
  p2psched ledger compact
  p2psched ledger compact b -o json
"""


def verify_ledger(
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="FOLDER",
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


@talks_to_peers
def compact_ledger(
    target: Target,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", autocompletion=complete_peers, help="Name or id of the peer."
        ),
    ] = None,
) -> None:
    """Make a snapshot on one running peer now, and let go of the log behind it.

    Peers do this by themselves; by hand it is worth it where space is short. Without NAME it is the
    one peer that runs on this machine, or that of --peer. It needs space for a new snapshot first.
    """
    with asyncio.Runner() as runner:
        done = runner.run(_compact(target, name))
    match target.output:
        case Output.JSON:
            print_json(compact=msgspec.structs.asdict(done))
        case Output.QUIET:
            write_line(str(done.after_bytes))
        case Output.TABLE:
            write_line(
                f"log and snapshots: {size(done.before_bytes)} before, {size(done.after_bytes)} "
                f"now ({size(done.log_bytes)} log); snapshot of entry {done.snapshot_index}"
            )


async def _compact(target: Target, name: str | None) -> LedgerCompacted:
    if name is not None and os.sep in name:
        raise UsageError(
            f"{name} is a folder, and only a running peer knows which entries are committed: start "
            "it, then name the peer"
        )
    records = [record for record in list_records(target.runtime_dir) if record.alive]
    address, _ = await choose_peer(target, name, records, command="ledger compact")
    try:
        async with calls_to(target, address) as calls, asyncio.timeout(COMPACT_TIMEOUT_S):
            answer = await calls.call(CompactLedger())
    except TimeoutError as error:
        raise TimedOut(
            f"the peer at {address} has not answered within {COMPACT_TIMEOUT_S:.0f} s, and goes "
            "on: `p2psched status` tells the entry of its newest snapshot"
        ) from error
    assert isinstance(answer, LedgerCompacted)
    return answer


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
        ("entries", _entries(found)),
        ("synced", f"up to entry {found.synced_index} at least; marker: {found.marker}"),
        ("term", f"{found.term}{vote}"),
        (
            "snapshots",
            f"{sound} of {len(found.snapshots)} sound, starts from {found.snapshot_index}",
        ),
        ("state hash", found.state_hash and f"{found.state_hash} at entry {found.last_index}"),
    ]


def _entries(found: Verified) -> str:
    if found.first_index > found.last_index:
        return "none behind the snapshot" if found.snapshot_index else "none"
    return f"{found.first_index} to {found.last_index}, the last may not be committed"
