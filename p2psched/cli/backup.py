"""`p2psched backup` and `p2psched restore`: a whole cluster as one file, and back."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer

from p2psched.cli.connect import talk
from p2psched.cli.options import SECRET_VARIABLE, OutputOption, Target, talks_to_peers
from p2psched.cli.output import (
    Output,
    count,
    moment,
    note,
    print_json,
    print_sheet,
    size,
    write_line,
)
from p2psched.cli.progress import Progress
from p2psched.client.client import Client
from p2psched.model.errors import UsageError
from p2psched.net.auth import new_secret
from p2psched.store.backup_file import BackupReader, BackupWriter
from p2psched.store.folder import NAME_LEN_MAX, read_secret_file

if TYPE_CHECKING:
    from p2psched.client.backup import BackedUp
    from p2psched.peer.restoring import Restored

BACKUP_EXAMPLES: Final = """\b
Examples:
  p2psched backup cluster.p2pbackup
  p2psched backup --unfinished night.p2pbackup -o json
  p2psched backup --verify cluster.p2pbackup
"""
RESTORE_EXAMPLES: Final = """\b
Examples:
  p2psched restore cluster.p2pbackup --name a \\
      --dir /srv/p2psched/a
  p2psched start --name a --data /srv/p2psched/a
"""

_File = Annotated[Path, typer.Argument(metavar="FILE", help="The file of the backup.")]


@talks_to_peers
def backup(
    target: Target,
    file: _File,
    *,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check all of a backup that is there; needs no peer.")
    ] = False,
    unfinished: Annotated[
        bool,
        typer.Option("--unfinished", help="Leave out jobs that have ended, and their results."),
    ] = False,
    no_large: Annotated[
        bool,
        typer.Option("--no-large", help="Leave out large results: they count as lost afterwards."),
    ] = False,
) -> None:
    """Write what the cluster knows to a file, while it works: jobs, results, large data.

    Every job that was accepted before is in it, whichever peer is asked. It holds no secret. What
    can't be finished leaves no file.
    """
    if verify:
        _verify(file, target.output)
        return
    from p2psched.client.backup import backup as fetch  # noqa: PLC0415 (the help does without)

    async def work(client: Client) -> BackedUp:
        calls = await client.session.connection()
        progress: list[Progress] = []

        def begin(total: int) -> Progress:
            progress.append(Progress("backup", total))
            return progress[0]

        with BackupWriter(file.expanduser().absolute()) as writer:
            try:
                return await fetch(
                    client.session,
                    calls,
                    writer,
                    ended=not unfinished,
                    large=not no_large,
                    begin=begin,
                )
            finally:
                for shown in progress:
                    shown.hide()

    done = talk(target, work)
    match target.output:
        case Output.JSON:
            print_json(backup=msgspec.structs.asdict(done))
        case Output.QUIET:
            write_line(done.path)
        case Output.TABLE:
            write_line(
                f"{done.path}: {size(done.bytes)}, as of entry {done.entry:,} of the ledger; "
                f"{count(done.jobs, 'job')} ({done.jobs_running:,} unfinished), "
                f"{count(done.blobs, 'large piece')} of data ({size(done.blob_bytes)})"
            )
    if done.missing:
        note(f"{count(done.missing, 'large piece')} of data had no copy within reach: not in it")


def _verify(file: Path, output: Output) -> None:
    from p2psched.peer.restoring import check  # noqa: PLC0415 (the help does without)

    path = file.expanduser().absolute()
    progress = Progress("verify", _size_of(path))
    try:
        found = check(path, progress)
    finally:
        progress.hide()
    match output:
        case Output.JSON:
            print_json(backup={"path": str(path), "ok": True, **_fields(found)})
        case Output.QUIET:
            write_line(str(path))
        case Output.TABLE:
            print_sheet([("file", str(path)), ("verdict", "sound"), *_sheet(found)])


def restore(
    file: _File,
    folder: Annotated[
        Path,
        typer.Option("--dir", metavar="DIR", help="The data folder to make: empty, or not there."),
    ],
    *,
    name: Annotated[
        str | None, typer.Option("--name", help="Of the peer. Default: the host's name.")
    ] = None,
    secret_file: Annotated[
        Path | None,
        typer.Option(
            "--secret-file",
            metavar="FILE",
            envvar=SECRET_VARIABLE,
            help="The cluster's secret. Default: a new one.",
        ),
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Make the data folder of a new cluster of one peer out of a backup.

    Accepted jobs and results are there; what had not ended is run again. Peers of before are no
    part of it, and what they were granted is void: others join anew, with empty folders. A new
    secret is made unless --secret-file names one.
    """
    from p2psched.peer.restoring import restore as make  # noqa: PLC0415 (the help does without)

    name = name or socket.gethostname().partition(".")[0] or "peer"
    if len(name) > NAME_LEN_MAX or not name.isprintable():
        raise UsageError(f"--name has 1 to {NAME_LEN_MAX} printable characters")
    path, target = file.expanduser().absolute(), folder.expanduser().absolute()
    secret = read_secret_file(secret_file) if secret_file is not None else new_secret()
    progress = Progress("restore", _size_of(path))
    try:
        made = make(path, target, name=name, secret=secret, progress=progress)
    finally:
        progress.hide()
    match output:
        case Output.JSON:
            print_json(restore={"folder": str(target), **_fields(made)})
        case Output.QUIET:
            write_line(str(target))
        case Output.TABLE:
            print_sheet([("folder", str(target)), *_sheet(made)])
            note(f"start it with `p2psched start --name {name} --data {target}`")
            note(f"others join with an empty folder, --join and --secret-file {target / 'secret'}")


def _size_of(path: Path) -> int:
    with BackupReader(path) as reader:
        return reader.size


def _fields(found: Restored) -> dict[str, object]:
    head = found.head
    return {
        "entry": head.snapshot.index,
        "made": moment(head.made_ms),
        "version": head.version,
        "of_cluster": head.cluster,
        "cluster": found.cluster,
        "peer": found.peer,
        "generation": found.generation,
        "jobs": found.jobs,
        "jobs_running": found.jobs_running,
        "blobs": found.blobs,
        "blob_bytes": found.blob_bytes,
        "missing": found.missing,
        "with_ended": head.ended,
        "with_large": head.large,
    }


def _sheet(found: Restored) -> list[tuple[str, object]]:
    head = found.head
    left_out = [*([] if head.ended else ["ended jobs"]), *([] if head.large else ["large results"])]
    return [
        ("made", f"{moment(head.made_ms)} by p2psched {head.version}, told by {head.peer}"),
        ("as of", f"entry {head.snapshot.index:,} of cluster {head.cluster}"),
        ("cluster", found.cluster or ""),
        ("generation", str(found.generation) if found.cluster else ""),
        ("jobs", f"{found.jobs:,}, {found.jobs_running:,} of them unfinished"),
        ("large data", f"{count(found.blobs, 'piece')}, {size(found.blob_bytes)}"),
        ("missing", f"{count(found.missing, 'large piece')}" if found.missing else ""),
        ("left out", " and ".join(left_out)),
    ]
