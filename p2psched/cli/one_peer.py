"""Which one peer a command means that is about one: its name, or the only one here."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence

from p2psched.cli.connect import connected
from p2psched.cli.options import Target
from p2psched.client.find import find_peers
from p2psched.client.members import is_prefix
from p2psched.client.session import Session
from p2psched.model.errors import NotFound, Unavailable, UsageError
from p2psched.model.ids import short
from p2psched.model.messages import ListPeers
from p2psched.model.peer_messages import PeerList
from p2psched.net.address import parse
from p2psched.net.calls import CallClient
from p2psched.store.records import Record


async def choose_peer(
    target: Target, name: str | None, records: Sequence[Record], *, command: str
) -> tuple[str, Record | None]:
    """The address of the peer that is meant, with its record if it runs here. Without a name it is
    the one that runs on this machine (one of `records`), or that of --peer."""
    if name is not None:
        matches = [r for r in records if r.name == name] or [
            r for r in records if is_prefix(name, r.peer)
        ]
        if len(matches) > 1:
            raise UsageError(
                f"{name!r} fits {len(matches)} peers here: {_listed(matches, command)}"
            )
        if matches:
            return matches[0].address, matches[0]
        return await _address_elsewhere(target, name), None
    if target.peer is not None:
        wanted = str(parse(target.peer))
        return wanted, next((r for r in records if r.address == wanted), None)
    if not records:
        raise Unavailable("no peer runs on this machine: name one elsewhere with --peer HOST:PORT")
    if len(records) > 1:
        raise UsageError(f"{len(records)} peers run here, say which: {_listed(records, command)}")
    return records[0].address, records[0]


@contextlib.asynccontextmanager
async def calls_to(target: Target, address: str) -> AsyncIterator[CallClient]:
    """A connection to the peer at an address, and to no other that would answer in its place."""
    found, secret = find_peers(
        address, secret_file=target.secret_file, runtime_dir=target.runtime_dir
    )
    calls = await Session(found[:1], secret=secret).connection()
    try:
        yield calls
    finally:
        await calls.close()


async def _address_elsewhere(target: Target, name: str) -> str:
    async with connected(target) as client:
        # Good enough for an address, and it needs no majority.
        found_peers = (await client.session.call(ListPeers(here_only=True), PeerList)).peers
        live = [view.info for view in found_peers if view.state != "dead"]
        found = [info for info in live if info.name == name] or [
            info for info in live if is_prefix(name, info.peer)
        ]
    if len(found) != 1:
        what = f"fits {len(found)} live peers" if found else "is no live peer"
        raise NotFound(f"{name!r} {what}: `p2psched peers` lists them")
    return found[0].address


def _listed(records: Sequence[Record], command: str) -> str:
    """What to type for each: its name, or its id where two share a name."""
    names = [record.name for record in records]
    return ", ".join(
        f"`p2psched {command} {r.name if names.count(r.name) == 1 else short(r.peer)}`"
        for r in sorted(records, key=lambda record: (record.name, record.peer))
    )
