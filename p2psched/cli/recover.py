"""`p2psched ledger recover`: go on with the one disk that is left, when the majority is lost."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from p2psched.cli.options import OutputOption
from p2psched.cli.output import (
    Output,
    count,
    moment,
    note,
    print_json,
    print_sheet,
    span,
    write_line,
)
from p2psched.client.session import Session
from p2psched.model.errors import P2PSchedError, Refused
from p2psched.model.ids import PeerId, short
from p2psched.model.messages import GetStatus
from p2psched.model.status_messages import StatusAnswer
from p2psched.observe.clock import BootClock
from p2psched.peer.recovering import Begun, Outlook, look, recover
from p2psched.store.folder import DataFolder

RECOVER_EXAMPLES: Final = """\b
Examples:
  p2psched ledger recover /var/lib/p2psched/a
  p2psched ledger recover /var/lib/p2psched/a --accept-loss
"""
REACH_S: Final = 3.0  # for each of the others, all at once
SHOWN_JOBS: Final = 20


def recover_ledger(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="The data folder of the peer that is left.")
    ],
    *,
    accept_loss: Annotated[
        bool,
        typer.Option("--accept-loss", help="Go on without what only the lost disks had."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask again at a terminal.")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Make a cluster of one out of a stopped peer whose majority is lost for good.

    Without --accept-loss it changes nothing and says what this disk knows. Last resort: wait for
    the others, or restore a backup, if you can. Of several disks that are left take the one with
    the highest term, then the highest entry. Others join anew, with empty folders.
    """
    path = folder.expanduser().absolute()
    with DataFolder.open(path, create=False, to_recover=True) as opened:
        outlook = look(opened)
        if not outlook.is_begun:
            _refuse_if_needless(outlook, asyncio.run(_reach(opened, outlook)))
        if not accept_loss:
            _tell(outlook, output)
            raise Refused(
                "nothing was changed: if the others are lost for good, run it again with "
                "--accept-loss"
            )
        if output is Output.TABLE:
            _tell(outlook, output)
        if sys.stdin.isatty() and not yes:
            typer.confirm("Give up what only the lost disks had?", abort=True, err=True)
        done = recover(opened)
    _say(done, outlook, output)


async def _reach(folder: DataFolder, outlook: Outlook) -> dict[PeerId, StatusAnswer]:
    """Who of the others answers, and is of this cluster."""
    secret = folder.read_secret()
    if secret is None:
        return {}
    addresses = {member.address for member in outlook.others if member.address}
    addresses |= {address for _, address in folder.address_book.load().values()}
    found: dict[PeerId, StatusAnswer] = {}

    async def ask(address: str) -> None:
        try:
            async with asyncio.timeout(REACH_S):
                session = Session([address], secret=secret, patience_s=REACH_S)
                try:
                    status = await session.call(GetStatus(), StatusAnswer)
                finally:
                    await session.__aexit__()
        except (P2PSchedError, TimeoutError):
            return
        if status.cluster == outlook.cluster:
            found[status.info.peer] = status

    async with asyncio.TaskGroup() as group:
        for address in sorted(addresses):
            group.create_task(ask(address))
    return found


def _refuse_if_needless(outlook: Outlook, reached: dict[PeerId, StatusAnswer]) -> None:
    for status in reached.values():
        if status.quorum:
            raise Refused(
                f"nothing is lost: {status.info.name} at {status.info.address} reaches a majority. "
                "Start this peer, and it follows; if its disk is bad, join with an empty one"
            )
    voters = {voter.peer for voter in outlook.voters}
    there = len(voters & reached.keys()) + outlook.is_voter
    if there >= outlook.majority:
        raise Refused(
            f"nothing is lost: {there} of {count(len(voters), 'voter')} are there, which is a "
            "majority. Start this peer"
        )


def _tell(outlook: Outlook, output: Output) -> None:
    match output:
        case Output.JSON:
            fields = msgspec.to_builtins(outlook)
            print_json(recover={**fields, "done": False})
        case Output.QUIET:
            write_line(str(outlook.last_index))
        case Output.TABLE:
            print_sheet(_sheet(outlook))


def _sheet(outlook: Outlook) -> list[tuple[str, object]]:
    voters = ", ".join(
        f"{voter.name} at {voter.address}" if voter.peer != outlook.peer else f"{voter.name} (this)"
        for voter in outlook.voters
    )
    jobs = [
        f"{short(job.id)} {job.name}: {job.ended:,} of {count(job.tasks, 'task')} ended"
        for job in outlook.running[:SHOWN_JOBS]
    ]
    more = outlook.running_count - len(jobs)
    return [
        ("folder", outlook.folder),
        ("peer", f"{outlook.name} ({short(outlook.peer)})"),
        ("voters", voters),
        ("knows", f"entries up to {outlook.last_index:,}, term {outlook.term}"),
        ("newest entry", _age(outlook.last_wall_ms)),
        ("may be lost", "entries behind that: jobs submitted and results recorded since"),
        ("lost here", outlook.lost),
        ("jobs", f"{outlook.jobs:,}, {outlook.running_count:,} unfinished: these go on"),
        *(("", job) for job in jobs),
        ("", f"and {more:,} more" if more > 0 else ""),
    ]


def _age(wall_ms: int | None) -> str:
    if wall_ms is None:
        return "of unknown age"
    age_s = (BootClock().wall_ms() - wall_ms) / 1000
    return f"of {moment(wall_ms)}, {span(age_s)} ago"


def _say(done: Begun, outlook: Outlook, output: Output) -> None:
    match output:
        case Output.JSON:
            fields = {**msgspec.to_builtins(outlook), **msgspec.to_builtins(done)}
            print_json(recover={**fields, "done": True})
        case Output.QUIET:
            write_line(done.cluster)
        case Output.TABLE:
            write_line(f"now generation {done.generation}, cluster {done.cluster}")
            note(f"start it with `p2psched start --name {done.name} --data {outlook.folder}`")
            note("others join with empty folders and --join; their old ones are refused")
