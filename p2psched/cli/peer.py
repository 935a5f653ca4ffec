"""`p2psched peer`: which peers belong to the cluster, and which of them vote. Safe to repeat."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final

import typer

from p2psched.cli.complete import complete_members
from p2psched.cli.connect import talk
from p2psched.cli.options import Target, talks_to_peers
from p2psched.cli.output import Output, count, print_json, write_line
from p2psched.client.client import Client
from p2psched.model.errors import TimedOut
from p2psched.model.ids import short
from p2psched.model.member_messages import MemberChanged, VotersSet

REMOVE_EXAMPLES: Final = """\b
Examples:
  p2psched peer remove b
  p2psched peer remove 1a2b3c4d -o json
"""
PROMOTE_EXAMPLES: Final = """\b
Example:
  p2psched peer promote b
"""
DEMOTE_EXAMPLES: Final = """\b
Example:
  p2psched peer demote b
"""
VOTERS_EXAMPLES: Final = """\b
Examples:
  p2psched peer voters 7
  p2psched peer voters 0         # as is usual
"""

PeerArgument = Annotated[
    str,
    typer.Argument(metavar="NAME", autocompletion=complete_members, help="Name or id of the peer."),
]


@talks_to_peers
def remove(target: Target, name: PeerArgument) -> None:
    """Take a peer out of the cluster, for good, whether it runs or not.

    Its tasks run elsewhere, and if it runs, it stops. It may come back as a new peer: with an
    empty folder, or with `start --anew`.
    """
    done = talk(target, lambda client: client.peer.remove(name))
    _tell(target, done, "removed", f"{count(done.voters, 'voter')} left")


@talks_to_peers
def promote(target: Target, name: PeerArgument) -> None:
    """Have a peer vote: first of all, and in the place of one that nobody has promoted.

    Waits until it has caught up and votes, as long as --patience; it goes on by itself then.
    """
    done = talk(target, lambda client: _promote(target, client, name))
    _tell(target, done, "a voter", f"{count(done.voters, 'voter')} in all")


async def _promote(target: Target, client: Client, name: str) -> MemberChanged:
    tries: list[MemberChanged] = []
    try:
        async with asyncio.timeout(None) as deadline:

            def look(done: MemberChanged) -> None:
                if not tries:  # the first answer has a patience of its own
                    deadline.reschedule(asyncio.get_running_loop().time() + target.patience_s)
                tries[:] = [done]

            return await client.peer.promote(name, look=look)
    except TimeoutError:
        (last,) = tries
        raise TimedOut(
            f"peer {last.name} does not vote yet (it lacks {last.lag:,} entries): "
            "it will once it has caught up, `p2psched peers` shows it"
        ) from None


@talks_to_peers
def demote(target: Target, name: PeerArgument) -> None:
    """Have a peer not vote, until it is promoted. It follows the ledger and runs tasks as before.

    Another peer takes its vote. A leader hands over first.
    """
    done = talk(target, lambda client: client.peer.demote(name))
    _tell(target, done, "a learner", f"{count(done.voters, 'voter')} just now")


@talks_to_peers
def voters(
    target: Target,
    number: Annotated[
        int, typer.Argument(metavar="NUMBER", help="1, 3, 5 or 7; 0 for what is usual, 5.")
    ],
) -> None:
    """Say how many peers shall vote. Fewer do as long as there are fewer peers."""
    done: VotersSet = talk(target, lambda client: client.peer.voters(number))
    match target.output:
        case Output.JSON:
            print_json(
                voters={"wanted": done.wanted, "voters": done.voters, "changed": done.changed}
            )
        case Output.QUIET:
            write_line(str(done.wanted))
        case Output.TABLE:
            already = "" if done.changed else " already"
            write_line(f"{done.wanted} voters are wanted{already}; {done.voters} just now")


def _tell(target: Target, done: MemberChanged, what: str, more: str) -> None:
    match target.output:
        case Output.JSON:
            print_json(
                peer={
                    "id": done.peer,
                    "name": done.name,
                    "role": done.role,
                    "changed": done.changed,
                    "voters": done.voters,
                }
            )
        case Output.QUIET:
            write_line(short(done.peer))
        case Output.TABLE:
            state = f"is {what}" if done.changed else f"is {what} already"
            write_line(f"peer {done.name} ({short(done.peer)}) {state}: {more}")
