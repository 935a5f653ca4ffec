"""`p2psched queue put`, `get`, `ack`, `nack`: items, one by one."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Final

import typer

from p2psched.cli.complete import complete_queues
from p2psched.cli.connect import talk
from p2psched.cli.kv_txn import made, plain, text_of
from p2psched.cli.options import Target, duration, talks_to_peers
from p2psched.cli.output import (
    Output,
    count,
    moment,
    note,
    print_json,
    write_line,
)
from p2psched.client.client import Client
from p2psched.client.queues import Item
from p2psched.model.errors import TimedOut, UsageError
from p2psched.model.queue_actions import BATCH_BYTES_MAX, BATCH_ITEMS_MAX, Receipt

PUT_EXAMPLES: Final = """\b
Examples:
  p2psched queue put orders "4 apples"
  p2psched queue put orders --key ann '{"n": 4}' --parse
  seq 1000 | p2psched queue put orders - --lines
"""
GET_EXAMPLES: Final = """\b
Examples:
  p2psched queue get orders --wait 30s
  p2psched queue get orders --ack
  item=$(p2psched queue get orders -o quiet)
"""
ACK_EXAMPLES: Final = """\b
Example:
  p2psched queue ack orders 3:4711
"""
NACK_EXAMPLES: Final = """\b
Example:
  p2psched queue nack orders 3:4711 --delay 10s
"""
NameArgument = Annotated[
    str,
    typer.Argument(
        metavar="QUEUE", autocompletion=complete_queues, help="Made by the first item or taker."
    ),
]
ItemsArgument = Annotated[
    list[str], typer.Argument(metavar="ITEM...", help="Item and receipt, as queue get tells them.")
]


@talks_to_peers
def put(
    target: Target,
    queue: NameArgument,
    value: Annotated[str, typer.Argument(metavar="VALUE", help="Text; - for what comes on stdin.")],
    *,
    parse: Annotated[
        bool, typer.Option("--parse", help="VALUE is JSON, not text: a number, a list, ...")
    ] = False,
    lines: Annotated[
        bool, typer.Option("--lines", help="Each line of stdin is an item; VALUE is -.")
    ] = False,
    priority: Annotated[int, typer.Option("--priority", help="Higher ones first.")] = 0,
    key: Annotated[
        str | None, typer.Option("--key", help="Items of one key come one after another.")
    ] = None,
    delay: Annotated[
        str | None, typer.Option("--delay", metavar="DURATION", help="Nobody gets it before.")
    ] = None,
) -> None:
    """Put an item into a queue. It is there until somebody acks it."""
    values = _values(value, parse=parse, lines=lines)
    delay_s = duration(delay, "--delay") if delay is not None else None

    async def work(client: Client) -> list[int]:
        there = client.queue(queue)
        ids: list[int] = []
        for some in _batches(values):
            ids += await there.put_many(some, priority=priority, key=key, delay=delay_s)
        return ids

    ids = talk(target, work)
    match target.output:
        case Output.JSON:
            print_json(queue=queue, items=ids)
        case Output.QUIET:
            for number in ids:
                write_line(str(number))
        case Output.TABLE:
            which = f"item {ids[0]}" if len(ids) == 1 else count(len(ids), "item")
            write_line(f"{which} put into {queue}")


def _values(value: str, *, parse: bool, lines: bool) -> list[object]:
    if lines and value != "-":
        raise UsageError("--lines reads stdin: give - for VALUE")
    texts = [value]
    if value == "-":
        text = _stdin_text()
        texts = text.splitlines() if lines else [text]
    if not texts:
        raise UsageError("there is no line on stdin")
    return [_parsed(text) if parse else text for text in texts]


def _stdin_text() -> str:
    try:
        return sys.stdin.buffer.read().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"can't read stdin as text: {error}") from error


def _parsed(text: str) -> object:
    try:
        value: object = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{text[:40]!r} is no JSON: {error}") from error
    return made(value)


def _batches(values: list[object]) -> list[list[object]]:
    """As many as one put takes. Text and JSON are longer than what is sent."""
    batches: list[list[object]] = [[]]
    left = BATCH_BYTES_MAX
    for value in values:
        size = 4 * len(text_of(value)) + 16
        if len(batches[-1]) >= BATCH_ITEMS_MAX or (size > left and batches[-1]):
            batches.append([])
            left = BATCH_BYTES_MAX
        batches[-1].append(value)
        left -= size
    return batches


@talks_to_peers
def get(
    target: Target,
    queue: NameArgument,
    *,
    wait: Annotated[
        str | None,
        typer.Option("--wait", metavar="DURATION", help="For an item, if there is none."),
    ] = None,
    visibility: Annotated[
        str,
        typer.Option(
            "--visibility", metavar="DURATION", help="Not acked until then, others get it."
        ),
    ] = "30s",
    ack: Annotated[
        bool, typer.Option("--ack", help="It is done once it is shown: not if that fails.")
    ] = False,
) -> None:
    """Take the next item: its value, and its receipt to ack it with. Exits with 4 if there is none.

    Whoever has it must ack it in time; else others get it, and this receipt is refused.
    """
    wait_s = duration(wait, "--wait") if wait is not None else 0.0
    visible_s = duration(visibility, "--visibility")

    async def work(client: Client) -> Item | None:
        there = client.queue(queue, visibility=visible_s)
        item = await there.get(wait=wait_s, outlives=True)
        if item is not None and ack:
            _show(target.output, queue, item, is_acked=True)
            await item.ack()
        return item

    item = talk(target, work)
    if item is None:
        after = f" after {wait}" if wait is not None else ""
        raise TimedOut(f"no item of queue {queue}{after}")
    if not ack:
        _show(target.output, queue, item, is_acked=False)


def _show(output: Output, queue: str, item: Item, *, is_acked: bool) -> None:
    match output:
        case Output.JSON:
            print_json(
                queue=queue,
                item=item.id,
                receipt=f"{item.id}:{item.receipt}",
                value=plain(item.value),
                key=item.key,
                priority=item.priority,
                deliveries=item.deliveries,
                put_at=moment(item.put_wall_ms),
                origin=item.origin,
                died_after=item.died_after,
            )
        case Output.QUIET:
            write_line(f"{item.id}:{item.receipt}")
        case Output.TABLE:
            write_line(text_of(item.value))
            if not is_acked:
                note(f"item {item.id}: `p2psched queue ack {queue} {item.id}:{item.receipt}`")


@talks_to_peers
def ack(target: Target, queue: NameArgument, items: ItemsArgument) -> None:
    """Say that items are done: they are gone. Refused under an old receipt."""
    receipts = _receipts(items)
    talk(target, lambda client: client.queue(queue).ack(*receipts))
    _settled(target, queue, "acked", receipts)


@talks_to_peers
def nack(
    target: Target,
    queue: NameArgument,
    items: ItemsArgument,
    *,
    delay: Annotated[
        str | None, typer.Option("--delay", metavar="DURATION", help="Nobody gets it before.")
    ] = None,
) -> None:
    """Give items back: others get them, before later ones. Too often, and one is a dead letter."""
    receipts = _receipts(items)
    delay_s = duration(delay, "--delay") if delay is not None else None
    talk(target, lambda client: client.queue(queue).nack(*receipts, delay=delay_s))
    _settled(target, queue, "nacked", receipts)


def _receipts(texts: list[str]) -> list[Receipt]:
    found: list[Receipt] = []
    for text in texts:
        number, _, receipt = text.partition(":")
        if not (number.isdecimal() and receipt.isdecimal() and len(text) < 40):
            raise UsageError(f"{text[:40]!r} is no item and receipt: write it like 3:4711")
        found.append((int(number), int(receipt)))
    return found


def _settled(target: Target, queue: str, how: str, receipts: list[Receipt]) -> None:
    numbers = [number for number, _ in receipts]
    match target.output:
        case Output.JSON:
            print_json(queue=queue, **{how: numbers})
        case Output.QUIET:
            for number in numbers:
                write_line(str(number))
        case Output.TABLE:
            write_line(f"{how} {', '.join(f'item {number}' for number in numbers)} of {queue}")
