"""`p2psched events tail` and `events export`: what happens in the cluster, in the ledger's order.

Each event has a cursor, `INDEX:POSITION`, which any peer takes: `--after CURSOR` goes on there.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated, Final, TextIO

import typer

from p2psched.cli.connect import talk
from p2psched.cli.options import Target, talks_to_peers
from p2psched.cli.output import Output, clean, count, note, print_json, write_line
from p2psched.client import events
from p2psched.client.client import Client
from p2psched.core.event_log import check_kinds
from p2psched.model.errors import Refused, Unavailable, UsageError
from p2psched.model.event_messages import EventFilter, EventPage, EventRecord, Place
from p2psched.model.ids import JobId, PeerId, is_id, short
from p2psched.observe.event_json import event_fields, event_line

TAIL_EXAMPLES: Final = """\b
Examples:
  p2psched events tail
  p2psched events tail --kind job.ended -o json
  p2psched events tail --job last --from beginning
  p2psched events tail --after 1204:3
"""
EXPORT_EXAMPLES: Final = """\b
Examples:
  p2psched events export | jq -r .kind | sort | uniq -c
  p2psched events export --from 12 --to 40 --out ev.jsonl
"""
_SHOWN: Final = ("version", "index", "position", "command", "ledger_ms")  # not to people
_FIELDS: Final = ("cursor", "time", "kind", "job", "peer", "tasks")  # have a column
_RETRY_S: Final = 0.5

KindOption = Annotated[
    list[str] | None,
    typer.Option(
        "--kind", metavar="KIND", help="Only these, as job.ended, or peer. for all of peers."
    ),
]
JobOption = Annotated[
    str | None,
    typer.Option("--job", metavar="ID", help="Only of this job: an id, a name, or 'last'."),
]
AfterOption = Annotated[
    str | None,
    typer.Option("--after", metavar="CURSOR", help="Go on behind this event, as INDEX:POSITION."),
]


@talks_to_peers
def tail(
    target: Target,
    *,
    start: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="PLACE",
            help="An entry's INDEX, INDEX:POSITION, beginning, or now.",
        ),
    ] = "now",
    after: AfterOption = None,
    job: JobOption = None,
    kind: KindOption = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Stop after so many events.")
    ] = None,
) -> None:
    """Show what happens in the cluster, as it happens, until Ctrl-C.

    Events come in the order of the ledger, each once. If the peer that tells them dies, another
    one goes on. Each has a cursor; --after goes on behind it, also at another peer.
    """
    place = _start(start, after)
    last: list[EventRecord] = []

    async def work(client: Client) -> None:
        wanted = await wanted_of(client, job, kind)
        names = _Names(client)
        shown = 0
        async for page in _without_end(client, await _resolved(client, place), wanted):
            for record in page.events:
                await _show(record, target.output, names)
                last[:] = [record]
                shown += 1
                if shown == limit:
                    return

    try:
        talk(target, work)
    except KeyboardInterrupt:
        if last and target.output is Output.TABLE:
            note(f"\ngo on from here: p2psched events tail --after {last[0].place}")
        raise


async def _without_end(
    client: Client, start: Place, wanted: EventFilter
) -> AsyncIterator[EventPage]:
    """Also while no peer answers for longer than anybody waits for a call."""
    said = False
    while True:
        try:
            async for page in events.pages(client.session, start=start, wanted=wanted):
                start, said = page.following, False
                yield page
        except Unavailable as error:
            if not said:
                note(f"{error}; still trying, Ctrl-C ends it")
            said = True
            await asyncio.sleep(_RETRY_S)


class _Names:
    """Of peers, as they come up."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._known: dict[PeerId, str] = {}

    async def of(self, peer: PeerId) -> str:
        if peer not in self._known:
            with contextlib.suppress(Unavailable):
                for view in await self._client.peers():
                    self._known[view.info.peer] = view.info.name
        return self._known.setdefault(peer, short(peer))


async def _show(record: EventRecord, output: Output, names: _Names) -> None:
    match output:
        case Output.JSON:
            write_line(event_line(record))
        case Output.QUIET:
            write_line(str(record.place))
        case Output.TABLE:
            fields = event_fields(record)
            peer = await names.of(record.peer) if record.peer is not None else ""
            more = [f"{name}={_word(value)}" for name, value in fields.items() if _is_more(name)]
            words = [
                str(fields["time"])[11:-1],
                f"{record.place!s:>8}",
                f"{record.kind:<15}",
                short(record.job) if record.job is not None else "",
                peer,
                f"tasks={record.tasks}" if record.tasks else "",
                *more,
            ]
            write_line(clean("  ".join(word for word in words if word)))


def _is_more(name: str) -> bool:
    return name not in _SHOWN and name not in _FIELDS


def _word(value: object) -> str:
    return ",".join(short(str(one)) for one in value) if isinstance(value, list) else str(value)


async def begin_of(client: Client, start: str) -> Place:
    """What `--from` says. Raises UsageError."""
    return await _resolved(client, _start(start, None))


def _start(start: str, after: str | None) -> Place | str:
    """A place, or a word for one."""
    if after is not None:
        if start != "now":
            raise UsageError("--from and --after both say where to begin: leave one away")
        return _place(after, "--after").behind
    return start if start in {"now", "beginning"} else _place(start, "--from")


def _place(text: str, option: str) -> Place:
    try:
        return Place.parse(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from error


async def _resolved(client: Client, place: Place | str) -> Place:
    if isinstance(place, Place):
        return place
    if place == "now":
        return await events.now(client.session)
    return await events.oldest(client.session)


async def wanted_of(client: Client, job: str | None, kinds: list[str] | None) -> EventFilter:
    check_kinds(kinds or ())
    found: JobId | None = None
    if job is not None:
        # Also one that is forgotten by now: a whole id needs no look.
        found = JobId(job) if is_id(job) else (await client.job(job)).id
    return EventFilter(tuple(kinds or ()), found)


# --- export ---------------------------------------------------------------------------------------


@talks_to_peers
def export(
    target: Target,
    *,
    start: Annotated[
        str,
        typer.Option("--from", metavar="PLACE", help="An entry's INDEX, INDEX:POSITION."),
    ] = "beginning",
    to: Annotated[
        int | None,
        typer.Option("--to", metavar="INDEX", min=0, help="The last entry. Default: the newest."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Default: stdout.")
    ] = None,
    job: JobOption = None,
    kind: KindOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE.")] = False,
) -> None:
    """Write events of the past as JSON lines, to stdout or a file that is whole or not there.

    How far back they go is up to what peers keep: their newest two snapshots of the ledger, and
    the log behind these. Asked for less than is left, it says from where on events can be had.
    """
    if start == "now":
        raise UsageError("nothing has happened from now on: `p2psched events tail` follows")
    place = _start(start, None)
    if out is not None and out.exists():
        _check_replaceable(out, force=force)

    async def work(client: Client) -> tuple[int, Place]:
        wanted = await wanted_of(client, job, kind)
        upto = await _end(client, to)
        begin = await _begin(client, place, upto)
        number = 0
        with _writing(out) as stream:
            found = events.pages(client.session, start=begin, wanted=wanted, upto=upto)
            async for page in found:
                for record in page.events:
                    stream.write(f"{event_line(record)}\n")
                number += len(page.events)
        return number, upto

    number, upto = talk(target, work)
    if out is None:
        return
    match target.output:
        case Output.JSON:
            print_json(events=number, path=str(out), following=str(upto))
        case Output.QUIET:
            write_line(str(out))
        case Output.TABLE:
            write_line(f"{count(number, 'event')} in {out}, all before {upto}")


def _check_replaceable(out: Path, *, force: bool) -> None:
    if not out.is_file():
        raise UsageError(f"{out} is no plain file: name another one, or none for stdout")
    if not force:
        raise Refused(f"{out} is there: name another file, or add --force")


async def _begin(client: Client, place: Place | str, upto: Place) -> Place:
    begin = await _resolved(client, place)
    if begin > upto:
        raise UsageError(f"--from: {begin} is behind the last event, which is before {upto}")
    return begin


async def _end(client: Client, to: int | None) -> Place:
    newest = await events.now(client.session)
    if to is not None and newest < Place(to + 1):
        raise UsageError(f"--to: there is no entry {to} yet, the newest is {newest.index - 1}")
    return newest if to is None else Place(to + 1)


@contextlib.contextmanager
def _writing(out: Path | None) -> Iterator[TextIO]:
    """A file gets its name when it is whole."""
    if out is None:
        yield sys.stdout
        sys.stdout.flush()
        return
    aside = out.with_name(f".{out.name}.part")
    try:
        with aside.open("w", encoding="utf-8") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(out)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise Refused(f"{out} can't be written: {error.strerror}") from error
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
