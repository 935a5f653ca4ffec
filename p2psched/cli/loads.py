"""`p2psched peers --watch`: how busy all peers are, as one of them hears by gossip.

On a terminal the table is drawn over the one before; in a pipe one follows the other, and as JSON
each is a line. Ctrl-C ends it.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from p2psched.cli.connect import talk
from p2psched.cli.describe import load_fields
from p2psched.cli.options import Target
from p2psched.cli.output import (
    Column,
    Output,
    count,
    note,
    print_json,
    span,
    table_lines,
    write_line,
)
from p2psched.client.client import Client
from p2psched.model.errors import Unavailable, UsageError
from p2psched.model.ids import PeerId, short
from p2psched.model.load import LoadReport
from p2psched.model.load_messages import GetLoads, LoadRow, LoadStatus, LoadTable

RETRY_S: Final = 1.0
NAMES_EVERY: Final = 30  # tables: who came later gets a name, too
_COLUMNS: Final = (
    Column(title="name", shrink_to=6),
    Column(title="state"),
    Column(title="busy", right=True),
    Column(title="queue", right=True),
    Column(title="work", right=True, drop=6),
    Column(title="cpu", right=True),
    Column(title="others", right=True, drop=8),
    Column(title="memory", right=True, drop=7),
    Column(title="disk", right=True, drop=9),
    Column(title="gpus", right=True, drop=10),
    Column(title="net/s", right=True, drop=11),
    Column(title="battery", right=True, drop=12),
    Column(title="temp", right=True, drop=13),
    Column(title="age", right=True, drop=5),
)
_HOME: Final = "\x1b[H"
_CLEAR_LINE: Final = "\x1b[K"
_CLEAR_BELOW: Final = "\x1b[J"
_CLEAR: Final = "\x1b[2J"


def watch_loads(target: Target, at: int | None, every_s: float) -> None:
    """Until Ctrl-C. Raises UsageError if it is asked for the past."""
    if at is not None:
        raise UsageError("--watch shows what is now, --at what was: give one of them")
    talk(target, lambda client: _watch(client, target.output, every_s))


async def _watch(client: Client, output: Output, every_s: float) -> None:
    names: dict[PeerId, str] = {}
    tables, said = 0, False
    while True:
        try:
            found = await client.session.call(GetLoads(), LoadTable)
            if tables % NAMES_EVERY == 0:
                names |= await _names(client, found)
        except Unavailable as error:
            if not said:
                note(f"{error}; still trying, Ctrl-C ends it")
            said = True
            await asyncio.sleep(RETRY_S)
            continue
        said = False
        _show(found, names, output, is_first=tables == 0)
        tables += 1
        await asyncio.sleep(every_s)


async def _names(client: Client, found: LoadTable) -> dict[PeerId, str]:
    """A follower knows the loads of all, and the names of few."""
    names = {row.peer: row.name for row in found.rows if row.name}
    if len(names) < len(found.rows):
        with contextlib.suppress(Unavailable):
            names |= {view.info.peer: view.info.name for view in await client.peers()}
    return names


def _show(found: LoadTable, names: Mapping[PeerId, str], output: Output, *, is_first: bool) -> None:
    rows = sorted(found.rows, key=lambda row: (_name(row, names), row.peer))
    match output:
        case Output.JSON:
            print_json(
                peers=[
                    {
                        "id": row.peer,
                        "name": row.name or names.get(row.peer),
                        "state": row.liveness.name.lower(),
                        "load_age_ms": row.age_ms,
                        "load": load_fields(row.load),
                    }
                    for row in rows
                ],
                heard_by=found.me,
            )
        case Output.QUIET:
            for row in rows:
                write_line(short(row.peer))
        case Output.TABLE:
            lines = table_lines(_COLUMNS, [_row(row, names) for row in rows])
            _draw([*lines, "", _cost(found.status)], is_first=is_first)


def _draw(lines: Sequence[str], *, is_first: bool) -> None:
    if not sys.stdout.isatty():
        write_line("\n".join([*([] if is_first else [""]), *lines]))
        return
    begin = _CLEAR if is_first else ""
    text = "".join(f"{line}{_CLEAR_LINE}\n" for line in lines)
    sys.stdout.write(f"{begin}{_HOME}{text}{_CLEAR_BELOW}")
    sys.stdout.flush()


def _name(row: LoadRow, names: Mapping[PeerId, str]) -> str:
    return row.name or names.get(row.peer) or short(row.peer)


def _row(row: LoadRow, names: Mapping[PeerId, str]) -> tuple[object, ...]:
    state, load = row.liveness.name.lower(), row.load
    if load is None:
        return (_name(row, names), state, *["-"] * (len(_COLUMNS) - 3), span(row.age_ms / 1000))
    return (
        _name(row, names),
        "takes none" if state == "alive" and not load.takes else state,
        f"{load.running}/{load.slots}",
        load.queue,
        span(load.queue_us / 1e6) if load.queue_us else "-",
        f"{load.cpu / 10:.0f} %",
        f"{load.foreign_cpu / 10:.0f} %",
        f"{_mib(load.memory_free)} of {_mib(load.memory)}",
        _mib(load.disk_free),
        f"{load.gpus_busy}/{load.gpus}" if load.gpus else "-",
        _mib((load.received + load.sent) / 1024),
        _battery(load),
        f"{load.temperature} C" if load.temperature >= 0 else "-",
        span(row.age_ms / 1000),
    )


def _battery(load: LoadReport) -> str:
    if load.battery < 0:
        return "-"
    return f"{load.battery} %" + ("" if load.mains else ", used")


def _mib(number: float) -> str:
    """MiB for people."""
    if number < 1024:
        return f"{number:.0f} M" if number >= 10 or number == 0 else f"{number:.1f} M"
    return f"{number / 1024:.1f} G" if number < 1024 * 1024 else f"{number / 1024 / 1024:.1f} T"


def _cost(status: LoadStatus) -> str:
    return (
        f"reports of the peer that answers: {status.bytes_per_s:g} of {status.budget_bytes_s:g} B/s"
    )


def load_sheet(status: LoadStatus | None) -> list[tuple[str, object]]:
    """For `p2psched status`."""
    if status is None:
        return []
    dropped = ", ".join(f"{number:,} {why}" for why, number in status.dropped)
    text = (
        f"{count(status.whole, 'whole report')} and {count(status.deltas, 'delta')} said: "
        f"{status.bytes_per_s:g} of {status.budget_bytes_s:g} B/s"
    )
    if status.bytes_saved:
        text += f", {status.bytes_saved:,} B saved by deltas"
    if status.held_back:
        text += f", {status.held_back:,} times the budget was used up"
    if dropped:
        text += f"; dropped: {dropped}"
    reading = f"{count(status.readings, 'reading')}, {status.reading_us:,} us each"
    return [("load", text), ("sensors", reading)]
