"""`p2psched kv get|put|delete|cas|range|watch|txn`: keys of the ledger, and their values."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Final

import typer

from p2psched.cli.complete import complete_keys
from p2psched.cli.connect import label, talk
from p2psched.cli.kv_txn import entry_fields, made, parsed, plain, result_fields, text_of
from p2psched.cli.options import Target, duration, reads_from_peers, talks_to_peers
from p2psched.cli.output import (
    Column,
    Output,
    clean,
    note,
    print_json,
    print_table,
    write_bytes,
    write_line,
)
from p2psched.client.client import Client
from p2psched.client.keys import Change, Entry, Page, Transaction
from p2psched.model.errors import NotFound, Unavailable, UsageError
from p2psched.model.event_messages import Place

GET_EXAMPLES: Final = """\b
Examples:
  p2psched kv get config/color
  p2psched kv get config/color -o json | jq .entry.version
"""
PUT_EXAMPLES: Final = """\b
Examples:
  p2psched kv put config/color green
  p2psched kv put limits '{"cpu": 4}' --parse
  p2psched kv put online/a yes --ttl 30s
  date | p2psched kv put now -
"""
DELETE_EXAMPLES: Final = """\b
Example:
  p2psched kv delete config/color
"""
CAS_EXAMPLES: Final = """\b
Examples:
  p2psched kv cas config/color 17 blue
  p2psched kv cas leader 0 me
"""
RANGE_EXAMPLES: Final = """\b
Examples:
  p2psched kv range config/
  p2psched kv range config/ -o json | jq .range_version
"""
WATCH_EXAMPLES: Final = """\b
Examples:
  p2psched kv watch config/
  p2psched kv watch config/ --from-version 17 -o json
"""
TXN_EXAMPLES: Final = """\b
Example:
  p2psched kv txn <<'END'
  {"compare": [{"key": "a", "version": 17}],
   "then": [{"put": "a", "value": 1}, {"delete": "b"}],
   "otherwise": [{"get": "a"}]}
  END
"""
_COLUMNS: Final = (
    Column(title="key", shrink_to=16),
    Column(title="version", right=True),
    Column(title="value", shrink_to=12),
)
RETRY_S: Final = 1.0
STDIN_BYTES_MAX: Final = 1024 * 1024  # more is no value, and no transaction

KeyArgument = Annotated[
    str, typer.Argument(metavar="KEY", autocompletion=complete_keys, help="1 to 1024 bytes.")
]
ValueArgument = Annotated[
    str, typer.Argument(metavar="VALUE", help="Text, up to 256 KiB; - for what comes on stdin.")
]
PrefixArgument = Annotated[
    str, typer.Argument(metavar="[PREFIX]", help="Keys that begin so. Default: all.")
]
ParseOption = Annotated[
    bool, typer.Option("--parse", help="VALUE is JSON, not text: a number, a list, ...")
]


@reads_from_peers
def get(target: Target, key: KeyArgument) -> None:
    """Show the value of a key. Exit 2 if it is not there."""

    async def work(client: Client) -> tuple[Entry | None, dict[str, object]]:
        return await client.kv.get(key), label(client)

    entry, stale = talk(target, work)
    if entry is None:
        raise NotFound(f"no key {key!r}: `p2psched kv range` lists those that there are")
    if target.output is Output.JSON:
        print_json(entry=entry_fields(entry), **stale)
    elif isinstance(entry.value, bytes):
        write_bytes(sys.stdout, entry.value)
    elif sys.stdout.isatty():
        for line in text_of(entry.value).split("\n"):
            write_line(clean(line))
    else:
        write_line(text_of(entry.value))


@talks_to_peers
def put(
    target: Target,
    key: KeyArgument,
    value: ValueArgument,
    *,
    parse: ParseOption = False,
    ttl: Annotated[
        str | None,
        typer.Option("--ttl", metavar="DURATION", help="The key goes after that: 1 s to 24 h."),
    ] = None,
) -> None:
    """Put a value, whatever was there. Tells its version."""
    given = _given(value, parse=parse)
    ttl_ms = round(duration(ttl, "--ttl") * 1000) if ttl is not None else None

    async def work(client: Client) -> int:
        lease = await client.session.leases.grant(ttl_ms) if ttl_ms is not None else None
        return await client.kv.put(key, given, lease=lease)

    _tell_version(target, key, talk(target, work))


@talks_to_peers
def delete(
    target: Target,
    key: KeyArgument,
    *,
    version: Annotated[
        int | None, typer.Option("--version", min=1, help="Only if it has this one, else exit 1.")
    ] = None,
) -> None:
    """Delete a key. It is no error if it is not there."""

    async def work(client: Client) -> bool:
        return await client.kv.delete(key, version=version)

    was_there = talk(target, work)
    if target.output is Output.JSON:
        print_json(key=key, was_there=was_there)
    elif target.output is Output.TABLE:
        write_line(clean(f"deleted {key}" if was_there else f"{key} was not there"))


@talks_to_peers
def cas(
    target: Target,
    key: KeyArgument,
    version: Annotated[
        int, typer.Argument(metavar="VERSION", min=0, help="0: the key must not be there.")
    ],
    value: ValueArgument,
    *,
    parse: ParseOption = False,
) -> None:
    """Put a value if the key has a version; else exit 1, and nothing is changed.

    Read the key, make a new value of it, and cas it with the version that was read: so two who do
    that at the same time don't undo each other's work.
    """
    given = _given(value, parse=parse)

    async def work(client: Client) -> int:
        return await client.kv.cas(key, version, given)

    _tell_version(target, key, talk(target, work))


@reads_from_peers
def range_keys(
    target: Target,
    prefix: PrefixArgument = "",
    *,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Show so many at most.")] = 1000,
    after: Annotated[
        str | None, typer.Option("--after", metavar="KEY", help="Only keys behind this one.")
    ] = None,
) -> None:
    """List keys in their order, with values and versions."""

    async def work(client: Client) -> dict[str, object]:
        found = await client.kv.range(prefix, limit=limit, after=after)
        match target.output:
            case Output.JSON:
                entries = [entry_fields(entry) for entry in found]
                more = found.more
                print_json(entries=entries, range_version=found.version, more=more, **label(client))
            case Output.QUIET:
                for entry in found:
                    write_line(clean(entry.key))
            case Output.TABLE:
                print_table(_COLUMNS, [(e.key, e.version, text_of(e.value)) for e in found])
                if found.more:
                    note(f"there are more: --after {found.entries[-1].key!r}")
        return {}

    talk(target, work)


@talks_to_peers
def watch(
    target: Target,
    prefix: PrefixArgument = "",
    *,
    from_version: Annotated[
        int | None,
        typer.Option("--from-version", min=0, help="Changes behind it. Default: from now on."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Stop after so many changes.")
    ] = None,
) -> None:
    """Show changes of keys, as they happen, until Ctrl-C.

    Each is shown once, in order, whichever peer is lost.
    """

    async def work(client: Client) -> None:
        shown = 0
        async for page in _without_end(client, prefix, from_version):
            for change in page.changes:
                _show(change, target.output)
                shown += 1
                if shown == limit:
                    return

    talk(target, work)


async def _without_end(
    client: Client, prefix: str, from_version: int | None
) -> AsyncIterator[Page]:
    """Also while no peer answers for longer than anybody waits for a call."""
    start: Place | None = None
    said = False
    while True:
        try:
            async for page in client.kv.pages(prefix, from_version=from_version, start=start):
                start, said = page.following, False
                yield page
        except Unavailable as error:
            if not said:
                note(f"{error}; still trying, Ctrl-C ends it")
            said = True
            await asyncio.sleep(RETRY_S)


@talks_to_peers
def txn(
    target: Target,
    file: Annotated[
        str, typer.Argument(metavar="[FILE]", help="JSON, see below; - for stdin.")
    ] = "-",
) -> None:
    """Compare several keys and change several, at one moment: all of it or nothing.

    If all of "compare" holds all of "then" is done, else all of "otherwise". A comparison has a
    key, and its version (0: not there) or value; or a lock, and the token
    under which it is held. Operations: put, delete, get.
    """
    compare, then, otherwise = parsed(_read(file))

    async def work(client: Client) -> Transaction:
        return await client.kv.txn(compare, then, otherwise)

    done = talk(target, work)
    results = [result_fields(result) for result in done.results]
    match target.output:
        case Output.JSON:
            print_json(held=done.held, txn_version=done.version, results=results)
        case Output.QUIET:
            write_line(str(done.version))
        case Output.TABLE:
            write_line(f"{'then' if done.held else 'otherwise'}, version {done.version}")
            for result in results:
                write_line(clean(text_of(result)))


def _given(value: str, *, parse: bool) -> object:
    """What the words mean. Raises UsageError."""
    given: object = value
    if value == "-":
        data = _read("-")
        try:
            given = data.decode()
        except UnicodeDecodeError:
            given = data
    if not parse:
        return given
    try:
        found: object = json.loads(given if isinstance(given, str | bytes) else value)
    except ValueError as error:
        raise UsageError(f"--parse: the value is no JSON: {error}") from error
    return made(found)


def _read(file: str) -> bytes:
    try:
        if file == "-":
            data = sys.stdin.buffer.read(STDIN_BYTES_MAX + 1)
        else:
            with Path(file).open("rb") as opened:
                data = opened.read(STDIN_BYTES_MAX + 1)
    except OSError as error:
        raise UsageError(f"can't read {file}: {error.strerror}") from error
    if len(data) > STDIN_BYTES_MAX:
        raise UsageError(f"{file} has more than 1 MiB, which is too much")
    return data


def _tell_version(target: Target, key: str, version: int) -> None:
    match target.output:
        case Output.JSON:
            print_json(key=key, key_version=version)
        case Output.QUIET:
            write_line(str(version))
        case Output.TABLE:
            write_line(clean(f"{key} has version {version}"))


def _show(change: Change, output: Output) -> None:
    match output:
        case Output.JSON:
            print_json(change=_change_fields(change))
        case Output.QUIET:
            write_line(clean(change.key))
        case Output.TABLE:
            value = "is gone" if change.deleted else f"= {text_of(change.value)}"
            write_line(clean(f"{change.version}  {change.key} {value}"))


def _change_fields(change: Change) -> dict[str, object]:
    return {
        "key": change.key,
        "value": plain(change.value),
        "version": change.version,
        "deleted": change.deleted,
        "lease": change.lease,
    }
