"""`p2psched peer drain`, `cordon` and `uncordon`, and what `p2psched stop --drain` does first."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Final

import typer

from p2psched.cli.complete import complete_peers
from p2psched.cli.connect import talk
from p2psched.cli.describe import peer_fields
from p2psched.cli.options import Target, duration, talks_to_peers
from p2psched.cli.output import Output, count, note, print_json, write_line
from p2psched.client.client import Client
from p2psched.model.commands import DrainMode
from p2psched.model.errors import TimedOut
from p2psched.model.ids import PeerId, short
from p2psched.model.messages import Done, DrainPeer
from p2psched.model.peer_messages import PeerView

LOOK_S: Final = 0.25

DRAIN_EXAMPLES: Final = """\b
Examples:
  p2psched peer drain b
  p2psched peer drain b --timeout 10m && p2psched stop b
  p2psched peer drain b --undo
"""
CORDON_EXAMPLES: Final = """\b
Example:
  p2psched peer cordon b
"""
UNCORDON_EXAMPLES: Final = """\b
Example:
  p2psched peer uncordon b
"""
PeerArgument = Annotated[
    str,
    typer.Argument(metavar="NAME", autocompletion=complete_peers, help="Name or id of the peer."),
]
TimeoutOption = Annotated[
    str | None,
    typer.Option("--timeout", metavar="DURATION", help="Stop waiting then, exit 4."),
]


@talks_to_peers
def drain(
    target: Target,
    name: PeerArgument,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait until nothing rests on it alone.")
    ] = True,
    timeout: TimeoutOption = None,
    undo: Annotated[bool, typer.Option("--undo", help="Give it tasks again.")] = False,
) -> None:
    """Give a peer no more tasks, and wait until it is empty.

    What it has not begun runs elsewhere, what it runs may end, and other peers get copies of large
    results. It stays a member, goes on answering, and stays drained over restarts.
    """
    timeout_s = None if timeout is None else duration(timeout, "--timeout")

    async def work(client: Client) -> PeerView:
        view = await client.peer.drain(name, wait=False, undo=undo)
        if undo or not wait:
            return view
        return await _wait_drained(client, view.info.peer, timeout_s=timeout_s)

    view = talk(target, work)
    _tell(target, view, "" if undo or wait else _left(view))


def _tell(target: Target, view: PeerView, left: str = "") -> None:
    match target.output:
        case Output.JSON:
            print_json(peer=peer_fields(view))
        case Output.QUIET:
            write_line(short(view.info.peer))
        case Output.TABLE:
            state = f"is {view.drain}" if view.drain else "takes tasks again"
            write_line(f"peer {view.info.name} {state}{left}")


@talks_to_peers
def cordon(target: Target, name: PeerArgument) -> None:
    """Grant a peer nothing more. It keeps what it has, and its disk counts.

    It stays cordoned over restarts, until `peer uncordon`.
    """
    _tell(target, talk(target, lambda client: client.peer.cordon(name)))


@talks_to_peers
def uncordon(target: Target, name: PeerArgument) -> None:
    """Grant a peer tasks again, whether it was cordoned or drained."""
    _tell(target, talk(target, lambda client: client.peer.cordon(name, undo=True)))


async def drain_and_wait(
    client: Client, peer: PeerId, mode: DrainMode, *, timeout_s: float | None
) -> PeerView:
    """Raises TimedOut."""
    await client.session.call(DrainPeer(peer, mode), Done)
    return await _wait_drained(client, peer, timeout_s=timeout_s)


async def _wait_drained(client: Client, peer: PeerId, *, timeout_s: float | None) -> PeerView:
    """Say what is left whenever it is less. Raises TimedOut; Refused if somebody takes it back."""
    said: list[str] = []

    def look(view: PeerView, views: Sequence[PeerView]) -> None:
        if not said and not _takers(views):
            note("no other peer takes tasks: what has not begun waits until one does")
        now = f"peer {view.info.name} is {view.drain}{_left(view)}"
        if said[-1:] != [now]:
            note(now)
        said[:] = [now]
        left[:] = [_left(view)]

    left: list[str] = []
    try:
        async with asyncio.timeout(timeout_s):
            return await client.peer.wait_drained(peer, look)
    except TimeoutError as error:
        rest = f"{left[0]}; it goes on" if left else ""
        raise TimedOut(
            f"peer {short(peer)} is not drained after {timeout_s:g} s{rest}: see `p2psched peers`"
        ) from error


def _left(view: PeerView) -> str:
    parts = [count(view.owned, "task")] if view.owned else []
    if view.copies_left:
        parts.append(f"{count(view.copies_left, 'large result')} to copy")
    if view.role == "leader":
        parts.append("it leads")
    return f": {', '.join(parts)}" if parts else ""


def _takers(views: Sequence[PeerView]) -> list[PeerView]:
    return [v for v in views if v.state != "dead" and not v.drain and v.info.slots > 0]
