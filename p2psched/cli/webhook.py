"""`p2psched webhook add`, `list`, `remove`: addresses that are told of events."""

from __future__ import annotations

import random
from typing import Annotated, Final

import typer

from p2psched.cli.connect import talk
from p2psched.cli.events import JobOption, KindOption, begin_of, wanted_of
from p2psched.cli.options import Target, talks_to_peers
from p2psched.cli.output import Column, Output, note, print_json, print_table, write_line
from p2psched.client.client import Client
from p2psched.model.event_messages import (
    AddHook,
    HookAdded,
    HookList,
    HookView,
    ListHooks,
    RemoveHook,
)
from p2psched.model.ids import new_id, short
from p2psched.model.messages import Done

ADD_EXAMPLES: Final = """\b
Examples:
  p2psched webhook add https://example.org/hook
  p2psched webhook add http://h:80/ended --kind job.ended
"""
LIST_EXAMPLES: Final = """\b
Example:
  p2psched webhook list
"""
REMOVE_EXAMPLES: Final = """\b
Example:
  p2psched webhook remove 1a2b3c4d
"""
_COLUMNS: Final = (
    Column(title="name"),
    Column(title="url", shrink_to=12),
    Column(title="kinds", shrink_to=6, drop=1),
    Column(title="done before", right=True),
    Column(title="behind", right=True),
    Column(title="failed", right=True),
    Column(title="error", shrink_to=8),
)


@talks_to_peers
def add(
    target: Target,
    url: Annotated[str, typer.Argument(metavar="URL", help="http://... or https://...")],
    *,
    name: Annotated[
        str | None, typer.Option("--name", help="The same again is the same. Default: random.")
    ] = None,
    start: Annotated[
        str, typer.Option("--from", metavar="PLACE", help="As of events tail.")
    ] = "now",
    job: JobOption = None,
    kind: KindOption = None,
) -> None:
    """Have events posted to an address, each at least once, whoever dies.

    Each request is a batch of events as JSON, signed with the key that this shows.
    """
    chosen = name if name is not None else short(new_id(random.SystemRandom()))

    async def work(client: Client) -> HookAdded:
        wanted = await wanted_of(client, job, kind)
        begin = None if start == "now" else await begin_of(client, start)
        return await client.session.call(AddHook(chosen, url, wanted, begin), HookAdded)

    key = talk(target, work).key.hex()
    match target.output:
        case Output.JSON:
            print_json(webhook=chosen, key=key)
        case Output.QUIET:
            write_line(chosen)
        case Output.TABLE:
            write_line(f"webhook {chosen}, signed with the key {key}")


@talks_to_peers
def list_hooks(target: Target) -> None:
    """List webhooks: how far each has come, and what goes wrong."""

    async def work(client: Client) -> tuple[HookView, ...]:
        return (await client.session.call(ListHooks(), HookList)).hooks

    found = talk(target, work)
    match target.output:
        case Output.JSON:
            print_json(webhooks=[_fields(hook) for hook in found])
        case Output.QUIET:
            for hook in found:
                write_line(hook.name)
        case Output.TABLE if not found:
            note("no webhooks: `p2psched webhook add URL` adds one")
        case Output.TABLE:
            print_table(_COLUMNS, [_row(hook) for hook in found])


def _row(hook: HookView) -> tuple[object, ...]:
    kinds = ",".join(hook.wanted.kinds) or "all"
    return (
        *(hook.name, hook.url, kinds, hook.acked, hook.behind),
        *(hook.tries or "-", hook.error or "-"),
    )


def _fields(hook: HookView) -> dict[str, object]:
    return {
        "name": hook.name,
        "url": hook.url,
        "kinds": list(hook.wanted.kinds),
        "job": hook.wanted.job,
        "following": str(hook.acked),
        "behind_entries": hook.behind,
        "failed_tries": hook.tries,
        "error": hook.error or None,
    }


@talks_to_peers
def remove(
    target: Target,
    name: Annotated[str, typer.Argument(metavar="NAME", help="As webhook list names it.")],
) -> None:
    """Remove a webhook: nothing more is posted to it."""

    async def work(client: Client) -> Done:
        return await client.session.call(RemoveHook(name), Done)

    talk(target, work)
    match target.output:
        case Output.JSON:
            print_json(removed=name)
        case Output.QUIET | Output.TABLE:
            write_line(name if target.output is Output.QUIET else f"removed webhook {name}")
