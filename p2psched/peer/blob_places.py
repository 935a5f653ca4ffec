"""Who has a blob: asked of the others, remembered, never taken for granted.

A peer is asked for what is on its own disk only (`here`), so questions don't travel on. It refuses
to call a blob lost while a peer that the ledger holds alive has not answered.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

from p2psched.model import digests
from p2psched.model.blob import BlobRef
from p2psched.model.blob_messages import BlobList, ReadBlob, StatBlob
from p2psched.model.errors import NotFound, P2PSchedError, ProtocolError, ResultLost, Unavailable
from p2psched.model.ids import PeerId, short
from p2psched.model.messages import AnswerBody
from p2psched.peer.others import Others
from p2psched.peer.shared_runs import SharedRuns

PLACES_MAX: Final = 4096  # blobs whose places are remembered; the least recently used go first
ASK_PATIENCE_S: Final = 3.0  # for one peer to say whether it has a blob
LOST_RETRY_S: Final = 0.5


class Places:
    def __init__(
        self,
        *,
        me: PeerId,
        others: Others,
        alive: Callable[[], Iterable[PeerId]],
        holders: Callable[[BlobRef], Sequence[PeerId]],
        group: asyncio.TaskGroup,
    ) -> None:
        self._me = me
        self._others = others
        self._alive = alive
        self._holders = holders
        self._known: OrderedDict[bytes, tuple[PeerId, ...]] = OrderedDict()
        # Waits until the ledger's view of who is alive is not older than the call.
        self.catch_up: Callable[[], Awaitable[None]] | None = None
        self._questions: SharedRuns[bytes, dict[PeerId, bytes]] = SharedRuns(group)

    def likely(self, ref: BlobRef, first: Sequence[PeerId] = ()) -> list[PeerId]:
        """Peers that may have it, the likeliest first; nobody was asked just now. Those who are
        hinted at and dead are left out: to find that out again takes seconds."""
        known = (*first, *self._known.get(ref.digest, ()))
        if not known:  # a hint may cost a search
            there = self._others.connected() | set(self._alive())
            known = tuple(peer for peer in self._holders(ref) if peer in there)
        return [peer for peer in dict.fromkeys(known) if peer != self._me]

    def note(self, ref: BlobRef, peers: Iterable[PeerId]) -> None:
        known = (*peers, *self._known.pop(ref.digest, ()))
        self._known[ref.digest] = tuple(dict.fromkeys(known))
        while len(self._known) > PLACES_MAX:
            self._known.popitem(last=False)

    def forget(self, ref: BlobRef, peer: PeerId) -> None:
        left = tuple(other for other in self._known.pop(ref.digest, ()) if other != peer)
        if left:
            self._known[ref.digest] = left

    async def list_from(self, ref: BlobRef, peer: PeerId) -> bytes:
        """The chunk list, verified, of a blob on that peer's disk. Raises NotFound, Unavailable,
        or ProtocolError if what it says is wrong."""
        try:
            async with asyncio.timeout(ASK_PATIENCE_S):
                answer = await self._others.call(peer, StatBlob(ref, here=True))
        except TimeoutError as error:
            raise Unavailable(f"peer {short(peer)} gives no answer") from error
        if not isinstance(answer, BlobList):
            raise ProtocolError(f"peer {short(peer)} answered {type(answer).__name__}")
        try:
            digests.parse_list(answer.digests, ref.size, ref.digest)
        except ValueError as error:
            raise ProtocolError(f"peer {short(peer)}: {error}") from error
        return answer.digests

    async def ask(self, ref: BlobRef, body: StatBlob | ReadBlob) -> AnswerBody:
        """The answer of a peer that has the blob on its disk. Raises as `ask_all`."""
        for peer in self.likely(ref):
            answer = await self._ask_one(ref, body, peer)
            if answer is not None:
                return answer
        for peer in sorted(await self.ask_all(ref)):
            answer = await self._ask_one(ref, body, peer)
            if answer is not None:
                return answer
        raise Unavailable(f"the peers that have blob {ref} broke off", retry_after_s=LOST_RETRY_S)

    async def _ask_one(
        self, ref: BlobRef, body: StatBlob | ReadBlob, peer: PeerId
    ) -> AnswerBody | None:
        try:
            async with asyncio.timeout(ASK_PATIENCE_S):
                answer = await self._others.call(peer, body)
        except (TimeoutError, P2PSchedError):
            self.forget(ref, peer)
            return None
        self.note(ref, (peer,))
        return answer

    async def ask_all(self, ref: BlobRef) -> dict[PeerId, bytes]:
        """Everybody who has it, with the chunk list. Raises ResultLost once every live peer has
        said that it has it not, Unavailable if some did not answer and the others have it not."""
        return await self._questions.join(ref.digest, lambda: self._ask_all(ref))

    async def _ask_all(self, ref: BlobRef) -> dict[PeerId, bytes]:
        asked = set(self._alive()) | self._others.connected() | set(self.likely(ref))
        asked.discard(self._me)
        found: dict[PeerId, bytes] = {}
        silent: list[PeerId] = []

        async def ask(peer: PeerId) -> None:
            try:
                found[peer] = await self.list_from(ref, peer)
            except NotFound:
                self.forget(ref, peer)
            except P2PSchedError:
                silent.append(peer)

        async with asyncio.TaskGroup() as group:
            for peer in sorted(asked):
                group.create_task(ask(peer))
        if found:
            self.note(ref, sorted(found))
            return found
        await self._check_all_said_no(ref, asked.difference(silent))
        raise lost(ref)

    async def _check_all_said_no(self, ref: BlobRef, said: set[PeerId]) -> None:
        """Raises Unavailable if somebody who lives may have it. Who does is asked of the ledger
        afterwards: a peer that has just started knows nobody, or those of long ago."""
        if self.catch_up is not None:
            await self.catch_up()
        alive = set(self._alive())
        if self._me not in alive:
            raise Unavailable(
                f"this peer has no blob {ref} and does not know yet who else is there",
                retry_after_s=LOST_RETRY_S,
            )
        silent = sorted(alive - said - {self._me})
        if silent:
            names = ", ".join(short(peer) for peer in silent)
            raise Unavailable(
                f"no peer that answers has blob {ref}, and {names} did not answer",
                retry_after_s=LOST_RETRY_S,
            )


def lost(ref: BlobRef) -> ResultLost:
    return ResultLost(
        f"no live peer has blob {ref} ({ref.size:,} bytes): start the peers that had it, or "
        "compute it again with `p2psched job retry`"
    )
