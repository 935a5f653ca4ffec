"""`p2psched queue list`, `purge`, `configure`, `redrive`, `delete`: queues as wholes."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from p2psched.cli.complete import complete_queues
from p2psched.cli.connect import talk
from p2psched.cli.kv_txn import plain, text_of
from p2psched.cli.options import Target, talks_to_peers
from p2psched.cli.output import (
    Column,
    Output,
    clean,
    count,
    moment,
    note,
    print_json,
    print_table,
    size,
    write_line,
)
from p2psched.cli.queue import NameArgument
from p2psched.client.queues import value_of
from p2psched.model.queue_actions import DEAD
from p2psched.model.queue_messages import SHOWN_BYTES_MAX, ItemView, QueueView

LIST_EXAMPLES: Final = """\b
Examples:
  p2psched queue list
  p2psched queue list orders
  p2psched queue list orders.dead
"""
PURGE_EXAMPLES: Final = """\b
Example:
  p2psched queue purge orders
"""
CONFIGURE_EXAMPLES: Final = """\b
Example:
  p2psched queue configure orders --max-deliveries 5
"""
REDRIVE_EXAMPLES: Final = """\b
Example:
  p2psched queue redrive orders
"""
DELETE_EXAMPLES: Final = """\b
Example:
  p2psched queue delete orders
"""
_QUEUE_COLUMNS: Final = (
    Column(title="queue", shrink_to=12),
    Column(title="items", right=True),
    Column(title="in flight", right=True),
    Column(title="dead", right=True),
    Column(title="takers", right=True),
    Column(title="bytes", right=True, drop=1),
    Column(title="ever put", right=True, drop=2),
    Column(title="deliveries", right=True, drop=3),
)
_ITEM_COLUMNS: Final = (
    Column(title="item", right=True),
    Column(title="state"),
    Column(title="key", shrink_to=6, drop=2),
    Column(title="priority", right=True, drop=3),
    Column(title="delivered", right=True),
    Column(title="put", drop=1),
    Column(title="value", shrink_to=8),
)


@talks_to_peers
def list_queues(
    target: Target,
    queue: Annotated[
        str | None,
        typer.Argument(metavar="QUEUE", autocompletion=complete_queues, help="Its items."),
    ] = None,
    *,
    limit: Annotated[int, typer.Option("--limit", min=1, max=500, help="Of items.")] = 50,
    after: Annotated[int, typer.Option("--after", min=0, help="Only items behind this id.")] = 0,
) -> None:
    """List queues, or the items of one, taking none. Dead letters of orders are in orders.dead."""
    if queue is None:
        _list_queues(target, talk(target, lambda client: client.queues()))
        return
    name = queue
    found = talk(target, lambda client: client.queue(name).items(after=after, limit=limit))
    match target.output:
        case Output.JSON:
            print_json(queue=name, items=[_item_fields(item) for item in found])
        case Output.QUIET:
            for item in found:
                write_line(str(item.id))
        case Output.TABLE if not found:
            note(f"no items in {name}")
        case Output.TABLE:
            print_table(_ITEM_COLUMNS, [_item_row(item) for item in found])


def _list_queues(target: Target, found: list[QueueView]) -> None:
    dead = {view.name: view.items for view in found if view.name.endswith(DEAD)}
    match target.output:
        case Output.JSON:
            print_json(queues=[_queue_fields(view, dead) for view in found])
        case Output.QUIET:
            for view in found:
                write_line(view.name)
        case Output.TABLE if not found:
            note("no queues: `p2psched queue put QUEUE VALUE` makes one")
        case Output.TABLE:
            print_table(_QUEUE_COLUMNS, [_queue_row(view, dead) for view in found])


def _queue_row(view: QueueView, dead: dict[str, int]) -> tuple[object, ...]:
    return (
        *(view.name, view.items, view.in_flight, dead.get(view.name + DEAD) or "-"),
        *(view.takers, size(view.bytes), view.put, view.max_deliveries or "-"),
    )


def _queue_fields(view: QueueView, dead: dict[str, int]) -> dict[str, object]:
    return {
        "queue": view.name,
        "items": view.items,
        "in_flight": view.in_flight,
        "dead": dead.get(view.name + DEAD, 0),
        "takers": view.takers,
        "bytes": view.bytes,
        "ever_put": view.put,
        "max_deliveries": view.max_deliveries,
    }


def _item_row(item: ItemView) -> tuple[object, ...]:
    return (
        *(item.id, item.state, item.key or "-", item.priority, item.deliveries),
        *(moment(item.put_wall_ms) or "-", _preview(item)),
    )


def _preview(item: ItemView) -> str:
    if item.size > SHOWN_BYTES_MAX:
        return size(item.size)
    return clean(text_of(value_of(item.shown)))


def _item_fields(item: ItemView) -> dict[str, object]:
    whole = item.size <= SHOWN_BYTES_MAX
    return {
        "item": item.id,
        "state": item.state,
        "key": item.key or None,
        "priority": item.priority,
        "deliveries": item.deliveries,
        "put_at": moment(item.put_wall_ms),
        "bytes": item.size,
        **({"value": plain(value_of(item.shown))} if whole else {}),
        "origin": item.origin or None,
        "died_after": item.died_after or None,
    }


@talks_to_peers
def purge(target: Target, queue: NameArgument) -> None:
    """Drop all items that nobody has. There is no way back."""
    _handled(target, queue, "purged", talk(target, lambda client: client.queue(queue).purge()))


@talks_to_peers
def redrive(
    target: Target,
    queue: NameArgument,
    *,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Not more than so many.")
    ] = None,
) -> None:
    """Put the dead letters of a queue into it again, the oldest first, with new ids."""
    moved = talk(target, lambda client: client.queue(queue).redrive(limit))
    _handled(target, queue, "redriven", moved)


def _handled(target: Target, queue: str, how: str, number: int) -> None:
    match target.output:
        case Output.JSON:
            print_json(queue=queue, **{how: number})
        case Output.QUIET:
            write_line(str(number))
        case Output.TABLE:
            write_line(f"{how} {count(number, 'item')} of {queue}")


@talks_to_peers
def configure(
    target: Target,
    queue: NameArgument,
    *,
    max_deliveries: Annotated[
        int,
        typer.Option(
            "--max-deliveries", min=0, help="Then an item is a dead letter. 0: never. Default: 20."
        ),
    ],
) -> None:
    """Say how often an item is delivered before it is a dead letter."""
    talk(target, lambda client: client.queue(queue).configure(max_deliveries=max_deliveries))
    match target.output:
        case Output.JSON:
            print_json(queue=queue, max_deliveries=max_deliveries)
        case Output.QUIET:
            write_line(queue)
        case Output.TABLE:
            often = "as often as it takes" if not max_deliveries else count(max_deliveries, "time")
            write_line(f"items of {queue} are delivered {often}")


@talks_to_peers
def delete(target: Target, queue: NameArgument) -> None:
    """Delete an empty queue. One of that name counts from 1 again."""
    talk(target, lambda client: client.queue(queue).delete())
    match target.output:
        case Output.JSON:
            print_json(deleted=queue)
        case Output.QUIET | Output.TABLE:
            write_line(queue if target.output is Output.QUIET else f"deleted {queue}")
