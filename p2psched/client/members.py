"""What may be done with the peers of a cluster: `client.peer`, in the words of `p2psched peer`.

Whoever calls owns the deadline: `async with asyncio.timeout(...)`. What was asked for goes on when
it passes. All of it is safe to repeat, and says what would leave no majority (`Refused`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from p2psched.client.session import Session
from p2psched.model.commands import DrainMode
from p2psched.model.errors import NotFound, Refused
from p2psched.model.ids import PeerId
from p2psched.model.member_messages import ChangeMember, MemberChanged, SetVoters, VotersSet
from p2psched.model.messages import Done, DrainPeer, ListPeers
from p2psched.model.peer_messages import DRAINED, DRAINING, PeerList, PeerView

VOTES_S: Final = 0.2  # between two looks whether a peer votes by now
MODES: Final = {False: DrainMode.CORDON, True: DrainMode.OFF}  # by whether it is undone
DRAINS_S: Final = 0.25  # and whether one is drained
PREFIX_LEN_MIN: Final = 4  # of an id: shorter is a name

Look = Callable[[PeerView, Sequence[PeerView]], None]


class Members:
    """`peer` is a name, an id, or the first digits of one. Raises NotFound."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def remove(self, peer: str) -> MemberChanged:
        """Take a peer out of the cluster, for good. Its tasks run elsewhere; if it runs, it stops.
        Raises Refused."""
        return await self._change(peer, "remove")

    async def promote(
        self, peer: str, *, look: Callable[[MemberChanged], None] = lambda _: None
    ) -> MemberChanged:
        """Have a peer vote, first of all. Returns when it does; `look` hears of each try before.
        Raises Refused."""
        done = first = await self._change(peer, "promote")
        while done.role == "learner":
            look(done)
            await asyncio.sleep(VOTES_S)
            done = await self._change(first.peer, "promote")
        return MemberChanged(done.peer, done.name, first.changed, done.role, done.voters)

    async def demote(self, peer: str) -> MemberChanged:
        """Have a peer not vote until it is promoted. Another one takes its vote. Raises Refused."""
        return await self._change(peer, "demote")

    async def voters(self, count: int) -> VotersSet:
        """How many peers shall vote: 1, 3, 5 or 7; 0 for what is usual. Raises UsageError."""
        return await self._session.call(SetVoters(count), VotersSet)

    async def drain(
        self, peer: str, *, wait: bool = True, undo: bool = False, look: Look = lambda *_: None
    ) -> PeerView:
        """Give a peer no more tasks, or (`undo`) tasks again. With `wait` it returns when nothing
        rests on it alone; `look` hears of it and of all peers meanwhile. Raises Refused if somebody
        takes it back."""
        chosen = find_peer(await self._peers(), peer).info.peer
        mode = DrainMode.OFF if undo else DrainMode.ON
        await self._session.call(DrainPeer(chosen, mode), Done)
        if wait and not undo:
            return await self.wait_drained(chosen, look)
        return _view_of(await self._peers(), chosen)

    async def cordon(self, peer: str, *, undo: bool = False) -> PeerView:
        """Grant a peer nothing more, or (`undo`, also of one that is drained) tasks again. It keeps
        what it has. Raises Unavailable as long as a peer of an older version is there."""
        chosen = find_peer(await self._peers(), peer).info.peer
        await self._session.call(DrainPeer(chosen, MODES[undo]), Done)
        return _view_of(await self._peers(), chosen)

    async def wait_drained(self, peer: PeerId, look: Look = lambda *_: None) -> PeerView:
        """Until nothing rests on it alone. Raises Refused if somebody takes it back."""
        while True:
            views = await self._peers()
            view = _view_of(views, peer)
            if view.drain == DRAINED:
                return view
            if view.drain != DRAINING:
                raise Refused(f"somebody has taken peer {view.info.name} back meanwhile")
            look(view, views)
            await asyncio.sleep(DRAINS_S)

    async def _change(self, peer: str, change: str) -> MemberChanged:
        return await self._session.call(ChangeMember(peer, change), MemberChanged)

    async def _peers(self) -> Sequence[PeerView]:
        return (await self._session.call(ListPeers(), PeerList)).peers


def find_peer(views: Sequence[PeerView], name: str) -> PeerView:
    """By name, or by the digits of an id; of peers that share a name the one that is there. Raises
    NotFound."""
    found = [view for view in views if view.info.name == name] or [
        view for view in views if is_prefix(name, view.info.peer)
    ]
    found = [view for view in found if view.state != "dead"] or found
    if len(found) != 1:
        what = f"fits {len(found)} peers" if found else "is no peer"
        raise NotFound(f"{name!r} {what}: `p2psched peers` lists them")
    return found[0]


def is_prefix(text: str, peer: PeerId) -> bool:
    """Digits enough that nobody means a name by them."""
    return len(text) >= PREFIX_LEN_MIN and peer.startswith(text.lower())


def _view_of(views: Sequence[PeerView], peer: PeerId) -> PeerView:
    return next(view for view in views if view.info.peer == peer)
